/* diff.c: an upper against what lies beneath it, with all that a commit must know of both sides, and what is as beneath too.
 * What counts as a change stands in layerrun/layers/diff.py; between.c finds changes alone, between any two stacks.
 *
 * Three kinds of folders are walked. New ones have nothing beneath: all in them is added. Merged
 * ones hold only what was changed: what the upper does not have is as it was. In those that hide
 * (opaque ones, and all within them) whatever the upper does not have is gone, so there the names
 * beneath are listed as well. */
#include "tree.h"
#include "wide.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A run of records ends once it is this long. */
#define RUN 262144

struct frame {
    struct lr_names upper, beneath; /* beneath: only where the folder hides */
    size_t u, b; /* how far in each */
    size_t first, actives; /* which lowers have this folder: a slice of diff->active, top first */
    bool hides;
    bool within; /* it has nothing beneath */
    int64_t since; /* where it hides: since when */
};

struct lr_diff {
    struct lr_chain upper;
    struct lr_chain *lowers; /* those that are active stand in the same folder as the upper */
    size_t count;
    struct frame *frames;
    size_t size;
    size_t *active;
    size_t active_size;
    struct lr_diff_options options;
    struct lr_buf out, path;
};

/* What the merged lowers show under a name. */
struct beneath {
    bool there;
    size_t at; /* the lower it comes from: its place in the frame's slice */
    struct statx st;
};

static struct frame *top(struct lr_diff *diff)
{
    return &diff->frames[diff->upper.depth - 1];
}

static struct lr_chain *lower_of(struct lr_diff *diff, const struct frame *frame, size_t i)
{
    return &diff->lowers[diff->active[frame->first + i]];
}

/* Let diff->path be the path of a name in the current folder. */
static int set_path(struct lr_diff *diff, const char *name, struct lr_error *err)
{
    const struct lr_buf *folder = &diff->upper.path;
    diff->path.used = 0;
    if (lr_buf_add(&diff->path, folder->data, folder->used - 1, err) < 0 ||
        (folder->used > 1 && lr_buf_add(&diff->path, "/", 1, err) < 0))
        return -1;
    return lr_buf_add(&diff->path, name, strlen(name) + 1, err);
}

static int by_text(const void *key, const void *item)
{
    return strcmp(key, *(const char *const *)item);
}

static bool is_in(const struct lr_diff *diff, const char **paths, size_t count)
{
    return count && bsearch(diff->path.data, paths, count, sizeof *paths, by_text);
}

/* `now` and `was` without st where there is nothing; lower: which has `was`; since: when it came into the upper. */
static int emit(struct lr_diff *diff, char change, const struct lr_side *now, const struct lr_side *was,
                int lower, int64_t since, struct lr_error *err)
{
    struct lr_wide wide = {
        .letter = change,
        .within = top(diff)->within,
        .root = is_in(diff, diff->options.roots, diff->options.roots_count),
        .lower = lower,
        .since = since,
        .now = *now,
        .old = *was,
        .userxattr = diff->options.userxattr,
    };
    err->code = 0;
    if (lr_wide_add(&diff->out, &wide, diff->path.data, diff->path.used - 1, err) == 0)
        return 0;
    return err->code ? -1 : lr_chain_fail(&diff->upper, now->name, "look at the attributes of", err);
}

/* 0, or -1 with the record. */
static int look_beneath(struct lr_diff *diff, const struct frame *frame, const char *name,
                        struct beneath *found, struct lr_error *err)
{
    found->there = false;
    for (size_t i = 0; i < frame->actives; i++) {
        const struct lr_chain *lower = lower_of(diff, frame, i);
        if (lr_statx(lr_chain_fd(lower), name, &found->st) < 0) {
            if (errno == ENOENT || errno == ENOTDIR)
                continue;
            /* Where we may not look, whoever was inside could not either. */
            return errno == EACCES ? 0 : lr_chain_fail(lower, name, "look beneath, at", err);
        }
        if (!lower->cross && lr_mount_of(&found->st) != lower->levels[0].mount) {
            errno = EXDEV;
            return lr_chain_fail(lower, name, "look beneath what is mounted on", err);
        }
        found->there = !lr_is_whiteout(&found->st);
        found->at = i;
        return 0;
    }
    return 0;
}

