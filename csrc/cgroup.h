/* cgroup.h: a control group for each app that runs, where the caller may make one. See cgroups(7) and docs/limits.md. */
#ifndef LR_CGROUP_H
#define LR_CGROUP_H

#include "plan.h"

/* Open the plan's group, made if it is not there and then recorded as the link "cgroup" in the app's folder: beneath our own group or,
 * for a plan with limits, where its controllers are to be had; and set the limits. Those that are not held are marked LR_FLAG_UNHELD.
 * Returns -1 where there is no group to be had, which is no error. */
int lr_cgroup_open(struct lr_plan *plan, int app_fd);

/* Mark all limits as not held. */
void lr_cgroup_give_up(struct lr_plan *plan);

/* Move a process into a group. */
int lr_cgroup_enter(int group, pid_t pid);

/* Remove the group that is recorded, if it holds nobody. */
void lr_cgroup_remove(int app_fd);

/* cffi:begin */

/* Say which controllers a limited app that is started by us would have, in the hierarchy that is mounted at mount: a sum of the
 * LR_CONTROLLER_ below. Changes nothing. */
unsigned lr_cgroup_controllers(const char *mount);

#define LR_CONTROLLER_CPU 1
#define LR_CONTROLLER_IO 2
#define LR_CONTROLLER_MEMORY 4
#define LR_CONTROLLER_PIDS 8

/* cffi:end */

#endif
