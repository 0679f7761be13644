/* seccomp.c: a static table, so that nothing is compiled at start. It refuses what a sandboxed program has no business with, whatever
 * its capabilities: mounting by the old and the new interface alike, new namespaces, keys, modules, terminals' input.
 * A call that this table has never heard of gets ENOSYS, on which C libraries fall back. See seccomp(2).
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

#define RET(value) BPF_STMT(BPF_RET | BPF_K, (value))
#define FAIL(code) RET(SECCOMP_RET_ERRNO | (code))
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define IF_EQUAL(value, skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), 0, (skip))
#define IF_ANY(bits, skip) BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, (bits), 0, (skip))
#define IF_ABOVE(value, skip) BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, (value), 0, (skip))
#define DENY(call, code) IF_EQUAL(__NR_##call, 1), FAIL(code)
#define DENY_NUMBER(number, code) IF_EQUAL((number), 1), FAIL(code)
/* Only the low half of an argument is compared: the kernel takes these as 32-bit values, so a set high half must not help (the old
 * TIOCSTI|1<<32 trick). Little-endian only, as both architectures are here. */
#define ARGUMENT_LOW(n) LOAD(args[n])

static struct sock_filter table[] = {
    LOAD(arch),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, THIS_ARCH, 1, 0),
    FAIL(ENOSYS), /* 32-bit programs: their table of numbers is another */
    LOAD(nr),
    IF_ABOVE(LAST_KNOWN, 1), /* x32 numbers too */
    FAIL(ENOSYS),

    DENY(clone3, ENOSYS), /* its flags lie behind a pointer, so C libraries are made to fall back to clone */
    IF_EQUAL(__NR_clone, 4),
    ARGUMENT_LOW(0),
    IF_ANY(NEW_NAMESPACES, 1),
    FAIL(EPERM),
    RET(SECCOMP_RET_ALLOW),
    IF_EQUAL(__NR_unshare, 4),
    ARGUMENT_LOW(0),
    IF_ANY(NEW_NAMESPACES | 0x80 /* CLONE_NEWTIME */, 1),
    FAIL(EPERM),
    RET(SECCOMP_RET_ALLOW),
    IF_EQUAL(__NR_ioctl, 6),
    ARGUMENT_LOW(1),
    IF_EQUAL(TIOCSTI, 1),
    FAIL(EPERM),
    IF_EQUAL(TIOCLINUX, 1),
    FAIL(EPERM),
    RET(SECCOMP_RET_ALLOW),

    /* mounts and namespaces */
    DENY(mount, EPERM),
    DENY(umount2, EPERM),
    DENY(pivot_root, EPERM),
    DENY(setns, EPERM),
    DENY_NUMBER(428, EPERM), /* open_tree */
    DENY_NUMBER(429, EPERM), /* move_mount */
    DENY_NUMBER(430, EPERM), /* fsopen */
    DENY_NUMBER(431, EPERM), /* fsconfig */
    DENY_NUMBER(432, EPERM), /* fsmount */
    DENY_NUMBER(433, EPERM), /* fspick */
    DENY_NUMBER(442, EPERM), /* mount_setattr */
    DENY_NUMBER(457, ENOSYS), /* statmount */
    DENY_NUMBER(458, ENOSYS), /* listmount */
    DENY_NUMBER(467, EPERM), /* open_tree_attr */
    DENY(open_by_handle_at, EPERM),
    /* keys */
    DENY(keyctl, ENOSYS),
    DENY(add_key, ENOSYS),
    DENY(request_key, ENOSYS),
    /* the machine */
    DENY(reboot, EPERM),
    DENY(kexec_load, EPERM),
    DENY(kexec_file_load, EPERM),
    DENY(init_module, EPERM),
    DENY(finit_module, EPERM),
    DENY(delete_module, EPERM),
    DENY(swapon, EPERM),
    DENY(swapoff, EPERM),
    DENY(acct, EPERM),
    DENY(quotactl, EPERM),
    DENY_NUMBER(443, EPERM), /* quotactl_fd */
    DENY(syslog, EPERM),
    DENY(settimeofday, EPERM),
    DENY(clock_settime, EPERM),
    DENY(vhangup, EPERM),
#if defined(__x86_64__)
    DENY(iopl, EPERM),
    DENY(ioperm, EPERM),
#endif
    /* wide kernel surface with a long record of bugs */
    DENY(bpf, EPERM),
    DENY(perf_event_open, EPERM),
    DENY(userfaultfd, ENOSYS),
    DENY_NUMBER(425, ENOSYS), /* io_uring_setup */
    DENY_NUMBER(426, ENOSYS), /* io_uring_enter */
    DENY_NUMBER(427, ENOSYS), /* io_uring_register */
    DENY(fanotify_init, EPERM),
    DENY_NUMBER(438, EPERM), /* pidfd_getfd */
    RET(SECCOMP_RET_ALLOW),
};

int lr_seccomp_load(struct lr_error *err)
{
    struct sock_fprog program = {.len = sizeof table / sizeof *table, .filter = table};
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program))
        return lr_fail(err, "load the table of system calls", "");
    return 0;
}
