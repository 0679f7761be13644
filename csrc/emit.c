/* emit.c: a tree on disk as a stream, stream.h. */
#include "intake.h"
#include "stream.h"
#include "walk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define RUN (1U << 20)

struct emitter {
    int out;
    struct lr_walk walk;
    struct lr_seen *seen;
    struct lr_buf buffer; /* what is still to be written */
    struct lr_buf path, xattrs;
};

static int flush(struct emitter *emitter, struct lr_error *err)
{
    const char *data = emitter->buffer.data;
    for (size_t left = emitter->buffer.used; left;) {
        ssize_t put = write(emitter->out, data, left);
        if (put < 0 && errno != EINTR)
            return lr_fail(err, "write the stream", NULL);
        data += put > 0 ? put : 0;
        left -= put > 0 ? (size_t)put : 0;
    }
    emitter->buffer.used = 0;
    return 0;
}

static int add(struct emitter *emitter, const void *data, size_t size, struct lr_error *err)
{
    if (lr_buf_add(&emitter->buffer, data, size, err) < 0)
        return -1;
    return emitter->buffer.used < RUN ? 0 : flush(emitter, err);
}

static int add_head(struct emitter *emitter, char kind, const struct statx *st, const char *path,
                    const char *link, struct lr_error *err)
{
    struct lr_record head = {
        .kind = (uint8_t)kind,
        .mode = st->stx_mode & 07777U,
        .uid = st->stx_uid,
        .gid = st->stx_gid,
        .major = st->stx_rdev_major,
        .minor = st->stx_rdev_minor,
        .mtime = st->stx_mtime.tv_sec,
        .mtime_ns = st->stx_mtime.tv_nsec,
        .path = (uint32_t)strlen(path),
        .link = (uint32_t)strlen(link),
        .xattrs = (uint32_t)emitter->xattrs.used,
        .size = kind == LR_RECORD_FILE ? st->stx_size : 0,
    };
    return add(emitter, &head, sizeof head, err) < 0 || add(emitter, path, head.path, err) < 0 ||
                   add(emitter, link, head.link, err) < 0 ||
                   add(emitter, emitter->xattrs.data, emitter->xattrs.used, err) < 0
               ? -1
               : 0;
}

static int read_xattrs(struct emitter *emitter, int dirfd, const char *name, struct lr_error *err)
{
    struct lr_names keys = {0};
    struct lr_buf value = {0};
    int done = 0;
    emitter->xattrs.used = 0;
    if (lr_xattr_list(dirfd, name, &keys) < 0)
        done = lr_chain_fail(&emitter->walk.chain, name, "list the attributes of", err);
    for (size_t i = 0; done == 0 && i < keys.count; i++) {
        const char *key = lr_names_get(&keys, i);
        value.used = 0;
        /* A label is the machine's, and what is overlayfs's is never part of a tree. */
        if (strcmp(key, "security.selinux") == 0 || strncmp(key, "trusted.overlay.", 16) == 0 ||
            strncmp(key, "user.overlay.", 13) == 0)
            continue;
        if (lr_xattr_get(dirfd, name, key, &value, err) < 0) {
            if (errno != ENODATA)
                done = lr_chain_fail(&emitter->walk.chain, name, "read the attributes of", err);
            continue;
        }
        uint16_t size = (uint16_t)strlen(key);
        uint32_t length = (uint32_t)value.used;
        struct lr_buf *out = &emitter->xattrs;
        if (lr_buf_add(out, &size, 2, err) < 0 || lr_buf_add(out, &length, 4, err) < 0 ||
            lr_buf_add(out, key, size, err) < 0 || lr_buf_add(out, value.data, length, err) < 0)
            done = -1;
    }
    lr_names_free(&keys);
    lr_buf_free(&value);
    return done;
}

struct __attribute__((packed)) chunk {
    uint64_t offset;
    uint32_t size;
};

