/* child.h: what a start's child does. */
#ifndef LR_CHILD_H
#define LR_CHILD_H

#include "launch.h"
#include "log.h"
#include "mounts.h"

#include <signal.h>

/* Build the sandbox around ourselves, start the command and serve it as pid 1. Why that failed is told to the launcher. */
void lr_child_run(const struct lr_launch *launch, struct lr_plan *plan, struct lr_mounts *mounts, int control,
                  const struct lr_log *log, const sigset_t *mask) __attribute__((noreturn));

#endif
