/* content.c: the contents of files, read, hashed and held or written to where they wait; see taking.h. */
#include "taking.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Bytes of a hole between two looks whether to go on. */
#define HOLE (32U << 20)
/* Bytes that are read between two such looks. */
#define UNCHECKED (1U << 20)
/* Bytes of a large file that two threads share at a time; a multiple of LR_PIECE. */
#define SHARED ((uint64_t)1 << 20)

int lr_content_open(struct lr_content *content, const struct lr_intake_options *options, struct lr_feed *feed,
                    char mark, struct lr_error *err)
{
    *content = (struct lr_content){.options = options, .feed = feed, .mark = mark};
    return lr_sha_open(&content->sha, err) < 0 || lr_sha_open(&content->meta, err) < 0 ? -1 : 0;
}

void lr_content_close(struct lr_content *content)
{
    lr_sha_free(&content->sha);
    lr_sha_free(&content->meta);
}

void lr_object_name(struct lr_sha *sha, const char *scheme, struct lr_item *item)
{
    const struct lr_record *head = &item->head;
    uint8_t digest[LR_SHA_SIZE];
    struct {
        int64_t mtime;
        uint32_t mtime_ns, mode, uid, gid;
    } fixed = {head->mtime, head->mtime_ns, head->mode, head->uid, head->gid};
    lr_sha_begin(sha);
    lr_sha_add(sha, scheme, strlen(scheme) + 1);
    lr_sha_add(sha, &fixed, sizeof fixed);
    for (size_t i = 0; i < item->attributes_count; i++) {
        const struct lr_attribute *one = &item->attributes[i];
        lr_sha_add(sha, one->key, strlen(one->key) + 1);
        lr_sha_add(sha, &one->size, sizeof one->size);
        lr_sha_add(sha, one->value, one->size);
    }
    lr_sha_end(sha, digest);
    lr_hex(item->digest, LR_SHA_SIZE, item->object);
    item->object[2 * LR_SHA_SIZE] = '-';
    lr_hex(digest, 8, item->object + 2 * LR_SHA_SIZE + 1);
}

static int write_all(int fd, const char *data, size_t size, off_t at)
{
    while (size) {
        ssize_t put = pwrite(fd, data, size, at);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return -1;
        data += put;
        at += put;
        size -= (size_t)put;
    }
    return 0;
}

/* From here on the content goes to a file. */
static int spill(struct lr_content *content, struct lr_item *item, size_t size, struct lr_error *err)
{
    snprintf(item->temporary, sizeof item->temporary, ".%c%llu", content->mark,
             (unsigned long long)content->temporaries++);
    int fd = openat(content->options->fresh, item->temporary,
                    O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, (item->head.mode & 0777U) | 0600U);
    if (fd < 0 || write_all(fd, item->data, size, 0) < 0) {
        lr_close(&fd);
        return lr_fail(err, "write", item->path);
    }
    free(item->data);
    item->data = NULL;
    return fd;
}

/* One run of data, `size` bytes from `at` on. */
static int take_run(struct lr_content *content, struct lr_item *item, int fd, uint64_t at, uint32_t size,
                    struct lr_error *err)
{
    if (fd < 0) {
        if (lr_feed_take(content->feed, item->data + at, size, err) < 0)
            return -1;
        lr_sha_add(&content->sha, item->data + at, size);
        return 0;
    }
    while (size) {
        const char *data;
        ssize_t got = lr_feed_some(content->feed, &data, size, err);
        if (got < 0)
            return -1;
        lr_sha_add(&content->sha, data, (size_t)got);
        if (write_all(fd, data, (size_t)got, (off_t)at) < 0)
            return lr_fail(err, "write", item->path);
        at += (uint64_t)got;
        size -= (uint32_t)got;
    }
    return 0;
}

static bool is_hole(const char *data, size_t size, uint64_t at)
{
    return size == LR_PIECE && at % LR_PIECE == 0 && data[0] == 0 && memcmp(data, data + 1, size - 1) == 0;
}

