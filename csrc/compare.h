/* compare.h: is an entry of the upper the same as what lies beneath? Private to csrc/. */
#ifndef LR_COMPARE_H
#define LR_COMPARE_H

#include "walk.h"

struct lr_side {
    int dirfd;
    const char *name;
    const struct statx *st;
};

/* Each: 1 the same, 0 not, -1 an error with errno. */
int lr_same_content(const struct lr_side *a, const struct lr_side *b); /* regular files, byte by byte */
int lr_same_target(const struct lr_side *a, const struct lr_side *b); /* symbolic links */
/* All extended attributes but overlayfs's own. */
int lr_same_xattrs(const struct lr_side *a, const struct lr_side *b, bool userxattr);
/* Mode, owner and, folders apart, mtime. */
bool lr_same_stat(const struct lr_side *a, const struct lr_side *b);

/* Does this folder hide what lies beneath it? */
int lr_is_opaque(int dirfd, const char *name, bool userxattr);

#endif
