/* tar.c: the entries of a tar archive, one after the other; see tar.h. */
#include "tar_parts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define LAST ((int64_t)1 << 34)
#define TARGET_BYTES 4095

static struct lr_text text_of(const char *field, size_t size)
{
    return (struct lr_text){field, strnlen(field, size)};
}

/* Old tars summed signed bytes. */
static bool is_whole(const struct lr_tar_header *header)
{
    const unsigned char *bytes = (const unsigned char *)header;
    int64_t said = 0, sum = 0, old = 0;
    for (size_t i = 0; i < LR_TAR_BLOCK; i++) {
        bool own = i >= offsetof(struct lr_tar_header, sum) && i < offsetof(struct lr_tar_header, type);
        sum += own ? ' ' : bytes[i];
        old += own ? ' ' : (signed char)bytes[i];
    }
    return lr_tar_number(header->sum, sizeof header->sum, &said) == 0 && (said == sum || said == old);
}

static bool is_zero(const char *block)
{
    return block[0] == 0 && memcmp(block, block + 1, LR_TAR_BLOCK - 1) == 0;
}

/* Add the content of a header to a buffer, and skip what fills its last block. */
static int gather(struct lr_tar *tar, const struct lr_tar_header *header, struct lr_buf *to)
{
    int64_t size = 0;
    if (lr_tar_number(header->size, sizeof header->size, &size) || size < 0)
        return lr_tar_damaged(tar, "a header has no size");
    if (lr_tar_spend(tar, (uint64_t)size))
        return -1;
    for (uint64_t left = (uint64_t)size; left;) {
        size_t piece = left < 65536 ? (size_t)left : 65536;
        int got = lr_tar_need(tar, piece);
        if (got <= 0)
            return got ? -1 : lr_tar_damaged(tar, "it ends within a header");
        if (lr_buf_add(to, tar->data + tar->begin, piece, tar->err))
            return -1;
        tar->begin += piece;
        left -= piece;
    }
    return lr_tar_skip(tar, -(uint64_t)size % LR_TAR_BLOCK);
}

/* Headers for all entries that follow. They are as long as one entry's may be, together. */
static int gather_all(struct lr_tar *tar, const struct lr_tar_header *header)
{
    if (gather(tar, header, &tar->all))
        return -1;
    if (tar->all.used > tar->limits->header)
        return lr_tar_damaged(tar, "too many global headers");
    tar->for_all = (struct lr_tar_meta){0};
    return lr_tar_pax(tar, &tar->all, &tar->for_all, false);
}

/* Go to the next entry, over all that is said of it before. 1: there it is; 0: the end; -1 */
static int find(struct lr_tar *tar, struct lr_tar_header *header)
{
    tar->budget = tar->limits->header;
    tar->one.used = tar->long_name.used = tar->long_link.used = tar->shown.used = 0;
    for (int result = 0; result == 0;) {
        bool began = tar->one.used || tar->long_name.used || tar->long_link.used;
        int got = lr_tar_need(tar, LR_TAR_BLOCK);
        if (got < 0)
            return -1;
        /* The end is a block of zeros. Some who make layers leave it out; digests say that those are whole. */
        if (got == 0 && tar->limits->layer && tar->begin == tar->end && !began)
            return 0;
        if (got == 0)
            return lr_tar_damaged(tar, "it ends too soon");
        memcpy(header, tar->data + tar->begin, LR_TAR_BLOCK);
        tar->begin += LR_TAR_BLOCK;
        if (is_zero((const char *)header))
            return began ? lr_tar_damaged(tar, "it ends too soon") : 0;
        if (!is_whole(header))
            return lr_tar_damaged(tar, "a header's sum is wrong");
        if (lr_tar_spend(tar, LR_TAR_BLOCK))
            return -1;
        if (header->type == 'x' || header->type == 'X')
            result = gather(tar, header, &tar->one);
        else if (header->type == 'g')
            result = gather_all(tar, header);
        else if (header->type == 'L' || header->type == 'K')
            result = gather(tar, header, header->type == 'L' ? &tar->long_name : &tar->long_link);
        else
            return 1;
    }
    return -1;
}

