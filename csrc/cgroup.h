/* cgroup.h: a control group for each app that runs, where the caller may make one. See cgroups(7). */
#ifndef LR_CGROUP_H
#define LR_CGROUP_H

/* Open the group called name beneath our own, in the hierarchy that is mounted at mount; made if it is not there, and then recorded
 * as the link "cgroup" in the app's folder. Returns -1 where there is none to be had, which is no error. */
int lr_cgroup_open(const char *mount, const char *name, int app_fd);

/* Remove the group that is recorded, if it holds nobody. */
void lr_cgroup_remove(int app_fd);

#endif
