/* wide.h: a difference with all that a commit must know of both sides, as one record. Private to csrc/. */
#ifndef LR_WIDE_H
#define LR_WIDE_H

#include "compare.h"

struct lr_wide {
    char letter;
    bool within, root;
    int lower; /* which one has `old`; -1 */
    int64_t since; /* when it came into the upper, ns; 0: not known */
    struct lr_side now, old; /* without st where there is nothing */
    bool userxattr;
};

/* When an entry was made, in ns; 0 where the file system does not say. */
int64_t lr_born(const struct statx *st);

/* Append the record with its path; 0, or -1 with the record of the error or, if that has no code, errno. */
int lr_wide_add(struct lr_buf *out, const struct lr_wide *wide, const char *path, size_t length,
                struct lr_error *err);

#endif
