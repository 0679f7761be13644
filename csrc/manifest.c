/* manifest.c: the listing of a tree that was taken in, without reading it again; docs/store.md, manifests. */
#include "taking.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Bytes that are put together before they are written. */
#define RUN 262144

struct writer {
    struct lr_taker *taker;
    struct lr_intake_result *result;
    struct lr_sha sha;
    struct lr_buf out, path, value;
    size_t absent; /* the next one */
};

static int flush(struct writer *writer, int fd, struct lr_error *err)
{
    const char *data = writer->out.data;
    for (size_t left = writer->out.used; left;) {
        ssize_t put = write(fd, data, left);
        if (put < 0 && errno != EINTR)
            return lr_fail(err, "write the manifest", NULL);
        data += put > 0 ? put : 0;
        left -= put > 0 ? (size_t)put : 0;
    }
    lr_sha_add(&writer->sha, writer->out.data, writer->out.used);
    writer->out.used = 0;
    return 0;
}

/* What stands for the content. */
static int add_value(struct writer *writer, int dirfd, const char *name, const struct statx *st,
                     struct lr_inode *inode, struct lr_error *err)
{
    struct lr_buf *out = &writer->out;
    char text[4097];
    ssize_t size;
    switch (st->stx_mode & S_IFMT) {
    case S_IFREG:
        if (!inode)
            return lr_taker_refuse("came out as what it must not be", name, err);
        writer->result->size += st->stx_size;
        lr_hex(inode->digest, LR_SHA_SIZE, text);
        return lr_buf_add(out, text, 2 * LR_SHA_SIZE, err);
    case S_IFLNK:
        size = readlinkat(dirfd, name, text, sizeof text);
        return size < 0 ? lr_fail(err, "read the link", name) : lr_escape(out, text, (size_t)size, err);
    case S_IFCHR:
    case S_IFBLK:
        size = snprintf(text, sizeof text, "%u:%u", st->stx_rdev_major, st->stx_rdev_minor);
        return lr_buf_add(out, text, (size_t)size, err);
    default:
        return lr_buf_add(out, "-", 1, err);
    }
}

static int add_line(struct writer *writer, int dirfd, const char *name, const char *path, size_t length,
                    const struct statx *st, struct lr_error *err)
{
    struct lr_taker *taker = writer->taker;
    struct lr_buf *out = &writer->out;
    struct lr_inode *inode = lr_inodes_find(&taker->inodes, st->stx_ino);
    bool owners = taker->options->owners;
    unsigned uid = owners ? st->stx_uid : inode ? inode->uid : 0;
    unsigned gid = owners ? st->stx_gid : inode ? inode->gid : 0;
    if (lr_line_begin(out, lr_line_kind(st->stx_mode), st->stx_mode, uid, gid, err) < 0 ||
        add_value(writer, dirfd, name, st, inode, err) < 0 || lr_buf_add(out, " ", 1, err) < 0 ||
        lr_escape(out, path, length, err) < 0)
        return -1;
    bool marked = taker->options->marks && S_ISDIR(st->stx_mode);
    if (((inode && (inode->flags & LR_INODE_XATTRS)) || marked) &&
        lr_line_attributes(out, &writer->value, dirfd, name, err) < 0)
        return -1;
    writer->result->entries++;
    if (lr_buf_add(out, "\n", 1, err) < 0)
        return -1;
    return out->used < RUN ? 0 : flush(writer, taker->options->manifest, err);
}

static int by_order(const void *a, const void *b)
{
    const struct lr_absent *left = a, *right = b;
    int order = lr_in_order(left->path, right->path);
    return order ? order : left->number < right->number ? -1 : 1;
}

/* Device nodes that the tree does not have, those before `path`; NULL: all. */
static int add_absent(struct writer *writer, const char *path, struct lr_error *err)
{
    struct lr_taker *taker = writer->taker;
    for (; writer->absent < taker->absent_count; writer->absent++) {
        const struct lr_absent *one = &taker->absent[writer->absent];
        int order = path ? lr_in_order(one->path, path) : -1;
        if (order > 0)
            return 0;
        /* Something else took its place; or it came twice. */
        if (order == 0 || (writer->absent + 1 < taker->absent_count && strcmp(one->path, one[1].path) == 0))
            continue;
        char text[64];
        int size = snprintf(text, sizeof text, "%u:%u ", one->head.major, one->head.minor);
        if (lr_line_begin(&writer->out, (char)one->head.kind, one->head.mode, one->head.uid, one->head.gid,
                          err) < 0 ||
            lr_buf_add(&writer->out, text, (size_t)size, err) < 0 ||
            lr_escape(&writer->out, one->path, strlen(one->path), err) < 0 ||
            lr_buf_add(&writer->out, "\n", 1, err) < 0)
            return -1;
        writer->result->entries++;
        taker->absent[writer->absent].number = UINT64_MAX; /* it stands in the manifest */
    }
    return 0;
}

