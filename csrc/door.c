/* door.c: running a stored plan. Whatever is not as it should be is a doubt, not an error: Python, which knows everything, takes over
 * and says what is wrong.
 */
#include "door.h"

#include "current.h"
#include "join.h"
#include "launch.h"
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

/* Start the app, or join it if it runs. Returns -1 with nothing done and, in again, whether it may go better in a moment. */
static int start_or_join(struct lr_launch *launch, const struct lr_current *current, int store,
                         const char *name, struct lr_result *result, bool *again)
{
    struct lr_error error;
    LR_FD lock = lr_current_lock(launch->app_fd);
    *again = false;
    if (lock == -1 || !lr_current_is_there(current, store, name))
        return -1;
    if (lock == LR_LOCK_ENDING) {
        *again = true;
        return -1;
    }
    launch->lock_fd = lock;
    if (!(lock == LR_LOCK_BUSY ? lr_join(launch, result, &error) : lr_run(launch, result, &error)))
        return result->status;
    if (result->started) { /* it ran, and must not run again */
        fprintf(stderr, "layerrun: %s: %s\n", error.step, strerror(error.code));
        return 125;
    }
    *again = lock == LR_LOCK_BUSY && lr_join_missed(&error);
    return -1;
}

int lr_door_run(const char *name, const char *const *argv)
{
    struct lr_current current = LR_CURRENT_NONE;
    struct lr_result result;
    char cwd[PATH_MAX];
    int status = -1;
    LR_FD store = lr_current_store();
    LR_FD app = -1;
    bool again = true;
    /* Of a folder that is gone or too deep Python knows more. */
    if (store < 0 || !getcwd(cwd, sizeof cwd) || lr_current_open(&current, store, name, cwd))
        goto out;
    app = lr_current_app(&current, store);
    if (app < 0)
        goto out;
    struct lr_launch launch = {
        .plan = current.stored.plan,
        .plan_size = current.stored.plan_size,
        .argv = argv,
        .environ = (const char *const *)environ,
        .cwd = current.keep_cwd ? cwd : NULL,
        .app_fd = app,
        .stay = 1,
        .leave = 1,
        .own_tty = isatty(0) && isatty(1) && isatty(2),
    };
    for (long moment = FIRST_MOMENT, waited = 0; again && waited < PATIENCE; waited += moment) {
        status = start_or_join(&launch, &current, store, name, &result, &again);
        if (again)
            nanosleep(&(struct timespec){.tv_nsec = moment}, NULL);
        moment = moment * 2 < LAST_MOMENT ? moment * 2 : LAST_MOMENT;
    }
out:
    lr_current_close(&current);
    return status;
}
