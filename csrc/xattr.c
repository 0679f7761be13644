/* xattr.c: extended attributes of one name, links not followed; see walk.h. */
#include "walk.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

/* Linux 6.13; the same numbers on every architecture. */
#ifndef SYS_setxattrat
#define SYS_setxattrat 463
#define SYS_getxattrat 464
#define SYS_listxattrat 465
#endif

struct args { /* struct xattr_args of linux/xattr.h, which older headers lack */
    _Alignas(8) uint64_t value;
    uint32_t size, flags;
};

/* Whether the kernel has setxattrat(2) and its like; found out by trying. */
static atomic_bool missing;

/* For older kernels: an l*xattr(2) path through the descriptor. A name has at most 255 bytes. */
static const char *proc_path(int dirfd, const char *name, char text[320])
{
    snprintf(text, 320, "/proc/self/fd/%d/%s", dirfd, name);
    return text;
}

static bool new_call(long result)
{
    if (result >= 0 || errno != ENOSYS)
        return true;
    atomic_store(&missing, true);
    return false;
}

static ssize_t list_once(int dirfd, const char *name, char *data, size_t size)
{
    char text[320];
    if (!atomic_load(&missing)) {
        long got = syscall(SYS_listxattrat, dirfd, name, AT_SYMLINK_NOFOLLOW, data, size);
        if (new_call(got))
            return got;
    }
    return llistxattr(proc_path(dirfd, name, text), data, size);
}

static ssize_t get_once(int dirfd, const char *name, const char *key, char *data, size_t size)
{
    char text[320];
    if (!atomic_load(&missing)) {
        struct args args = {.value = (uintptr_t)data, .size = (uint32_t)size};
        long got = syscall(SYS_getxattrat, dirfd, name, AT_SYMLINK_NOFOLLOW, key, &args, sizeof args);
        if (new_call(got))
            return got;
    }
    return lgetxattr(proc_path(dirfd, name, text), key, data, size);
}

int lr_xattr_set(int dirfd, const char *name, const char *key, const void *value, size_t size)
{
    char text[320];
    if (!atomic_load(&missing)) {
        struct args args = {.value = (uintptr_t)value, .size = (uint32_t)size};
        long got = syscall(SYS_setxattrat, dirfd, name, AT_SYMLINK_NOFOLLOW, key, &args, sizeof args);
        if (new_call(got))
            return (int)got;
    }
    return lsetxattr(proc_path(dirfd, name, text), key, value, size, 0);
}

static int note(struct lr_names *keys, const char *key)
{
    struct lr_error err;
    if (keys->count == keys->size) {
        size_t size = keys->size ? keys->size * 2 : 8;
        size_t *at = realloc(keys->at, size * sizeof *at);
        if (!at)
            return -1;
        keys->at = at;
        keys->size = size;
    }
    size_t at = keys->bytes.used;
    if (lr_buf_add(&keys->bytes, "", 1, &err) < 0 || lr_buf_add(&keys->bytes, key, strlen(key) + 1, &err) < 0)
        return -1;
    keys->at[keys->count++] = at;
    return 0;
}

int lr_xattr_list(int dirfd, const char *name, struct lr_names *keys)
{
    char small[1024], *data = small;
    ssize_t got = list_once(dirfd, name, small, sizeof small);
    if (got < 0 && errno == ERANGE) {
        data = malloc(XATTR_LIST_MAX);
        if (!data)
            return -1;
        got = list_once(dirfd, name, data, XATTR_LIST_MAX);
    }
    int done = got < 0 && errno != EOPNOTSUPP ? -1 : 0;
    for (ssize_t at = 0; done == 0 && at < got; at += (ssize_t)strlen(data + at) + 1)
        done = note(keys, data + at);
    if (data != small)
        free(data);
    if (done == 0)
        lr_names_sort(keys);
    return done;
}

int lr_xattr_get(int dirfd, const char *name, const char *key, struct lr_buf *value, struct lr_error *err)
{
    for (size_t size = 256;; size = XATTR_SIZE_MAX) {
        if (lr_buf_room(value, size, err) < 0)
            return -1;
        ssize_t got = get_once(dirfd, name, key, value->data + value->used, size);
        if (got < 0 && errno == ERANGE && size < XATTR_SIZE_MAX)
            continue;
        if (got < 0)
            return -1;
        value->used += (size_t)got;
        return 0;
    }
}

bool lr_xattr_private(const char *key, bool userxattr)
{
    const char *prefix = userxattr ? "user.overlay." : "trusted.overlay.";
    size_t length = strlen(prefix);
    return strncmp(key, prefix, length) == 0 && strncmp(key + length, "overlay.", 8) != 0;
}