static int make_room(struct lr_diff *diff, size_t frames, size_t active, struct lr_error *err)
{
    if (frames > diff->size) {
        size_t size = frames * 2;
        struct frame *grown = realloc(diff->frames, size * sizeof *grown);
        if (!grown)
            return lr_fail(err, "get memory", NULL);
        memset(grown + diff->size, 0, (size - diff->size) * sizeof *grown);
        diff->frames = grown;
        diff->size = size;
    }
    if (active > diff->active_size) {
        size_t *grown = realloc(diff->active, active * 2 * sizeof *grown);
        if (!grown)
            return lr_fail(err, "get memory", NULL);
        diff->active = grown;
        diff->active_size = active * 2;
    }
    return 0;
}

/* Read the folder that was just entered. */
static int begin(struct lr_diff *diff, struct lr_error *err)
{
    struct frame *frame = top(diff);
    frame->u = frame->b = 0;
    if (lr_chain_list(&diff->upper, &frame->upper, err) < 0)
        return -1;
    lr_names_sort(&frame->upper);
    for (size_t i = 0; frame->hides && i < frame->actives; i++)
        if (lr_chain_list(lower_of(diff, frame, i), &frame->beneath, err) < 0 && err->code != EACCES)
            return -1;
    lr_names_sort(&frame->beneath);
    lr_names_unique(&frame->beneath);
    return 0;
}

/* The lowers that are merged into a folder: from the one found downwards until one hides the rest. */
static int enter_lowers(struct lr_diff *diff, const struct frame *parent, struct frame *frame,
                        const char *name, size_t from, struct lr_error *err)
{
    for (size_t i = from; i < parent->actives; i++) {
        struct statx st;
        struct lr_chain *lower = lower_of(diff, parent, i);
        if (lr_statx(lr_chain_fd(lower), name, &st) < 0)
            continue;
        if (!S_ISDIR(st.stx_mode))
            break; /* a whiteout, or a file: nothing from further down is merged */
        int opaque = lr_is_opaque(lr_chain_fd(lower), name, diff->options.userxattr);
        int entered = lr_chain_enter(lower, name, err);
        if (entered < 0)
            return -1;
        if (entered)
            diff->active[frame->first + frame->actives++] = diff->active[parent->first + i];
        if (opaque == 1)
            break;
    }
    return 0;
}

/* Go into a folder of the upper; `was` is what lies beneath, or NULL where that is no folder. */
static int descend(struct lr_diff *diff, const char *name, const struct statx *st, const struct beneath *was,
                   struct lr_error *err)
{
    size_t level = diff->upper.depth;
    if (make_room(diff, level + 1, top(diff)->first + 2 * top(diff)->actives, err) < 0)
        return -1;
    const struct frame *parent = top(diff);
    struct frame *frame = &diff->frames[level];
    *frame = (struct frame){
        .first = parent->first + parent->actives,
        .hides = parent->hides,
        .since = parent->since,
        .within = was == NULL,
    };
    if (was && !frame->hides) {
        int opaque = lr_is_opaque(lr_chain_fd(&diff->upper), name, diff->options.userxattr);
        if (opaque < 0)
            return lr_chain_fail(&diff->upper, name, "read the attributes of", err);
        frame->hides = opaque;
        frame->since = lr_born(st);
    }
    int entered = lr_chain_enter(&diff->upper, name, err);
    if (entered <= 0)
        return entered;
    if (was && enter_lowers(diff, parent, frame, name, was->at, err) < 0)
        return -1;
    return begin(diff, err);
}

static int leave(struct lr_diff *diff, struct lr_error *err)
{
    struct frame *frame = top(diff);
    lr_names_free(&frame->upper);
    lr_names_free(&frame->beneath);
    for (size_t i = 0; i < frame->actives; i++)
        if (lr_chain_leave(lower_of(diff, frame, i), err) < 0)
            return -1;
    return lr_chain_leave(&diff->upper, err);
}

