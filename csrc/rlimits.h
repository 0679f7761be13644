/* rlimits.h: what a process has from its parent beside its environment: limits, niceness, processors. Who joins descends from the
 * first caller, and gets its own here, as far as that is less. */
#ifndef LR_RLIMITS_H
#define LR_RLIMITS_H

#include <sched.h>
#include <stddef.h>
#include <sys/resource.h>

struct lr_limits {
    struct rlimit limit[RLIM_NLIMITS];
    int nice; /* from -20 */
    cpu_set_t cpus; /* empty: not known */
};

/* What an app sets for its own processes, over what they have from the caller. */
struct lr_rlimits {
    unsigned set; /* bit N: number N is set */
    struct rlimit limit[RLIM_NLIMITS];
};

/* Bytes that the text of limits may take. */
#define LR_LIMITS_TEXT 1024

/* The caller's own, as a word of hexadecimal numbers. */
void lr_limits_print(char text[LR_LIMITS_TEXT]);

/* Returns 0, or -1 if that is no such word. */
int lr_limits_parse(struct lr_limits *limits, const char *text);

/* Take them on, as far as the kernel allows: a hard limit is never raised. */
void lr_limits_apply(const struct lr_limits *limits);

/* Set them for this process; a hard limit that is lower already stays. */
void lr_rlimits_apply(const struct lr_rlimits *rlimits);

#endif
