/* command.h: what is run inside, and becoming it. */
#ifndef LR_COMMAND_H
#define LR_COMMAND_H

#include "lr.h"
#include "rlimits.h"

#include <signal.h>
#include <stdbool.h>
#include <sys/types.h>

struct lr_command {
    char *const *argv;
    char *const *env;
    const char *cwd; /* where to start; NULL: in place */
    const char *place; /* where else */
    bool cwd_must;
    bool has_umask;
    mode_t umask;
    const sigset_t *mask; /* the caller's signal mask, which the command gets back */
    const sigset_t *ignored; /* the signals that the caller ignores, as under nohup(1); NULL: as they are */
    const struct lr_limits *limits; /* NULL: as they are */
    const struct lr_rlimits *rlimits; /* the app's own, over those; NULL: none */
    int terminal; /* the slave of a terminal of its own; -1 */
};

/* Become the command, in a process that was forked for it. If that fails, tell the launcher why, and end. */
void lr_command_run(const struct lr_command *command, int control) __attribute__((noreturn));

/* Tell the launcher why there will be no command, and end. */
void lr_command_fail(int control, const struct lr_error *error) __attribute__((noreturn));

/* Whether what failed is the command or its folder, and not the sandbox. */
bool lr_command_is_at_fault(const struct lr_error *error);

/* The exit status of a command that could not be run, as runtime/explain.py has it. */
int lr_command_status(const struct lr_error *error);

#endif
