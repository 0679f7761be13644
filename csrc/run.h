/* run.h: what a fresh start and a join have in common in the launcher. */
#ifndef LR_RUN_H
#define LR_RUN_H

#include "launch.h"
#include "plan.h"

#include <signal.h>

/* All signals are blocked while a command runs, and read from a descriptor. */
struct lr_run_signals {
    int fd;
    sigset_t mask; /* the caller's, which the command gets back */
    struct sigaction chld;
};

int lr_run_check(const struct lr_launch *launch, const struct lr_plan *plan, struct lr_error *err);

/* A pipe whose read end tells when the command has been executed, if anybody asks; else two times -1. */
int lr_run_watch(const struct lr_launch *launch, int *executed, int *executing, struct lr_error *err);

int lr_run_block(struct lr_run_signals *signals, struct lr_error *err);
void lr_run_unblock(struct lr_run_signals *signals);

#endif