/* The name that pax gives, or GNU's long one, or that in the header, with its prefix. */
static int find_name(struct lr_tar *tar, const struct lr_tar_header *header)
{
    struct lr_text name = tar->meta.path, prefix = {0};
    if (!name.data && tar->long_name.used)
        name = text_of(tar->long_name.data, tar->long_name.used);
    if (!name.data) {
        name = text_of(header->name, sizeof header->name);
        /* star keeps times behind a shorter one; GNU's own headers have another magic, and no prefix. */
        bool star = memcmp(header->rest + 8, "tar", 4) == 0;
        if (memcmp(header->magic, "ustar", 6) == 0)
            prefix = text_of(header->prefix, star ? 131 : sizeof header->prefix);
    }
    tar->shown.used = 0;
    if (prefix.size && (lr_buf_add(&tar->shown, prefix.data, prefix.size, tar->err) ||
                        lr_buf_add(&tar->shown, "/", 1, tar->err)))
        return -1;
    return lr_buf_add(&tar->shown, name.data, name.size, tar->err) || lr_buf_add(&tar->shown, "", 1, tar->err)
               ? -1
               : 0;
}

static struct lr_text target_of(const struct lr_tar *tar, const struct lr_tar_header *header)
{
    if (tar->meta.link.data)
        return tar->meta.link;
    if (tar->long_link.used)
        return text_of(tar->long_link.data, tar->long_link.used);
    return text_of(header->link, sizeof header->link);
}

static int put_record(struct lr_tar *tar, struct lr_record *record, struct lr_text link)
{
    record->path = (uint32_t)tar->path.used;
    record->link = (uint32_t)link.size;
    for (size_t i = 0; i < tar->xattr_count; i++)
        record->xattrs += (uint32_t)(6 + tar->xattrs[i].key.size + tar->xattrs[i].value.size);
    if (lr_tar_put(tar, record, sizeof *record) || lr_tar_put(tar, tar->path.data, tar->path.used) ||
        lr_tar_put(tar, link.data, link.size))
        return -1;
    for (size_t i = 0; i < tar->xattr_count; i++) {
        const struct lr_tar_xattr *attr = &tar->xattrs[i];
        uint16_t key = (uint16_t)attr->key.size;
        uint32_t value = (uint32_t)attr->value.size;
        if (lr_tar_put(tar, &key, sizeof key) || lr_tar_put(tar, &value, sizeof value) ||
            lr_tar_put(tar, attr->key.data, key) || lr_tar_put(tar, attr->value.data, value))
            return -1;
    }
    return 0;
}

static int file(struct lr_tar *tar, struct lr_record *record, const struct lr_tar_header *header,
                uint64_t stored)
{
    uint64_t all = stored, real = stored;
    char end[12] = {0};
    int sparse = lr_tar_sparse(tar, header, &stored, &real);
    if (sparse < 0)
        return -1;
    if (real > tar->limits->size || (tar->found->size += real) > tar->limits->size) {
        char why[80];
        snprintf(why, sizeof why, "holds more than %llu bytes of files",
                 (unsigned long long)tar->limits->size);
        tar->shown.used = 0;
        return lr_tar_refuse(tar, why);
    }
    record->size = real;
    if (tar->limits->direct && !sparse && stored) {
        record->at = 1 + lr_tar_at(tar);
        return put_record(tar, record, (struct lr_text){0}) || lr_tar_skip(tar, stored) ||
                       lr_tar_pad(tar, -all % LR_TAR_BLOCK)
                   ? -1
                   : 0;
    }
    if (put_record(tar, record, (struct lr_text){0}))
        return -1;
    if (!sparse && lr_tar_copy(tar, 0, stored))
        return -1;
    for (size_t i = 0; sparse && i < tar->part_count; i++)
        if (lr_tar_copy(tar, tar->parts[i].offset, tar->parts[i].size))
            return -1;
    memcpy(end, &real, sizeof real);
    return lr_tar_pad(tar, -all % LR_TAR_BLOCK) || lr_tar_put(tar, end, sizeof end) ? -1 : 0;
}