/* A folder gets its time when nothing in it changes any more. */
static int set_time(struct writer *writer, int dirfd, const char *name, const struct statx *st,
                    struct lr_error *err)
{
    const struct lr_inode *inode = lr_inodes_find(&writer->taker->inodes, st->stx_ino);
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {0}};
    if (inode && (inode->flags & LR_INODE_TIMES))
        times[1] = (struct timespec){inode->folder.mtime, inode->folder.mtime_ns};
    return utimensat(dirfd, name, times, AT_SYMLINK_NOFOLLOW) < 0 ? lr_fail(err, "set the times of", name)
                                                                  : 0;
}

static int add_entry(struct writer *writer, struct lr_walk *walk, const struct lr_entry *entry,
                     struct lr_error *err)
{
    const struct lr_buf *folder = &walk->chain.path;
    struct lr_buf *path = &writer->path;
    path->used = 0;
    if (lr_buf_add(path, folder->data, folder->used - 1, err) < 0 ||
        (path->used && lr_buf_add(path, "/", 1, err) < 0) ||
        lr_buf_add(path, entry->name, strlen(entry->name) + 1, err) < 0)
        return -1;
    if (add_absent(writer, path->data, err) < 0)
        return -1;
    return add_line(writer, lr_chain_fd(&walk->chain), entry->name, path->data, path->used - 1, &entry->st,
                    err);
}

static int add_tree(struct writer *writer, struct lr_error *err)
{
    struct lr_walk walk = {0};
    struct lr_entry entry;
    struct statx root;
    int tree = writer->taker->options->tree, event = 0, done = 0;
    if (lr_statx(tree, "", &root) < 0)
        return lr_fail(err, "look at the tree", NULL);
    if (add_line(writer, tree, ".", ".", 1, &root, err) < 0)
        return -1;
    done = lr_walk_open(&walk, tree, true, err);
    while (done == 0 && (event = lr_walk_next(&walk, &entry, err)) > 0) {
        if (event == LR_LEAVE)
            done = set_time(writer, lr_chain_fd(&walk.chain), entry.name, &entry.st, err);
        else
            done = add_entry(writer, &walk, &entry, err);
        if (done == 0 && event == LR_ENTRY && S_ISDIR(entry.st.stx_mode) &&
            lr_walk_enter(&walk, &entry, err) < 0)
            done = -1;
    }
    lr_walk_close(&walk);
    if (done < 0 || event < 0 || add_absent(writer, NULL, err) < 0)
        return -1;
    return set_time(writer, tree, ".", &root, err);
}

/* Are these two names of one file? Then *size is how large it is. */
static bool is_group(const struct lr_taker *taker, const struct lr_group *group, uint64_t *size)
{
    struct statx a, b;
    LR_CLEANUP(lr_close) int left = lr_beneath(taker->options->tree, group->path, O_PATH, 0, false);
    LR_CLEANUP(lr_close) int right = lr_beneath(taker->options->tree, group->first, O_PATH, 0, false);
    if (left < 0 || right < 0 || lr_statx(left, "", &a) < 0 || lr_statx(right, "", &b) < 0)
        return false;
    *size = S_ISREG(a.stx_mode) ? a.stx_size : 0;
    return a.stx_ino == b.stx_ino;
}

/* A path that is in some group. */
struct member {
    const char *path;
    size_t up; /* another one of its file, or itself */
    bool linked;
};

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct member *)a)->path, ((const struct member *)b)->path);
}

static size_t top_of(struct member *all, size_t at)
{
    while (all[at].up != at)
        at = all[at].up = all[all[at].up].up;
    return at;
}

static size_t find_member(const struct member *all, size_t count, const char *path)
{
    struct member key = {.path = path};
    return (size_t)((const struct member *)bsearch(&key, all, count, sizeof *all, by_path) - all);
}