/* What changed between two entries of one type: 'M', 'P', '=' for nothing, -1. */
static int compare(struct lr_diff *diff, const struct lr_side *now, const struct lr_side *was,
                   struct lr_error *err)
{
    mode_t type = now->st->stx_mode & S_IFMT;
    int same = 1;
    if (type == S_IFREG)
        same = lr_same_content(now, was);
    else if (type == S_IFLNK)
        same = lr_same_target(now, was);
    else if (type == S_IFCHR || type == S_IFBLK)
        same = now->st->stx_rdev_major == was->st->stx_rdev_major &&
               now->st->stx_rdev_minor == was->st->stx_rdev_minor;
    if (same == 0)
        return 'M';
    if (same == 1 && !lr_same_stat(now, was))
        return 'P';
    if (same == 1)
        same = lr_same_xattrs(now, was, diff->options.userxattr);
    if (same < 0)
        return lr_chain_fail(&diff->upper, now->name, "compare", err);
    return same ? '=' : 'P';
}

/* What `was` says, as a side. */
static struct lr_side side_beneath(struct lr_diff *diff, const char *name, const struct beneath *was)
{
    if (!was->there)
        return (struct lr_side){-1, name, NULL};
    return (struct lr_side){lr_chain_fd(lower_of(diff, top(diff), was->at)), name, &was->st};
}

static int number_of(struct lr_diff *diff, const struct beneath *was)
{
    return was->there ? (int)diff->active[top(diff)->first + was->at] : -1;
}

/* An entry that both have, of one type. */
static int both(struct lr_diff *diff, const struct lr_side *now, const struct beneath *was,
                struct lr_error *err)
{
    struct lr_side old = side_beneath(diff, now->name, was);
    int change = '=';
    if (!is_in(diff, diff->options.roots, diff->options.roots_count))
        change = compare(diff, now, &old, err);
    if (change < 0 || emit(diff, (char)change, now, &old, number_of(diff, was), lr_born(now->st), err) < 0)
        return -1;
    return S_ISDIR(now->st->stx_mode) ? descend(diff, now->name, now->st, was, err) : 0;
}

/* It is gone, since then. */
static int gone(struct lr_diff *diff, const char *name, const struct beneath *was, int64_t since,
                struct lr_error *err)
{
    struct lr_side none = {-1, name, NULL}, old = side_beneath(diff, name, was);
    return was->there ? emit(diff, 'D', &none, &old, number_of(diff, was), since, err) : 0;
}

/* A name the upper has. */
static int from_upper(struct lr_diff *diff, const char *name, struct lr_error *err)
{
    struct statx st;
    struct beneath was;
    if (set_path(diff, name, err) < 0)
        return -1;
    if (is_in(diff, diff->options.skip, diff->options.skips))
        return 0;
    if (lr_statx(lr_chain_fd(&diff->upper), name, &st) < 0)
        return errno == ENOENT ? 0 : lr_chain_fail(&diff->upper, name, "look at", err);
    if (lr_mount_of(&st) != diff->upper.levels[0].mount) {
        errno = EXDEV;
        return lr_chain_fail(&diff->upper, name, "compare what is mounted on", err);
    }
    if (look_beneath(diff, top(diff), name, &was, err) < 0)
        return -1;
    if (lr_is_whiteout(&st))
        return gone(diff, name, &was, lr_born(&st), err);
    struct lr_side now = {lr_chain_fd(&diff->upper), name, &st};
    if (was.there && ((st.stx_mode ^ was.st.stx_mode) & S_IFMT) == 0)
        return both(diff, &now, &was, err);
    struct lr_side old = side_beneath(diff, name, &was);
    if (emit(diff, was.there ? 'T' : 'A', &now, &old, number_of(diff, &was), lr_born(&st), err) < 0)
        return -1;
    return S_ISDIR(st.stx_mode) ? descend(diff, name, &st, NULL, err) : 0;
}

/* A name that only what lies beneath may have, in a folder that hides. */
static int from_beneath(struct lr_diff *diff, const char *name, struct lr_error *err)
{
    struct beneath was;
    if (set_path(diff, name, err) < 0)
        return -1;
    if (is_in(diff, diff->options.skip, diff->options.skips))
        return 0;
    if (look_beneath(diff, top(diff), name, &was, err) < 0)
        return -1;
    return gone(diff, name, &was, top(diff)->since, err);
}

