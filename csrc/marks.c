/* marks.c: whiteouts and opaque folders of layers that are taken in; see taking.h. */
#include "taking.h"
#include "tree.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

int lr_taker_bare(const struct lr_taker *taker, const char *name, struct lr_error *err)
{
    struct lr_names keys = {0};
    int at = lr_chain_fd(&taker->chain), done = 0;
    char path[320];
    if (lr_xattr_list(at, name, &keys) < 0)
        done = lr_chain_fail(&taker->chain, name, "list the attributes of", err);
    snprintf(path, sizeof path, "/proc/self/fd/%d/%s", at, name);
    for (size_t i = 0; done == 0 && i < keys.count; i++) {
        const char *key = lr_names_get(&keys, i);
        /* The label is the machine's, and SELinux lets nobody remove one. */
        if (strcmp(key, "security.selinux") == 0)
            continue;
        if (lremovexattr(path, key) < 0 && errno != ENODATA && errno != EPERM)
            done = lr_chain_fail(&taker->chain, name, "remove the attributes of", err);
    }
    lr_names_free(&keys);
    return done;
}

/* Is `path` `folder`, or beneath it? */
static bool beneath(const char *path, const char *folder, bool itself)
{
    size_t length = strlen(folder);
    if (length == 0)
        return true;
    return strncmp(path, folder, length) == 0 && (path[length] == '/' || (itself && !path[length]));
}

void lr_taker_forget(struct lr_taker *taker, const char *path, bool itself)
{
    size_t kept = 0;
    for (size_t i = 0; i < taker->absent_count; i++) {
        struct lr_absent *one = &taker->absent[i];
        if (one->layer < taker->layer && beneath(one->path, path, itself))
            free(one->path);
        else
            taker->absent[kept++] = *one;
    }
    taker->absent_count = kept;
}

static int empty(struct lr_taker *taker, int folder, const char *path, struct lr_error *err);

/* Remove what earlier layers have at a path. */
static int take_away(struct lr_taker *taker, int at, const char *name, const char *path, struct lr_error *err)
{
    if (!lr_set_has(&taker->made, path, strlen(path)))
        return lr_remove(at, name, err);
    LR_CLEANUP(lr_close) int folder = openat(at, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return folder < 0 ? 0 : empty(taker, folder, path, err);
}

/* Remove what earlier layers have in a folder; as deep as this layer's own names go, which the reader limits. */
static int empty(struct lr_taker *taker, int folder, const char *path, struct lr_error *err)
{
    struct lr_chain chain = {0};
    struct lr_names names = {0};
    int done = lr_chain_open(&chain, folder, LR_KEEP, false, err);
    if (done == 0)
        done = lr_chain_list(&chain, &names, err);
    for (size_t i = 0; done == 0 && i < names.count; i++) {
        const char *name = lr_names_get(&names, i);
        char *deeper = NULL;
        if (asprintf(&deeper, "%s%s%s", path, *path ? "/" : "", name) < 0)
            done = lr_fail(err, "get memory", NULL);
        else
            done = take_away(taker, lr_chain_fd(&chain), name, deeper, err);
        free(deeper);
    }
    lr_names_free(&names);
    lr_chain_close(&chain);
    return done;
}

/* Open the folder that a mark is about, or that is around what it is about; where that lies behind links its real path becomes
 * the item's. 0; 1: there is none; -1. The chain stands in the root. */
static int open_marked(struct lr_taker *taker, struct lr_item *item, int *at, struct lr_error *err)
{
    const char *slash = strrchr(item->path, '/');
    bool opaque = item->head.kind == LR_RECORD_OPAQUE;
    size_t length = opaque ? item->head.path : slash ? (size_t)(slash - item->path) : 0;
    char *folder = strndup(item->path, length);
    if (!folder)
        return lr_fail(err, "get memory", NULL);
    *at = lr_beneath(taker->chain.levels[0].fd, folder, O_PATH | O_DIRECTORY, 0, false);
    free(folder);
    if (*at >= 0)
        return 0;
    int done = lr_taker_find(taker, item->path, length, err);
    if (done == 0)
        done = lr_taker_moved(taker, item, opaque ? "" : slash ? slash + 1 : item->path, err);
    if (done == 0) {
        *at = openat(lr_chain_fd(&taker->chain), ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (*at < 0)
            done = lr_fail(err, "open", item->path);
    }
    return lr_taker_go_to(taker, "", 0, err) < 0 ? -1 : done;
}

/* Take away what earlier layers have. What was a folder may have become a file, by this layer: then nothing is in it. */
static int apply(struct lr_taker *taker, struct lr_item *item, struct lr_error *err)
{
    bool opaque = item->head.kind == LR_RECORD_OPAQUE;
    /* Folders that are open may be among what goes. */
    if (lr_taker_go_to(taker, "", 0, err) < 0)
        return -1;
    LR_CLEANUP(lr_close) int at = -1;
    int none = open_marked(taker, item, &at, err);
    if (none < 0)
        return -1;
    lr_taker_forget(taker, item->path, !opaque);
    if (none)
        return 0;
    const char *slash = strrchr(item->path, '/'), *name = slash ? slash + 1 : item->path;
    return opaque ? empty(taker, at, item->path, err) : take_away(taker, at, name, item->path, err);
}

/* Say it in overlayfs's own way, for a tree that lies above others: a device node 0:0, or an attribute of the folder. */
static int leave(struct lr_taker *taker, const struct lr_item *item, struct lr_error *err)
{
    const char *key = taker->options->marks == 1 ? "trusted.overlay.opaque" : "user.overlay.opaque";
    int at;
    if (item->head.kind == LR_RECORD_OPAQUE) {
        if (lr_taker_go_to(taker, item->path, strlen(item->path), err) < 0)
            return -1;
        at = lr_chain_fd(&taker->chain);
        return lr_xattr_set(at, ".", key, "y", 1) < 0 ? lr_fail(err, "set the attributes of", item->path) : 0;
    }
    const char *slash = strrchr(item->path, '/');
    if (lr_taker_go_to(taker, item->path, slash ? (size_t)(slash - item->path) : 0, err) < 0)
        return -1;
    at = lr_chain_fd(&taker->chain);
    /* What this layer itself has there hides the rest anyway. */
    if (mknodat(at, slash ? slash + 1 : item->path, S_IFCHR, 0) < 0 && errno != EEXIST)
        return lr_fail(err, "make the whiteout", item->path);
    return 0;
}

int lr_taker_mark(struct lr_taker *taker, struct lr_item *item, struct lr_error *err)
{
    if (!*item->path && item->head.kind == LR_RECORD_WHITEOUT)
        return lr_taker_refuse("takes the root away", item->path, err);
    if (taker->layer > 1 && apply(taker, item, err) < 0)
        return -1;
    return taker->options->marks ? leave(taker, item, err) : 0;
}
