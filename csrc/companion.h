/* companion.h: pasta(1), which gives a network namespace a way out without root: it runs beside an app, and ends with it. */
#ifndef LR_COMPANION_H
#define LR_COMPANION_H

#include "plan.h"

/* Start it for the namespaces that the process keeper is in, and wait until it has set them up. ready: a pipe, whose writing end keeper
 * has too. It lives as long as pid 1 behind pidfd. Returns the pid of the process that sees to that, which is ours to wait for. */
pid_t lr_companion_start(const struct lr_plan *plan, pid_t keeper, const int ready[2], int pidfd,
                         struct lr_error *err);

#endif
