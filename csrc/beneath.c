/* beneath.c: opening paths of any length without leaving a folder. */
#include "tree.h"
#include "walk.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

/* The kernel takes a path of 4095 bytes; a longer one goes in parts, cut between names. */
#define PART 4000

static int open_part(int dirfd, const char *path, int flags, unsigned int mode, bool cross)
{
    struct open_how how = {
        .flags = (uint64_t)(unsigned int)flags | O_CLOEXEC | O_NOFOLLOW,
        .mode = flags & O_CREAT ? mode : 0,
        .resolve =
            RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | (cross ? 0 : RESOLVE_NO_XDEV),
    };
    if (!(flags & O_PATH))
        how.flags |= O_NONBLOCK | O_NOCTTY; /* never wait for a fifo's other end */
    for (;;) {
        /* EAGAIN: something was renamed during the lookup, see openat2(2). */
        int fd = (int)syscall(SYS_openat2, dirfd, path, &how, sizeof how);
        if (fd >= 0 || (errno != EAGAIN && errno != EINTR))
            return fd;
    }
}

/* Without openat2 (a seccomp filter, or Linux before 5.6): one name at a time. */
static int open_name(int dirfd, const char *name, int flags, unsigned int mode, bool cross)
{
    struct statx here, there;
    LR_CLEANUP(lr_close)
    int fd = openat(dirfd, name,
                    flags | O_CLOEXEC | O_NOFOLLOW | (flags & O_PATH ? 0 : O_NONBLOCK | O_NOCTTY), mode);
    if (fd < 0 || cross)
        return lr_steal(&fd);
    if (lr_statx(dirfd, "", &here) < 0 || lr_statx(fd, "", &there) < 0)
        return -1;
    if (lr_mount_of(&here) != lr_mount_of(&there)) {
        errno = EXDEV;
        return -1;
    }
    return lr_steal(&fd);
}

static bool goes_up(const char *path)
{
    for (const char *at = path; *at;) {
        size_t length = strcspn(at, "/");
        if (length == 2 && at[0] == '.' && at[1] == '.')
            return true;
        at += length + (at[length] == '/');
    }
    return false;
}

static int by_parts(int root, const char *path, int flags, unsigned int mode, bool cross, size_t most)
{
    char part[PART + 1];
    LR_CLEANUP(lr_close) int at = -1;
    for (size_t left = strlen(path);;) {
        size_t length = left;
        if (most < left || left > PART) {
            /* Up to the last slash that fits, or the first one in single steps. */
            length = most ? PART : strcspn(path, "/");
            while (most && length > 0 && path[length] != '/')
                length--;
            if (length == 0 || length > PART) {
                errno = ENAMETOOLONG;
                return -1;
            }
        }
        memcpy(part, path, length);
        part[length] = '\0';
        path += length;
        path += strspn(path, "/");
        left = strlen(path);
        int how = left ? O_PATH | O_DIRECTORY : flags;
        int dirfd = at < 0 ? root : at;
        int fd = most ? open_part(dirfd, part, how, mode, cross) : open_name(dirfd, part, how, mode, cross);
        if (fd < 0 || !left)
            return fd;
        lr_close(&at);
        at = fd;
    }
}

int lr_beneath(int root, const char *path, int flags, unsigned int mode, bool cross)
{
    if (*path == '/' || goes_up(path)) {
        errno = EXDEV; /* what openat2 says of them */
        return -1;
    }
    if (!*path)
        path = ".";
    int fd = by_parts(root, path, flags, mode, cross, PART);
    if (fd < 0 && errno == ENOSYS)
        fd = by_parts(root, path, flags, mode, cross, 0);
    return fd;
}

int lr_open_seen(int dirfd, const char *name, const struct statx *seen)
{
    struct statx st;
    char path[32];
    int flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    LR_CLEANUP(lr_close) int at = openat(dirfd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (at < 0 || lr_statx(at, "", &st) < 0)
        return -1;
    if (!S_ISREG(st.stx_mode) || st.stx_ino != seen->stx_ino || lr_mount_of(&st) != lr_mount_of(seen)) {
        errno = ESTALE;
        return -1;
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d", at);
    int fd = open(path, flags | O_NOATIME);
    if (fd < 0 && errno == EPERM)
        fd = open(path, flags); /* O_NOATIME is the owner's only */
    return fd;
}

int lr_open_beneath(int root, const char *path, int flags, unsigned int mode, int cross, struct lr_error *err)
{
    int fd = lr_beneath(root, path, flags, mode, cross);
    return fd < 0 ? lr_fail(err, "open", path) : fd;
}
