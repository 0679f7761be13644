/* tar_io.c: what the reader of tar archives reads and writes. */
#include "tar_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* No header may be longer than half of what is read ahead. */
#define AHEAD ((size_t)1 << 20)
#define READY ((size_t)256 << 10)
/* Heads alone are soon enough to keep who takes them in at work. */
#define SOON ((size_t)32 << 10)
/* What one chunk of content holds at most, and how long a run of zeros is a hole. */
#define PIECE ((size_t)64 << 10)
/* What is read of a file of which only headers are wanted. */
#define HEADERS ((size_t)8 << 10)
/* What may lie behind the end. */
#define BEHIND ((uint64_t)64 << 20)

int lr_tar_open(struct lr_tar *tar)
{
    tar->data = malloc(AHEAD);
    tar->room = tar->limits->direct ? SOON : READY;
    tar->ready = malloc(tar->room);
    if (!tar->data || !tar->ready)
        return lr_fail(tar->err, "get memory", NULL);
    /* Fewer turns; it is fine if these are no pipes. */
    fcntl(tar->in, F_SETPIPE_SZ, (int)AHEAD);
    fcntl(tar->out, F_SETPIPE_SZ, (int)AHEAD);
    struct stat st;
    off_t at = tar->limits->direct ? lseek(tar->in, 0, SEEK_CUR) : 0;
    if (at < 0 || (tar->limits->direct && fstat(tar->in, &st)))
        return lr_fail(tar->err, "look at the archive", NULL);
    tar->at = (uint64_t)at;
    tar->length = tar->limits->direct ? (uint64_t)st.st_size : 0;
    return 0;
}

void lr_tar_close(struct lr_tar *tar)
{
    free(tar->data);
    free(tar->ready);
    free(tar->xattrs);
    free(tar->parts);
    lr_buf_free(&tar->all);
    lr_buf_free(&tar->one);
    lr_buf_free(&tar->long_name);
    lr_buf_free(&tar->long_link);
    lr_buf_free(&tar->shown);
    lr_buf_free(&tar->path);
    lr_buf_free(&tar->target);
}

static ssize_t read_more(struct lr_tar *tar, size_t size)
{
    char *to = tar->data + tar->end;
    size_t most = AHEAD - tar->end;
    if (!tar->limits->direct)
        return read(tar->in, to, most);
    if (most > HEADERS && size - tar->end <= HEADERS)
        most = HEADERS;
    ssize_t got = pread(tar->in, to, most, (off_t)tar->at);
    tar->at += got > 0 ? (uint64_t)got : 0;
    return got;
}

uint64_t lr_tar_at(const struct lr_tar *tar)
{
    return tar->at - (tar->end - tar->begin);
}

int lr_tar_need(struct lr_tar *tar, size_t size)
{
    if (tar->end - tar->begin >= size)
        return 1;
    memmove(tar->data, tar->data + tar->begin, tar->end - tar->begin);
    tar->end -= tar->begin;
    tar->begin = 0;
    while (!tar->ended && tar->end < size) {
        ssize_t got = read_more(tar, size);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return lr_fail(tar->err, "read the archive", NULL);
        tar->ended = got == 0;
        tar->end += (size_t)got;
    }
    return tar->end >= size;
}

/* Over what is not looked at; only what is there yet can be skipped. */
static int jump(struct lr_tar *tar, uint64_t size)
{
    uint64_t ahead = tar->end - tar->begin, beyond = size > ahead ? size - ahead : 0;
    if (beyond && (tar->at > tar->length || beyond > tar->length - tar->at))
        return lr_tar_damaged(tar, "it ends within a file");
    tar->begin += (size_t)(size - beyond);
    tar->at += beyond;
    return 0;
}

int lr_tar_skip(struct lr_tar *tar, uint64_t size)
{
    if (tar->limits->direct)
        return jump(tar, size);
    while (size) {
        size_t piece = size < PIECE ? (size_t)size : PIECE;
        int got = lr_tar_need(tar, piece);
        if (got <= 0)
            return got ? -1 : lr_tar_damaged(tar, "it ends within a file");
        tar->begin += piece;
        size -= piece;
    }
    return 0;
}

/* What fills the last block of a file: umoci 0.4 leaves it out at the end of a layer. */
int lr_tar_pad(struct lr_tar *tar, size_t size)
{
    int got = lr_tar_need(tar, size);
    if (got < 0)
        return -1;
    tar->begin = got ? tar->begin + size : tar->end;
    return 0;
}

/* Who writes the archive into a pipe is to end as if all of it had been wanted. */
int lr_tar_drain(struct lr_tar *tar)
{
    for (uint64_t behind = 0; behind < BEHIND && !tar->ended; behind += tar->end) {
        tar->begin = tar->end = 0;
        if (lr_tar_need(tar, 1) < 0)
            return -1;
    }
    return 0;
}

int lr_tar_flush(struct lr_tar *tar)
{
    for (size_t done = 0; done < tar->used;) {
        ssize_t put = write(tar->out, tar->ready + done, tar->used - done);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return lr_fail(tar->err, "pass on what the archive holds", NULL);
        done += (size_t)put;
    }
    tar->used = 0;
    return 0;
}

int lr_tar_put(struct lr_tar *tar, const void *data, size_t size)
{
    const char *from = data;
    while (size) {
        if (tar->used == tar->room && lr_tar_flush(tar))
            return -1;
        size_t part = tar->room - tar->used < size ? tar->room - tar->used : size;
        memcpy(tar->ready + tar->used, from, part);
        tar->used += part;
        from += part;
        size -= part;
    }
    return 0;
}

static int put_chunk(struct lr_tar *tar, uint64_t offset, const char *data, size_t size)
{
    char head[12];
    uint32_t length = (uint32_t)size;
    memcpy(head, &offset, sizeof offset);
    memcpy(head + sizeof offset, &length, sizeof length);
    return lr_tar_put(tar, head, sizeof head) || lr_tar_put(tar, data, size) ? -1 : 0;
}

int lr_tar_copy(struct lr_tar *tar, uint64_t offset, uint64_t size)
{
    while (size) {
        /* Up to the next border, so that holes begin and end where file systems can have them. */
        size_t piece = PIECE - (size_t)(offset % PIECE);
        piece = size < piece ? (size_t)size : piece;
        int got = lr_tar_need(tar, piece);
        if (got <= 0)
            return got ? -1 : lr_tar_damaged(tar, "it ends within a file");
        const char *data = tar->data + tar->begin;
        bool hole = piece == PIECE && data[0] == 0 && memcmp(data, data + 1, piece - 1) == 0;
        if (!hole && put_chunk(tar, offset, data, piece))
            return -1;
        tar->begin += piece;
        offset += piece;
        size -= piece;
    }
    return 0;
}
