/* confine.h: what a process gives up before it runs what it does not trust. */
#ifndef LR_CONFINE_H
#define LR_CONFINE_H

#include "plan.h"

/* What of it can be given up before the sandbox is built: the bounding set, which counts at exec only. lr_confine needs it done. */
int lr_confine_begin(const struct lr_plan *plan, struct lr_error *err);

/* Give up everything that the plan does not grant: capabilities, new privileges, system calls. In this order, which cannot be undone. */
int lr_confine(const struct lr_plan *plan, struct lr_error *err);

/* What a plan's seccomp says: a table's name, or bpf: and a program (seccomp.c). Returns -1 if that is nothing of the kind. */
int lr_seccomp_parse(struct lr_plan *plan, const char *text);

/* Enter the plan's filter of system calls. */
int lr_seccomp_load(const struct lr_plan *plan, struct lr_error *err);

#endif
