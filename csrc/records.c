/* records.c: what layers of images consisted of, so that one that comes again needs not be read; see taking.h.
 *
 * A record of a layer is a stream itself, with each file as a known one (stream.h). It is the store's own: what is in
 * there was checked when it came in.
 */
#include "taking.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RUN 65536

/* The name of a record, or "": a layer with such a name is not recorded. */
static void name_record(const struct lr_intake_options *options, const char *layer, char name[256])
{
    size_t length = strlen(layer);
    *name = '\0';
    if (length == 0 || length > 200 || *layer == '.' ||
        strspn(layer, "abcdefghijklmnopqrstuvwxyz0123456789:_.-") != length)
        return;
    snprintf(name, 256, "%s.%s", layer, options->scheme);
}

static int flush(struct lr_recorder *recorder, struct lr_error *err)
{
    const char *data = recorder->out.data;
    for (size_t left = recorder->out.used; left;) {
        ssize_t put = write(recorder->fd, data, left);
        if (put < 0 && errno != EINTR)
            return lr_fail(err, "write the record of a layer", NULL);
        data += put > 0 ? put : 0;
        left -= put > 0 ? (size_t)put : 0;
    }
    recorder->out.used = 0;
    return 0;
}

int lr_recorder_end(struct lr_recorder *recorder, struct lr_error *err)
{
    struct lr_record end = {.kind = LR_RECORD_END};
    if (recorder->fd < 0)
        return 0;
    int done = lr_buf_add(&recorder->out, &end, sizeof end, err) < 0 ? -1 : flush(recorder, err);
    lr_close(&recorder->fd);
    return done;
}

int lr_recorder_begin(struct lr_recorder *recorder, const struct lr_intake_options *options,
                      const char *layer, struct lr_error *err)
{
    char name[256];
    name_record(options, layer, name);
    if (lr_recorder_end(recorder, err) < 0)
        return -1;
    if (!*name || options->layers < 0)
        return 0;
    recorder->fd = openat(options->layers, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    return recorder->fd < 0 ? lr_fail(err, "make the record of a layer", name) : 0;
}

int lr_recorder_add(struct lr_recorder *recorder, const struct lr_item *item, struct lr_error *err)
{
    struct lr_buf *out = &recorder->out;
    struct lr_record head = item->head;
    const char *link = item->link;
    if (recorder->fd < 0)
        return 0;
    if (head.kind == LR_RECORD_FILE) {
        head.kind = LR_RECORD_KNOWN;
        head.at = 0;
        link = item->object;
    }
    head.link = (uint32_t)strlen(link);
    head.xattrs = 0;
    for (size_t i = 0; i < item->attributes_count; i++)
        head.xattrs += 6 + (uint32_t)strlen(item->attributes[i].key) + item->attributes[i].size;
    if (lr_buf_add(out, &head, sizeof head, err) < 0 || lr_buf_add(out, item->path, head.path, err) < 0 ||
        lr_buf_add(out, link, head.link, err) < 0)
        return -1;
    for (size_t i = 0; i < item->attributes_count; i++) {
        const struct lr_attribute *one = &item->attributes[i];
        uint16_t key = (uint16_t)strlen(one->key);
        if (lr_buf_add(out, &key, 2, err) < 0 || lr_buf_add(out, &one->size, 4, err) < 0 ||
            lr_buf_add(out, one->key, key, err) < 0 || lr_buf_add(out, one->value, one->size, err) < 0)
            return -1;
    }
    return out->used < RUN ? 0 : flush(recorder, err);
}

void lr_recorder_close(struct lr_recorder *recorder)
{
    lr_close(&recorder->fd);
    lr_buf_free(&recorder->out);
}

int lr_record_open(const struct lr_intake_options *options, const char *layer)
{
    char name[256];
    name_record(options, layer, name);
    if (!*name || options->records < 0)
        return -1;
    int fd = openat(options->records, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    /* When it was used last, for who removes old ones; it is fine if that cannot be said. */
    if (fd >= 0 && futimens(fd, NULL) < 0)
        errno = 0;
    return fd;
}