static int hard_link(struct lr_tar *tar, struct lr_record *record, struct lr_text target)
{
    if (lr_tar_path(tar, target, &tar->target))
        return -1;
    if (!tar->target.used)
        return lr_tar_refuse(tar, "is a hard link to what is no file");
    record->kind = LR_RECORD_HARD;
    return put_record(tar, record, (struct lr_text){tar->target.data, tar->target.used});
}

static int device(struct lr_tar *tar, struct lr_record *record, const struct lr_tar_header *header)
{
    int64_t major = 0, minor = 0;
    if (lr_tar_number(header->major, sizeof header->major, &major) ||
        lr_tar_number(header->minor, sizeof header->minor, &minor))
        return lr_tar_damaged(tar, "a device has no number");
    if (strncmp(tar->path.data, "dev/", 4) != 0 || (major == 0 && minor == 0))
        return lr_tar_refuse(tar, "is a device node");
    if (major < 0 || major > 0xfff || minor < 0 || minor > 0xfffff)
        return lr_tar_refuse(tar, "is a device with a number that no device has");
    record->major = (uint32_t)major;
    record->minor = (uint32_t)minor;
    record->kind = header->type == '3' ? LR_RECORD_CHAR : LR_RECORD_BLOCK;
    return put_record(tar, record, (struct lr_text){0});
}

/* Owner, mode and time. */
static int describe(struct lr_tar *tar, const struct lr_tar_header *header, struct lr_record *record)
{
    const struct lr_tar_meta *meta = &tar->meta;
    int64_t mode = 0, mtime = 0, uid = meta->uid.value, gid = meta->gid.value;
    if (lr_tar_number(header->mode, sizeof header->mode, &mode) ||
        lr_tar_number(header->mtime, sizeof header->mtime, &mtime) ||
        (!meta->uid.given && lr_tar_number(header->uid, sizeof header->uid, &uid)) ||
        (!meta->gid.given && lr_tar_number(header->gid, sizeof header->gid, &gid)))
        return lr_tar_damaged(tar, "a header has what is no number");
    if (uid < 0 || uid >= tar->limits->ids || gid < 0 || gid >= tar->limits->ids) {
        char why[sizeof tar->err->step];
        snprintf(why, sizeof why, "belongs to %lld:%lld, and ids go up to %u", (long long)uid, (long long)gid,
                 (unsigned)(tar->limits->ids - 1));
        return lr_tar_refuse(tar, why);
    }
    if (meta->has_mtime)
        mtime = meta->mtime;
    record->mode = (uint32_t)(mode & 07777);
    record->uid = (uint32_t)uid;
    record->gid = (uint32_t)gid;
    record->mtime = mtime < 0 ? 0 : mtime > LAST ? LAST : mtime;
    record->mtime_ns = meta->has_mtime ? meta->mtime_ns : 0;
    return 0;
}

/* Links and the like have no attributes of users. */
static void drop_xattrs(struct lr_tar *tar)
{
    tar->found->xattrs += tar->xattr_count;
    tar->xattr_count = 0;
}

/* '0' stands for all plain files, also those of tars from before types. */
static char type_of(const struct lr_tar *tar, const struct lr_tar_header *header)
{
    size_t length = tar->shown.used - 1;
    if (header->type == 0 && length && tar->shown.data[length - 1] == '/')
        return '5';
    return header->type == 0 || header->type == '7' || header->type == 'S' ? '0' : header->type;
}

static int skip_content(struct lr_tar *tar, int64_t size)
{
    if (size < 0 || (tar->found->size += (uint64_t)size) > tar->limits->size)
        return lr_tar_refuse(tar, "is larger than it may be");
    return lr_tar_skip(tar, (uint64_t)size) || lr_tar_skip(tar, -(uint64_t)size % LR_TAR_BLOCK) ? -1 : 0;
}

