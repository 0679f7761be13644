/* inodes.c: what is known of inodes, and sets of paths; see taking.h. */
#include "taking.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

struct lr_inode *lr_inodes_add(struct lr_inodes *inodes, uint64_t ino, struct lr_error *err)
{
    if (inodes->count == inodes->size) {
        size_t size = inodes->size + inodes->size / 2 + 1024;
        struct lr_inode *all = realloc(inodes->all, size * sizeof *all);
        if (!all) {
            lr_fail(err, "get memory", NULL);
            return NULL;
        }
        inodes->all = all;
        inodes->size = size;
    }
    struct lr_inode *inode = &inodes->all[inodes->count];
    *inode = (struct lr_inode){.ino = ino, .number = (uint32_t)inodes->count};
    inodes->count++;
    return inode;
}

static bool before(const struct lr_inode *a, const struct lr_inode *b)
{
    return a->ino != b->ino ? a->ino < b->ino : a->number < b->number;
}

static void sink(struct lr_inode *all, size_t at, size_t count)
{
    struct lr_inode one = all[at];
    for (size_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && before(&all[child], &all[child + 1]))
            child++;
        if (!before(&one, &all[child]))
            break;
        all[at] = all[child];
    }
    all[at] = one;
}

/* Heap sort: qsort(3) takes as much memory again. */
void lr_inodes_sort(struct lr_inodes *inodes)
{
    struct lr_inode *all = inodes->all;
    size_t count = inodes->count, kept = 0;
    for (size_t at = count / 2; at-- > 0;)
        sink(all, at, count);
    for (size_t end = count; end > 1;) {
        struct lr_inode last = all[--end];
        all[end] = all[0];
        all[0] = last;
        sink(all, 0, end);
    }
    for (size_t at = 0; at < count; at++)
        if (at + 1 == count || all[at].ino != all[at + 1].ino)
            all[kept++] = all[at];
    inodes->count = kept;
}

struct lr_inode *lr_inodes_find(struct lr_inodes *inodes, uint64_t ino)
{
    size_t low = 0, high = inodes->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (inodes->all[middle].ino < ino)
            low = middle + 1;
        else
            high = middle;
    }
    return low < inodes->count && inodes->all[low].ino == ino ? &inodes->all[low] : NULL;
}

static uint64_t hash_of(const struct lr_set *set, const char *path, size_t length)
{
    uint64_t hash = set->seed ^ 0xcbf29ce484222325ULL;
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (uint8_t)path[i]) * 0x100000001b3ULL;
    hash ^= hash >> 32;
    hash *= 0x9E3779B97F4A7C15ULL;
    hash ^= hash >> 29;
    return hash ? hash : 1;
}

static uint64_t *slot(uint64_t *all, size_t size, uint64_t hash)
{
    size_t at = hash & (size - 1);
    while (all[at] && all[at] != hash)
        at = (at + 1) & (size - 1);
    return &all[at];
}

int lr_set_add(struct lr_set *set, const char *path, size_t length, struct lr_error *err)
{
    if (set->count * 4 >= set->size * 3) {
        struct timespec now;
        size_t size = set->size ? set->size * 2 : 1024;
        uint64_t *all = calloc(size, sizeof *all);
        if (!all)
            return lr_fail(err, "get memory", NULL);
        if (!set->size) {
            clock_gettime(CLOCK_REALTIME, &now);
            set->seed = (uint64_t)now.tv_nsec * 0x9E3779B97F4A7C15ULL;
        }
        for (size_t i = 0; i < set->size; i++)
            if (set->all[i])
                *slot(all, size, set->all[i]) = set->all[i];
        free(set->all);
        set->all = all;
        set->size = size;
    }
    uint64_t hash = hash_of(set, path, length), *found = slot(set->all, set->size, hash);
    set->count += *found == 0;
    *found = hash;
    return 0;
}

bool lr_set_has(const struct lr_set *set, const char *path, size_t length)
{
    return set->size && *slot(set->all, set->size, hash_of(set, path, length)) != 0;
}

void lr_set_free(struct lr_set *set)
{
    free(set->all);
    *set = (struct lr_set){0};
}
