/* seen.c: a set of inodes with the path each was first met at; see walk.h. */
#include "walk.h"

#include <stdlib.h>
#include <string.h>

struct slot {
    uint64_t ino;
    uint32_t major, minor;
    size_t path; /* where in the buffer, plus one; 0: a free slot */
};

struct lr_seen {
    struct slot *slots;
    size_t count, size; /* size is a power of two */
    struct lr_buf paths;
};

struct lr_seen *lr_seen_new(void)
{
    return calloc(1, sizeof(struct lr_seen));
}

void lr_seen_free(struct lr_seen *seen)
{
    if (!seen)
        return;
    free(seen->slots);
    lr_buf_free(&seen->paths);
    free(seen);
}

/* The slot that holds this inode, or the free one where it belongs. */
static struct slot *find(struct slot *slots, size_t size, uint64_t ino, uint32_t major, uint32_t minor)
{
    uint64_t hash = (ino ^ ((uint64_t)major << 40) ^ ((uint64_t)minor << 20)) * 0x9E3779B97F4A7C15ULL;
    for (size_t i = (hash >> 32) & (size - 1);; i = (i + 1) & (size - 1)) {
        struct slot *slot = &slots[i];
        if (slot->path == 0 || (slot->ino == ino && slot->major == major && slot->minor == minor))
            return slot;
    }
}

static int grow(struct lr_seen *seen, struct lr_error *err)
{
    size_t size = seen->size ? seen->size * 2 : 64;
    struct slot *slots = calloc(size, sizeof *slots);
    if (!slots)
        return lr_fail(err, "get memory", NULL);
    for (size_t i = 0; i < seen->size; i++) {
        const struct slot *old = &seen->slots[i];
        if (old->path)
            *find(slots, size, old->ino, old->major, old->minor) = *old;
    }
    free(seen->slots);
    seen->slots = slots;
    seen->size = size;
    return 0;
}

int lr_seen_add(struct lr_seen *seen, const struct statx *st, const char *path, const char **before,
                struct lr_error *err)
{
    if (seen->count * 2 >= seen->size && grow(seen, err) < 0)
        return -1;
    struct slot *slot = find(seen->slots, seen->size, st->stx_ino, st->stx_dev_major, st->stx_dev_minor);
    if (slot->path) {
        if (before)
            *before = seen->paths.data + slot->path - 1;
        return 1;
    }
    size_t at = seen->paths.used;
    if (path && lr_buf_add(&seen->paths, path, strlen(path) + 1, err) < 0)
        return -1;
    *slot = (struct slot){st->stx_ino, st->stx_dev_major, st->stx_dev_minor, at + 1};
    seen->count++;
    return 0;
}
