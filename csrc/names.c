/* names.c: growing buffers and the lists of names they hold. */
#include "walk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void lr_close(int *fd)
{
    if (*fd >= 0) {
        int kept = errno;
        close(*fd);
        errno = kept;
        *fd = -1;
    }
}

int lr_buf_room(struct lr_buf *buf, size_t more, struct lr_error *err)
{
    if (buf->size - buf->used >= more)
        return 0;
    size_t size = buf->size ? buf->size : 256;
    while (size - buf->used < more)
        size *= 2;
    char *data = realloc(buf->data, size);
    if (!data)
        return lr_fail(err, "get memory", NULL);
    buf->data = data;
    buf->size = size;
    return 0;
}

int lr_buf_add(struct lr_buf *buf, const void *data, size_t size, struct lr_error *err)
{
    if (lr_buf_room(buf, size, err) < 0)
        return -1;
    if (size)
        memcpy(buf->data + buf->used, data, size);
    buf->used += size;
    return 0;
}

void lr_buf_free(struct lr_buf *buf)
{
    free(buf->data);
    *buf = (struct lr_buf){0};
}

const char *lr_names_get(const struct lr_names *names, size_t i)
{
    return names->bytes.data + names->at[i] + 1;
}

unsigned char lr_names_type(const struct lr_names *names, size_t i)
{
    return (unsigned char)names->bytes.data[names->at[i]];
}

static int compare(const void *a, const void *b, void *bytes)
{
    /* strcmp(3) compares as unsigned bytes. */
    return strcmp((const char *)bytes + *(const size_t *)a + 1, (const char *)bytes + *(const size_t *)b + 1);
}

void lr_names_sort(struct lr_names *names)
{
    if (names->count > 1)
        qsort_r(names->at, names->count, sizeof *names->at, compare, names->bytes.data);
}

void lr_names_unique(struct lr_names *names)
{
    size_t kept = 0;
    for (size_t i = 0; i < names->count; i++)
        if (kept == 0 || strcmp(lr_names_get(names, kept - 1), lr_names_get(names, i)) != 0)
            names->at[kept++] = names->at[i];
    names->count = kept;
}

void lr_names_free(struct lr_names *names)
{
    lr_buf_free(&names->bytes);
    free(names->at);
    *names = (struct lr_names){0};
}
