/* intake.c: a stream becomes a tree, objects and a manifest; see intake.h.
 *
 * One thread reads and hashes, another writes; who would wait does a part of the other's work.
 */
#include "taking.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What may wait between the two: records, and bytes of files that are held; as much again may be in work. */
#define MOST 1024
#define BYTES (8U << 20)
/* From how many on the other thread is late. */
#define BEHIND (2U << 20)
/* From how much on the other thread is woken: turns cost more than small files. */
#define WAKE 64
#define WAKE_BYTES (512U << 10)

struct line {
    pthread_mutex_t mutex;
    pthread_cond_t more, less;
    struct lr_item *first, **last;
    size_t count, bytes;
    bool waits; /* the other thread has nothing to do */
    bool hurry; /* what is there is to be taken out, be it little */
    bool ended; /* nothing will be added */
    bool failed; /* nothing will be taken out */
    struct lr_taker taker;
    struct lr_content content;
    struct lr_error err;
};

/* What is read, and the layer that it belongs to; "" for one without a name. */
struct reading {
    struct lr_reader reader;
    struct lr_recorder recorder;
    char layer[256];
    char action; /* of the plan, see intake.h */
    const char *plan; /* the layers that are still to come */
};

static size_t weight(const struct lr_item *item)
{
    size_t around = item->names.size + item->attributes_count * sizeof *item->attributes;
    return around + (item->data || item->raw ? (size_t)item->head.size : 0);
}

static bool is_worth_it(const struct line *line)
{
    return line->hurry || line->count >= WAKE || line->bytes >= WAKE_BYTES;
}

/* Who has nothing to do may as well read contents. */
static bool is_idle(struct line *line)
{
    pthread_mutex_lock(&line->mutex);
    bool idle = line->waits && line->bytes < WAKE_BYTES;
    pthread_mutex_unlock(&line->mutex);
    return idle;
}

/* Who would wait for the other one may as well write. */
static bool is_behind(struct line *line)
{
    pthread_mutex_lock(&line->mutex);
    bool behind = line->bytes > BEHIND;
    pthread_mutex_unlock(&line->mutex);
    return behind;
}

/* The other thread: takes all items out that there are; NULL: there will be no more. */
static struct lr_item *take_out(struct line *line)
{
    pthread_mutex_lock(&line->mutex);
    line->waits = true;
    while (!is_worth_it(line) && !line->ended)
        pthread_cond_wait(&line->more, &line->mutex);
    line->waits = false;
    struct lr_item *all = line->first;
    line->first = NULL;
    line->last = &line->first;
    line->count = line->bytes = 0;
    line->hurry = false;
    pthread_cond_signal(&line->less);
    pthread_mutex_unlock(&line->mutex);
    return all;
}

/* What the other thread does with an item. */
static int take(struct line *line, struct lr_item *item)
{
    if (item->piece)
        return lr_content_piece(&line->content, item, &line->err);
    if (item->raw && lr_content_take(&line->content, item, &line->err) < 0)
        return -1;
    return lr_taker_take(&line->taker, item, &line->err);
}

static void *work(void *argument)
{
    struct line *line = argument;
    struct lr_item *item = NULL, *next;
    bool failed = false;
    while (item || (item = take_out(line))) {
        next = item->next;
        if (!failed && take(line, item) < 0) {
            failed = true;
            pthread_mutex_lock(&line->mutex);
            line->failed = true;
            pthread_cond_signal(&line->less);
            pthread_mutex_unlock(&line->mutex);
        }
        lr_item_free(item);
        item = next;
    }
    return NULL;
}

/* false: the other thread has failed; the item is freed. */
static bool put_in(struct line *line, struct lr_item *item)
{
    pthread_mutex_lock(&line->mutex);
    while (!line->failed && (line->count >= MOST || (line->count && line->bytes + weight(item) > BYTES))) {
        line->hurry = true;
        pthread_cond_signal(&line->more);
        pthread_cond_wait(&line->less, &line->mutex);
    }
    bool failed = line->failed, told = is_worth_it(line);
    if (!failed) {
        *line->last = item;
        line->last = &item->next;
        line->count++;
        line->bytes += weight(item);
        if (!told && is_worth_it(line))
            pthread_cond_signal(&line->more);
    }
    pthread_mutex_unlock(&line->mutex);
    if (failed)
        lr_item_free(item);
    return !failed;
}

