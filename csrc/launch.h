/* launch.h: running a plan. The plan's format is prose in docs/plan.md; plan.c reads it. */
#ifndef LR_LAUNCH_H
#define LR_LAUNCH_H

#include "lr.h"

/* cffi:begin */

#define LR_KEEP_MOST 64

/* One start of a plan. Strings and arrays are the caller's and need to live for the call only. */
struct lr_launch {
    const char *plan; /* the plan's bytes, NUL separated */
    size_t plan_size;
    const char *const *argv; /* NULL-terminated; NULL: the plan's own command */
    const char *const *environ; /* the caller's environment, from which the plan keeps what it names */
    const char *const
        *env; /* NAME=VALUE words that are set over all others, NAME for the caller's value; NULL: none */
    const char *cwd; /* where to start, as seen inside; NULL: the plan's place */
    int cwd_must; /* 1: a missing cwd is an error; 0: the plan's place is taken instead, and stderr told */
    int lock_fd; /* an open file description that holds the app's lock: pid 1 keeps it; -1 for none */
    int app_fd; /* the app's folder, where others who join will find it; -1: nobody joins */
    int knocked_fd; /* what lr_join_knock gave, which lr_join then closes; 0: it is to knock itself */
    int stay; /* 1: it lives until its last process has gone, else only as long as the command */
    int leave; /* 1: return once the command's status is known, not once pid 1 is reaped: for who is about to exit */
    int status_fd; /* where its start and its end are told, as docs/json.md has it; 0: nowhere */
    int own_tty; /* 1: when stdin, stdout and stderr are a terminal, give the command a terminal of its own */
    const int *keep; /* descriptors that pid 1 holds as long as it lives, and nobody else inside gets */
    size_t keep_count; /* at most LR_KEEP_MOST */
    int net_fd; /* the network namespace that the plan says is given; 0: none */
    int detach; /* 1: return with status 0 once the command runs, and leave it alone; it writes to the log in app_fd; no own_tty */
};

/* How a start ended. */
struct lr_result {
    int status; /* 0..255: the command's exit status, 128+N for signal N */
    int signal; /* N; 0 if the command ended by itself */
    int started; /* 0: the command never ran, and the error record says why */
    int ended; /* 1: the command's end was reported */
    int first; /* 1: the command has ended, and other processes of the app are ended by that, with pid 1 */
    int stays; /* 1: the command has ended, and other processes of the app live on */
};

/* Run a plan and wait for it. Returns 0 with *result filled, or -1 with *err filled: nothing ran, or (result->started 0)
 * the sandbox was made but the command could not be executed. Must be called from the thread that will live until it returns. */
int lr_run(const struct lr_launch *launch, struct lr_result *result, struct lr_error *err);

/* Run a command in an app that runs, and wait for it; as lr_run, of whose arguments lock_fd and stay do not count. If nobody
 * listens in the app's folder (ECONNREFUSED, ENOENT), or pid 1 ended before it let us in (ECONNRESET), nothing has happened. */
int lr_join(const struct lr_launch *launch, struct lr_result *result, struct lr_error *err);

/* Send a signal to every process of a running app but its pid 1, which ends when no other is left. */
int lr_signal(int app_fd, int number, struct lr_error *err);

/* Check that the bytes are a plan that lr_run would accept, without running it. */
int lr_plan_check(const char *plan, size_t plan_size, struct lr_error *err);

/* cffi:end */

#endif
