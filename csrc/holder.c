/* holder.c: see holder.h, proc_pid_stat(5). */
#include "holder.h"

#include "sys.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PF_EXITING 0x4 /* include/linux/sched.h of the kernel */

/* Whether the process of this line of proc_pid_stat(5) is ending, or SIGKILL is waiting for it. */
static bool is_dead(const char *stat)
{
    const char *at = strrchr(stat, ')') + 1;
    unsigned long long flags = 0, pending = 0;
    char state = at[1];
    for (int field = 3; *at && field <= 31; field++) {
        unsigned long long value = strtoull(at, NULL, 10);
        flags = field == 9 ? value : flags;
        pending = field == 31 ? value : pending;
        at += 1 + strcspn(at + 1, " ");
    }
    return state == 'Z' || state == 'X' || flags & PF_EXITING || pending & 1ULL << (SIGKILL - 1);
}

/* Whoever finds the lock free after we were killed learns from it whose end to wait for (docs/store.md, locks). */
int lr_holder_record(int lock_fd, pid_t pid, struct lr_error *err)
{
    char path[32], stat[512], line[128], boot[64] = "";
    if (lock_fd < 0)
        return 0;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    LR_FD file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = file < 0 ? -1 : read(file, stat, sizeof stat - 1);
    LR_FD id = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t boot_size = id < 0 ? -1 : read(id, boot, sizeof boot - 1);
    if (size <= 0 || boot_size <= 0)
        return lr_fail(err, "read", path);
    stat[size] = 0;
    boot[strcspn(boot, "\n")] = 0;
    const char *at = strrchr(stat, ')'); /* the name may hold blanks and brackets */
    for (int field = 2; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    if (!at)
        return lr_fail_code(err, EPROTO, "read", path);
    if (is_dead(stat))
        return lr_fail_code(err, EOWNERDEAD, "start the sandbox: it was killed", "");
    int length =
        snprintf(line, sizeof line, "%d %.*s %s run\n", pid, (int)strcspn(at + 1, " "), at + 1, boot);
    if (pwrite(lock_fd, line, (size_t)length, 0) != length || ftruncate(lock_fd, length))
        return lr_fail(err, "record who holds the lock", "");
    return 0;
}