/* A piece of a file; see taking.h. */
static int pass_on(void *argument, struct lr_item *piece, struct lr_error *err)
{
    return put_in(argument, piece) ? 0 : lr_fail_code(err, ECANCELED, "read the source", "");
}

/* What reads has to wait itself: what it has read shall not. */
static void hurry(void *argument)
{
    struct line *line = argument;
    pthread_mutex_lock(&line->mutex);
    line->hurry = line->count != 0;
    pthread_cond_signal(&line->more);
    pthread_mutex_unlock(&line->mutex);
}

static void tell(const struct lr_reader *reader)
{
    uint64_t pair[2] = {reader->entries, reader->size};
    if (reader->options->progress >= 0 && write(reader->options->progress, pair, sizeof pair) < 0)
        return; /* the pipe is full: who reads it is behind anyway */
}

/* A layer whose record the store has: that is read in its stead, and counts towards the limits. */
static int replay(struct lr_reader *reader, struct line *line, int fd, struct lr_error *err)
{
    struct lr_intake_options options = *reader->options;
    struct lr_reader own = {0};
    struct lr_item *item = NULL;
    options.stream = fd;
    options.progress = -1;
    int done = lr_reader_open(&own, &options, err);
    own.own = true;
    own.entries = reader->entries;
    own.size = reader->size;
    while (done == 0 && (item = lr_reader_next(&own, err)) && item->head.kind != LR_RECORD_END)
        if (!put_in(line, item))
            done = -1;
    if (done == 0 && item)
        lr_item_free(item);
    reader->entries = own.entries;
    reader->size = own.size;
    lr_reader_close(&own);
    /* A record that is damaged is as one whose objects are gone: the source has to tell it all. */
    if (!item && err->code == EBADMSG)
        err->code = ENODATA;
    return item ? done : -1;
}

/* The layer before has come to its end. */
static int end_layer(struct reading *reading, struct line *line, struct lr_error *err)
{
    LR_CLEANUP(lr_close) int fd = -1;
    if (reading->action != 'r')
        return lr_recorder_end(&reading->recorder, err);
    fd = lr_record_open(reading->reader.options, reading->layer);
    if (fd < 0)
        return lr_fail_code(err, ENODATA, "find the record of a layer", reading->layer);
    return replay(&reading->reader, line, fd, err);
}

/* A layer begins. Who writes the stream may have been taken over, so it is the one that was announced. */
static int begin_layer(struct reading *reading, const char *name, struct lr_error *err)
{
    const char *plan = reading->plan ? reading->plan : "";
    size_t length = strcspn(plan, "\n");
    if (length < 2 || length > sizeof reading->layer || strlen(name) != length - 1 ||
        memcmp(plan + 1, name, length - 1))
        return lr_fail_code(err, EBADMSG, "has a layer that was not announced", "");
    reading->plan = plan + length + (plan[length] == '\n');
    snprintf(reading->layer, sizeof reading->layer, "%s", name);
    reading->action = *plan;
    return *plan == 'w' ? lr_recorder_begin(&reading->recorder, reading->reader.options, name, err) : 0;
}

/* What has to do with layers and their records. */
static int pass_layers(struct reading *reading, struct line *line, const struct lr_item *item,
                       struct lr_error *err)
{
    bool begins = item->head.kind == LR_RECORD_LAYER;
    if ((begins || item->head.kind == LR_RECORD_END) && end_layer(reading, line, err) < 0)
        return -1;
    if (begins)
        return begin_layer(reading, item->link, err);
    if (item->head.kind == LR_RECORD_END)
        return reading->plan && *reading->plan ? lr_fail_code(err, EBADMSG, "ends too soon", "") : 0;
    if (reading->action == 'r')
        return lr_fail_code(err, EBADMSG, "adds to a layer that is known", item->path);
    return lr_recorder_add(&reading->recorder, item, err);
}

