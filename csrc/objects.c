/* objects.c: files that are in the store once, whoever has them; docs/store.md, objects. */
#include "taking.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* The path of an object beneath the store's `objects`: AB/REST. */
static void place(const char *object, char path[LR_OBJECT + 1])
{
    snprintf(path, LR_OBJECT + 1, "%.2s/%s", object, object + 2);
}

int lr_object_link(const struct lr_taker *taker, const struct lr_item *item, const char *name,
                   struct lr_error *err)
{
    char path[LR_OBJECT + 1];
    int at = lr_chain_fd(&taker->chain);
    place(item->object, path);
    if (linkat(taker->options->objects, path, at, name, 0) == 0 ||
        ((errno == ENOENT || errno == EMLINK) &&
         linkat(taker->options->fresh, item->object, at, name, 0) == 0))
        return 1;
    /* EMLINK: this object has as many names as it can have; another takes its place. */
    if (errno == EEXIST || errno == ENOENT || errno == EMLINK)
        return 0;
    return lr_chain_fail(&taker->chain, name, "link the object of", err);
}

int lr_object_make(const struct lr_taker *taker, const struct lr_item *item, const char *name,
                   struct lr_error *err)
{
    int at = lr_chain_fd(&taker->chain), fresh = taker->options->fresh;
    if (linkat(at, name, fresh, item->object, 0) == 0)
        return 0;
    if (errno == EEXIST && unlinkat(fresh, item->object, 0) == 0 &&
        linkat(at, name, fresh, item->object, 0) == 0)
        return 0;
    return lr_chain_fail(&taker->chain, name, "make an object of", err);
}

int lr_object_drop(const struct lr_taker *taker, const struct lr_item *item, struct lr_error *err)
{
    char path[LR_OBJECT + 1];
    place(item->object, path);
    if (unlinkat(taker->options->objects, path, 0) < 0 && errno != ENOENT)
        return lr_fail(err, "remove the object", item->object);
    return 0;
}

/* As many names as ext4, which allows the fewest, may soon run out of. */
#define MANY 60000

static int keep(int fresh, const char *object, int objects, struct lr_error *err)
{
    char path[LR_OBJECT + 1], folder[3] = {object[0], object[1], '\0'};
    struct statx st;
    place(object, path);
    for (int tries = 0; tries < 2; tries++) {
        if (renameat2(fresh, object, objects, path, RENAME_NOREPLACE) == 0)
            return 0;
        if (errno == EEXIST) {
            /* Another import was quicker; or it is one that can have no more names. */
            if (lr_statx(objects, path, &st) == 0 && st.stx_nlink < MANY)
                return 0;
            if (renameat(fresh, object, objects, path) == 0)
                return 0;
        }
        if (errno != ENOENT || (mkdirat(objects, folder, 0700) < 0 && errno != EEXIST))
            break;
    }
    return lr_fail(err, "keep the object", object);
}

int lr_objects_keep(int fresh, int objects, struct lr_error *err)
{
    struct lr_chain chain = {0};
    struct lr_names names = {0};
    int done = lr_chain_open(&chain, fresh, LR_KEEP, false, err);
    if (done == 0)
        done = lr_chain_list(&chain, &names, err);
    for (size_t i = 0; done == 0 && i < names.count; i++) {
        const char *name = lr_names_get(&names, i);
        if (strlen(name) == LR_OBJECT - 1)
            done = keep(fresh, name, objects, err);
    }
    lr_names_free(&names);
    lr_chain_close(&chain);
    return done;
}
