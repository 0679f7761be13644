/* rlimits.c: see rlimits.h, getrlimit(2), sched_setaffinity(2). */
#include "rlimits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORDS (sizeof(cpu_set_t) / sizeof(unsigned long))

/* Soft and hard limits by the kernel's numbers, 20 - nice, then the processors, 64 to a number. */
void lr_limits_print(char text[LR_LIMITS_TEXT])
{
    struct rlimit limit;
    union {
        cpu_set_t set;
        unsigned long words[WORDS];
    } cpus = {0};
    size_t used = 0, last = WORDS;
    for (int i = 0; i < RLIM_NLIMITS; i++) {
        if (getrlimit((__rlimit_resource_t)i, &limit))
            limit = (struct rlimit){RLIM_INFINITY, RLIM_INFINITY};
        used += (size_t)snprintf(text + used, LR_LIMITS_TEXT - used, "%llx %llx ",
                                 (unsigned long long)limit.rlim_cur, (unsigned long long)limit.rlim_max);
    }
    used += (size_t)snprintf(text + used, LR_LIMITS_TEXT - used, "%x", 20 - getpriority(PRIO_PROCESS, 0));
    if (sched_getaffinity(0, sizeof cpus.set, &cpus.set))
        return;
    while (last && !cpus.words[last - 1])
        last--;
    for (size_t i = 0; i < last; i++)
        used += (size_t)snprintf(text + used, LR_LIMITS_TEXT - used, " %lx", cpus.words[i]);
}

static int next(const char **at, unsigned long long *value)
{
    char *end;
    *value = strtoull(*at, &end, 16);
    if (end == *at)
        return -1;
    *at = end;
    return 0;
}

int lr_limits_parse(struct lr_limits *limits, const char *text)
{
    unsigned long long value, hard;
    union {
        cpu_set_t set;
        unsigned long words[WORDS];
    } cpus = {0};
    for (int i = 0; i < RLIM_NLIMITS; i++) {
        if (next(&text, &value) || next(&text, &hard))
            return -1;
        limits->limit[i] = (struct rlimit){(rlim_t)value, (rlim_t)hard};
    }
    if (next(&text, &value) || value > 40)
        return -1;
    limits->nice = 20 - (int)value;
    for (size_t i = 0; i < WORDS && !next(&text, &value); i++)
        cpus.words[i] = (unsigned long)value;
    limits->cpus = cpus.set;
    return *text ? -1 : 0;
}

void lr_limits_apply(const struct lr_limits *limits)
{
    struct rlimit now;
    for (int i = 0; i < RLIM_NLIMITS; i++) {
        struct rlimit wanted = limits->limit[i];
        if (getrlimit((__rlimit_resource_t)i, &now))
            continue;
        if (wanted.rlim_max > now.rlim_max)
            wanted.rlim_max = now.rlim_max;
        if (wanted.rlim_cur > wanted.rlim_max)
            wanted.rlim_cur = wanted.rlim_max;
        if (wanted.rlim_cur != now.rlim_cur || wanted.rlim_max != now.rlim_max)
            setrlimit((__rlimit_resource_t)i, &wanted);
    }
    if (limits->nice != getpriority(PRIO_PROCESS, 0))
        setpriority(PRIO_PROCESS, 0, limits->nice);
    if (CPU_COUNT(&limits->cpus))
        sched_setaffinity(0, sizeof limits->cpus, &limits->cpus);
}

void lr_rlimits_apply(const struct lr_rlimits *rlimits)
{
    struct rlimit now;
    for (int i = 0; i < RLIM_NLIMITS; i++) {
        if (!(rlimits->set >> i & 1))
            continue;
        struct rlimit wanted = rlimits->limit[i];
        if (!setrlimit((__rlimit_resource_t)i, &wanted) || getrlimit((__rlimit_resource_t)i, &now))
            continue;
        if (wanted.rlim_max > now.rlim_max)
            wanted.rlim_max = now.rlim_max;
        if (wanted.rlim_cur > wanted.rlim_max)
            wanted.rlim_cur = wanted.rlim_max;
        setrlimit((__rlimit_resource_t)i, &wanted);
    }
}
