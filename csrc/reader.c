/* reader.c: records out of a stream that nobody vouches for, checked and hashed; see taking.h and stream.h. */
#include "taking.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Bytes of path, link and attributes of one record. */
#define HEADER (1U << 20)
/* Entries between two looks whether to go on: where they come fast, nobody waits for them and looks then. */
#define ENTRIES 256

_Static_assert(sizeof(struct lr_record) == 64, "the head of a record");

static int refuse(const char *why, const char *path, struct lr_error *err)
{
    return lr_fail_code(err, EBADMSG, why, path);
}

int lr_reader_open(struct lr_reader *reader, const struct lr_intake_options *options, struct lr_error *err)
{
    *reader = (struct lr_reader){.options = options};
    return lr_feed_open(&reader->feed, options->stream, options->cancel, err) < 0 ||
                   lr_content_open(&reader->content, options, &reader->feed, 'r', err) < 0
               ? -1
               : 0;
}

void lr_reader_close(struct lr_reader *reader)
{
    lr_feed_close(&reader->feed);
    lr_content_close(&reader->content);
}

void lr_item_free(struct lr_item *item)
{
    if (!item)
        return;
    lr_buf_free(&item->names);
    free(item->attributes);
    free(item->data);
    free(item);
}

/* Names between single slashes, none of them empty, "." or ".."; the root is "". */
static const char *wrong_path(const char *path, size_t size, bool strict)
{
    size_t depth = 0;
    if (size == 0)
        return NULL;
    if (strlen(path) != size)
        return "has a NUL byte in its name";
    for (const char *at = path;; at++) {
        size_t length = strcspn(at, "/");
        if (length > 255)
            return "has a name of more than 255 bytes";
        if (length == 0 || (length == 1 && at[0] == '.') || (length == 2 && at[0] == '.' && at[1] == '.'))
            return "leads elsewhere";
        if (strict && ++depth > LR_PARTS)
            return "lies too deep";
        at += length;
        if (!*at)
            return NULL;
    }
}

static const char *wrong_head(const struct lr_reader *reader, const struct lr_item *item)
{
    const struct lr_record *head = &item->head;
    const struct lr_intake_options *options = reader->options;
    bool link = head->kind == LR_RECORD_LINK, hard = head->kind == LR_RECORD_HARD;
    bool known = head->kind == LR_RECORD_KNOWN, layer = head->kind == LR_RECORD_LAYER;
    if (!strchr("dfklhpcbwone", head->kind) || head->kind == 0 || head->mode > 07777 ||
        head->mtime_ns >= 1000000000)
        return "is no proper record";
    if (head->at && (head->kind != LR_RECORD_FILE || head->size == 0 || options->archive < 0 ||
                     head->at > INT64_MAX || head->size > INT64_MAX - head->at))
        return "is no proper record";
    if (options->ids && (head->uid >= options->ids || head->gid >= options->ids))
        return "belongs to an id that there is none of here";
    if (head->link && !(link || hard || known || layer))
        return "is no proper record";
    if (strlen(item->link) != head->link || (link && (head->link == 0 || head->link > 4095)))
        return "is a link to nowhere";
    if (hard && (head->link == 0 || wrong_path(item->link, head->link, options->strict)))
        return "is a hard link to what is not there, or behind a link";
    if (known && !options->known && !reader->own)
        return "claims to be known";
    if (known && (head->link != LR_OBJECT - 1 || strspn(item->link, "0123456789abcdef-") != head->link))
        return "is no proper record";
    if (head->path == 0 && !strchr("done", head->kind))
        return "stands for the root, and is no folder";
    return NULL;
}

static bool is_kept(const struct lr_attribute *one)
{
    if (strcmp(one->key, "security.capability") == 0)
        /* Of revision 2, which names no user namespace: capabilities(7). */
        return one->size == 20 && one->value[3] == 2;
    return strncmp(one->key, "user.", 5) == 0 && strncmp(one->key, "user.overlay.", 13) != 0;
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct lr_attribute *)a)->key, ((const struct lr_attribute *)b)->key);
}

