/* between.c: what differs between two stacks of layers that stand on common ones; see tree.h.
 *
 * A side is its own layers, top first, and beneath them the common ones. A name that only common layers have is the same on
 * both sides, so only the names in a side's own layers are looked at, unless one side sees what is common in a folder and
 * the other does not (its folder is opaque, new or gone). So the cost is that of the sides' own layers. */
#include "between.h"

#include "compare.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A run of records ends once it is this long. */
#define RUN 262144

struct __attribute__((packed)) part {
    uint32_t mode, uid, gid, rdev_major, rdev_minor, dev_major, dev_minor, nlink;
    uint64_t ino, mount, size;
    int64_t mtime, ctime;
};

struct __attribute__((packed)) head {
    uint8_t letter, has_new, has_old, zero;
    uint32_t new_layer, old_layer;
    struct part now, was;
};

static int64_t nanoseconds(const struct statx_timestamp *time)
{
    return time->tv_sec * 1000000000 + time->tv_nsec;
}

static struct part part_of(const struct statx *st)
{
    return (struct part){
        .mode = st->stx_mode,
        .uid = st->stx_uid,
        .gid = st->stx_gid,
        .rdev_major = st->stx_rdev_major,
        .rdev_minor = st->stx_rdev_minor,
        .dev_major = st->stx_dev_major,
        .dev_minor = st->stx_dev_minor,
        .nlink = st->stx_nlink,
        .ino = st->stx_ino,
        .mount = lr_mount_of(st),
        .size = st->stx_size,
        .mtime = nanoseconds(&st->stx_mtime),
        .ctime = nanoseconds(&st->stx_ctime),
    };
}

static int emit(struct lr_between *walk, char letter, const struct found *now, const struct found *was,
                struct lr_error *err)
{
    struct head head = {
        .letter = (uint8_t)letter,
        .has_new = now->there,
        .has_old = was->there,
        .new_layer = now->there ? (uint32_t)now->layer : 0,
        .old_layer = was->there ? (uint32_t)was->layer : 0,
    };
    if (now->there)
        head.now = part_of(&now->st);
    if (was->there)
        head.was = part_of(&was->st);
    if (lr_buf_add(&walk->heads, &head, sizeof head, err) < 0)
        return -1;
    return lr_buf_add(&walk->paths, walk->path.data, walk->path.used, err);
}

/* Let walk->path be the path of a name in the current folder. */
static int set_path(struct lr_between *walk, const char *name, struct lr_error *err)
{
    size_t folder = lr_between_top(walk)->path;
    walk->path.used = folder;
    if (folder && lr_buf_add(&walk->path, "/", 1, err) < 0)
        return -1;
    return lr_buf_add(&walk->path, name, strlen(name) + 1, err);
}

static int by_text(const void *key, const void *item)
{
    return strcmp(key, *(const char *const *)item);
}

static bool is_in(const struct lr_between *walk, const char **paths, size_t count)
{
    return count && bsearch(walk->path.data, paths, count, sizeof *paths, by_text);
}

/* Is something beneath the current path among the sorted paths? */
static bool leads_to(const struct lr_between *walk, const char **paths, size_t count)
{
    size_t length = walk->path.used - 1, low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strncmp(paths[middle], walk->path.data, length);
        if (order < 0 || (order == 0 && (unsigned char)paths[middle][length] < '/'))
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && strncmp(paths[low], walk->path.data, length) == 0 && paths[low][length] == '/';
}

/* Read the folder that was just entered. */
static int begin(struct lr_between *walk, struct lr_error *err)
{
    struct frame *frame = lr_between_top(walk);
    frame->next = 0;
    for (size_t set = 0; set < SETS; set++) {
        if (set == COMMON && frame->sees[OLD] == frame->sees[NEW])
            continue;
        for (size_t i = 0; i < frame->sets[set].count; i++) {
            const struct lr_chain *layer = &walk->layers[lr_between_layer(walk, frame, set, i)];
            if (lr_chain_list(layer, &frame->names, err) < 0 && (set != COMMON || err->code != EACCES))
                return -1;
        }
    }
    lr_names_sort(&frame->names);
    lr_names_unique(&frame->names);
    return 0;
}

static int make_room(struct lr_between *walk, size_t active, struct lr_error *err)
{
    if (walk->depth == walk->size) {
        size_t size = walk->size ? walk->size * 2 : 16;
        struct frame *frames = realloc(walk->frames, size * sizeof *frames);
        if (!frames)
            return lr_fail(err, "get memory", NULL);
        memset(frames + walk->size, 0, (size - walk->size) * sizeof *frames);
        walk->frames = frames;
        walk->size = size;
    }
    size_t *grown = realloc(walk->active, (active ? active : 1) * sizeof *grown);
    if (!grown)
        return lr_fail(err, "get memory", NULL);
    walk->active = grown;
    return 0;
}