/* Who has time reads the content of a raw item; but what may be recorded has to have its digest by then. */
static int settle(struct reading *reading, struct line *line, struct lr_item *item, struct lr_error *err)
{
    struct lr_content *content = &reading->reader.content;
    if (item->raw && !reading->action && item->head.size <= LR_HELD && is_idle(line))
        return 0; /* of a large one both do a part */
    if (item->raw && lr_content_take(content, item, err) < 0)
        return -1;
    if (!item->data || !is_behind(line) || lr_object_is_stored(&line->taker, item))
        return 0;
    return lr_content_spill(content, item, err);
}

/* Read all records into the line. */
static int read_all(struct reading *reading, struct line *line, struct lr_error *err)
{
    struct lr_reader *reader = &reading->reader;
    struct lr_item *item;
    uint64_t told = 0;
    while ((item = lr_reader_next(reader, err))) {
        bool end = item->head.kind == LR_RECORD_END;
        int done = settle(reading, line, item, err);
        if (done == 0)
            done = pass_layers(reading, line, item, err);
        if (done < 0 || end) {
            lr_item_free(item);
            tell(reader);
            return done;
        }
        if (reader->size + (reader->entries << 12) - told > 1U << 20) {
            told = reader->size + (reader->entries << 12);
            tell(reader);
        }
        if (!put_in(line, item))
            return -1;
    }
    return -1;
}

static int run(struct reading *reading, struct line *line, struct lr_error *err)
{
    pthread_t thread;
    int done = pthread_create(&thread, NULL, work, line);
    if (done)
        return lr_fail_code(err, done, "start a thread", "");
    done = read_all(reading, line, err);
    pthread_mutex_lock(&line->mutex);
    line->ended = true;
    pthread_cond_signal(&line->more);
    pthread_mutex_unlock(&line->mutex);
    pthread_join(thread, NULL);
    if (line->failed)
        *err = line->err;
    return line->failed ? -1 : done;
}

int lr_intake(const struct lr_intake_options *options, struct lr_intake_result *result, struct lr_error *err)
{
    struct reading reading = {.recorder = {.fd = -1}, .plan = options->plan};
    /* Room for files is used again and again: to give it back to the kernel each time costs more than to fill it. */
    mallopt(M_MMAP_THRESHOLD, 2 * (int)LR_HELD);
    mallopt(M_TRIM_THRESHOLD, 8 * (int)BYTES);
    struct line *line = calloc(1, sizeof *line);
    if (!line)
        return lr_fail(err, "get memory", NULL);
    *result = (struct lr_intake_result){0};
    pthread_mutex_init(&line->mutex, NULL);
    pthread_cond_init(&line->more, NULL);
    pthread_cond_init(&line->less, NULL);
    line->last = &line->first;
    int done = lr_reader_open(&reading.reader, options, err);
    reading.reader.feed.waits = hurry;
    reading.reader.feed.argument = line;
    reading.reader.content.passes = pass_on;
    reading.reader.content.argument = line;
    if (done == 0)
        done = lr_content_open(&line->content, options, &reading.reader.feed, 'w', err);
    if (done == 0)
        done = lr_taker_open(&line->taker, options, err);
    if (done == 0)
        done = run(&reading, line, err);
    lr_reader_close(&reading.reader);
    lr_content_close(&line->content);
    lr_recorder_close(&reading.recorder);
    if (done == 0)
        done = lr_manifest_write(&line->taker, result, err);
    result->fresh = line->taker.fresh;
    result->fresh_size = line->taker.fresh_size;
    result->known = line->taker.known;
    lr_taker_close(&line->taker);
    pthread_mutex_destroy(&line->mutex);
    pthread_cond_destroy(&line->more);
    pthread_cond_destroy(&line->less);
    free(line);
    return done;
}
