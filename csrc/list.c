/* list.c: the entries of a tree as records; the layout stands in tree.h. */
#include "tree.h"
#include "walk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A run of records ends once it is this long. */
#define RUN 262144

struct lr_list {
    struct lr_walk walk;
    struct lr_buf out, target, xattrs;
    bool with_xattrs;
};

struct __attribute__((packed)) head {
    uint32_t length, mode, uid, gid, rdev_major, rdev_minor, dev_major, dev_minor, nlink;
    uint32_t path, target, xattrs;
    int64_t mtime;
    uint64_t size, ino;
};

static int read_target(struct lr_list *list, const struct lr_entry *entry, struct lr_error *err)
{
    list->target.used = 0;
    if (!S_ISLNK(entry->st.stx_mode))
        return 0;
    if (lr_buf_room(&list->target, 4096, err) < 0)
        return -1;
    ssize_t got = readlinkat(lr_chain_fd(&list->walk.chain), entry->name, list->target.data, 4096);
    if (got < 0)
        return lr_chain_fail(&list->walk.chain, entry->name, "read the link", err);
    list->target.used = (size_t)got;
    return 0;
}

static int read_xattrs(struct lr_list *list, const struct lr_entry *entry, struct lr_error *err)
{
    struct lr_chain *chain = &list->walk.chain;
    struct lr_names keys = {0};
    struct lr_buf value = {0};
    int done = 0;
    list->xattrs.used = 0;
    if (!list->with_xattrs)
        return 0;
    if (lr_xattr_list(lr_chain_fd(chain), entry->name, &keys) < 0)
        done = lr_chain_fail(chain, entry->name, "list the attributes of", err);
    for (size_t i = 0; done == 0 && i < keys.count; i++) {
        const char *key = lr_names_get(&keys, i);
        value.used = 0;
        if (lr_xattr_get(lr_chain_fd(chain), entry->name, key, &value, err) < 0) {
            if (errno == ENODATA)
                continue; /* removed meanwhile */
            done = lr_chain_fail(chain, entry->name, "read the attributes of", err);
            break;
        }
        uint32_t sizes[2] = {(uint32_t)strlen(key), (uint32_t)value.used};
        if (lr_buf_add(&list->xattrs, sizes, sizeof sizes, err) < 0 ||
            lr_buf_add(&list->xattrs, key, sizes[0], err) < 0 ||
            lr_buf_add(&list->xattrs, value.data, sizes[1], err) < 0)
            done = -1;
    }
    lr_names_free(&keys);
    lr_buf_free(&value);
    return done;
}

static int add(struct lr_list *list, const struct lr_entry *entry, struct lr_error *err)
{
    const struct statx *st = &entry->st;
    const struct lr_buf *folder = &list->walk.chain.path;
    if (read_target(list, entry, err) < 0 || read_xattrs(list, entry, err) < 0)
        return -1;
    size_t name = strlen(entry->name);
    size_t path = folder->used - 1 + (folder->used > 1) + name;
    struct head head = {
        .length = (uint32_t)(sizeof head - 4 + path + list->target.used + list->xattrs.used),
        .mode = st->stx_mode,
        .uid = st->stx_uid,
        .gid = st->stx_gid,
        .rdev_major = st->stx_rdev_major,
        .rdev_minor = st->stx_rdev_minor,
        .dev_major = st->stx_dev_major,
        .dev_minor = st->stx_dev_minor,
        .nlink = st->stx_nlink,
        .path = (uint32_t)path,
        .target = (uint32_t)list->target.used,
        .xattrs = (uint32_t)list->xattrs.used,
        .mtime = (int64_t)((uint64_t)st->stx_mtime.tv_sec * 1000000000U + st->stx_mtime.tv_nsec),
        .size = st->stx_size,
        .ino = st->stx_ino,
    };
    struct lr_buf *out = &list->out;
    if (lr_buf_add(out, &head, sizeof head, err) < 0 ||
        lr_buf_add(out, folder->data, folder->used - 1, err) < 0 ||
        (folder->used > 1 && lr_buf_add(out, "/", 1, err) < 0) ||
        lr_buf_add(out, entry->name, name, err) < 0 ||
        lr_buf_add(out, list->target.data, list->target.used, err) < 0)
        return -1;
    return lr_buf_add(out, list->xattrs.data, list->xattrs.used, err);
}

struct lr_list *lr_list_open(int fd, int xattrs, struct lr_error *err)
{
    struct lr_list *list = calloc(1, sizeof *list);
    if (!list) {
        lr_fail(err, "get memory", NULL);
        return NULL;
    }
    list->with_xattrs = xattrs;
    if (lr_walk_open(&list->walk, fd, true, err) == 0)
        return list;
    lr_list_close(list);
    return NULL;
}

int lr_list_next(struct lr_list *list, const char **data, size_t *size, struct lr_error *err)
{
    struct lr_entry entry;
    int event;
    list->out.used = 0;
    *size = 0;
    while (list->out.used < RUN && (event = lr_walk_next(&list->walk, &entry, err)) != LR_END) {
        if (event < 0)
            return -1;
        if (event == LR_LEAVE)
            continue;
        if (add(list, &entry, err) < 0)
            return -1;
        if (S_ISDIR(entry.st.stx_mode) && lr_walk_enter(&list->walk, &entry, err) < 0)
            return -1;
    }
    *data = list->out.data;
    *size = list->out.used;
    return 0;
}

void lr_list_close(struct lr_list *list)
{
    if (!list)
        return;
    lr_walk_close(&list->walk);
    lr_buf_free(&list->out);
    lr_buf_free(&list->target);
    lr_buf_free(&list->xattrs);
    free(list);
}
