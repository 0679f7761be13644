/* door.c: running a stored plan. Whatever is not as it should be is a doubt, not an error: Python, which knows everything, takes over
 * and says what is wrong.
 */
#include "door.h"

#include "command.h"
#include "current.h"
#include "join.h"
#include "launch.h"
#include "status.h"
#include "sys.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* For a start that meets another's beginning or end: most of these are over at once. */
#define FIRST_MOMENT 100000 /* ns */
#define LAST_MOMENT 4000000
#define PATIENCE 300000000

extern char **environ;

struct start {
    struct lr_launch launch;
    const struct lr_current *current;
    const char *name;
    int store;
    int lock; /* as lr_current_lock gave it before; 0: it is to be asked */
    bool again; /* it may go better in a moment */
};

/* Start the app, or join it if it runs. Returns -1 with nothing done. */
static int start_or_join(struct start *start, struct lr_error *why)
{
    struct lr_result result;
    struct lr_error error;
    LR_FD lock = start->lock ? start->lock : lr_current_lock(start->launch.app_fd);
    start->lock = 0;
    start->again = lock == LR_LOCK_ENDING;
    if (lock == -1 || lock == LR_LOCK_ENDING ||
        !lr_current_is_there(start->current, start->store, start->name))
        return -1;
    start->launch.lock_fd = lock;
    if (!(lock == LR_LOCK_BUSY ? lr_join(&start->launch, &result, &error)
                               : lr_run(&start->launch, &result, &error))) {
        if (start->launch.detach)
            lr_door_say_detached(start->name);
        return lr_door_status(&result);
    }
    if (result.started) /* it ran, and must not run again */
        return lr_door_lost(start->launch.status_fd, &error);
    start->launch.knocked_fd = 0;
    start->again = lock == LR_LOCK_BUSY && lr_join_missed(&error);
    if (lr_command_is_at_fault(&error))
        *why = error;
    return -1;
}

int lr_door_status(const struct lr_result *result)
{
    return result->status | result->signal << 8;
}

void lr_door_say_detached(const char *name)
{
    if (isatty(2))
        fprintf(stderr, "layerrun: %s runs in the background: layerrun logs %s\n", name, name);
}

int lr_door_lost(int status_fd, const struct lr_error *error)
{
    fprintf(stderr, "layerrun: %s: %s\n", error->step, strerror(error->code));
    lr_status_exited(status_fd, 125, 0);
    return 125;
}

int lr_door_run(const struct lr_options *options, struct lr_error *why)
{
    struct lr_current current = LR_CURRENT_NONE;
    char cwd[PATH_MAX];
    int status = -1;
    LR_FD store = lr_current_store();
    LR_FD app = -1;
    LR_FD lock = -1;
    LR_FD knocked = -1;
    struct lr_error error;
    /* Of a folder that is gone or too deep Python knows more. */
    if (store < 0 || !getcwd(cwd, sizeof cwd) || lr_current_read(&current, store, options->name))
        goto out;
    app = lr_current_app(&current, store);
    if (app < 0)
        goto out;
    /* Knock first, then look: what pid 1 does for us takes as long. */
    lock = lr_current_lock(app);
    knocked = lock == LR_LOCK_BUSY ? lr_join_knock(app, &error) : -1;
    if (!lr_current_holds(&current, store, options->name, cwd))
        goto out;
    struct start start = {
        .launch =
            {
                .plan = current.stored.plan,
                .plan_size = current.stored.plan_size,
                .argv = options->argv,
                .environ = (const char *const *)environ,
                .env = options->env,
                .cwd = options->cwd       ? options->cwd
                       : current.keep_cwd ? cwd
                                          : NULL,
                .cwd_must = options->cwd != NULL,
                .app_fd = app,
                .knocked_fd = knocked < 0 ? 0 : lr_steal(&knocked),
                .status_fd = options->status_fd,
                .stay = 1,
                .leave = 1,
                .detach = options->detach,
                .own_tty = !options->detach && isatty(0) && isatty(1) && isatty(2),
            },
        .current = &current,
        .name = options->name,
        .store = store,
        .lock = lock < 0 ? lock : lr_steal(&lock),
        .again = true,
    };
    for (long moment = FIRST_MOMENT, waited = 0; start.again && waited < PATIENCE; waited += moment) {
        status = start_or_join(&start, why);
        if (start.again)
            nanosleep(&(struct timespec){.tv_nsec = moment}, NULL);
        moment = moment * 2 < LAST_MOMENT ? moment * 2 : LAST_MOMENT;
    }
out:
    lr_current_close(&current);
    return status;
}
