/* through.c: what lies behind links of earlier layers, found within the tree; see taking.h.
 *
 * An entry beneath a link that an earlier layer brought is meant for where that leads, with the tree as the root. The chain
 * goes there name by name, through no link that the kernel would follow, so nothing leads out of the tree. Links of the entry's
 * own layer are not followed: no archive has a reason to write through its own.
 */
#include "taking.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

/* Links on the way of one path, and names in their targets: the kernel follows 40 links, loops end here. */
#define STEPS 255

static int to_root(struct lr_taker *taker, struct lr_error *err)
{
    while (taker->chain.depth > 1)
        if (lr_chain_leave(&taker->chain, err) < 0)
            return -1;
    return 0;
}

/* The path of a name in the folder that the chain stands in; "" is the folder. */
static int real_path(const struct lr_taker *taker, const char *name, struct lr_buf *to, struct lr_error *err)
{
    const struct lr_buf *folder = &taker->chain.path;
    to->used = 0;
    if (lr_buf_add(to, folder->data, folder->used - 1, err) < 0 ||
        (to->used && *name && lr_buf_add(to, "/", 1, err) < 0))
        return -1;
    return lr_buf_add(to, name, strlen(name) + 1, err);
}

int lr_taker_moved(struct lr_taker *taker, struct lr_item *item, const char *name, struct lr_error *err)
{
    struct lr_buf *real = &taker->real[0];
    if (taker->options->strict && taker->chain.depth > LR_PARTS)
        return lr_taker_refuse("lies too deep", item->path, err);
    if (real_path(taker, name, real, err) < 0)
        return -1;
    item->path = real->data;
    item->head.path = (uint32_t)(real->used - 1);
    return 0;
}

int lr_taker_moved_link(struct lr_taker *taker, struct lr_item *item, const char *name, struct lr_error *err)
{
    struct lr_buf *real = &taker->real[1];
    if (real_path(taker, name, real, err) < 0)
        return -1;
    item->link = real->data;
    item->head.link = (uint32_t)(real->used - 1);
    return 0;
}

int lr_taker_is_earlier(const struct lr_taker *taker, const char *name, struct lr_error *err)
{
    struct lr_buf path = {0};
    int done = taker->layer > 1 ? real_path(taker, name, &path, err) : -2;
    bool made = done == 0 && lr_set_has(&taker->made, path.data, path.used - 1);
    lr_buf_free(&path);
    return done == -1 ? -1 : done == 0 && !made;
}

/* Put the target of a link before what is left of the way; the chain goes to where it is meant from. */
static int turn(struct lr_taker *taker, const char *name, const char *rest, struct lr_buf *way,
                struct lr_error *err)
{
    char target[PATH_MAX];
    struct lr_buf turned = {0};
    ssize_t size = readlinkat(lr_chain_fd(&taker->chain), name, target, sizeof target);
    if (size < 0)
        return lr_chain_fail(&taker->chain, name, "read the link", err);
    int done = lr_buf_add(&turned, target, (size_t)size, err) < 0 || lr_buf_add(&turned, "/", 1, err) < 0 ||
                       lr_buf_add(&turned, rest, strlen(rest) + 1, err) < 0
                   ? -1
                   : 0;
    lr_buf_free(way);
    *way = turned;
    return done == 0 && *target == '/' ? to_root(taker, err) : done;
}

/* Go into one folder of the way. 0; 1: there is none, errno says why, ELOOP: a link of the layer's own; 2: it is a link, which is to be followed; -1. */
static int step(struct lr_taker *taker, const char *name, struct lr_error *err)
{
    struct statx st;
    if (strcmp(name, ".") == 0)
        return 0;
    if (strcmp(name, "..") == 0)
        return taker->chain.depth > 1 ? lr_chain_leave(&taker->chain, err) : 0;
    int done = lr_chain_enter(&taker->chain, name, err);
    if (done != 0)
        return done < 0 ? -1 : 0;
    if (lr_statx(lr_chain_fd(&taker->chain), name, &st) < 0)
        return 1;
    if (!S_ISLNK(st.stx_mode)) {
        errno = ENOTDIR;
        return 1;
    }
    done = lr_taker_is_earlier(taker, name, err);
    errno = ELOOP;
    return done < 0 ? -1 : done ? 2 : 1;
}

/* Go the way from where the chain stands; `way` is freed. 0; 1: there is no such folder, errno says why; -1. */
static int go(struct lr_taker *taker, struct lr_buf *way, const char *path, struct lr_error *err)
{
    const char *at = way->data;
    int done = 0;
    for (int steps = 0; done == 0; steps++) {
        char name[NAME_MAX + 1];
        at += strspn(at, "/");
        size_t size = strcspn(at, "/");
        if (size == 0)
            break;
        if (steps == STEPS) {
            done = lr_taker_refuse("lies behind too many links, or links in a circle", path, err);
        } else if (size > NAME_MAX) {
            errno = ENOENT;
            done = 1;
        } else {
            memcpy(name, at, size);
            name[size] = '\0';
            at += size;
            done = step(taker, name, err);
        }
        if (done == 2) {
            done = turn(taker, name, at, way, err);
            at = way->data;
        }
    }
    int kept = errno;
    lr_buf_free(way);
    errno = kept;
    return done;
}

int lr_taker_follow(struct lr_taker *taker, const char *name, const char *path, struct lr_error *err)
{
    struct lr_buf way = {0};
    int done = turn(taker, name, "", &way, err);
    if (done < 0) {
        lr_buf_free(&way);
        return -1;
    }
    done = go(taker, &way, path, err);
    if (done == 1)
        return lr_taker_refuse(errno == ELOOP    ? "lies behind a link, or behind what is no folder"
                               : errno == ENOENT ? "lies behind a link that leads nowhere"
                                                 : "lies behind a link to what is no folder",
                               path, err);
    return done;
}

int lr_taker_find(struct lr_taker *taker, const char *path, size_t length, struct lr_error *err)
{
    struct lr_buf way = {0};
    if (to_root(taker, err) < 0)
        return -1;
    if (lr_buf_add(&way, path, length, err) < 0 || lr_buf_add(&way, "", 1, err) < 0) {
        lr_buf_free(&way);
        return -1;
    }
    return go(taker, &way, path, err);
}