/* Has whoever waits given up? To ask for each small file would cost as much as to read it. */
static int check(struct lr_content *content, size_t size, struct lr_error *err)
{
    content->unchecked += size;
    if (content->unchecked < UNCHECKED)
        return 0;
    content->unchecked = 0;
    return lr_feed_check(content->feed, err);
}

/* Exactly `size` bytes of the archive. */
static int read_archive(const struct lr_content *content, const struct lr_item *item, char *to, size_t size,
                        uint64_t at, struct lr_error *err)
{
    while (size) {
        ssize_t got = pread(content->options->archive, to, size, (off_t)(item->head.at - 1 + at));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return lr_fail(err, "read the archive", NULL);
        if (got == 0)
            return lr_taker_refuse("ends too soon", "", err);
        to += got;
        at += (uint64_t)got;
        size -= (size_t)got;
    }
    return 0;
}

/* Write what begins at `at`, which is a border, without its holes. */
static int write_runs(int fd, const struct lr_item *item, const char *data, size_t size, uint64_t at,
                      struct lr_error *err)
{
    size_t from = 0, end = 0;
    while (end < size) {
        size_t piece = size - end < LR_PIECE ? size - end : LR_PIECE, next = end + piece;
        bool hole = is_hole(data + end, piece, at + end);
        end += hole ? 0 : piece;
        if ((hole || end == size) && write_all(fd, data + from, end - from, (off_t)(at + from)) < 0)
            return lr_fail(err, "write", item->path);
        if (hole)
            from = end = next;
    }
    return 0;
}

static bool has_hole(const char *data, size_t size)
{
    for (size_t at = 0; at + LR_PIECE <= size; at += LR_PIECE)
        if (is_hole(data + at, LR_PIECE, at))
            return true;
    return false;
}

static void let_go(char **data)
{
    free(*data);
}