/* One run of data as a chunk for each read. What a file that becomes shorter under our hands lacks is zeros. */
static int add_run(struct emitter *emitter, int fd, off_t at, off_t end, const char *name,
                   struct lr_error *err)
{
    struct lr_buf *out = &emitter->buffer;
    while (at < end) {
        size_t most = (size_t)(end - at) < RUN / 2 ? (size_t)(end - at) : RUN / 2;
        if (lr_buf_room(out, sizeof(struct chunk) + most, err) < 0)
            return -1;
        char *room = out->data + out->used;
        ssize_t got = pread(fd, room + sizeof(struct chunk), most, at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return lr_chain_fail(&emitter->walk.chain, name, "read", err);
        if (got == 0)
            return 0;
        struct chunk chunk = {(uint64_t)at, (uint32_t)got};
        memcpy(room, &chunk, sizeof chunk);
        out->used += sizeof chunk + (size_t)got;
        at += got;
        if (out->used >= RUN && flush(emitter, err) < 0)
            return -1;
    }
    return 0;
}

static int add_content(struct emitter *emitter, int fd, const struct statx *st, const char *name,
                       struct lr_error *err)
{
    off_t size = (off_t)st->stx_size;
    /* Only a file that takes less than its size can have holes to look for. */
    bool holes = st->stx_blocks * 512 < st->stx_size;
    for (off_t at = 0; at < size;) {
        off_t data = holes ? lseek(fd, at, SEEK_DATA) : at;
        if (data < 0 && errno == ENXIO)
            break;
        off_t hole = !holes || data < 0 ? size : lseek(fd, data, SEEK_HOLE);
        if (data < 0)
            data = at;
        if (hole < 0 || hole > size)
            hole = size;
        if (add_run(emitter, fd, data, hole, name, err) < 0)
            return -1;
        at = hole;
    }
    struct chunk end = {st->stx_size, 0};
    return add(emitter, &end, sizeof end, err);
}

static int add_file(struct emitter *emitter, const struct lr_entry *entry, struct lr_error *err)
{
    struct statx st;
    struct lr_chain *chain = &emitter->walk.chain;
    LR_CLEANUP(lr_close) int fd = lr_open_seen(lr_chain_fd(chain), entry->name, &entry->st);
    if (fd < 0 || lr_statx(fd, "", &st) < 0)
        return lr_chain_fail(chain, entry->name, "read", err);
    return add_head(emitter, LR_RECORD_FILE, &st, emitter->path.data, "", err) < 0
               ? -1
               : add_content(emitter, fd, &st, entry->name, err);
}

static int add_link(struct emitter *emitter, const struct lr_entry *entry, struct lr_error *err)
{
    char target[4097];
    ssize_t got = readlinkat(lr_chain_fd(&emitter->walk.chain), entry->name, target, sizeof target - 1);
    if (got < 0)
        return lr_chain_fail(&emitter->walk.chain, entry->name, "read the link", err);
    target[got] = '\0';
    return add_head(emitter, LR_RECORD_LINK, &entry->st, emitter->path.data, target, err);
}

static int set_path(struct emitter *emitter, const char *name, struct lr_error *err)
{
    const struct lr_buf *folder = &emitter->walk.chain.path;
    struct lr_buf *path = &emitter->path;
    path->used = 0;
    return lr_buf_add(path, folder->data, folder->used - 1, err) < 0 ||
                   (path->used && lr_buf_add(path, "/", 1, err) < 0) ||
                   lr_buf_add(path, name, strlen(name) + 1, err) < 0
               ? -1
               : 0;
}

static int add_entry(struct emitter *emitter, const struct lr_entry *entry, struct lr_error *err)
{
    const struct lr_chain *chain = &emitter->walk.chain;
    const char *before = NULL;
    mode_t type = entry->st.stx_mode & S_IFMT;
    if (type == S_IFSOCK)
        return 0; /* it means nothing without its process */
    if (type != S_IFDIR && lr_mount_of(&entry->st) != chain->levels[0].mount) {
        errno = EXDEV;
        return lr_chain_fail(chain, entry->name, "copy what is mounted on", err);
    }
    if (set_path(emitter, entry->name, err) < 0)
        return -1;
    if (type != S_IFDIR && type != S_IFCHR && type != S_IFBLK && entry->st.stx_nlink > 1) {
        int met = lr_seen_add(emitter->seen, &entry->st, emitter->path.data, &before, err);
        emitter->xattrs.used = 0;
        if (met != 0)
            return met < 0 ? -1
                           : add_head(emitter, LR_RECORD_HARD, &entry->st, emitter->path.data, before, err);
    }
    if (read_xattrs(emitter, lr_chain_fd(chain), entry->name, err) < 0)
        return -1;
    switch (type) {
    case S_IFREG:
        return add_file(emitter, entry, err);
    case S_IFLNK:
        return add_link(emitter, entry, err);
    case S_IFDIR:
        if (add_head(emitter, LR_RECORD_FOLDER, &entry->st, emitter->path.data, "", err) < 0)
            return -1;
        return lr_walk_enter(&emitter->walk, entry, err) < 0 ? -1 : 0;
    default:
        return add_head(emitter,
                        type == S_IFIFO   ? LR_RECORD_FIFO
                        : type == S_IFCHR ? LR_RECORD_CHAR
                                          : LR_RECORD_BLOCK,
                        &entry->st, emitter->path.data, "", err);
    }
}

static int add_all(struct emitter *emitter, int tree, struct lr_error *err)
{
    struct lr_entry entry;
    struct statx st;
    int event;
    if (lr_statx(tree, "", &st) < 0)
        return lr_fail(err, "look at the folder", NULL);
    if (read_xattrs(emitter, emitter->walk.chain.levels[0].fd, ".", err) < 0 ||
        add_head(emitter, LR_RECORD_FOLDER, &st, "", "", err) < 0)
        return -1;
    while ((event = lr_walk_next(&emitter->walk, &entry, err)) > 0)
        if (event == LR_ENTRY && add_entry(emitter, &entry, err) < 0)
            return -1;
    struct lr_record end = {.kind = LR_RECORD_END};
    return event < 0 || add(emitter, &end, sizeof end, err) < 0 ? -1 : flush(emitter, err);
}

int lr_emit_tree(int tree, int out, struct lr_error *err)
{
    struct emitter emitter = {.out = out, .seen = lr_seen_new()};
    int done =
        emitter.seen ? lr_walk_open(&emitter.walk, tree, false, err) : lr_fail(err, "get memory", NULL);
    if (done == 0)
        done = add_all(&emitter, tree, err);
    lr_walk_close(&emitter.walk);
    lr_seen_free(emitter.seen);
    lr_buf_free(&emitter.buffer);
    lr_buf_free(&emitter.path);
    lr_buf_free(&emitter.xattrs);
    return done;
}
