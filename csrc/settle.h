/* settle.h: what a commit does to entries of the host: look at them, find what must not be shown of a layer's, copy one. */
#ifndef LR_SETTLE_H
#define LR_SETTLE_H

#include "lr.h"
#include "tree.h"

/* cffi:begin */

/* As statx(2) has it; times in ns. `mount` is the mount's id. */
struct lr_looked {
    uint64_t ino, dev, rdev, mount, size;
    int64_t mtime, ctime, btime;
    uint32_t mode, uid, gid, nlink;
};

/* Look at a name in a folder, or at the folder itself (""), never through a link. 1: there it is; 0: nothing is there. */
int lr_look(int dirfd, const char *name, struct lr_looked *looked, struct lr_error *err);

/* Runs of records, to be freed with lr_found_free. */
struct lr_found {
    char *marks;
    size_t marks_size;
    char *names;
    size_t names_size;
    size_t count; /* of names */
};

void lr_found_free(struct lr_found *found);

/* What of dirfd/name, and of all beneath it, must be changed before it is shown to anybody. Paths are relative to
 * it, "" is itself. `drop`: 1: setuid and setgid bits too; 2: file capabilities too.
 * marks: u8 kind, u32 path length, key length, value length, path, key, value.
 *   kind `x`: the attribute `key` is overlayfs's own, or the user's escaped, or a capability; `m`: the mode (the
 *   value, a u32) has bits to be dropped; `k`: its owner may not write to what
 *   has such attributes, and this is its mode; `w`: a whiteout. `h`: nothing to
 *   be changed, but it has further names; u64 inode number, u64 names.
 * names: u8 type (of d_type), u64 size, u32 path length, path: of everything but whiteouts, parents first. */
int lr_scan(int dirfd, const char *name, int userxattr, int drop, struct lr_found *found,
            struct lr_error *err);

/* The entries beneath dirfd/name, and itself, that have changed after `since` (ns), or have something mounted on
 * them: as `names` above, with the time of change in place of the size. At most `most` of them. */
int lr_newer(int dirfd, const char *name, int64_t since, size_t most, struct lr_found *found,
             struct lr_error *err);

enum {
    LR_COPY_OWNERS = 1,
    LR_COPY_SETID = 2, /* as they are; else they are dropped */
    LR_COPY_CAPS = 4, /* likewise */
    LR_COPY_USERXATTR = 8 /* overlayfs's marks are user.overlay.* */
};

/* Copy src/name, with all beneath it, to the new name dst/as: exactly, sockets and devices too, but what is overlayfs's
 * own is left out, and the user's attributes that it has escaped are given their names back. */
int lr_copy_entry(int src, const char *name, int dst, const char *as, int flags, struct lr_error *err);

/* Make the content of one open file that of another, holes kept. */
int lr_refill(int from, int to, struct lr_error *err);

/* cffi:end */

#endif