int lr_content_piece(const struct lr_content *content, const struct lr_item *piece, struct lr_error *err)
{
    LR_CLEANUP(lr_close)
    int fd = openat(content->options->fresh, piece->temporary, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return lr_fail(err, "write", piece->path);
    return write_runs(fd, piece, piece->data, (size_t)piece->head.size, piece->head.at, err);
}

/* Pass on what was read of a file; `data` is not ours any more. */
static int pass(struct lr_content *content, const struct lr_item *item, char **data, size_t size, uint64_t at,
                struct lr_error *err)
{
    struct lr_item *piece = calloc(1, sizeof *piece);
    if (!piece)
        return lr_fail(err, "get memory", NULL);
    if (lr_buf_add(&piece->names, item->path, strlen(item->path) + 1, err) < 0) {
        lr_item_free(piece);
        return -1;
    }
    piece->piece = true;
    piece->data = *data;
    *data = NULL;
    piece->path = piece->names.data;
    piece->head.size = size;
    piece->head.at = at;
    memcpy(piece->temporary, item->temporary, sizeof piece->temporary);
    return content->passes(content->argument, piece, err);
}

/* The content of a large file that lies in the archive: one thread hashes a piece while another writes the one before. */
static int take_pieces(struct lr_content *content, struct lr_item *item, struct lr_error *err)
{
    uint64_t size = item->head.size;
    LR_CLEANUP(lr_close) int fd = spill(content, item, 0, err);
    if (fd < 0)
        return -1;
    if (ftruncate(fd, (off_t)size) < 0)
        return lr_fail(err, "write", item->path);
    for (uint64_t at = 0, room; at < size; at += room) {
        room = size - at < SHARED ? size - at : SHARED;
        LR_CLEANUP(let_go) char *data = malloc(room);
        if (!data)
            return lr_fail(err, "get memory", NULL);
        if (check(content, room, err) < 0 || read_archive(content, item, data, room, at, err) < 0)
            return -1;
        lr_sha_add(&content->sha, data, room);
        if (pass(content, item, &data, room, at, err) < 0)
            return -1;
    }
    return 0;
}

/* The content of a file that lies in the archive: csrc/stream.h. */
static int take_direct(struct lr_content *content, struct lr_item *item, struct lr_error *err)
{
    uint64_t size = item->head.size;
    size_t room = size < LR_HELD ? (size_t)size : LR_HELD;
    if (size > LR_HELD && content->passes)
        return take_pieces(content, item, err);
    LR_CLEANUP(lr_close) int fd = -1;
    LR_CLEANUP(let_go) char *data = malloc(room + 1);
    if (!data)
        return lr_fail(err, "get memory", NULL);
    for (uint64_t at = 0; at < size; at += room) {
        room = size - at < room ? (size_t)(size - at) : room;
        if (check(content, room, err) < 0 || read_archive(content, item, data, room, at, err) < 0)
            return -1;
        lr_sha_add(&content->sha, data, room);
        if (room == size && !has_hole(data, room)) {
            item->data = data;
            data = NULL;
            return 0;
        }
        if (fd < 0 && (fd = spill(content, item, 0, err)) < 0)
            return -1;
        if (write_runs(fd, item, data, room, at, err) < 0)
            return -1;
    }
    return ftruncate(fd, (off_t)size) < 0 ? lr_fail(err, "write", item->path) : 0;
}

/* A hole is hashed like zeros, which may take minutes: who waits may have given up by then. */
static int take_hole(struct lr_content *content, uint64_t size, struct lr_error *err)
{
    for (uint64_t piece; size; size -= piece) {
        piece = size < HOLE ? size : HOLE;
        lr_sha_zeros(&content->sha, piece);
        if (piece == HOLE && lr_feed_check(content->feed, err) < 0)
            return -1;
    }
    return 0;
}

/* The content of a file that follows in chunks. */
static int take_chunks(struct lr_content *content, struct lr_item *item, struct lr_error *err)
{
    struct __attribute__((packed)) {
        uint64_t offset;
        uint32_t size;
    } chunk;
    uint64_t at = 0, size = item->head.size;
    LR_CLEANUP(lr_close) int fd = -1;
    item->data = malloc(size < LR_HELD ? size + 1 : LR_HELD);
    if (!item->data)
        return lr_fail(err, "get memory", NULL);
    if (size > LR_HELD && (fd = spill(content, item, 0, err)) < 0)
        return -1;
    for (;;) {
        if (lr_feed_take(content->feed, &chunk, sizeof chunk, err) < 0)
            return -1;
        uint64_t offset = chunk.size ? chunk.offset : size;
        if (offset < at || offset > size || chunk.size > size - offset)
            return lr_taker_refuse("has a wrong map of its holes", item->path, err);
        if (offset > at && fd < 0 && (fd = spill(content, item, (size_t)at, err)) < 0)
            return -1;
        if (take_hole(content, offset - at, err) < 0)
            return -1;
        if (chunk.size == 0)
            break;
        if (take_run(content, item, fd, offset, chunk.size, err) < 0)
            return -1;
        at = offset + chunk.size;
    }
    return fd >= 0 && at < size && ftruncate(fd, (off_t)size) < 0 ? lr_fail(err, "write", item->path) : 0;
}

int lr_content_take(struct lr_content *content, struct lr_item *item, struct lr_error *err)
{
    lr_sha_begin(&content->sha);
    if (item->head.at ? take_direct(content, item, err) < 0 : take_chunks(content, item, err) < 0)
        return -1;
    lr_sha_end(&content->sha, item->digest);
    lr_object_name(&content->meta, content->options->scheme, item);
    item->raw = false;
    return 0;
}

int lr_content_spill(struct lr_content *content, struct lr_item *item, struct lr_error *err)
{
    LR_CLEANUP(lr_close) int fd = spill(content, item, (size_t)item->head.size, err);
    return fd < 0 ? -1 : 0;
}
