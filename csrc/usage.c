/* usage.c: how much is in a tree. */
#include "tree.h"
#include "walk.h"

static int count(struct lr_walk *walk, struct lr_seen *seen, struct lr_usage *usage, struct lr_error *err)
{
    struct lr_entry entry;
    int event;
    while ((event = lr_walk_next(walk, &entry, err)) > 0) {
        if (event == LR_LEAVE)
            continue;
        usage->entries++;
        if (lr_mount_of(&entry.st) != walk->chain.levels[0].mount)
            continue; /* another file system's */
        if (S_ISDIR(entry.st.stx_mode)) {
            if (lr_walk_enter(walk, &entry, err) < 0)
                return -1;
        } else if (entry.st.stx_nlink > 1) {
            int before = lr_seen_add(seen, &entry.st, NULL, NULL, err);
            if (before < 0)
                return -1;
            if (before)
                continue;
        }
        usage->allocated += entry.st.stx_blocks * 512;
        if (S_ISREG(entry.st.stx_mode) || S_ISLNK(entry.st.stx_mode))
            usage->apparent += entry.st.stx_size;
    }
    return event;
}

int lr_usage(int fd, struct lr_usage *usage, struct lr_error *err)
{
    struct lr_walk walk = {0};
    struct statx st;
    *usage = (struct lr_usage){0};
    struct lr_seen *seen = lr_seen_new();
    if (!seen)
        return lr_fail(err, "get memory", NULL);
    int done = lr_walk_open(&walk, fd, false, err);
    if (done == 0)
        done = count(&walk, seen, usage, err);
    if (done == 0 && lr_statx(fd, ".", &st) == 0)
        usage->allocated += st.stx_blocks * 512;
    lr_walk_close(&walk);
    lr_seen_free(seen);
    return done;
}
