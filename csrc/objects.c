/* objects.c: files that are in the store once, whoever has them; docs/store.md, objects. */
#include "taking.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

void lr_object_place(const char *object, char path[LR_OBJECT + 1])
{
    snprintf(path, LR_OBJECT + 1, "%.2s/%s", object, object + 2);
}

static unsigned folder_of(const char *object)
{
    uint8_t number = 0;
    lr_unhex(object, 1, &number);
    return number;
}

int lr_objects_look(struct lr_taker *taker, struct lr_error *err)
{
    struct lr_chain chain = {0};
    struct lr_names names = {0};
    int done = lr_chain_open(&chain, taker->options->objects, LR_KEEP, false, err);
    if (done == 0)
        done = lr_chain_list(&chain, &names, err);
    for (size_t i = 0; done == 0 && i < names.count; i++)
        if (strlen(lr_names_get(&names, i)) == 2)
            taker->stored[folder_of(lr_names_get(&names, i))] = true;
    lr_names_free(&names);
    lr_chain_close(&chain);
    return done;
}

bool lr_object_is_stored(const struct lr_taker *taker, const struct lr_item *item)
{
    char path[LR_OBJECT + 1];
    struct statx st;
    lr_object_place(item->object, path);
    return taker->stored[folder_of(item->object)] && lr_statx(taker->options->objects, path, &st) == 0;
}

int lr_object_link(const struct lr_taker *taker, const struct lr_item *item, const char *name,
                   struct lr_error *err)
{
    char path[LR_OBJECT + 1];
    int at = lr_chain_fd(&taker->chain);
    lr_object_place(item->object, path);
    /* A look at what is not there costs as much as a link. */
    if (!taker->stored[folder_of(item->object)])
        errno = ENOENT;
    else if (linkat(taker->options->objects, path, at, name, 0) == 0)
        return 1;
    bool added = lr_set_has(&taker->added, item->object, LR_OBJECT - 1);
    /* EMLINK: this object has as many names as it can have; another takes its place. */
    if ((errno == ENOENT || errno == EMLINK) && added &&
        linkat(taker->options->fresh, path, at, name, 0) == 0)
        return 1;
    if (errno == EEXIST || errno == ENOENT || errno == EMLINK)
        return 0;
    return lr_chain_fail(&taker->chain, name, "link the object of", err);
}

int lr_object_add(int at, const char *name, int fresh, const char *object)
{
    char path[LR_OBJECT + 1], folder[3] = {object[0], object[1], '\0'};
    lr_object_place(object, path);
    if (linkat(at, name, fresh, path, 0) == 0)
        return 0;
    if (errno != ENOENT || (mkdirat(fresh, folder, 0700) < 0 && errno != EEXIST))
        return -1;
    return linkat(at, name, fresh, path, 0);
}

int lr_object_make(struct lr_taker *taker, const struct lr_item *item, const char *name, struct lr_error *err)
{
    char path[LR_OBJECT + 1];
    int at = lr_chain_fd(&taker->chain), fresh = taker->options->fresh;
    lr_object_place(item->object, path);
    if (lr_object_add(at, name, fresh, item->object) == 0 ||
        (errno == EEXIST && unlinkat(fresh, path, 0) == 0 && linkat(at, name, fresh, path, 0) == 0))
        return lr_set_add(&taker->added, item->object, LR_OBJECT - 1, err);
    return lr_chain_fail(&taker->chain, name, "make an object of", err);
}

int lr_object_drop(const struct lr_taker *taker, const struct lr_item *item, struct lr_error *err)
{
    char path[LR_OBJECT + 1];
    lr_object_place(item->object, path);
    if (unlinkat(taker->options->objects, path, 0) < 0 && errno != ENOENT)
        return lr_fail(err, "remove the object", item->object);
    return 0;
}

/* As many names as ext4, which allows the fewest, may soon run out of. */
#define MANY 60000

/* One object moves to one of the store's folders. */
static int keep(int from, const char *name, int to, struct lr_error *err)
{
    struct statx st;
    if (renameat2(from, name, to, name, RENAME_NOREPLACE) == 0)
        return 0;
    /* Another import was quicker; or it is one that can have no more names. */
    if (errno == EEXIST && ((lr_statx(to, name, &st) == 0 && st.stx_nlink < MANY) ||
                            /* Or a sweep was. */
                            renameat(from, name, to, name) == 0))
        return 0;
    return lr_fail(err, "keep the object", name);
}

/* All in a folder that the store has, too. */
static int keep_folder(int fresh, const char *folder, int objects, struct lr_error *err)
{
    struct lr_chain chain = {0};
    struct lr_names names = {0};
    int flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    LR_CLEANUP(lr_close) int from = openat(fresh, folder, flags);
    LR_CLEANUP(lr_close) int to = openat(objects, folder, flags);
    if (from < 0 || to < 0)
        return lr_fail(err, "open the objects", folder);
    int done = lr_chain_open(&chain, from, LR_KEEP, false, err);
    if (done == 0)
        done = lr_chain_list(&chain, &names, err);
    for (size_t i = 0; done == 0 && i < names.count; i++)
        done = keep(from, lr_names_get(&names, i), to, err);
    lr_names_free(&names);
    lr_chain_close(&chain);
    return done;
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
        /* What a first import has comes in whole folders. */
        if (*name == '.' || renameat2(fresh, name, objects, name, RENAME_NOREPLACE) == 0)
            continue;
        done =
            errno == EEXIST ? keep_folder(fresh, name, objects, err) : lr_fail(err, "keep the objects", name);
    }
    lr_names_free(&names);
    lr_chain_close(&chain);
    return done;
}
