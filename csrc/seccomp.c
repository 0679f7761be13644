/* seccomp.c: the filter of system calls. What it refuses is decided in layerrun/runtime/seccomp.py, from where the tables here are
 * generated, so that nothing is built at a start; a plan may bring a filter of its own. See seccomp(2).
 */
#include "confine.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#include "seccomp_x86_64.h"
#elif defined(__aarch64__)
#include "seccomp_aarch64.h"
#else
#error "no table of system calls for this architecture"
#endif

#define STEP_DIGITS (2 * sizeof(struct sock_filter))

static int digit(char text)
{
    return text >= '0' && text <= '9' ? text - '0' : text >= 'a' && text <= 'f' ? text - 'a' + 10 : -1;
}

/* The kernel checks the rest: that it jumps forward, within itself, and ends. */
static int parse_own(struct lr_plan *plan, const char *text)
{
    size_t digits = strlen(text), length = digits / STEP_DIGITS;
    if (!length || digits % STEP_DIGITS || length > BPF_MAXINSNS || plan->own_filter)
        return -1;
    struct sock_filter *steps = malloc(length * sizeof *steps);
    if (!steps)
        return -1;
    plan->filter = plan->own_filter = steps;
    plan->filter_length = (unsigned short)length;
    for (size_t i = 0; i < length * sizeof *steps; i++) {
        int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return -1;
        ((unsigned char *)steps)[i] = (unsigned char)(high << 4 | low);
    }
    return 0;
}

int lr_seccomp_parse(struct lr_plan *plan, const char *text)
{
    static const struct {
        const char *name;
        const struct sock_filter *steps;
        size_t size;
    } tables[] = {
        {"default", default_table, sizeof default_table},
        {"strict", strict_table, sizeof strict_table},
        {"nesting", nesting_table, sizeof nesting_table},
    };
    if (!strncmp(text, "bpf:", 4))
        return parse_own(plan, text + 4);
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        if (!strcmp(text, tables[i].name)) {
            plan->filter = tables[i].steps;
            plan->filter_length = (unsigned short)(tables[i].size / sizeof(struct sock_filter));
            return 0;
        }
    return -1;
}

int lr_seccomp_load(const struct lr_plan *plan, struct lr_error *err)
{
    struct sock_fprog program = {.len = plan->filter_length, .filter = (struct sock_filter *)plan->filter};
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program))
        return lr_fail(err, "load the filter of system calls", "");
    return 0;
}