static int whiteout(struct lr_tar *tar, const struct lr_tar_header *header, int kind)
{
    struct lr_record record = {.kind = (uint8_t)kind};
    int64_t size = 0;
    drop_xattrs(tar);
    if (lr_tar_number(header->size, sizeof header->size, &size) || size < 0)
        return lr_tar_damaged(tar, "a header has no size");
    size = tar->meta.size.given ? tar->meta.size.value : size;
    if (kind == 1)
        return type_of(tar, header) == '0' ? skip_content(tar, size) : 0;
    return size ? lr_tar_refuse(tar, "is a whiteout with content")
                : put_record(tar, &record, (struct lr_text){0});
}

static int make(struct lr_tar *tar, const struct lr_tar_header *header, char type, struct lr_record *record)
{
    struct lr_text target = target_of(tar, header);
    int64_t size = tar->meta.size.value;
    if (type != '5' && !tar->path.used)
        return lr_tar_refuse(tar, "stands for the root, and is no folder");
    if (lr_tar_xattrs(tar, type == '5'))
        return -1;
    if (type != '0' && type != '5')
        drop_xattrs(tar);
    switch (type) {
    case '0':
        if (!tar->meta.size.given && lr_tar_number(header->size, sizeof header->size, &size))
            return lr_tar_damaged(tar, "a header has no size");
        record->kind = LR_RECORD_FILE;
        return size < 0 ? lr_tar_damaged(tar, "a file's size is negative")
                        : file(tar, record, header, (uint64_t)size);
    case '1':
        return hard_link(tar, record, target);
    case '2':
        record->kind = LR_RECORD_LINK;
        if (!target.size || target.size > TARGET_BYTES || memchr(target.data, 0, target.size))
            return lr_tar_refuse(tar, "is a link to nowhere");
        return put_record(tar, record, target);
    case '3':
    case '4':
        return device(tar, record, header);
    case '5':
        record->kind = LR_RECORD_FOLDER;
        return put_record(tar, record, (struct lr_text){0});
    case '6':
        record->kind = LR_RECORD_FIFO;
        record->mode &= 0777;
        return put_record(tar, record, (struct lr_text){0});
    default:
        return lr_tar_refuse(tar, "is of an unknown type");
    }
}

static int entry(struct lr_tar *tar, const struct lr_tar_header *header)
{
    struct lr_record record = {0};
    tar->meta = tar->for_all;
    tar->xattr_count = tar->part_count = 0;
    if (lr_tar_pax(tar, &tar->one, &tar->meta, true) || find_name(tar, header))
        return -1;
    if (++tar->found->entries > tar->limits->entries) {
        char why[80];
        snprintf(why, sizeof why, "holds more than %llu entries", (unsigned long long)tar->limits->entries);
        tar->shown.used = 0;
        return lr_tar_refuse(tar, why);
    }
    struct lr_text name = {tar->shown.data, tar->shown.used - 1};
    if (lr_tar_path(tar, name, &tar->path) || describe(tar, header, &record))
        return -1;
    int marked = tar->limits->layer ? lr_tar_whiteout(tar) : 0;
    if (marked)
        return marked < 0 ? -1 : whiteout(tar, header, marked);
    return make(tar, header, type_of(tar, header), &record);
}

int lr_tar(int in, int out, const struct lr_tar_limits *limits, struct lr_tar_found *found,
           struct lr_error *err)
{
    struct lr_tar tar = {.in = in, .out = out, .limits = limits, .found = found, .err = err};
    struct lr_tar_header header;
    int result = lr_tar_open(&tar);
    while (result == 0) {
        int got = find(&tar, &header);
        if (got <= 0) {
            result = got;
            break;
        }
        result = entry(&tar, &header);
    }
    if (result == 0 && (lr_tar_flush(&tar) || lr_tar_drain(&tar)))
        result = -1;
    lr_tar_close(&tar);
    return result;
}
