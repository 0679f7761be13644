/* seccomp.c: a short list of rules, made into a tree at start. It refuses what a sandboxed program has no business with, whatever its
 * capabilities: mounting by the old and the new interface alike, new namespaces, keys, modules, terminals' input.
 * A call newer than all that were looked at gets ENOSYS, on which C libraries fall back. See seccomp(2).
 */
#include "confine.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define THIS_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define THIS_ARCH AUDIT_ARCH_AARCH64
#else
#error "no table of system calls for this architecture"
#endif

/* The newest call that was looked at: file_setattr, Linux 6.17. Above 423 numbers are the same on every architecture. */
#define LAST_KNOWN 469
#define NEW_NAMESPACES                                                                                       \
    (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID |            \
     CLONE_NEWNET)

enum verdict { ALLOW, REFUSE, UNKNOWN, LOOK_CLONE, LOOK_UNSHARE, LOOK_IOCTL, VERDICTS };

struct rule {
    uint32_t number;
    uint8_t verdict;
};

/* What is in no rule is allowed, up to the last known call. */
static const struct rule rules[] = {
    {__NR_clone3, UNKNOWN}, /* its flags lie behind a pointer: C libraries are made to fall back to clone */
    {__NR_clone, LOOK_CLONE},
    {__NR_unshare, LOOK_UNSHARE},
    {__NR_ioctl, LOOK_IOCTL},

    /* mounts and namespaces */
    {__NR_mount, REFUSE},
    {__NR_umount2, REFUSE},
    {__NR_pivot_root, REFUSE},
    {__NR_setns, REFUSE},
    {428, REFUSE}, /* open_tree */
    {429, REFUSE}, /* move_mount */
    {430, REFUSE}, /* fsopen */
    {431, REFUSE}, /* fsconfig */
    {432, REFUSE}, /* fsmount */
    {433, REFUSE}, /* fspick */
    {442, REFUSE}, /* mount_setattr */
    {457, UNKNOWN}, /* statmount */
    {458, UNKNOWN}, /* listmount */
    {467, REFUSE}, /* open_tree_attr */
    {__NR_open_by_handle_at, REFUSE},
    /* keys */
    {__NR_keyctl, UNKNOWN},
    {__NR_add_key, UNKNOWN},
    {__NR_request_key, UNKNOWN},
    /* the machine */
    {__NR_reboot, REFUSE},
    {__NR_kexec_load, REFUSE},
    {__NR_kexec_file_load, REFUSE},
    {__NR_init_module, REFUSE},
    {__NR_finit_module, REFUSE},
    {__NR_delete_module, REFUSE},
    {__NR_swapon, REFUSE},
    {__NR_swapoff, REFUSE},
    {__NR_acct, REFUSE},
    {__NR_quotactl, REFUSE},
    {443, REFUSE}, /* quotactl_fd */
    {__NR_syslog, REFUSE},
    {__NR_settimeofday, REFUSE},
    {__NR_clock_settime, REFUSE},
    {__NR_vhangup, REFUSE},
#if defined(__x86_64__)
    {__NR_iopl, REFUSE},
    {__NR_ioperm, REFUSE},
#endif
    /* wide kernel surface with a long record of bugs */
    {__NR_bpf, REFUSE},
    {__NR_perf_event_open, REFUSE},
    {__NR_userfaultfd, UNKNOWN},
    {425, UNKNOWN}, /* io_uring_setup */
    {426, UNKNOWN}, /* io_uring_enter */
    {427, UNKNOWN}, /* io_uring_register */
    {__NR_fanotify_init, REFUSE},
    {438, REFUSE}, /* pidfd_getfd */
};

#define RULES (sizeof rules / sizeof *rules)
#define FIRST_RULE 4 /* after what is common to all numbers */
#define AFTER_RULES (FIRST_RULE + 2 * RULES)
#define MOST_STEPS (AFTER_RULES + 10)

