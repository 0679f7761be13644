/* sweep.c: objects that nothing uses any more, and what trees have in common; see intake.h. */
#include "intake.h"
#include "walk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

static int sweep_folder(int objects, const char *folder, int dry, struct lr_swept *swept,
                        struct lr_error *err)
{
    struct lr_chain chain = {0};
    struct lr_names names = {0};
    struct statx st;
    LR_CLEANUP(lr_close) int at = openat(objects, folder, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (at < 0)
        return errno == ENOENT || errno == ENOTDIR ? 0 : lr_fail(err, "open the objects", folder);
    int done = lr_chain_open(&chain, at, LR_KEEP, false, err);
    if (done == 0)
        done = lr_chain_list(&chain, &names, err);
    for (size_t i = 0; done == 0 && i < names.count; i++) {
        const char *name = lr_names_get(&names, i);
        /* Who links it just now has it all the same: only the next import makes another. */
        if (lr_statx(at, name, &st) < 0 || st.stx_nlink != 1 || !S_ISREG(st.stx_mode))
            continue;
        if (!dry && unlinkat(at, name, 0) < 0 && errno != ENOENT)
            done = lr_fail(err, "remove the object", name);
        swept->count++;
        swept->bytes += st.stx_blocks * 512;
    }
    lr_names_free(&names);
    lr_chain_close(&chain);
    return done;
}

int lr_objects_sweep(int objects, int dry, struct lr_swept *swept, struct lr_error *err)
{
    struct lr_chain chain = {0};
    struct lr_names names = {0};
    *swept = (struct lr_swept){0};
    int done = lr_chain_open(&chain, objects, LR_KEEP, false, err);
    if (done == 0)
        done = lr_chain_list(&chain, &names, err);
    for (size_t i = 0; done == 0 && i < names.count; i++)
        done = sweep_folder(objects, lr_names_get(&names, i), dry, swept, err);
    lr_names_free(&names);
    lr_chain_close(&chain);
    return done;
}

/* An inode that was met. */
struct share {
    uint64_t ino, blocks;
    uint32_t nlink, here; /* names in the tree that is looked at */
    uint32_t tree; /* its number; 0: none yet */
    bool object;
};

struct lr_shares {
    struct share *all;
    size_t count, size; /* size is a power of two */
    uint32_t tree;
    uint64_t total;
};

static struct share *slot(struct share *all, size_t size, uint64_t ino)
{
    for (size_t i = (ino * 0x9E3779B97F4A7C15ULL >> 20) & (size - 1);; i = (i + 1) & (size - 1))
        if (all[i].ino == ino || all[i].ino == 0)
            return &all[i];
}

static struct share *find(struct lr_shares *shares, uint64_t ino, struct lr_error *err)
{
    if (shares->count * 2 >= shares->size) {
        size_t size = shares->size ? shares->size * 2 : 4096;
        struct share *all = calloc(size, sizeof *all);
        if (!all) {
            lr_fail(err, "get memory", NULL);
            return NULL;
        }
        for (size_t i = 0; i < shares->size; i++)
            if (shares->all[i].ino)
                *slot(all, size, shares->all[i].ino) = shares->all[i];
        free(shares->all);
        shares->all = all;
        shares->size = size;
    }
    struct share *one = slot(shares->all, shares->size, ino);
    shares->count += one->ino == 0;
    one->ino = ino;
    return one;
}

static int add_objects(struct lr_shares *shares, int objects, struct lr_error *err)
{
    struct lr_walk walk = {0};
    struct lr_entry entry;
    int event = 0, done = lr_walk_open(&walk, objects, false, err);
    while (done == 0 && (event = lr_walk_next(&walk, &entry, err)) > 0) {
        if (event == LR_LEAVE)
            continue;
        struct share *one = S_ISREG(entry.st.stx_mode) ? find(shares, entry.st.stx_ino, err) : NULL;
        if (one)
            one->object = true;
        else if (S_ISREG(entry.st.stx_mode))
            done = -1;
        if (S_ISDIR(entry.st.stx_mode) && lr_walk_enter(&walk, &entry, err) < 0)
            done = -1;
    }
    lr_walk_close(&walk);
    return event < 0 ? -1 : done;
}

struct lr_shares *lr_shares_open(int objects, struct lr_error *err)
{
    struct lr_shares *shares = calloc(1, sizeof *shares);
    if (!shares) {
        lr_fail(err, "get memory", NULL);
        return NULL;
    }
    if (add_objects(shares, objects, err) == 0)
        return shares;
    lr_shares_close(shares);
    return NULL;
}

static int meet(struct lr_shares *shares, const struct statx *st, struct lr_tree_use *use,
                struct lr_error *err)
{
    uint64_t bytes = st->stx_blocks * 512;
    if (S_ISDIR(st->stx_mode) || st->stx_nlink == 1) {
        use->all += bytes;
        use->own += bytes;
        shares->total += bytes;
        return 0;
    }
    struct share *one = find(shares, st->stx_ino, err);
    if (!one)
        return -1;
    shares->total += one->tree ? 0 : bytes;
    if (one->tree != shares->tree) {
        one->tree = shares->tree;
        one->here = 0;
        use->all += bytes;
    }
    one->here++;
    one->nlink = st->stx_nlink;
    one->blocks = bytes;
    return 0;
}

static int meet_all(struct lr_shares *shares, int tree, struct lr_tree_use *use, struct lr_error *err)
{
    struct lr_walk walk = {0};
    struct lr_entry entry;
    int event = 0, done = lr_walk_open(&walk, tree, false, err);
    while (done == 0 && (event = lr_walk_next(&walk, &entry, err)) > 0) {
        if (event == LR_ENTRY)
            done = meet(shares, &entry.st, use, err);
        if (done == 0 && event == LR_ENTRY && S_ISDIR(entry.st.stx_mode) &&
            lr_walk_enter(&walk, &entry, err) < 0)
            done = -1;
    }
    lr_walk_close(&walk);
    return event < 0 ? -1 : done;
}

int lr_shares_add(struct lr_shares *shares, const int *trees, size_t count, struct lr_tree_use *use,
                  struct lr_error *err)
{
    int done = 0;
    *use = (struct lr_tree_use){0};
    shares->tree++;
    for (size_t i = 0; done == 0 && i < count; i++)
        done = meet_all(shares, trees[i], use, err);
    for (size_t i = 0; i < shares->size; i++) {
        const struct share *one = &shares->all[i];
        /* Nobody else has a name for it, but perhaps the objects, and that goes as well. */
        if (one->ino && one->tree == shares->tree && one->here + one->object >= one->nlink)
            use->own += one->blocks;
    }
    use->total = shares->total;
    return done;
}

void lr_shares_close(struct lr_shares *shares)
{
    if (shares)
        free(shares->all);
    free(shares);
}
