/* confine.h: what a process gives up before it runs what it does not trust. */
#ifndef LR_CONFINE_H
#define LR_CONFINE_H

#include "plan.h"

/* What of it can be given up before the sandbox is built: the bounding set, which counts at exec only. lr_confine needs it done. */
int lr_confine_begin(const struct lr_plan *plan, struct lr_error *err);

/* Become whom the plan names, and give up everything that it does not grant: capabilities, new privileges, system calls. This cannot be undone. */
int lr_confine(const struct lr_plan *plan, struct lr_error *err);

/* What a plan's seccomp says: a table's name, or bpf: and a program (seccomp.c). Returns -1 if that is nothing of the kind. */
int lr_seccomp_parse(struct lr_plan *plan, const char *text);

/* What a plan's landlock says: words joined by commas (landlock.c). Returns -1 if one is unknown. */
int lr_landlock_parse(struct lr_plan *plan, const char *text);

/* Enter a domain with the plan's scopes, as far as the kernel knows them. */
int lr_landlock_enter(const struct lr_plan *plan, struct lr_error *err);

/* Enter the plan's filter of system calls. */
int lr_seccomp_load(const struct lr_plan *plan, struct lr_error *err);

#endif
