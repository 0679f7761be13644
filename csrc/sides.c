/* sides.c: what either side of a comparison shows under a name, and going into it; see between.h. */
#include "between.h"
#include "compare.h"

#include <errno.h>

struct frame *lr_between_top(struct lr_between *walk)
{
    return &walk->frames[walk->depth - 1];
}

size_t lr_between_layer(const struct lr_between *walk, const struct frame *frame, size_t set, size_t at)
{
    return walk->active[frame->sets[set].first + at];
}

/* What a slice shows under a name. 1: it decides, *found says what is there; 0: it has nothing there; -1. */
static int look_in(struct lr_between *walk, const struct frame *frame, size_t set, const char *name,
                   struct found *found, struct lr_error *err)
{
    for (size_t i = 0; i < frame->sets[set].count; i++) {
        size_t number = lr_between_layer(walk, frame, set, i);
        const struct lr_chain *layer = &walk->layers[number];
        if (lr_statx(lr_chain_fd(layer), name, &found->st) < 0) {
            if (errno == ENOENT || errno == ENOTDIR)
                continue;
            /* Where we may not look, whoever was inside could not either: into what is not their own. */
            return errno == EACCES && set == COMMON ? 1 : lr_chain_fail(layer, name, "look at", err);
        }
        if (!layer->cross && lr_mount_of(&found->st) != layer->levels[0].mount) {
            errno = EXDEV;
            return lr_chain_fail(
                layer, name, set == COMMON ? "look beneath what is mounted on" : "compare what is mounted on",
                err);
        }
        found->there = !lr_is_whiteout(&found->st);
        found->set = set;
        found->at = i;
        found->layer = number;
        return 1;
    }
    return 0;
}

int lr_between_look(struct lr_between *walk, size_t side, const char *name, struct found *found,
                    struct lr_error *err)
{
    const struct frame *frame = lr_between_top(walk);
    found->there = false;
    int done = look_in(walk, frame, side, name, found, err);
    if (done == 0 && frame->sees[side])
        done = look_in(walk, frame, COMMON, name, found, err);
    return done < 0 ? -1 : 0;
}

int lr_between_enter(struct lr_between *walk, struct frame *frame, const struct slice *from, size_t at,
                     size_t set, const char *name, struct lr_error *err)
{
    for (size_t i = at; i < from->count; i++) {
        size_t number = walk->active[from->first + i];
        struct lr_chain *layer = &walk->layers[number];
        struct statx st;
        if (lr_statx(lr_chain_fd(layer), name, &st) < 0) {
            if (errno == ENOENT || errno == ENOTDIR || (errno == EACCES && set == COMMON))
                continue;
            return lr_chain_fail(layer, name, "look at", err);
        }
        if (!S_ISDIR(st.stx_mode))
            return 0; /* a whiteout, or a file: nothing from further down is merged */
        int opaque = lr_is_opaque(lr_chain_fd(layer), name, walk->options.userxattr);
        if (opaque < 0 && set != COMMON)
            return lr_chain_fail(layer, name, "read the attributes of", err);
        int entered = lr_chain_enter(layer, name, err);
        if (entered < 0)
            return -1;
        if (entered)
            walk->active[frame->sets[set].first + frame->sets[set].count++] = number;
        if (opaque == 1)
            return 0;
    }
    return 1;
}
