/* chain.c: a path of open folders; see walk.h. */
#include "walk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452 /* Linux 6.6; one number on every architecture */
#endif

int lr_statx(int dirfd, const char *name, struct statx *st)
{
    int flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | (*name ? 0 : AT_EMPTY_PATH);
    return statx(dirfd, name, flags, STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID, st);
}

uint64_t lr_mount_of(const struct statx *st)
{
    if (st->stx_mask & STATX_MNT_ID)
        return st->stx_mnt_id;
    return (1ULL << 63) | ((uint64_t)st->stx_dev_major << 32) | st->stx_dev_minor;
}

bool lr_is_whiteout(const struct statx *st)
{
    return S_ISCHR(st->stx_mode) && st->stx_rdev_major == 0 && st->stx_rdev_minor == 0;
}

int lr_chmodat(int dirfd, const char *name, unsigned int mode)
{
    int done = (int)syscall(SYS_fchmodat2, dirfd, name, mode, AT_SYMLINK_NOFOLLOW);
    if (done < 0 && errno == ENOSYS)
        done = fchmodat(dirfd, name, mode, AT_SYMLINK_NOFOLLOW); /* glibc goes by O_PATH and /proc */
    return done;
}

int lr_chain_fail(const struct lr_chain *chain, const char *name, const char *step, struct lr_error *err)
{
    int code = errno;
    char text[sizeof err->path + 256 + 1];
    const char *path = chain->path.data ? chain->path.data : "";
    size_t length = strlen(path), most = sizeof err->path;
    /* Only the end of a long path fits into the record. */
    if (length > most)
        path += length - most;
    char *end = stpcpy(text, path);
    if (*path && *name)
        *end++ = '/';
    strncpy(end, name, 255);
    end[255] = '\0';
    return lr_fail_code(err, code, step, text);
}

static int push(struct lr_chain *chain, int fd, const struct statx *st, size_t name, struct lr_error *err)
{
    if (chain->depth == chain->size) {
        size_t size = chain->size ? chain->size * 2 : 16;
        struct lr_level *levels = realloc(chain->levels, size * sizeof *levels);
        if (!levels) {
            close(fd);
            return lr_fail(err, "get memory", NULL);
        }
        chain->levels = levels;
        chain->size = size;
    }
    chain->levels[chain->depth++] = (struct lr_level){
        .ino = st->stx_ino,
        .mount = lr_mount_of(st),
        .major = st->stx_dev_major,
        .minor = st->stx_dev_minor,
        .name = name,
        .fd = fd,
    };
    /* Level 0 stays open whatever happens: it is where one finds back from. */
    if (chain->depth > chain->keep + 2)
        lr_close(&chain->levels[chain->depth - chain->keep - 2].fd);
    return 0;
}

int lr_chain_open(struct lr_chain *chain, int root, size_t keep, bool cross, struct lr_error *err)
{
    *chain = (struct lr_chain){.keep = keep, .cross = cross};
    struct statx st;
    if (lr_buf_add(&chain->path, "", 1, err) < 0)
        return -1;
    int fd = openat(root, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return lr_fail(err, "open the folder", NULL);
    if (lr_statx(fd, "", &st) < 0) {
        close(fd);
        return lr_fail(err, "look at the folder", NULL);
    }
    return push(chain, fd, &st, 0, err);
}

int lr_chain_fd(const struct lr_chain *chain)
{
    return chain->levels[chain->depth - 1].fd;
}

int lr_chain_enter(struct lr_chain *chain, const char *name, struct lr_error *err)
{
    struct statx st;
    LR_CLEANUP(lr_close)
    int fd = openat(lr_chain_fd(chain), name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP))
        return 0;
    if (fd < 0)
        return lr_chain_fail(chain, name, "open", err);
    if (lr_statx(fd, "", &st) < 0)
        return lr_chain_fail(chain, name, "look at", err);
    if (!chain->cross && lr_mount_of(&st) != chain->levels[0].mount) {
        errno = EXDEV;
        return 0;
    }
    size_t at = chain->path.used - 1; /* the NUL */
    size_t length = strlen(name);
    if (lr_buf_room(&chain->path, length + 1, err) < 0)
        return -1;
    char *end = chain->path.data + at;
    if (at > 0)
        *end++ = '/';
    memcpy(end, name, length + 1);
    chain->path.used = (size_t)(end - chain->path.data) + length + 1;
    return push(chain, lr_steal(&fd), &st, at, err) < 0 ? -1 : 1;
}