/* Only groups stay that say something new, each with the size of its file: several layers may tell the same. */
static int sift_groups(struct lr_taker *taker, struct lr_error *err)
{
    size_t count = 0, kept = 0;
    struct member *all = calloc(2 * taker->groups_count + 1, sizeof *all);
    if (!all)
        return lr_fail(err, "get memory", NULL);
    for (size_t i = 0; i < taker->groups_count; i++) {
        struct lr_group *one = &taker->groups[i];
        one->holds = is_group(taker, one, &one->size); /* else a later entry took its place */
        if (one->holds) {
            all[count++].path = one->path;
            all[count++].path = one->first;
        }
    }
    qsort(all, count, sizeof *all, by_path);
    for (size_t i = 0; i < count; i++)
        if (kept == 0 || strcmp(all[kept - 1].path, all[i].path) != 0)
            all[kept++].path = all[i].path;
    for (size_t i = 0; i < kept; i++)
        all[i].up = i;
    /* The last one to name a path is right. */
    for (size_t i = taker->groups_count; i-- > 0;) {
        struct lr_group *one = &taker->groups[i];
        if (!one->holds)
            continue;
        struct member *path = &all[find_member(all, kept, one->path)];
        size_t from = top_of(all, (size_t)(path - all));
        size_t to = top_of(all, find_member(all, kept, one->first));
        one->holds = !path->linked && from != to;
        path->linked = true;
        all[from].up = to;
    }
    free(all);
    return 0;
}

/* What neither tree nor manifest says. */
static int write_links(struct writer *writer, struct lr_error *err)
{
    struct lr_taker *taker = writer->taker;
    struct lr_buf *out = &writer->out;
    char text[64];
    int done = sift_groups(taker, err);
    for (size_t i = 0; done == 0 && i < taker->groups_count; i++) {
        const struct lr_group *one = &taker->groups[i];
        if (!one->holds)
            continue;
        writer->result->size -= one->size;
        if (lr_buf_add(out, "h ", 2, err) < 0 || lr_escape(out, one->path, strlen(one->path), err) < 0 ||
            lr_buf_add(out, " ", 1, err) < 0 || lr_escape(out, one->first, strlen(one->first), err) < 0 ||
            lr_buf_add(out, "\n", 1, err) < 0)
            done = -1;
    }
    for (size_t i = 0; done == 0 && i < taker->absent_count; i++) {
        const struct lr_absent *one = &taker->absent[i];
        if (one->number != UINT64_MAX)
            continue;
        int size =
            snprintf(text, sizeof text, "a %" PRId64 ".%09" PRIu32 " ", one->head.mtime, one->head.mtime_ns);
        if (lr_buf_add(out, text, (size_t)size, err) < 0 ||
            lr_escape(out, one->path, strlen(one->path), err) < 0 || lr_buf_add(out, "\n", 1, err) < 0)
            done = -1;
    }
    return done < 0 || out->used == 0 ? done : flush(writer, taker->options->links, err);
}

static int write_both(struct writer *writer, struct lr_error *err)
{
    static const char head[] = "layerrun-manifest 1\n";
    struct lr_taker *taker = writer->taker;
    uint8_t digest[LR_SHA_SIZE];
    lr_sha_begin(&writer->sha);
    if (lr_buf_add(&writer->out, head, sizeof head - 1, err) < 0 || add_tree(writer, err) < 0 ||
        flush(writer, taker->options->manifest, err) < 0)
        return -1;
    lr_sha_end(&writer->sha, digest);
    strcpy(writer->result->digest, "sha256:");
    lr_hex(digest, LR_SHA_SIZE, writer->result->digest + 7);
    lr_sha_begin(&writer->sha);
    return write_links(writer, err);
}

int lr_manifest_write(struct lr_taker *taker, struct lr_intake_result *result, struct lr_error *err)
{
    struct writer writer = {.taker = taker, .result = result};
    lr_inodes_sort(&taker->inodes);
    if (taker->absent_count)
        qsort(taker->absent, taker->absent_count, sizeof *taker->absent, by_order);
    int done = lr_sha_open(&writer.sha, err);
    if (done == 0)
        done = write_both(&writer, err);
    lr_sha_free(&writer.sha);
    lr_buf_free(&writer.out);
    lr_buf_free(&writer.path);
    lr_buf_free(&writer.value);
    return done;
}