/* One name. 1: go on; 0: the end; -1. */
static int step(struct lr_diff *diff, struct lr_error *err)
{
    struct frame *frame = top(diff);
    bool upper = frame->u < frame->upper.count, beneath = frame->b < frame->beneath.count;
    if (!upper && !beneath) {
        if (diff->upper.depth == 1)
            return 0;
        return leave(diff, err) < 0 ? -1 : 1;
    }
    const char *one = upper ? lr_names_get(&frame->upper, frame->u) : NULL;
    const char *two = beneath ? lr_names_get(&frame->beneath, frame->b) : NULL;
    int order = !upper ? 1 : !beneath ? -1 : strcmp(one, two);
    if (order >= 0)
        frame->b++;
    if (order <= 0)
        frame->u++;
    return (order <= 0 ? from_upper(diff, one, err) : from_beneath(diff, two, err)) < 0 ? -1 : 1;
}

/* The root itself: an upper's root is what the merged root's metadata come from. */
static int root(struct lr_diff *diff, struct lr_error *err)
{
    struct statx st, old;
    struct lr_side now = {lr_chain_fd(&diff->upper), ".", &st};
    if (diff->count == 0 || set_path(diff, "", err) < 0)
        return diff->count == 0 ? 0 : -1;
    struct lr_side was = {lr_chain_fd(&diff->lowers[0]), ".", &old};
    if (lr_statx(now.dirfd, ".", &st) < 0 || lr_statx(was.dirfd, ".", &old) < 0)
        return lr_fail(err, "look at the folder", NULL);
    int change =
        is_in(diff, diff->options.roots, diff->options.roots_count) ? '=' : compare(diff, &now, &was, err);
    return change < 0 ? -1 : emit(diff, (char)change, &now, &was, 0, lr_born(&st), err);
}

struct lr_diff *lr_diff_open(int upper, const int *lowers, size_t count,
                             const struct lr_diff_options *options, struct lr_error *err)
{
    struct lr_diff *diff = calloc(1, sizeof *diff);
    struct lr_chain *chains = calloc(count + 1, sizeof *chains);
    if (!diff || !chains) {
        free(diff);
        free(chains);
        lr_fail(err, "get memory", NULL);
        return NULL;
    }
    diff->options = *options;
    diff->lowers = chains;
    int done = lr_chain_open(&diff->upper, upper, LR_KEEP, false, err);
    for (; done == 0 && diff->count < count; diff->count++) {
        bool lowest = diff->count + 1 == count;
        done = lr_chain_open(&chains[diff->count], lowers[diff->count], LR_KEEP / count,
                             lowest && options->cross_mounts, err);
    }
    if (done == 0)
        done = make_room(diff, 1, count, err);
    if (done == 0) {
        for (size_t i = 0; i < count; i++)
            diff->active[i] = i;
        diff->frames[0].actives = count;
        done = root(diff, err) < 0 ? -1 : begin(diff, err);
    }
    if (done == 0)
        return diff;
    lr_diff_close(diff);
    return NULL;
}

int lr_diff_next(struct lr_diff *diff, const char **data, size_t *size, struct lr_error *err)
{
    int more = 1;
    /* What opening found about the root is given first. */
    while (diff->out.used < RUN && (more = step(diff, err)) > 0)
        ;
    *data = diff->out.data;
    *size = diff->out.used;
    diff->out.used = 0;
    return more < 0 ? -1 : 0;
}

void lr_diff_close(struct lr_diff *diff)
{
    if (!diff)
        return;
    lr_chain_close(&diff->upper);
    for (size_t i = 0; i < diff->count; i++)
        lr_chain_close(&diff->lowers[i]);
    for (size_t i = 0; i < diff->size; i++) {
        lr_names_free(&diff->frames[i].upper);
        lr_names_free(&diff->frames[i].beneath);
    }
    free(diff->lowers);
    free(diff->frames);
    free(diff->active);
    lr_buf_free(&diff->out);
    lr_buf_free(&diff->path);
    free(diff);
}
