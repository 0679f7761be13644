/* init.h: pid 1 of a sandbox. */
#ifndef LR_INIT_H
#define LR_INIT_H

#include "launch.h"
#include "plan.h"

#include <signal.h>

struct lr_init {
    const struct lr_launch *launch;
    struct lr_plan *plan;
    int control; /* to the launcher */
    int terminal; /* the slave of the command's own terminal; -1 */
    const sigset_t *mask; /* the caller's signal mask, which the command gets back */
};

/* Start the command and serve it: reap, forward signals, job control. Exits with the command's status; never returns. */
void lr_init_serve(const struct lr_init *init) __attribute__((noreturn));

/* Tell the launcher why there will be no command, and end. */
void lr_init_fail(int control, const struct lr_error *error) __attribute__((noreturn));

#endif