/* Go into a folder of one side or of both. */
static int descend(struct lr_between *walk, const char *name, const struct found sides[2], bool inside,
                   struct lr_error *err)
{
    struct slice last = lr_between_top(walk)->sets[COMMON];
    if (make_room(walk, last.first + last.count + walk->count, err) < 0)
        return -1;
    const struct frame *parent = lr_between_top(walk);
    struct frame *frame = &walk->frames[walk->depth];
    *frame = (struct frame){.path = walk->path.used - 1, .inside = inside};
    size_t used = last.first + last.count;
    for (size_t side = 0; side < 2; side++) {
        const struct found *found = &sides[side];
        frame->sets[side].first = used;
        if (!found->there || !S_ISDIR(found->st.stx_mode))
            continue;
        int shows = 1;
        if (found->set != COMMON)
            shows = lr_between_enter(walk, frame, &parent->sets[side], found->at, side, name, err);
        if (shows < 0)
            return -1;
        frame->sees[side] = shows && parent->sees[side];
        used += frame->sets[side].count;
    }
    frame->sets[COMMON].first = used;
    if ((frame->sees[OLD] || frame->sees[NEW]) &&
        lr_between_enter(walk, frame, &parent->sets[COMMON], 0, COMMON, name, err) < 0)
        return -1;
    walk->depth++;
    return begin(walk, err);
}

static int leave(struct lr_between *walk, struct lr_error *err)
{
    struct frame *frame = lr_between_top(walk);
    lr_names_free(&frame->names);
    for (size_t set = 0; set < SETS; set++)
        for (size_t i = 0; i < frame->sets[set].count; i++)
            if (lr_chain_leave(&walk->layers[lr_between_layer(walk, frame, set, i)], err) < 0)
                return -1;
    walk->depth--;
    return 0;
}

/* What differs between two entries of one type: 'M', 'P', 0 for nothing, -1. */
static int compare(struct lr_between *walk, const char *name, const struct found *now,
                   const struct found *was, struct lr_error *err)
{
    struct lr_side one = {lr_chain_fd(&walk->layers[now->layer]), name, &now->st};
    struct lr_side two = {lr_chain_fd(&walk->layers[was->layer]), name, &was->st};
    mode_t type = now->st.stx_mode & S_IFMT;
    int same = 1;
    if (now->st.stx_ino == was->st.stx_ino && now->st.stx_dev_major == was->st.stx_dev_major &&
        now->st.stx_dev_minor == was->st.stx_dev_minor)
        return 0; /* hard links between layers */
    if (type == S_IFREG)
        same = lr_same_content(&one, &two);
    else if (type == S_IFLNK)
        same = lr_same_target(&one, &two);
    else if (type == S_IFCHR || type == S_IFBLK)
        same = now->st.stx_rdev_major == was->st.stx_rdev_major &&
               now->st.stx_rdev_minor == was->st.stx_rdev_minor;
    if (same == 0)
        return 'M';
    if (same == 1 && !lr_same_stat(&one, &two))
        return 'P';
    if (same == 1)
        same = lr_same_xattrs(&one, &two, walk->options.userxattr);
    if (same < 0)
        return lr_chain_fail(&walk->layers[now->layer], name, "compare", err);
    return same ? 0 : 'P';
}

/* The letter of a difference, 0 for none, -1. */
static int judge(struct lr_between *walk, const char *name, const struct found sides[2], struct lr_error *err)
{
    const struct found *now = &sides[NEW], *was = &sides[OLD];
    if (!now->there)
        return 'D';
    bool same_type = was->there && ((now->st.stx_mode ^ was->st.stx_mode) & S_IFMT) == 0;
    /* Only metadata of what layerrun itself made do not count, or that it is there at all. */
    if (is_in(walk, walk->options.roots, walk->options.roots_count))
        return 0;
    if (same_type)
        return compare(walk, name, now, was, err);
    return was->there ? 'T' : 'A';
}

static bool is_folder(const struct found *found)
{
    return found->there && S_ISDIR(found->st.stx_mode);
}

static int one_name(struct lr_between *walk, const char *name, struct lr_error *err)
{
    const struct lr_between_options *options = &walk->options;
    struct found sides[2];
    if (set_path(walk, name, err) < 0)
        return -1;
    if (is_in(walk, options->skip, options->skips))
        return 0;
    bool inside = lr_between_top(walk)->inside || is_in(walk, options->only, options->onlys);
    if (!inside && !leads_to(walk, options->only, options->onlys))
        return 0;
    if (lr_between_look(walk, OLD, name, &sides[OLD], err) < 0 ||
        lr_between_look(walk, NEW, name, &sides[NEW], err) < 0)
        return -1;
    if (!sides[OLD].there && !sides[NEW].there)
        return 0;
    if (sides[OLD].there && sides[NEW].there && sides[OLD].layer == sides[NEW].layer)
        return 0; /* a common layer's, and nobody has anything above it */
    int letter = judge(walk, name, sides, err);
    if (letter < 0)
        return -1;
    /* A folder on the way to what is asked for is no answer, unless all in it is gone with it. */
    bool told = letter && (inside || letter == 'D' || letter == 'T');
    if (told && emit(walk, (char)letter, &sides[NEW], &sides[OLD], err) < 0)
        return -1;
    if (is_folder(&sides[NEW]) || (options->deep && is_folder(&sides[OLD])))
        return descend(walk, name, sides, inside, err);
    return 0;
}

