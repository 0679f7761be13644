/* tree.h: walking, listing, copying, comparing and removing trees. Every tree is hostile input.
 *
 * All of it goes by descriptors, one name at a time: no link is followed, no mount is crossed, no
 * fifo is waited for, depth and length of paths have no limit, and about fifteen descriptors are
 * open at a time (and as many again for each further tree).
 */
#ifndef LR_TREE_H
#define LR_TREE_H

#include "lr.h"

#define LR_LINKED ".linked"

/* cffi:begin */

/* Remove dirfd/name and all beneath it. It is no error if it is gone, also under our hands. Folders
 * without permissions get them. Whatever has something mounted on it is refused with EBUSY. */
int lr_remove(int dirfd, const char *name, struct lr_error *err);

/* The same in a detached process of low priority; returns as soon as that runs. If there is LR_LINKED in the name, it lies in
 * the trash of a store and held names of objects: those that nothing else has a name for go as well. */
int lr_remove_background(int dirfd, const char *name, struct lr_error *err);

/* Like openat2(2) with RESOLVE_BENEATH, NO_SYMLINKS and (unless `cross`) NO_XDEV, for a path of any length.
 * O_CLOEXEC, O_NOFOLLOW and, without O_PATH, O_NONBLOCK are added. Returns a descriptor. */
int lr_open_beneath(int root, const char *path, int flags, unsigned int mode, int cross,
                    struct lr_error *err);

struct lr_usage {
    uint64_t entries; /* names beneath the folder */
    uint64_t apparent; /* bytes in regular files and link targets, hard links once */
    uint64_t allocated; /* bytes of disk, folders and the root included, hard links once */
};

int lr_usage(int fd, struct lr_usage *usage, struct lr_error *err);

/* Runs of records from a list or a diff. *data is valid until the next call. *size 0: the end.
 * Numbers are in the machine's order, nothing is aligned; `u32 length` counts what follows it.
 * list:  u32 length, u32 mode, u32 uid, u32 gid, u32 rdev major, minor, u32 dev major, minor, u32 nlink,
 *        u32 path, target and xattrs length, i64 mtime in ns, u64 size, u64 ino, path, target,
 *        xattrs (u32 key length, u32 value length, key, value; sorted by key)
 * diff:  u32 length, u8 change ('=': none), u8 flags (wide.c), i16 lower, i64 since when in ns, u64 inode number of the
 *        origin, then for the new and the old side u32 mode, uid, gid, nlink, u64 rdev, dev, ino, mount, size, i64 mtime,
 *        ctime, btime, atime in ns; path */
struct lr_list;
struct lr_list *lr_list_open(int fd, int xattrs, struct lr_error *err);
int lr_list_next(struct lr_list *list, const char **data, size_t *size, struct lr_error *err);
void lr_list_close(struct lr_list *list);

struct lr_copied {
    uint64_t entries; /* made, the root not counted */
    uint64_t bytes; /* in regular files, hard links once */
    uint64_t sockets; /* left out: a socket means nothing without its process */
    uint64_t devices; /* left out because it is not permitted and was not insisted on */
    uint64_t xattrs; /* left out for the same reason; only without owners */
};

/* Copy what is beneath src into the empty folder dst, and src's own metadata to it. owners: chown too.
 * devices: it is an error if a device node may not be made. */
int lr_copy(int src, int dst, int owners, int devices, struct lr_copied *copied, struct lr_error *err);

/* An upper against what lies beneath it, top first; layerrun/layers/diff.py says what counts. What is as beneath is given too.
 * Paths are relative and in order, folder by folder, bytewise within a folder. `skip` and `roots` are such paths, sorted bytewise; what they point at must live until lr_diff_close. */
struct lr_diff;
struct lr_diff_options {
    int userxattr; /* overlayfs's marks are user.overlay.*, not trusted.overlay.* */
    int cross_mounts; /* the lowest lower may have mounts in it */
    const char **skip;
    size_t skips;
    const char **roots;
    size_t roots_count;
};

struct lr_diff *lr_diff_open(int upper, const int *lowers, size_t count,
                             const struct lr_diff_options *options, struct lr_error *err);
int lr_diff_next(struct lr_diff *diff, const char **data, size_t *size, struct lr_error *err);
void lr_diff_close(struct lr_diff *diff);

/* What differs between two stacks of layers on common ones. `fds`: the old side's own layers, the new side's, the common ones,
 * each top first; `counts`: how many of each. The lists of paths are as for lr_diff. A run has for each difference a record of
 * fixed size in `heads` and a path, relative and ended by a NUL, in `paths`:
 *   u8 letter, u8 new present, u8 old present, u8 0, u32 layer of the new, u32 of the old (places in `fds`), and for the
 *   new and then the old: u32 mode, uid, gid, rdev major, minor, dev major, minor, nlink, u64 ino, mount, size, i64 mtime,
 *   ctime in ns */
struct lr_between;
struct lr_between_options {
    int userxattr;
    int cross_mounts; /* the last layer may have mounts in it */
    int deep; /* what is in a folder that is gone is told entry by entry, too */
    const char **skip;
    size_t skips;
    const char **roots;
    size_t roots_count;
    const char **only; /* nothing but these, and what is beneath them; none: all */
    size_t onlys;
};

struct lr_run {
    const char *heads;
    size_t heads_size;
    const char *paths;
    size_t paths_size;
};

struct lr_between *lr_between_open(const int *fds, const size_t counts[3],
                                   const struct lr_between_options *options, struct lr_error *err);
int lr_between_next(struct lr_between *walk, struct lr_run *run, struct lr_error *err);
void lr_between_close(struct lr_between *walk);

/* cffi:end */

#endif
