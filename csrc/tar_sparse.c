/* tar_sparse.c: maps of sparse files: GNU tar's manual, "Storing Sparse Files". */
#include "tar_parts.h"

/* The header of a sparse file in the old form: four pairs of 12 digits, more in blocks of their own, the true size. */
#define OLD_PAIRS 386
#define OLD_MORE 482
#define OLD_REAL 483
#define NEXT_MORE 504
#define PAIR 24

int lr_tar_add_part(struct lr_tar *tar, int64_t offset, int64_t size)
{
    if (offset < 0 || size < 0)
        return lr_tar_refuse(tar, "has a wrong map of its holes");
    if (lr_tar_room((void **)&tar->parts, tar->part_count, &tar->part_room, sizeof *tar->parts, tar->err))
        return -1;
    tar->parts[tar->part_count++] = (struct lr_tar_part){(uint64_t)offset, (uint64_t)size};
    return 0;
}

/* Pairs of an old header, up to the first without a word. */
static int add_pairs(struct lr_tar *tar, const char *at, size_t count)
{
    for (; count && at[0] && at[PAIR / 2]; count--, at += PAIR) {
        int64_t offset = 0, size = 0;
        if (lr_tar_number(at, PAIR / 2, &offset) || lr_tar_number(at + PAIR / 2, PAIR / 2, &size))
            return lr_tar_refuse(tar, "has a wrong map of its holes");
        if (lr_tar_add_part(tar, offset, size))
            return -1;
    }
    return 0;
}

static int read_old(struct lr_tar *tar, const struct lr_tar_header *header, int64_t *real)
{
    const char *block = (const char *)header;
    bool more = block[OLD_MORE] != 0;
    if (lr_tar_number(block + OLD_REAL, PAIR / 2, real))
        return lr_tar_refuse(tar, "has a wrong map of its holes");
    if (add_pairs(tar, block + OLD_PAIRS, 4))
        return -1;
    while (more) {
        int got = lr_tar_spend(tar, LR_TAR_BLOCK) ? -1 : lr_tar_need(tar, LR_TAR_BLOCK);
        if (got <= 0)
            return got ? -1 : lr_tar_damaged(tar, "it ends within a map of holes");
        block = tar->data + tar->begin;
        tar->begin += LR_TAR_BLOCK;
        more = block[NEXT_MORE] != 0;
        if (add_pairs(tar, block, NEXT_MORE / PAIR))
            return -1;
    }
    return 0;
}

/* Form 0.1: numbers with commas. */
static int read_listed(struct lr_tar *tar)
{
    struct lr_text rest = tar->meta.map;
    int64_t pair[2];
    tar->part_count = 0;
    for (int which = 0; rest.size; which = !which) {
        const char *comma = memchr(rest.data, ',', rest.size);
        struct lr_text number = {rest.data, comma ? (size_t)(comma - rest.data) : rest.size};
        if (lr_tar_decimal(number, &pair[which]))
            return lr_tar_refuse(tar, "has a wrong map of its holes");
        if (which && lr_tar_add_part(tar, pair[0], pair[1]))
            return -1;
        size_t used = number.size + (comma != NULL);
        rest = (struct lr_text){rest.data + used, rest.size - used};
    }
    return 0;
}

/* Form 1.0: a line with a number, at the beginning of the file's content. *left: bytes of it in the archive. */
static int read_line(struct lr_tar *tar, int64_t *number, uint64_t *left)
{
    char digits[24];
    size_t count = 0;
    for (;;) {
        if (*left == 0 || count == sizeof digits)
            return lr_tar_refuse(tar, "has a wrong map of its holes");
        int got = lr_tar_spend(tar, 1) ? -1 : lr_tar_need(tar, 1);
        if (got <= 0)
            return got ? -1 : lr_tar_damaged(tar, "it ends within a map of holes");
        --*left;
        char c = tar->data[tar->begin++];
        if (c == '\n')
            break;
        digits[count++] = c;
    }
    return lr_tar_decimal((struct lr_text){digits, count}, number) || *number < 0
               ? lr_tar_refuse(tar, "has a wrong map of its holes")
               : 0;
}

static int read_in_content(struct lr_tar *tar, uint64_t *stored)
{
    int64_t count = 0, offset = 0, size = 0;
    uint64_t left = *stored;
    tar->part_count = 0;
    if (read_line(tar, &count, &left))
        return -1;
    for (; count; count--)
        if (read_line(tar, &offset, &left) || read_line(tar, &size, &left) ||
            lr_tar_add_part(tar, offset, size))
            return -1;
    /* It fills its last block. */
    uint64_t padding = (LR_TAR_BLOCK - (*stored - left) % LR_TAR_BLOCK) % LR_TAR_BLOCK;
    if (padding > left)
        return lr_tar_refuse(tar, "has a wrong map of its holes");
    *stored = left - padding;
    return lr_tar_skip(tar, padding);
}

/* Parts lie one behind the other within the file, and are all that the archive has of it. */
static int check(struct lr_tar *tar, uint64_t stored, uint64_t real)
{
    uint64_t end = 0, sum = 0;
    for (size_t i = 0; i < tar->part_count; i++) {
        const struct lr_tar_part *part = &tar->parts[i];
        if (part->offset < end || part->offset > real || part->size > real - part->offset)
            return lr_tar_refuse(tar, "has a wrong map of its holes");
        end = part->offset + part->size;
        sum += part->size;
    }
    return sum == stored ? 0 : lr_tar_refuse(tar, "has a wrong map of its holes");
}

int lr_tar_sparse(struct lr_tar *tar, const struct lr_tar_header *header, uint64_t *stored, uint64_t *real)
{
    const struct lr_tar_meta *meta = &tar->meta;
    int64_t size = meta->real.value;
    if (header->type == 'S') {
        tar->part_count = 0;
        if (read_old(tar, header, &size))
            return -1;
    } else if (!meta->major.given && !meta->map.data && !tar->part_count && !meta->real.given)
        return 0;
    else if (!meta->real.given || (meta->major.given && meta->major.value > 1))
        return lr_tar_refuse(tar, "is a sparse file of an unknown form");
    else if (meta->major.given && meta->major.value == 1) {
        if (read_in_content(tar, stored))
            return -1;
    } else if (meta->map.data && read_listed(tar))
        return -1;
    if (size < 0 || check(tar, *stored, (uint64_t)size))
        return size < 0 ? lr_tar_refuse(tar, "has a wrong map of its holes") : -1;
    *real = (uint64_t)size;
    return 1;
}