/* One name, or the end of a folder. 1: go on; 0: the end; -1. */
static int step(struct lr_between *walk, struct lr_error *err)
{
    struct frame *frame = lr_between_top(walk);
    if (frame->next < frame->names.count)
        return one_name(walk, lr_names_get(&frame->names, frame->next++), err) < 0 ? -1 : 1;
    if (walk->depth == 1)
        return 0;
    return leave(walk, err) < 0 ? -1 : 1;
}

/* The roots themselves: the metadata of a merged root are those of its topmost layer. */
static int root(struct lr_between *walk, struct lr_error *err)
{
    struct frame *frame = lr_between_top(walk);
    struct found sides[2];
    if (set_path(walk, "", err) < 0)
        return -1;
    frame->inside = walk->options.onlys == 0 || is_in(walk, walk->options.only, walk->options.onlys);
    if (!frame->inside || is_in(walk, walk->options.roots, walk->options.roots_count))
        return 0;
    for (size_t side = 0; side < 2; side++) {
        size_t set = frame->sets[side].count ? side : COMMON;
        sides[side] = (struct found){.there = frame->sets[set].count > 0, .set = set};
        if (!sides[side].there)
            return 0;
        sides[side].layer = lr_between_layer(walk, frame, set, 0);
        if (lr_statx(lr_chain_fd(&walk->layers[sides[side].layer]), ".", &sides[side].st) < 0)
            return lr_fail(err, "look at the folder", NULL);
    }
    if (sides[OLD].layer == sides[NEW].layer)
        return 0;
    int letter = compare(walk, ".", &sides[NEW], &sides[OLD], err);
    return letter > 0 ? emit(walk, (char)letter, &sides[NEW], &sides[OLD], err) : letter;
}

static int open_layers(struct lr_between *walk, const int *fds, const size_t counts[3], struct lr_error *err)
{
    size_t total = counts[OLD] + counts[NEW] + counts[COMMON];
    walk->layers = calloc(total + 1, sizeof *walk->layers);
    if (!walk->layers || make_room(walk, total, err) < 0)
        return walk->layers ? -1 : lr_fail(err, "get memory", NULL);
    for (; walk->count < total; walk->count++) {
        bool lowest = walk->count + 1 == total;
        if (lr_chain_open(&walk->layers[walk->count], fds[walk->count], LR_KEEP / total,
                          lowest && walk->options.cross_mounts, err) < 0)
            return -1;
        walk->active[walk->count] = walk->count;
    }
    struct frame *frame = &walk->frames[walk->depth++];
    for (size_t set = 0, first = 0; set < SETS; first += counts[set++])
        frame->sets[set] = (struct slice){first, counts[set]};
    frame->sees[OLD] = frame->sees[NEW] = true;
    return 0;
}

struct lr_between *lr_between_open(const int *fds, const size_t counts[3],
                                   const struct lr_between_options *options, struct lr_error *err)
{
    struct lr_between *walk = calloc(1, sizeof *walk);
    if (!walk) {
        lr_fail(err, "get memory", NULL);
        return NULL;
    }
    walk->options = *options;
    if (open_layers(walk, fds, counts, err) == 0 && root(walk, err) == 0 && begin(walk, err) == 0)
        return walk;
    lr_between_close(walk);
    return NULL;
}

int lr_between_next(struct lr_between *walk, struct lr_run *run, struct lr_error *err)
{
    int more = 1;
    /* What opening found about the roots is given first. */
    while (walk->heads.used < RUN && (more = step(walk, err)) > 0)
        ;
    *run = (struct lr_run){walk->heads.data, walk->heads.used, walk->paths.data, walk->paths.used};
    walk->heads.used = walk->paths.used = 0;
    return more < 0 ? -1 : 0;
}

void lr_between_close(struct lr_between *walk)
{
    if (!walk)
        return;
    for (size_t i = 0; i < walk->count; i++)
        lr_chain_close(&walk->layers[i]);
    for (size_t i = 0; i < walk->size; i++)
        lr_names_free(&walk->frames[i].names);
    free(walk->layers);
    free(walk->frames);
    free(walk->active);
    lr_buf_free(&walk->heads);
    lr_buf_free(&walk->paths);
    lr_buf_free(&walk->path);
    free(walk);
}