/* Take the attributes apart: u16 length of key, u32 length of value, key, value. Keys get their NUL in `keys`. */
static int take_attributes(const struct lr_reader *reader, struct lr_item *item, const char *at, size_t size,
                           char *keys, struct lr_error *err)
{
    size_t room = 0;
    for (const char *end = at + size; at < end;) {
        uint16_t key;
        uint32_t value;
        if (end - at < 6)
            return refuse("is no proper record", item->path, err);
        memcpy(&key, at, 2);
        memcpy(&value, at + 2, 4);
        at += 6;
        if ((size_t)(end - at) < (size_t)key + value || key == 0 || key > 255 || memchr(at, '\0', key))
            return refuse("is no proper record", item->path, err);
        struct lr_attribute one = {keys, at + key, value};
        memcpy(keys, at, key);
        keys[key] = '\0';
        keys += key + 1;
        at += key + value;
        if (strncmp(one.key, "trusted.overlay.", 16) == 0 || strncmp(one.key, "user.overlay.", 13) == 0 ||
            (reader->options->strict && !is_kept(&one)))
            continue;
        if (item->attributes_count == room) {
            room = room ? room * 2 : 4;
            struct lr_attribute *all = realloc(item->attributes, room * sizeof *all);
            if (!all)
                return lr_fail(err, "get memory", NULL);
            item->attributes = all;
        }
        item->attributes[item->attributes_count++] = one;
    }
    if (item->attributes_count)
        qsort(item->attributes, item->attributes_count, sizeof *item->attributes, by_key);
    for (size_t i = 1; i < item->attributes_count; i++)
        if (strcmp(item->attributes[i - 1].key, item->attributes[i].key) == 0)
            return refuse("has an attribute twice", item->path, err);
    return 0;
}

static int take_head(struct lr_reader *reader, struct lr_item *item, struct lr_error *err)
{
    struct lr_record *head = &item->head;
    struct lr_buf *names = &item->names;
    if (lr_feed_take(&reader->feed, head, sizeof *head, err) < 0)
        return -1;
    if (head->path > HEADER || head->link > HEADER || head->xattrs > HEADER)
        return refuse("has a header that is too long", "", err);
    size_t path = head->path, link = head->link, xattrs = head->xattrs;
    if (lr_buf_room(names, path + link + 2 * xattrs + 3, err) < 0)
        return -1;
    char *at = names->data;
    item->path = at;
    item->link = at + path + 1;
    if (lr_feed_take(&reader->feed, at, path, err) < 0 ||
        lr_feed_take(&reader->feed, at + path + 1, link, err) < 0 ||
        lr_feed_take(&reader->feed, at + path + link + 2, xattrs, err) < 0)
        return -1;
    at[path] = at[path + 1 + link] = '\0';
    const char *why = wrong_path(item->path, path, reader->options->strict);
    if (!why)
        why = wrong_head(reader, item);
    if (why)
        return refuse(why, item->path, err);
    return take_attributes(reader, item, at + path + link + 2, xattrs, at + path + link + 2 + xattrs, err);
}

static int take_file(struct lr_reader *reader, struct lr_item *item, struct lr_error *err)
{
    uint64_t size = item->head.size;
    reader->size += size;
    if (reader->size > reader->options->size || reader->size < size)
        return refuse("holds more than may come in", item->path, err);
    item->raw = item->head.at != 0;
    return item->raw ? 0 : lr_content_take(&reader->content, item, err);
}

struct lr_item *lr_reader_next(struct lr_reader *reader, struct lr_error *err)
{
    struct lr_item *item = calloc(1, sizeof *item);
    int done = item ? take_head(reader, item, err) : lr_fail(err, "get memory", NULL);
    if (done == 0 && reader->entries % ENTRIES == 0)
        done = lr_feed_check(&reader->feed, err);
    if (done == 0 && item->head.kind != LR_RECORD_END && ++reader->entries > reader->options->entries)
        done = refuse("is one too many", item->path, err);
    if (done == 0 && item->head.kind == LR_RECORD_FILE)
        done = take_file(reader, item, err);
    if (done == 0 && item->head.kind == LR_RECORD_KNOWN) {
        /* What it names must be what it says: an object's attributes are not looked at again. */
        if (item->link[64] != '-' || lr_unhex(item->link, LR_SHA_SIZE, item->digest) < 0)
            done = refuse("is no proper record", item->path, err);
        if (done == 0)
            lr_object_name(&reader->content.meta, reader->options->scheme, item);
        if (done == 0 && strcmp(item->object, item->link) != 0)
            done = refuse("is no proper record", item->path, err);
        if (done == 0 && reader->own && (reader->size += item->head.size) > reader->options->size)
            done = refuse("holds more than may come in", item->path, err);
    }
    if (done == 0)
        return item;
    lr_item_free(item);
    return NULL;
}
