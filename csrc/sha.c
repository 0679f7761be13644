/* sha.c: see sha.h. */
#include "sha.h"

#include <errno.h>
#include <openssl/evp.h>

int lr_sha_open(struct lr_sha *sha, struct lr_error *err)
{
    sha->context = EVP_MD_CTX_new();
    /* Fetched here, once: each begin would look it up again otherwise, under a lock. */
    EVP_MD *kind = EVP_MD_fetch(NULL, "SHA256", NULL);
    int done = sha->context && kind && EVP_DigestInit_ex2(sha->context, kind, NULL) == 1;
    EVP_MD_free(kind);
    return done ? 0 : lr_fail_code(err, ENOMEM, "get SHA-256 from libcrypto", "");
}

void lr_sha_begin(struct lr_sha *sha)
{
    EVP_DigestInit_ex2(sha->context, NULL, NULL);
}

void lr_sha_add(struct lr_sha *sha, const void *data, size_t size)
{
    EVP_DigestUpdate(sha->context, data, size);
}

void lr_sha_zeros(struct lr_sha *sha, uint64_t size)
{
    static const char zeros[65536];
    for (; size > sizeof zeros; size -= sizeof zeros)
        lr_sha_add(sha, zeros, sizeof zeros);
    lr_sha_add(sha, zeros, (size_t)size);
}

void lr_sha_end(struct lr_sha *sha, uint8_t digest[LR_SHA_SIZE])
{
    unsigned int size;
    EVP_DigestFinal_ex(sha->context, digest, &size);
}

void lr_sha_free(struct lr_sha *sha)
{
    EVP_MD_CTX_free(sha->context);
    sha->context = NULL;
}

void lr_hex(const uint8_t *data, size_t size, char *text)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < size; i++) {
        text[2 * i] = digits[data[i] >> 4];
        text[2 * i + 1] = digits[data[i] & 15];
    }
    text[2 * size] = '\0';
}

static int digit(char text)
{
    return text >= '0' && text <= '9' ? text - '0' : text >= 'a' && text <= 'f' ? text - 'a' + 10 : -1;
}

int lr_unhex(const char *text, size_t size, uint8_t *data)
{
    for (size_t i = 0; i < size; i++) {
        int high = digit(text[2 * i]), low = high < 0 ? -1 : digit(text[2 * i + 1]);
        if (low < 0)
            return -1;
        data[i] = (uint8_t)(high << 4 | low);
    }
    return 0;
}