/* Conditional jumps of the filter reach 255 instructions. */
_Static_assert(MOST_STEPS < 255, "the rules need longer jumps");

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
/* Only the low half of an argument is compared: the kernel takes these as 32-bit values, so a set high half must not help (the old
 * TIOCSTI|1<<32 trick). Little-endian only, as both architectures are here. */
#define ARGUMENT_LOW(n) LOAD(args[n])

/* Where each verdict's instructions begin. */
static const uint8_t places[VERDICTS] = {
    [LOOK_CLONE] = AFTER_RULES, [LOOK_UNSHARE] = AFTER_RULES + 2, [LOOK_IOCTL] = AFTER_RULES + 4,
    [REFUSE] = AFTER_RULES + 7, [UNKNOWN] = AFTER_RULES + 8,      [ALLOW] = AFTER_RULES + 9,
};

static struct sock_filter jump(unsigned at, unsigned test, uint32_t value, unsigned yes, unsigned no)
{
    return (struct sock_filter){(uint16_t)(BPF_JMP | BPF_K | test), (uint8_t)(yes - at - 1),
                                (uint8_t)(no - at - 1), value};
}

/* The kernel tries every call's number when the filter is loaded and many filters on every call: a balanced tree takes a dozen
 * steps where a list took a hundred. Two instructions a rule, the middle one first; returns where the next are to go. */
static unsigned add_rules(struct sock_filter *steps, unsigned at, const struct rule *from, size_t count)
{
    const struct rule *middle = from + count / 2;
    size_t less = count / 2, more = count - less - 1;
    unsigned left = at + 2, right = left + 2 * (unsigned)less;
    steps[at] = jump(at, BPF_JEQ, middle->number, places[middle->verdict], at + 1);
    steps[at + 1] =
        jump(at + 1, BPF_JGT, middle->number, more ? right : places[ALLOW], less ? left : places[ALLOW]);
    if (less)
        add_rules(steps, left, from, less);
    return more ? add_rules(steps, right, middle + 1, more) : right;
}

/* Numbers differ between architectures, and with them the order. */
static void sort_rules(struct rule *sorted)
{
    for (size_t i = 0; i < RULES; i++) {
        size_t at = i;
        for (; at && sorted[at - 1].number > rules[i].number; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = rules[i];
    }
}

static void compile(struct sock_filter *steps)
{
    struct rule sorted[RULES];
    sort_rules(sorted);
    steps[0] = (struct sock_filter)LOAD(arch);
    /* 32-bit programs: their table of numbers is another */
    steps[1] = jump(1, BPF_JEQ, THIS_ARCH, 2, places[UNKNOWN]);
    steps[2] = (struct sock_filter)LOAD(nr);
    steps[3] = jump(3, BPF_JGT, LAST_KNOWN, places[UNKNOWN], FIRST_RULE); /* x32 numbers too */
    unsigned at = add_rules(steps, FIRST_RULE, sorted, RULES);
    steps[at++] = (struct sock_filter)ARGUMENT_LOW(0);
    steps[at] = jump(at, BPF_JSET, NEW_NAMESPACES, places[REFUSE], places[ALLOW]);
    at++;
    steps[at++] = (struct sock_filter)ARGUMENT_LOW(0);
    steps[at] = jump(at, BPF_JSET, NEW_NAMESPACES | 0x80 /* CLONE_NEWTIME */, places[REFUSE], places[ALLOW]);
    at++;
    steps[at++] = (struct sock_filter)ARGUMENT_LOW(1);
    steps[at] = jump(at, BPF_JEQ, TIOCSTI, places[REFUSE], at + 1);
    at++;
    steps[at] = jump(at, BPF_JEQ, TIOCLINUX, places[REFUSE], places[ALLOW]);
    at++;
    steps[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    steps[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS);
    steps[at] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
}

int lr_seccomp_load(struct lr_error *err)
{
    struct sock_filter steps[MOST_STEPS];
    struct sock_fprog program = {.len = MOST_STEPS, .filter = steps};
    compile(steps);
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program))
        return lr_fail(err, "load the table of system calls", "");
    return 0;
}
