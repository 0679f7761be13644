/* handed.c: see handed.h, memfd_create(2). */
#include "handed.h"

#include "current.h"
#include "door.h"
#include "handoff.h"
#include "join.h"
#include "launch.h"
#include "sys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#define MOST (64 << 20) /* bytes: a plan, and a command as long as exec allows */
#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

/* For a join that meets the app's beginning or end: as often as that, a moment apart. */
#define TRIES 20
#define MOMENT 2000000 /* ns */

extern char **environ;

struct bytes {
    const char *at;
    size_t size;
};

/* What a variable holds behind our pid. Then whoever was this process before has written it; one that was inherited is not meant for
 * us. */
static const char *own(const char *name)
{
    char *end;
    const char *text = getenv(name);
    return text && strtol(text, &end, 10) == getpid() && end != text && *end == ':' ? end + 1 : NULL;
}

bool lr_handed_is_passed(void)
{
    return own("LAYERRUN_PASSED") != NULL;
}

void lr_handed_pass(void)
{
    char text[32];
    snprintf(text, sizeof text, "%d:yes", getpid());
    setenv("LAYERRUN_PASSED", text, 1);
}

int lr_handed_end(const char *after, const char *id, int status, int lock_fd)
{
    char text[256];
    /* Pid 1 may be on its last steps, and holds the lock too. */
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
        ;
    snprintf(text, sizeof text, "%d:%s:%s:%d:%d", getpid(), after, id, status, lock_fd);
    return fcntl(lock_fd, F_SETFD, 0) || setenv("LAYERRUN_ENDED", text, 1) ? -1 : 0;
}

/* Sealed: nobody can change it under our eyes. */
static int map_start(int fd, struct bytes *bytes)
{
    struct stat info;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & SEALS) != SEALS || fstat(fd, &info) || info.st_uid != geteuid() ||
        info.st_size <= 0 || info.st_size > MOST)
        return -1;
    bytes->size = (size_t)info.st_size;
    bytes->at = mmap(NULL, bytes->size, PROT_READ, MAP_PRIVATE, fd, 0);
    return bytes->at == MAP_FAILED ? -1 : 0;
}

/* What Python let us inherit is not for what we execute. */
static int hold(int fd)
{
    return fd < 3 ? 0 : fcntl(fd, F_SETFD, FD_CLOEXEC);
}

static int hold_all(const struct lr_handoff *handoff)
{
    int failed =
        hold(handoff->lock_fd) || hold(handoff->app_fd) || hold(handoff->status_fd) || hold(handoff->net_fd);
    for (size_t i = 0; !failed && i < handoff->keep_count; i++)
        failed = hold(handoff->keep[i]);
    return failed;
}

static int start_or_join(const struct lr_handoff *handoff, struct lr_result *result, struct lr_error *err)
{
    const struct lr_launch launch = {
        .plan = handoff->plan,
        .plan_size = handoff->plan_size,
        .argv = handoff->argv,
        .environ = (const char *const *)environ,
        .env = handoff->env,
        .cwd = handoff->cwd,
        .cwd_must = handoff->cwd_must,
        .lock_fd = handoff->lock_fd,
        .app_fd = handoff->app_fd,
        .status_fd = handoff->status_fd,
        .net_fd = handoff->net_fd < 0 ? 0 : handoff->net_fd,
        .keep = handoff->keep,
        .keep_count = handoff->keep_count,
        .stay = handoff->stay,
        .leave = !*handoff->after || handoff->uppers,
        .own_tty = handoff->own_tty,
        .detach = handoff->detach,
    };
    if (!handoff->join)
        return lr_run(&launch, result, err);
    for (int left = TRIES; left; left--) {
        if (!lr_join(&launch, result, err))
            return 0;
        if (!lr_join_missed(err))
            return -1;
        nanosleep(&(struct timespec){.tv_nsec = MOMENT}, NULL);
    }
    return -1;
}

static bool is_untouched(const struct lr_handoff *handoff)
{
    for (const char **at = handoff->uppers; at && *at; at += 2)
        if (!lr_current_upper_is(at[0], at[1]))
            return false;
    return handoff->uppers != NULL;
}

/* Returns the exit status, or -1 if Python must go on. */
static int carry_out(struct lr_handoff *handoff, struct lr_error *why)
{
    struct lr_result result;
    struct lr_error error;
    if (start_or_join(handoff, &result, &error)) {
        if (!result.started) {
            *why = error;
            setenv("LAYERRUN_PASSED",
                   handoff->join && lr_join_missed(&error) ? handoff->again : handoff->passed, 1);
            if (handoff->status_fd > 2)
                fcntl(handoff->status_fd, F_SETFD, 0);
            return -1;
        }
        result.status = lr_door_lost(handoff->status_fd, &error);
    }
    if (handoff->detach)
        lr_door_say_detached(handoff->name);
    if (!*handoff->after || is_untouched(handoff))
        return lr_door_status(&result);
    if (lr_handed_end(handoff->after, handoff->id, result.status, handoff->lock_fd)) {
        fprintf(stderr, "layerrun: cannot finish %s: %s\n", handoff->after, strerror(errno));
        return result.status;
    }
    lr_steal(&handoff->lock_fd);
    return -1;
}

/* A program that started us could not know our pid beforehand. What it has written is sealed, and its own. */
static const char *parents(const char *name)
{
    char *end;
    const char *text = getenv(name);
    return text && strtol(text, &end, 10) == getppid() && end != text && *end == ':' ? end + 1 : NULL;
}

int lr_handed_run(bool alone, int *status_fd, struct lr_error *why)
{
    struct lr_handoff handoff = {.lock_fd = -1, .app_fd = -1, .net_fd = -1};
    struct bytes bytes;
    const char *named = alone ? parents("LAYERRUN_START") : own("LAYERRUN_START");
    LR_FD start = named ? atoi(named) : -1;
    int status = -1;
    unsetenv("LAYERRUN_START");
    unsetenv("LAYERRUN_PASSED");
    unsetenv("LAYERRUN_ENDED");
    if (start < 3) {
        lr_steal(&start);
        return LR_HANDED_NONE;
    }
    if (!map_start(start, &bytes) && !lr_handoff_parse(&handoff, bytes.at, bytes.size) &&
        !hold_all(&handoff)) {
        lr_close(&start);
        status = carry_out(&handoff, why);
        *status_fd = handoff.status_fd;
    } else
        lr_handed_pass(); /* not handed to us again, or it would go on for ever */
    lr_close(&handoff.lock_fd);
    lr_close(&handoff.app_fd);
    lr_handoff_free(&handoff);
    return status;
}