static bool is_level(int fd, const struct lr_level *level)
{
    struct statx st;
    return lr_statx(fd, "", &st) == 0 && st.stx_ino == level->ino && st.stx_dev_major == level->major &&
           st.stx_dev_minor == level->minor && lr_mount_of(&st) == level->mount;
}

int lr_chain_leave(struct lr_chain *chain, struct lr_error *err)
{
    LR_CLEANUP(lr_close) int child = lr_steal(&chain->levels[chain->depth - 1].fd);
    chain->path.used = chain->levels[chain->depth - 1].name + 1;
    chain->path.data[chain->path.used - 1] = '\0';
    struct lr_level *level = &chain->levels[--chain->depth - 1];
    if (level->fd >= 0)
        return 0;
    if (child >= 0) {
        level->fd = openat(child, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (level->fd >= 0 && is_level(level->fd, level))
            return 0;
        lr_close(&level->fd);
    }
    /* The folder was moved or removed under us, or ".." may not be searched: come down from the root again. */
    level->fd = lr_beneath(chain->levels[0].fd, chain->path.data, O_PATH | O_DIRECTORY, 0, chain->cross);
    if (level->fd >= 0 && is_level(level->fd, level))
        return 0;
    if (level->fd >= 0) {
        lr_close(&level->fd);
        errno = ESTALE;
    }
    return lr_chain_fail(chain, "", "find the way back to", err);
}

/* The kernel's own record, getdents64(2). */
struct record {
    uint64_t ino;
    int64_t off;
    unsigned short length;
    unsigned char type;
    char name[];
};

static int add_name(struct lr_names *names, const struct record *record, struct lr_error *err)
{
    if (names->count == names->size) {
        size_t size = names->size ? names->size * 2 : 32;
        size_t *at = realloc(names->at, size * sizeof *at);
        if (!at)
            return lr_fail(err, "get memory", NULL);
        names->at = at;
        names->size = size;
    }
    size_t at = names->bytes.used;
    if (lr_buf_add(&names->bytes, &record->type, 1, err) < 0 ||
        lr_buf_add(&names->bytes, record->name, strlen(record->name) + 1, err) < 0)
        return -1;
    names->at[names->count++] = at;
    return 0;
}

int lr_chain_list(const struct lr_chain *chain, struct lr_names *names, struct lr_error *err)
{
    _Alignas(struct record) char room[32768];
    LR_CLEANUP(lr_close)
    int fd = openat(lr_chain_fd(chain), ".", O_RDONLY | O_DIRECTORY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return lr_chain_fail(chain, "", "open the folder", err);
    for (;;) {
        long got = syscall(SYS_getdents64, fd, room, sizeof room);
        if (got < 0 && errno == ENOENT)
            return 0; /* removed meanwhile: then it is empty */
        if (got < 0)
            return lr_chain_fail(chain, "", "read the folder", err);
        if (got == 0)
            return 0;
        for (long at = 0; at < got;) {
            const struct record *record = (const void *)(room + at);
            at += record->length;
            if (strcmp(record->name, ".") == 0 || strcmp(record->name, "..") == 0)
                continue;
            if (add_name(names, record, err) < 0)
                return -1;
        }
    }
}

void lr_chain_close(struct lr_chain *chain)
{
    for (size_t i = 0; i < chain->depth; i++)
        lr_close(&chain->levels[i].fd);
    free(chain->levels);
    lr_buf_free(&chain->path);
    *chain = (struct lr_chain){0};
}
