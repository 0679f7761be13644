/* compare.c: two entries, one of the upper and one from beneath; see compare.h. */
#include "compare.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 262144

/* Where data goes on from `at` in either file; a hole in both needs no reading. */
static off_t skip_holes(int a, int b, off_t at, off_t size)
{
    off_t one = lseek(a, at, SEEK_DATA);
    if (one < 0)
        one = errno == ENXIO ? size : at;
    if (one == at)
        return at;
    off_t two = lseek(b, at, SEEK_DATA);
    if (two < 0)
        two = errno == ENXIO ? size : at;
    return one < two ? one : two;
}

static ssize_t read_block(int fd, char *data, size_t size, off_t at)
{
    size_t done = 0;
    while (done < size) {
        ssize_t got = pread(fd, data + done, size - done, at + (off_t)done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

static int same_bytes(int a, int b, off_t size)
{
    size_t block = size < BLOCK ? (size_t)size : BLOCK;
    char *data = malloc(2 * block);
    int same = 1;
    if (!data)
        return -1;
    for (off_t at = 0; same == 1 && at < size;) {
        if (size > BLOCK)
            at = skip_holes(a, b, at, size);
        if (at >= size)
            break;
        size_t want = size - at < BLOCK ? (size_t)(size - at) : BLOCK;
        ssize_t one = read_block(a, data, want, at), two = read_block(b, data + block, want, at);
        if (one < 0 || two < 0)
            same = -1;
        else
            same = one == two && memcmp(data, data + block, (size_t)one) == 0;
        at += (off_t)want;
    }
    free(data);
    return same;
}

int lr_same_content(const struct lr_side *a, const struct lr_side *b)
{
    if (a->st->stx_size != b->st->stx_size)
        return 0;
    if (a->st->stx_size == 0)
        return 1;
    LR_CLEANUP(lr_close) int one = lr_open_seen(a->dirfd, a->name, a->st);
    if (one < 0)
        return errno == EACCES ? 0 : -1; /* what nobody may read cannot be called the same */
    LR_CLEANUP(lr_close) int two = lr_open_seen(b->dirfd, b->name, b->st);
    if (two < 0)
        return errno == EACCES ? 0 : -1;
    return same_bytes(one, two, (off_t)a->st->stx_size);
}

int lr_same_target(const struct lr_side *a, const struct lr_side *b)
{
    char one[4096], two[4096];
    ssize_t first = readlinkat(a->dirfd, a->name, one, sizeof one);
    ssize_t second = readlinkat(b->dirfd, b->name, two, sizeof two);
    if (first < 0 || second < 0)
        return -1;
    return first == second && memcmp(one, two, (size_t)first) == 0;
}

/* The user's own attributes of a side, sorted. */
static int own_keys(const struct lr_side *side, bool userxattr, struct lr_names *keys)
{
    if (lr_xattr_list(side->dirfd, side->name, keys) < 0)
        return -1;
    size_t kept = 0;
    for (size_t i = 0; i < keys->count; i++)
        if (!lr_xattr_private(lr_names_get(keys, i), userxattr))
            keys->at[kept++] = keys->at[i];
    keys->count = kept;
    return 0;
}

static int same_values(const struct lr_side *a, const struct lr_side *b, const struct lr_names *keys)
{
    struct lr_buf one = {0}, two = {0};
    struct lr_error ignored;
    int same = 1;
    for (size_t i = 0; same == 1 && i < keys->count; i++) {
        const char *key = lr_names_get(keys, i);
        one.used = two.used = 0;
        if (lr_xattr_get(a->dirfd, a->name, key, &one, &ignored) < 0 ||
            lr_xattr_get(b->dirfd, b->name, key, &two, &ignored) < 0)
            same = errno == EACCES || errno == ENODATA ? 0 : -1;
        else
            same = one.used == two.used && memcmp(one.data, two.data, one.used) == 0;
    }
    lr_buf_free(&one);
    lr_buf_free(&two);
    return same;
}

int lr_same_xattrs(const struct lr_side *a, const struct lr_side *b, bool userxattr)
{
    struct lr_names one = {0}, two = {0};
    int same = own_keys(a, userxattr, &one) < 0 || own_keys(b, userxattr, &two) < 0 ? -1 : 1;
    if (same == 1)
        same = one.count == two.count;
    for (size_t i = 0; same == 1 && i < one.count; i++)
        same = strcmp(lr_names_get(&one, i), lr_names_get(&two, i)) == 0;
    if (same == 1)
        same = same_values(a, b, &one);
    lr_names_free(&one);
    lr_names_free(&two);
    return same;
}

bool lr_same_stat(const struct lr_side *a, const struct lr_side *b)
{
    const struct statx *one = a->st, *two = b->st;
    if (one->stx_uid != two->stx_uid || one->stx_gid != two->stx_gid)
        return false;
    if (!S_ISLNK(one->stx_mode) && (one->stx_mode & 07777) != (two->stx_mode & 07777))
        return false;
    return S_ISDIR(one->stx_mode) || (one->stx_mtime.tv_sec == two->stx_mtime.tv_sec &&
                                      one->stx_mtime.tv_nsec == two->stx_mtime.tv_nsec);
}

int lr_is_opaque(int dirfd, const char *name, bool userxattr)
{
    struct lr_buf value = {0};
    struct lr_error ignored;
    int opaque = 0;
    if (lr_xattr_get(dirfd, name, userxattr ? "user.overlay.opaque" : "trusted.overlay.opaque", &value,
                     &ignored) == 0)
        opaque = value.used == 1 && value.data[0] == 'y';
    else if (errno != ENODATA && errno != EOPNOTSUPP)
        opaque = -1;
    lr_buf_free(&value);
    return opaque;
}
