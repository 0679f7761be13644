/* sha.h: SHA-256 by libcrypto, which alone of the core needs it; EVP_DigestInit(3). */
#ifndef LR_SHA_H
#define LR_SHA_H

#include "lr.h"

#define LR_SHA_SIZE 32
#define LR_SHA_TEXT 65

struct lr_sha {
    void *context;
};

/* Needs lr_sha_free whatever happens. */
int lr_sha_open(struct lr_sha *sha, struct lr_error *err);
/* A digest begins; one `sha` serves for many, one after the other. */
void lr_sha_begin(struct lr_sha *sha);
void lr_sha_add(struct lr_sha *sha, const void *data, size_t size);
void lr_sha_zeros(struct lr_sha *sha, uint64_t size);
void lr_sha_end(struct lr_sha *sha, uint8_t digest[LR_SHA_SIZE]);
void lr_sha_free(struct lr_sha *sha);

/* Lowercase hexadecimal digits of `size` bytes, and a NUL. */
void lr_hex(const uint8_t *data, size_t size, char *text);
/* 0, or -1: not such digits. */
int lr_unhex(const char *text, size_t size, uint8_t *data);

#endif
