/* walk.h: what the tree functions share. Private to csrc/.
 *
 * A chain is a path of open folders from a root down to the current one. It holds names one at a
 * time, never a path for the kernel, so there is no limit on depth; it keeps few descriptors open
 * and finds the way back by "..", checking that it arrives where it came from.
 */
#ifndef LR_WALK_H
#define LR_WALK_H

#include "lr.h"

#include <stdbool.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* Descriptors a single walk keeps open besides the root and the current folder. */
#define LR_KEEP 12

#define LR_CLEANUP(f) __attribute__((cleanup(f)))

/* For LR_CLEANUP on an int: close it unless it is negative, errno kept. */
void lr_close(int *fd);

/* Give the descriptor away: the variable no longer owns it. */
static inline int lr_steal(int *fd)
{
    int got = *fd;
    *fd = -1;
    return got;
}

/* A growing run of bytes. */
struct lr_buf {
    char *data;
    size_t used, size;
};

int lr_buf_room(struct lr_buf *buf, size_t more, struct lr_error *err);
int lr_buf_add(struct lr_buf *buf, const void *data, size_t size, struct lr_error *err);
void lr_buf_free(struct lr_buf *buf);

/* The names in a folder, "." and ".." left out. Each is a byte of d_type, then the name with its NUL. */
struct lr_names {
    struct lr_buf bytes;
    size_t *at;
    size_t count, size;
};

const char *lr_names_get(const struct lr_names *names, size_t i);
unsigned char lr_names_type(const struct lr_names *names, size_t i);
void lr_names_sort(struct lr_names *names); /* bytewise */
void lr_names_unique(struct lr_names *names); /* once sorted: equal names once */
void lr_names_free(struct lr_names *names);

/* statx(2) of one name, never through a link, never starting an automount; name "" is the descriptor itself. */
int lr_statx(int dirfd, const char *name, struct statx *st);
/* An identity for the mount an entry is on, or of its file system where the kernel (before 5.8) has no mount id. */
uint64_t lr_mount_of(const struct statx *st);
bool lr_is_whiteout(const struct statx *st);

/* chmod of one name, never through a link. */
int lr_chmodat(int dirfd, const char *name, unsigned int mode);

struct lr_level {
    uint64_t ino, mount;
    uint32_t major, minor;
    size_t name; /* where its name begins in the chain's path */
    int fd; /* O_PATH, or -1 while closed */
};

struct lr_chain {
    struct lr_level *levels;
    size_t depth, size; /* depth counts the root: it is 1 in the root */
    size_t keep;
    bool cross; /* may it enter other mounts? */
    struct lr_buf path; /* of the current folder, relative to the root, NUL-terminated, "" in the root */
};

/* `root` is only duplicated (it may be O_PATH). keep: see LR_KEEP. */
int lr_chain_open(struct lr_chain *chain, int root, size_t keep, bool cross, struct lr_error *err);
int lr_chain_fd(const struct lr_chain *chain);
/* Go into a folder. 1: done; 0: it is gone, no folder, or on another mount (then errno is EXDEV); -1: an error. */
int lr_chain_enter(struct lr_chain *chain, const char *name, struct lr_error *err);
/* Go back up. On failure the chain stands in the parent all the same, with no descriptor: only leave it further. */
int lr_chain_leave(struct lr_chain *chain, struct lr_error *err);
/* Read the names of the current folder, in no order, after those `names` already holds. */
int lr_chain_list(const struct lr_chain *chain, struct lr_names *names, struct lr_error *err);
void lr_chain_close(struct lr_chain *chain);
/* lr_fail with the path of `name` in the current folder. */
int lr_chain_fail(const struct lr_chain *chain, const char *name, const char *step, struct lr_error *err);

/* Open a path of any length beneath a folder; see lr_open_beneath. cross: other mounts may be entered. */
int lr_beneath(int root, const char *path, int flags, unsigned int mode, bool cross);

/* Open for reading the regular file that was seen under a name; ESTALE: there is something else by now. What is there is looked
 * at before it is opened: opening a device can do something. */
int lr_open_seen(int dirfd, const char *name, const struct statx *seen);

/* A walk over everything beneath a folder, parents first. */
struct lr_frame {
    struct lr_names names;
    size_t next;
    struct statx st; /* of the folder itself; not set for the root */
};

struct lr_walk {
    struct lr_chain chain;
    struct lr_frame *frames; /* one for each level of the chain */
    size_t size;
    bool sorted;
};

enum lr_event {
    LR_END = 0, /* all done */
    LR_ENTRY = 1, /* an entry of the current folder */
    LR_LEAVE = 2 /* a folder is done; the current one is its parent again */
};

struct lr_entry {
    const char *name; /* valid until the next call */
    struct statx st;
};

int lr_walk_open(struct lr_walk *walk, int root, bool sorted, struct lr_error *err);
/* The next event, or -1. Entries that vanish meanwhile are passed over. */
int lr_walk_next(struct lr_walk *walk, struct lr_entry *entry, struct lr_error *err);
/* Go into the entry just given. 1: its entries come next; 0: it cannot be entered (see lr_chain_enter); -1. */
int lr_walk_enter(struct lr_walk *walk, const struct lr_entry *entry, struct lr_error *err);
void lr_walk_close(struct lr_walk *walk);

/* Which inodes were met, and where: for hard links. */
struct lr_seen;

struct lr_seen *lr_seen_new(void);
void lr_seen_free(struct lr_seen *seen);
/* 1: met before, *path is what was given then; 0: now noted with `path` (may be NULL); -1: no memory. */
int lr_seen_add(struct lr_seen *seen, const struct statx *st, const char *path, const char **before,
                struct lr_error *err);

/* Extended attributes of one name, links not followed. A file system without them has none. */
int lr_xattr_list(int dirfd, const char *name, struct lr_names *keys);
/* Append the value; 0, or -1 with errno (ENODATA: there is none). */
int lr_xattr_get(int dirfd, const char *name, const char *key, struct lr_buf *value, struct lr_error *err);
int lr_xattr_set(int dirfd, const char *name, const char *key, const void *value, size_t size);
/* overlayfs's own key of that flavour? Escaped ones ("overlay.overlay.") are the user's own. */
bool lr_xattr_private(const char *key, bool userxattr);

#endif
