/* share.c: a tree that is there already, as a layer is, gets the objects that it can have; see intake.h. */
#include "taking.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define ROOM (256U << 10)
/* What a file is called for a moment, among new objects: the tree may have any name there is. */
#define BESIDE ".share"

struct sharer {
    struct lr_walk walk;
    struct lr_sha content, meta;
    int objects, fresh;
    const char *scheme;
    char *room;
};

/* The attributes of a file, whose values lie one after the other. 0: it has marks of overlayfs's, and stays as it is. */
static int take_attributes(const struct lr_chain *chain, const char *name, struct lr_names *keys,
                           struct lr_buf *values, struct lr_item *item, struct lr_error *err)
{
    int at = lr_chain_fd(chain);
    if (lr_xattr_list(at, name, keys) < 0)
        return lr_chain_fail(chain, name, "list the attributes of", err);
    item->attributes = calloc(keys->count + 1, sizeof *item->attributes);
    if (!item->attributes)
        return lr_fail(err, "get memory", NULL);
    for (size_t i = 0; i < keys->count; i++) {
        const char *key = lr_names_get(keys, i);
        size_t before = values->used;
        if (lr_xattr_private(key, true) || lr_xattr_private(key, false))
            return 0;
        if (strcmp(key, "security.selinux") == 0)
            continue;
        if (lr_xattr_get(at, name, key, values, err) < 0)
            return lr_chain_fail(chain, name, "read the attributes of", err);
        item->attributes[item->attributes_count++] =
            (struct lr_attribute){key, NULL, (uint32_t)(values->used - before)};
    }
    const char *value = values->data;
    for (size_t i = 0; i < item->attributes_count; i++) {
        item->attributes[i].value = value;
        value += item->attributes[i].size;
    }
    return 1;
}

static int hash_file(struct sharer *sharer, const struct lr_entry *entry, struct lr_item *item,
                     struct lr_error *err)
{
    const struct lr_chain *chain = &sharer->walk.chain;
    LR_CLEANUP(lr_close) int fd = lr_open_seen(lr_chain_fd(chain), entry->name, &entry->st);
    ssize_t got = fd < 0 ? -1 : 0;
    lr_sha_begin(&sharer->content);
    while (fd >= 0 && (got = read(fd, sharer->room, ROOM)) != 0) {
        if (got < 0 && errno != EINTR)
            break;
        if (got > 0)
            lr_sha_add(&sharer->content, sharer->room, (size_t)got);
    }
    lr_sha_end(&sharer->content, item->digest);
    return got < 0 ? lr_chain_fail(chain, entry->name, "read", err) : 0;
}

/* Link the object in the place of the file, or make the file one. */
static int use_object(const struct sharer *sharer, const char *name, const struct lr_item *item,
                      struct lr_error *err)
{
    const struct lr_chain *chain = &sharer->walk.chain;
    char path[LR_OBJECT + 1];
    struct statx st;
    int at = lr_chain_fd(chain), fresh = sharer->fresh;
    lr_object_place(item->object, path);
    if (linkat(sharer->objects, path, fresh, BESIDE, 0) == 0 ||
        (errno == ENOENT && linkat(fresh, path, fresh, BESIDE, 0) == 0)) {
        /* One that somebody has written to is of no use. */
        bool whole = lr_statx(fresh, BESIDE, &st) == 0 && st.stx_size == item->head.size &&
                     st.stx_mtime.tv_sec == item->head.mtime && st.stx_mtime.tv_nsec == item->head.mtime_ns;
        if (whole)
            return renameat(fresh, BESIDE, at, name) < 0 ? lr_chain_fail(chain, name, "rename", err) : 0;
        return unlinkat(fresh, BESIDE, 0) < 0 ? lr_chain_fail(chain, name, "remove", err) : 0;
    }
    if (errno != ENOENT)
        return errno == EMLINK ? 0 : lr_chain_fail(chain, name, "link the object of", err);
    if (lr_object_add(at, name, fresh, item->object) < 0 && errno != EEXIST)
        return lr_chain_fail(chain, name, "make an object of", err);
    return 0;
}

static int share_file(struct sharer *sharer, const struct lr_entry *entry, struct lr_error *err)
{
    struct lr_names keys = {0};
    struct lr_buf values = {0};
    const struct statx *st = &entry->st;
    struct lr_item item = {.head = {.mode = st->stx_mode & 07777U,
                                    .uid = st->stx_uid,
                                    .gid = st->stx_gid,
                                    .mtime = st->stx_mtime.tv_sec,
                                    .mtime_ns = st->stx_mtime.tv_nsec,
                                    .size = st->stx_size}};
    int done = take_attributes(&sharer->walk.chain, entry->name, &keys, &values, &item, err);
    if (done == 1) {
        done = hash_file(sharer, entry, &item, err);
        lr_object_name(&sharer->meta, sharer->scheme, &item);
        if (done == 0)
            done = use_object(sharer, entry->name, &item, err);
    }
    free(item.attributes);
    lr_names_free(&keys);
    lr_buf_free(&values);
    return done;
}

static int put_time(int at, const char *name, const struct statx *st, struct lr_error *err)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {st->stx_mtime.tv_sec, st->stx_mtime.tv_nsec}};
    return utimensat(at, name, times, AT_SYMLINK_NOFOLLOW) < 0 ? lr_fail(err, "set the times of", name) : 0;
}

static int share_all(struct sharer *sharer, int tree, struct lr_error *err)
{
    struct lr_entry entry;
    struct statx root;
    struct lr_chain *chain = &sharer->walk.chain;
    int event = 0, done = lr_walk_open(&sharer->walk, tree, false, err);
    if (done == 0 && lr_statx(tree, "", &root) < 0)
        done = lr_fail(err, "look at the tree", NULL);
    while (done == 0 && (event = lr_walk_next(&sharer->walk, &entry, err)) > 0) {
        if (event == LR_LEAVE)
            done = put_time(lr_chain_fd(chain), entry.name, &entry.st, err);
        else if (S_ISREG(entry.st.stx_mode) && entry.st.stx_nlink == 1)
            done = share_file(sharer, &entry, err);
        else if (S_ISDIR(entry.st.stx_mode) && lr_walk_enter(&sharer->walk, &entry, err) < 0)
            done = -1;
    }
    return done < 0 || event < 0 ? -1 : put_time(tree, ".", &root, err);
}

int lr_share(int tree, int objects, int fresh, const char *scheme, struct lr_error *err)
{
    struct sharer sharer = {.objects = objects, .fresh = fresh, .scheme = scheme, .room = malloc(ROOM)};
    int done = sharer.room ? lr_sha_open(&sharer.content, err) : lr_fail(err, "get memory", NULL);
    if (done == 0)
        done = lr_sha_open(&sharer.meta, err);
    if (done == 0)
        done = share_all(&sharer, tree, err);
    lr_walk_close(&sharer.walk);
    lr_sha_free(&sharer.content);
    lr_sha_free(&sharer.meta);
    free(sharer.room);
    return done;
}
