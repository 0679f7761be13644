/* feed.c: the bytes of a stream, from a pipe; see taking.h. */
#include "taking.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#define ROOM (256U << 10)
#define STRAIGHT (64U << 10)
/* A source from which nothing comes for so many milliseconds is a slow one. */
#define SOON 2

int lr_feed_open(struct lr_feed *feed, int fd, int cancel, struct lr_error *err)
{
    *feed = (struct lr_feed){.fd = fd, .cancel = cancel, .room = malloc(ROOM)};
    return feed->room ? 0 : lr_fail(err, "get memory", NULL);
}

/* Wait for more, or for being told to end. */
static int wait_for_more(const struct lr_feed *feed, struct lr_error *err)
{
    struct pollfd fds[2] = {{.fd = feed->fd, .events = POLLIN}, {.fd = feed->cancel, .events = POLLIN}};
    int timeout = SOON, come = 0;
    while (come <= 0) {
        come = poll(fds, 2, timeout);
        if (come < 0 && errno != EINTR)
            return lr_fail(err, "wait for the source", NULL);
        if (come == 0 && feed->waits)
            feed->waits(feed->argument);
        timeout = come == 0 ? -1 : timeout;
    }
    return fds[1].revents ? lr_fail_code(err, ECANCELED, "read the source", "") : 0;
}

int lr_feed_check(const struct lr_feed *feed, struct lr_error *err)
{
    struct pollfd fd = {.fd = feed->cancel, .events = POLLIN};
    return poll(&fd, 1, 0) > 0 ? lr_fail_code(err, ECANCELED, "read the source", "") : 0;
}

/* Some bytes, straight from the pipe; how many. */
static ssize_t read_some(struct lr_feed *feed, char *to, size_t most, struct lr_error *err)
{
    for (;;) {
        ssize_t got = read(feed->fd, to, most);
        if (got > 0)
            return got;
        if (got == 0)
            return lr_fail_code(err, EBADMSG, "ends too soon", "");
        if (errno == EAGAIN && wait_for_more(feed, err) < 0)
            return -1;
        if (errno != EAGAIN && errno != EINTR)
            return lr_fail(err, "read the source", NULL);
    }
}

ssize_t lr_feed_some(struct lr_feed *feed, const char **data, size_t most, struct lr_error *err)
{
    if (feed->at == feed->used) {
        ssize_t got = read_some(feed, feed->room, ROOM, err);
        if (got < 0)
            return -1;
        feed->at = 0;
        feed->used = (size_t)got;
    }
    size_t size = feed->used - feed->at < most ? feed->used - feed->at : most;
    *data = feed->room + feed->at;
    feed->at += size;
    return (ssize_t)size;
}

int lr_feed_take(struct lr_feed *feed, void *to, size_t size, struct lr_error *err)
{
    for (char *at = to; size;) {
        const char *data;
        /* What is long needs no stop in between. */
        bool straight = feed->at == feed->used && size >= STRAIGHT;
        ssize_t got = straight ? read_some(feed, at, size, err) : lr_feed_some(feed, &data, size, err);
        if (got < 0)
            return -1;
        if (!straight)
            memcpy(at, data, (size_t)got);
        at += got;
        size -= (size_t)got;
    }
    return 0;
}

void lr_feed_close(struct lr_feed *feed)
{
    free(feed->room);
    feed->room = NULL;
}
