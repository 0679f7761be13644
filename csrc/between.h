/* between.h: two stacks of layers over common ones, while they are walked. Private to csrc/. */
#ifndef LR_BETWEEN_H
#define LR_BETWEEN_H

#include "tree.h"
#include "walk.h"

enum { OLD, NEW, COMMON, SETS };

/* Which layers have the current folder: a slice of between->active, top first. */
struct slice {
    size_t first, count;
};

struct frame {
    struct lr_names names;
    size_t next; /* how far in them */
    size_t path; /* the length of the folder's path in between->path */
    struct slice sets[SETS];
    bool sees[2]; /* do the common layers show through here, on that side? */
    bool inside; /* within one of the paths that are asked for */
};

struct lr_between {
    struct lr_chain *layers; /* all: the old side's own, the new side's own, the common ones */
    size_t count;
    struct frame *frames;
    size_t depth, size;
    size_t *active;
    struct lr_between_options options;
    struct lr_buf heads, paths, path;
};

/* What a side shows under a name. */
struct found {
    bool there;
    size_t set, at, layer; /* where from: the slice, the place in it, the number of the layer */
    struct statx st;
};

/* The current folder. */
struct frame *lr_between_top(struct lr_between *walk);
/* The number of a layer that has a folder, by its place among those of a set. */
size_t lr_between_layer(const struct lr_between *walk, const struct frame *frame, size_t set, size_t at);

/* What a side, OLD or NEW, shows under a name of the current folder. 0, or -1. */
int lr_between_look(struct lr_between *walk, size_t side, const char *name, struct found *found,
                    struct lr_error *err);

/* Go into a folder in the layers of a slice, from the place `at` downwards until one hides the rest; frame->sets[set] becomes
 * those that have it. 1: what lies beneath them shows; 0: it does not; -1. */
int lr_between_enter(struct lr_between *walk, struct frame *frame, const struct slice *from, size_t at,
                     size_t set, const char *name, struct lr_error *err);

#endif
