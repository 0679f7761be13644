/* wide.c: the wide records of a diff; see wide.h, and tree.h for what they look like. */
#include "wide.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

enum {
    HAS_NEW = 1,
    HAS_OLD = 2,
    ORIGIN = 4, /* the upper's was copied up */
    ORIGIN_OTHER = 8, /* and that from another inode than the one beneath */
    MARKED = 16,
    CAPABLE = 32,
    WITHIN = 64,
    ROOT = 128,
};

/* What overlayfs calls a file handle in an attribute: struct ovl_fb of fs/overlayfs/overlayfs.h. */
struct handle_head {
    uint8_t version, magic, length, flags, type, uuid[16];
};

struct __attribute__((packed)) side {
    uint32_t mode, uid, gid, nlink;
    uint64_t rdev, dev, ino, mount, size;
    int64_t mtime, ctime, btime, atime;
};

struct __attribute__((packed)) head {
    uint32_t length;
    uint8_t letter, flags;
    int16_t lower;
    int64_t since;
    uint64_t origin;
};

static int64_t ns(const struct statx_timestamp *time)
{
    return time->tv_sec * 1000000000 + time->tv_nsec;
}

int64_t lr_born(const struct statx *st)
{
    return st->stx_mask & STATX_BTIME ? ns(&st->stx_btime) : 0;
}

static struct side side_of(const struct statx *st)
{
    return (struct side){
        .mode = st->stx_mode,
        .uid = st->stx_uid,
        .gid = st->stx_gid,
        .nlink = st->stx_nlink,
        .rdev = makedev(st->stx_rdev_major, st->stx_rdev_minor),
        .dev = makedev(st->stx_dev_major, st->stx_dev_minor),
        .ino = st->stx_ino,
        .mount = lr_mount_of(st),
        .size = S_ISDIR(st->stx_mode) ? 0 : st->stx_size,
        .mtime = ns(&st->stx_mtime),
        .ctime = ns(&st->stx_ctime),
        .btime = lr_born(st),
        .atime = ns(&st->stx_atime),
    };
}

/* The inode number in a file handle, as the file systems that can be uppers write it (linux/exportfs.h); 0: another kind. */
static uint64_t inode_in(unsigned char type, const unsigned char *id, size_t size)
{
    uint32_t words[3] = {0};
    uint64_t number = 0;
    memcpy(words, id, size < sizeof words ? size : sizeof words);
    memcpy(&number, id, size < sizeof number ? size : sizeof number);
    switch (type) {
    case 1: /* FILEID_INO32_GEN; a tmpfs has three words, the generation first */
        return size == 12 ? words[1] | (uint64_t)words[2] << 32 : words[0];
    case 2: /* FILEID_INO32_GEN_PARENT */
        return words[0];
    case 0x4d: /* btrfs */
    case 0x4e:
    case 0x4f:
    case 0x81: /* FILEID_INO64_GEN of xfs */
    case 0x82:
        return number;
    }
    return 0;
}

/* What is known of whence an entry was copied up. */
struct origin {
    uint64_t ino;
    bool other; /* from another inode than that beneath; where nothing can be said: no */
};

static struct origin origin_of(const struct lr_buf *mark, const struct lr_side *old)
{
    struct {
        struct file_handle head;
        unsigned char bytes[MAX_HANDLE_SZ];
    } found = {.head.handle_bytes = MAX_HANDLE_SZ};
    struct handle_head head;
    struct origin origin = {0};
    int mount;
    if (mark->used <= sizeof head)
        return origin; /* the file system has no handles: it only says that there was an origin */
    memcpy(&head, mark->data, sizeof head);
    size_t size = mark->used - sizeof head;
    const unsigned char *id = (const unsigned char *)mark->data + sizeof head;
    if (head.version != 0 || head.magic != 0xfb || head.length != mark->used)
        return origin;
    origin.ino = inode_in(head.type, id, size);
    if (old->st && name_to_handle_at(old->dirfd, old->name, &found.head, &mount, 0) == 0)
        origin.other = found.head.handle_type != head.type || found.head.handle_bytes != size ||
                       memcmp(found.head.f_handle, id, size) != 0;
    return origin;
}

/* What the attributes of the upper's entry say. */
static int marks(const struct lr_wide *wide, uint64_t *ino, struct lr_error *err)
{
    const char *prefix = wide->userxattr ? "user.overlay." : "trusted.overlay.";
    struct lr_names keys = {0};
    struct lr_buf mark = {0};
    int flags = lr_xattr_list(wide->now.dirfd, wide->now.name, &keys) < 0 ? -1 : 0;
    for (size_t i = 0; flags >= 0 && i < keys.count; i++) {
        const char *key = lr_names_get(&keys, i);
        if (strcmp(key, "security.capability") == 0)
            flags |= CAPABLE;
        if (strncmp(key, prefix, strlen(prefix)) != 0)
            continue;
        flags |= MARKED;
        if (strcmp(key + strlen(prefix), "origin") != 0)
            continue;
        flags |= ORIGIN;
        if (lr_xattr_get(wide->now.dirfd, wide->now.name, key, &mark, err) < 0)
            continue;
        struct origin origin = origin_of(&mark, &wide->old);
        flags |= origin.other ? ORIGIN_OTHER : 0;
        *ino = origin.ino;
    }
    lr_names_free(&keys);
    lr_buf_free(&mark);
    return flags;
}

int lr_wide_add(struct lr_buf *out, const struct lr_wide *wide, const char *path, size_t length,
                struct lr_error *err)
{
    struct side none = {0};
    uint64_t origin = 0;
    int flags = (wide->old.st ? HAS_OLD : 0) | (wide->within ? WITHIN : 0) | (wide->root ? ROOT : 0);
    if (wide->now.st) {
        int found = marks(wide, &origin, err);
        if (found < 0)
            return -1;
        flags |= HAS_NEW | found;
    }
    struct head head = {
        .length = (uint32_t)(sizeof head - 4 + 2 * sizeof none + length),
        .letter = (uint8_t)wide->letter,
        .flags = (uint8_t)flags,
        .lower = (int16_t)wide->lower,
        .since = wide->since,
        .origin = origin,
    };
    struct side now = wide->now.st ? side_of(wide->now.st) : none;
    struct side old = wide->old.st ? side_of(wide->old.st) : none;
    err->code = 0;
    if (lr_buf_add(out, &head, sizeof head, err) < 0 || lr_buf_add(out, &now, sizeof now, err) < 0 ||
        lr_buf_add(out, &old, sizeof old, err) < 0)
        return -1;
    return lr_buf_add(out, path, length, err);
}
