/* tar_parts.h: what the parts of the reader of tar archives share: tar.c, tar_pax.c, tar_sparse.c, tar_path.c, tar_io.c. */
#ifndef LR_TAR_PARTS_H
#define LR_TAR_PARTS_H

#include "stream.h"
#include "tar.h"
#include "walk.h"

#include <stdbool.h>
#include <string.h>

#define LR_TAR_BLOCK 512

/* Bytes that somebody else owns. data NULL: not given. */
struct lr_text {
    const char *data;
    size_t size;
};

struct lr_number {
    int64_t value;
    bool given;
};

/* POSIX pax, ustar: where what lies in a header, from, size. */
struct lr_tar_header {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], sum[8], type, link[100];
    char magic[6], version[2], uname[32], gname[32], major[8], minor[8], prefix[155], rest[12];
};

/* What pax headers say of an entry; texts point into them. */
struct lr_tar_meta {
    struct lr_text path, link, map; /* map: GNU.sparse.map, form 0.1 */
    struct lr_number size, uid, gid;
    struct lr_number real, major, minor; /* of sparse files: the size with its holes, the form */
    bool has_mtime;
    int64_t mtime;
    uint32_t mtime_ns;
};

struct lr_tar_xattr {
    struct lr_text key, value;
    size_t rank; /* of two with one key the one of the higher rank holds */
};

/* A part of a sparse file that is no hole. */
struct lr_tar_part {
    uint64_t offset, size;
};

struct lr_tar {
    int in, out;
    const struct lr_tar_limits *limits;
    struct lr_tar_found *found;
    struct lr_error *err;
    char *data; /* read: what lies between begin and end is not used yet */
    size_t begin, end;
    bool ended;
    uint64_t at, length; /* read directly: where what is read next lies, and how much there was at first */
    char *ready; /* to be written */
    size_t used, room;
    uint64_t budget; /* bytes of headers that this entry may still have */
    /* What headers before the entry said, as it stands there: pax for all and for one, GNU's long name and target. */
    struct lr_buf all, one, long_name, long_link;
    struct lr_tar_meta for_all, meta;
    struct lr_tar_xattr *xattrs;
    size_t xattr_count, xattr_room;
    struct lr_tar_part *parts;
    size_t part_count, part_room;
    struct lr_buf shown; /* the entry's name as it stands there, for errors */
    struct lr_buf path, target; /* what comes of its name and of its target */
};

/* tar_io.c. need: make so many bytes (up to 512 KiB) lie at data + begin; 1, 0 at the archive's end, -1. */
int lr_tar_open(struct lr_tar *tar);
int lr_tar_need(struct lr_tar *tar, size_t size);
int lr_tar_skip(struct lr_tar *tar, uint64_t size);
/* Where the next byte lies in the file, when it is read directly. */
uint64_t lr_tar_at(const struct lr_tar *tar);
int lr_tar_pad(struct lr_tar *tar, size_t size);
int lr_tar_drain(struct lr_tar *tar);
int lr_tar_put(struct lr_tar *tar, const void *data, size_t size);
int lr_tar_flush(struct lr_tar *tar);
/* Write a part of a file's content: the next `size` bytes. Longer runs of zeros become holes. */
int lr_tar_copy(struct lr_tar *tar, uint64_t offset, uint64_t size);
void lr_tar_close(struct lr_tar *tar);

/* tar_parts.c: say why it is refused; -1. lr_tar_refuse is about the entry, lr_tar_damaged about the archive. */
int lr_tar_refuse(struct lr_tar *tar, const char *why);
int lr_tar_damaged(struct lr_tar *tar, const char *why);
/* So many bytes of headers more: -1 if that is too much. */
int lr_tar_spend(struct lr_tar *tar, uint64_t size);
/* A number as headers have it: octal, or in base 256; too large ones become the largest. -1: it is none. */
int lr_tar_number(const char *field, size_t size, int64_t *value);
/* Room for one more in an array. */
int lr_tar_room(void **array, size_t count, size_t *room, size_t each, struct lr_error *err);

/* tar_pax.c. for_one: with extended attributes, which are not taken over from headers for all. */
int lr_tar_pax(struct lr_tar *tar, struct lr_buf *records, struct lr_tar_meta *meta, bool for_one);
/* Sort the attributes, and leave out what is not kept. folder: one is for a folder. */
int lr_tar_xattrs(struct lr_tar *tar, bool folder);
int lr_tar_decimal(struct lr_text text, int64_t *value);

/* tar_sparse.c: fill tar->parts for a sparse file. *stored: its bytes in the archive, without a map that lies before them;
 * *real: its size. 0: it is not sparse, 1: it is. */
int lr_tar_sparse(struct lr_tar *tar, const struct lr_tar_header *header, uint64_t *stored, uint64_t *real);
int lr_tar_add_part(struct lr_tar *tar, int64_t offset, int64_t size);

/* tar_path.c: what a name stands for, into `to`, NUL-terminated. */
int lr_tar_path(struct lr_tar *tar, struct lr_text name, struct lr_buf *to);
/* In a layer: turn tar->path into what a .wh. name acts on. 0: it is no such name; else the kind of record, or 1: it is one
 * that means nothing. */
int lr_tar_whiteout(struct lr_tar *tar);

#endif
