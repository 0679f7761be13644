/* walk.c: everything beneath a folder, parents first, without recursion; see walk.h. */
#include "walk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Read the current folder into the frame of its level. */
static int begin(struct lr_walk *walk, const struct statx *st, struct lr_error *err)
{
    size_t level = walk->chain.depth - 1;
    if (level >= walk->size) {
        size_t size = walk->size ? walk->size * 2 : 16;
        struct lr_frame *frames = realloc(walk->frames, size * sizeof *frames);
        if (!frames)
            return lr_fail(err, "get memory", NULL);
        memset(frames + walk->size, 0, (size - walk->size) * sizeof *frames);
        walk->frames = frames;
        walk->size = size;
    }
    struct lr_frame *frame = &walk->frames[level];
    frame->next = 0;
    if (st)
        frame->st = *st;
    if (lr_chain_list(&walk->chain, &frame->names, err) < 0)
        return -1;
    if (walk->sorted)
        lr_names_sort(&frame->names);
    return 0;
}

int lr_walk_open(struct lr_walk *walk, int root, bool sorted, struct lr_error *err)
{
    *walk = (struct lr_walk){.sorted = sorted};
    if (lr_chain_open(&walk->chain, root, LR_KEEP, false, err) < 0)
        return -1;
    return begin(walk, NULL, err);
}

int lr_walk_next(struct lr_walk *walk, struct lr_entry *entry, struct lr_error *err)
{
    struct lr_chain *chain = &walk->chain;
    struct lr_frame *frame = &walk->frames[chain->depth - 1];
    while (frame->next < frame->names.count) {
        entry->name = lr_names_get(&frame->names, frame->next++);
        if (lr_statx(lr_chain_fd(chain), entry->name, &entry->st) == 0)
            return LR_ENTRY;
        if (errno != ENOENT)
            return lr_chain_fail(chain, entry->name, "look at", err);
    }
    if (chain->depth == 1)
        return LR_END;
    lr_names_free(&frame->names);
    if (lr_chain_leave(chain, err) < 0)
        return -1;
    /* The frame above stands just past the folder that was entered last. */
    struct lr_frame *parent = &walk->frames[chain->depth - 1];
    entry->name = lr_names_get(&parent->names, parent->next - 1);
    entry->st = walk->frames[chain->depth].st;
    return LR_LEAVE;
}

int lr_walk_enter(struct lr_walk *walk, const struct lr_entry *entry, struct lr_error *err)
{
    int entered = lr_chain_enter(&walk->chain, entry->name, err);
    if (entered <= 0)
        return entered;
    return begin(walk, &entry->st, err) < 0 ? -1 : 1;
}

void lr_walk_close(struct lr_walk *walk)
{
    for (size_t i = 0; i < walk->size; i++)
        lr_names_free(&walk->frames[i].names);
    free(walk->frames);
    lr_chain_close(&walk->chain);
    *walk = (struct lr_walk){0};
}
