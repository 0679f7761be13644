/* launch.c: from a plan to a running command. It makes no choice: everything is in the plan.
 *
 *   launcher                                   child, pid 1 of the sandbox
 *   parse the plan
 *   clone3 with all namespaces  -------------> wait, if others write its maps or build its mounts
 *   record pid 1 in the lock file; write the maps; as root: build the mounts
 *   send them by descriptor  ----------------> build them itself, if without root; attach; /proc, /dev, masks
 *                                              pivot_root, give up privileges, start the command
 *   serve signals and the terminal <---------- serve as pid 1
 *
 * The child is made by a bare clone3(2), so no handler of the calling program runs in it, and it calls nothing that allocates or
 * takes a lock: the calling program may have threads.
 */
#include "launch.h"

#include "cgroup.h"
#include "confine.h"
#include "control.h"
#include "ids.h"
#include "join.h"
#include "log.h"
#include "mounts.h"
#include "notify.h"
#include "run.h"
#include "serve.h"
#include "sys.h"
#include "terminal.h"
#include "wait.h"

#include <linux/securebits.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

/* Places behind the devices. */
#define SHM LR_DEVICES
#define SOCKET (LR_DEVICES + 1)
#define BEYOND (LR_DEVICES + 2)
#define PF_EXITING 0x4 /* include/linux/sched.h of the kernel */

/* ---- the child ---- */

static int loopback_up(struct lr_error *err)
{
    LR_FD fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    return fd < 0 || ioctl(fd, SIOCSIFFLAGS, &lo) ? lr_fail(err, "bring the loopback up", "lo") : 0;
}

static int enter_root(const struct lr_mounts *mounts, struct lr_error *err)
{
    if (fchdir(mounts->root))
        return lr_fail(err, "enter the new root", "/");
    if (lr_pivot_root(".", "."))
        return lr_fail(err, "change to the new root", "/");
    if (umount2(".", MNT_DETACH) || chdir("/"))
        return lr_fail(err, "leave the old root", "/");
    return 0;
}

/* Wait for what the launcher does for us: pid 1's line in the lock file, without which nothing may be mounted; the maps; as root the
 * mounts. */
static int receive_mounts(struct lr_plan *plan, struct lr_mounts *mounts, int control, struct lr_error *err)
{
    struct lr_message message;
    int fds[LR_MESSAGE_FDS];
    do {
        int got = lr_receive(control, &message, fds, 0);
        if (got <= 0)
            return got ? lr_fail(err, "receive the mounts", "")
                       : lr_fail_code(err, ECANCELED, "wait for the launcher", "");
        for (uint32_t i = 0; i < message.count; i++) {
            unsigned place = message.places[i];
            if (place == LR_PLACE_DEVICE + SOCKET)
                mounts->listening = fds[i];
            else if (place == LR_PLACE_DEVICE + SHM)
                mounts->shm = fds[i];
            else if (place >= LR_PLACE_DEVICE)
                mounts->devices[place - LR_PLACE_DEVICE] = fds[i];
            else
                plan->ops[place].fd = fds[i];
        }
    } while (message.more);
    return 0;
}

/* Whenever the ids have changed, which clears it. If the launcher is gone by now, nobody will ever send the signal. */
static int tie_to_launcher(int control, struct lr_error *err)
{
    char peek;
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0))
        return lr_fail(err, "tie the sandbox to its launcher", "");
    if (recv(control, &peek, 1, MSG_PEEK | MSG_DONTWAIT) == 0)
        return lr_fail_code(err, ECANCELED, "wait for the launcher", "");
    return 0;
}

static int become_root_inside(struct lr_plan *plan, struct lr_mounts *mounts, int control,
                              struct lr_error *err)
{
    if (plan->userns == LR_USERNS_SELF && lr_ids_map_self(plan, err))
        return -1;
    if (receive_mounts(plan, mounts, control, err))
        return -1;
    if (lr_ids_become(plan, 0, 0, err))
        return -1;
    return tie_to_launcher(control, err);
}

/* A session of its own, with or without a terminal: kill(0, ...) reaches a whole process group, beyond any pid namespace, and by the
 * rules of kill(2) whoever runs as the caller may do that. What the caller's terminal sends is passed on instead. */
static int leave_session(struct lr_error *err)
{
    return setsid() < 0 ? lr_fail(err, "open a session", "") : 0;
}

/* What needs neither ids nor mounts, while the launcher is busy with those. A network namespace costs the kernel more than all the others
 * together, so it is made here, beside the launcher's work, not by the clone, which the launcher would wait for. */
static int begin(const struct lr_plan *plan, struct lr_error *err)
{
    if (plan->namespaces & CLONE_NEWNET) {
        if (unshare(CLONE_NEWNET))
            return lr_fail(err, "create the network namespace", "");
        if (loopback_up(err))
            return -1;
    }
    if (plan->hostname && sethostname(plan->hostname, strlen(plan->hostname)))
        return lr_fail(err, "set the host name", plan->hostname);
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
        return lr_fail(err, "make the mounts private", "/");
    return lr_confine_begin(plan, err);
}

static int build(const struct lr_launch *launch, struct lr_plan *plan, struct lr_mounts *mounts, int control,
                 int *terminal, struct lr_error *err)
{
    if (leave_session(err) || begin(plan, err) || become_root_inside(plan, mounts, control, err))
        return -1;
    if (plan->userns != LR_USERNS_RANGE && lr_mounts_prepare(plan, mounts, err))
        return -1;
    if (lr_mounts_attach(plan, mounts, launch->own_tty, err) || enter_root(mounts, err))
        return -1;
    if (launch->own_tty && lr_terminal_take(mounts->ptmx, control, terminal, err))
        return -1;
    if (plan->uid && (lr_ids_become(plan, plan->uid, plan->gid, err) || tie_to_launcher(control, err)))
        return -1;
    return lr_confine(plan, err);
}

/* Only here: what the launcher has to say is for its caller. */
static int take_standard(const struct lr_log *log, struct lr_error *err)
{
    if (log->out < 0)
        return 0;
    if (dup2(log->in, 0) < 0 || dup2(log->out, 1) < 0 || dup2(log->out, 2) < 0)
        return lr_fail(err, "take over the standard descriptors", "");
    return 0;
}

static void child(const struct lr_launch *launch, struct lr_plan *plan, struct lr_mounts *mounts, int control,
                  const struct lr_log *log, const sigset_t *mask) __attribute__((noreturn));
static void child(const struct lr_launch *launch, struct lr_plan *plan, struct lr_mounts *mounts, int control,
                  const struct lr_log *log, const sigset_t *mask)
{
    struct lr_error error;
    struct lr_server server = {
        .command =
            {
                .argv = launch->argv ? (char *const *)launch->argv : plan->argv,
                .env = plan->env,
                .cwd = launch->cwd,
                .place = plan->cwd,
                .cwd_must = launch->cwd_must,
                .has_umask = plan->has_umask,
                .umask = plan->umask,
                .mask = mask,
                .terminal = -1,
            },
        .control = control,
        .lock_fd = launch->lock_fd,
        .listen_fd = -1,
        .stay = launch->stay,
    };
    if (take_standard(log, &error) ||
        build(launch, plan, mounts, control, &server.command.terminal, &error)) {
        struct lr_message message = {.type = LR_MSG_ERROR, .error = error};
        lr_send(control, &message, NULL);
        _exit(125);
    }
    server.listen_fd = mounts->listening;
    lr_serve(&server);
}

/* ---- the launcher ---- */

/* What pid 1 is sent, by its place. The lowers stay here: an overlay has its own copies of them. */
static int to_send(const struct lr_plan *plan, const struct lr_mounts *mounts, unsigned place)
{
    if (place == LR_PLACE_DEVICE + SOCKET)
        return mounts->listening;
    if (place == LR_PLACE_DEVICE + SHM)
        return mounts->shm;
    if (place >= LR_PLACE_DEVICE)
        return mounts->devices[place - LR_PLACE_DEVICE];
    return plan->ops[place].kind == LR_OP_LOWER || plan->ops[place].kind == LR_OP_PLACE ? -1
                                                                                        : plan->ops[place].fd;
}

static int send_mounts(const struct lr_plan *plan, const struct lr_mounts *mounts, int control,
                       struct lr_error *err)
{
    struct lr_message message = {.type = LR_MSG_MOUNTS};
    int fds[LR_MESSAGE_FDS];
    size_t total = plan->count + BEYOND;
    for (size_t i = 0; i < total; i++) {
        unsigned place = (unsigned)(i < plan->count ? i : LR_PLACE_DEVICE + i - plan->count);
        int fd = to_send(plan, mounts, place);
        if (fd >= 0) {
            message.places[message.count] = (uint16_t)place;
            fds[message.count++] = fd;
        }
        message.more = i + 1 < total;
        if (message.count < LR_MESSAGE_FDS && message.more)
            continue;
        if (lr_send(control, &message, fds))
            return lr_fail(err, "send the mounts", "");
        message.count = 0;
    }
    return 0;
}

/* Build the mounts with the machine's capabilities and the sandbox's owner: see prepare_overlays_as_root. */
static int prepare_outside(struct lr_plan *plan, pid_t pid, struct lr_mounts *mounts, struct lr_error *err)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/%d/ns/user", pid);
    LR_FD userns = open(path, O_RDONLY | O_CLOEXEC);
    if (userns < 0)
        return lr_fail(err, "open the user namespace", path);
    int bits = prctl(PR_GET_SECUREBITS, 0, 0, 0, 0);
    if (bits < 0 || prctl(PR_SET_SECUREBITS, bits | SECBIT_NO_SETUID_FIXUP, 0, 0, 0))
        return lr_fail(err, "keep the capabilities", "");
    mounts->userns = userns;
    int result = lr_mounts_prepare(plan, mounts, err);
    mounts->userns = -1;
    if (prctl(PR_SET_SECUREBITS, bits, 0, 0, 0) && !result)
        return lr_fail(err, "restore the securebits", "");
    return result;
}

static int open_socket(const struct lr_launch *launch, struct lr_mounts *mounts, struct lr_error *err)
{
    if (launch->app_fd < 0)
        return 0;
    mounts->listening = lr_join_listen(launch->app_fd, err);
    return mounts->listening < 0 ? -1 : 0;
}

static int serve_child(const struct lr_launch *launch, struct lr_plan *plan, pid_t pid,
                       struct lr_mounts *mounts, int control, struct lr_error *err)
{
    int failed = 0;
    if (plan->userns == LR_USERNS_RANGE)
        failed = lr_ids_map_range(plan, pid, err) || prepare_outside(plan, pid, mounts, err);
    else if (plan->userns == LR_USERNS_HELPER)
        failed = lr_ids_map_helper(plan, pid, err);
    failed = failed || open_socket(launch, mounts, err) || send_mounts(plan, mounts, control, err);
    lr_mounts_close(plan, mounts); /* the socket too: when pid 1 ends, nobody must wait at the door */
    return failed ? -1 : 0;
}

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
static int record_holder(int lock_fd, pid_t pid, struct lr_error *err)
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

/* In the app's own control group, where there is one to be had. The pid namespace holds it together where not. */
static pid_t clone_into_group(struct clone_args *args, const struct lr_plan *plan, int app_fd)
{
    LR_FD group =
        plan->cgroup_name && app_fd >= 0 ? lr_cgroup_open(plan->cgroup_mount, plan->cgroup_name, app_fd) : -1;
    struct clone_args into = *args;
    into.flags |= CLONE_INTO_CGROUP;
    into.cgroup = (uint64_t)group;
    pid_t pid = group < 0 ? -1 : (pid_t)lr_clone3(&into);
    return pid < 0 ? (pid_t)lr_clone3(args) : pid;
}

static int start(const struct lr_launch *launch, struct lr_plan *plan, const struct lr_run_signals *signals,
                 const struct lr_log *log, struct lr_result *result, struct lr_error *err)
{
    struct lr_mounts mounts = {.userns = -1,
                               .store = -1,
                               .data = -1,
                               .devices = {-1, -1, -1, -1, -1, -1},
                               .shm = -1,
                               .listening = -1,
                               .root = -1,
                               .ptmx = -1};
    int pair[2], pidfd_raw = -1;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        return lr_fail(err, "open a pair of sockets", "");
    LR_FD ours = pair[0];
    LR_FD theirs = pair[1];
    LR_FD executed = -1;
    LR_FD executing = -1; /* closed by the command's exec */
    if (lr_run_watch(launch, &executed, &executing, err))
        return -1;
    struct lr_notify notify = {.fd = -1};
    if (plan->notify && lr_notify_open(&notify, launch->app_fd, launch->environ, err))
        return -1;
    LR_FD notify_fd = notify.fd;
    struct clone_args args = {
        .flags = CLONE_PIDFD | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS |
                 (plan->namespaces & ~(uint64_t)CLONE_NEWNET) | (plan->userns ? CLONE_NEWUSER : 0),
        .pidfd = (uint64_t)(uintptr_t)&pidfd_raw,
        .exit_signal = SIGCHLD,
    };
    pid_t pid = clone_into_group(&args, plan, launch->app_fd);
    if (pid < 0)
        return lr_fail(err, "create the namespaces", "");
    if (pid == 0) {
        lr_close(&ours);
        child(launch, plan, &mounts, theirs, log, &signals->mask);
    }
    LR_FD pidfd = pidfd_raw;
    lr_close(&theirs);
    lr_close(&executing);
    struct lr_wait wait = {
        .pidfd = pidfd,
        .control = ours,
        .signals = signals->fd,
        .leave = launch->leave,
        .executed = executed,
        .status = launch->status_fd,
        .pid = pid,
        .notify = notify_fd < 0 ? NULL : &notify,
        .detach = launch->detach,
    };
    struct lr_error failure;
    if (record_holder(launch->lock_fd, pid, &failure) ||
        serve_child(launch, plan, pid, &mounts, ours, &failure)) {
        /* If the child failed first, what it says is the cause and ours only the consequence. */
        syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
        wait.executed = -1;
        wait.status = 0;
        if (!lr_wait_for(&wait, result, err))
            *err = failure;
        result->started = 0;
        return -1;
    }
    return lr_wait_for(&wait, result, err);
}

int lr_run(const struct lr_launch *launch, struct lr_result *result, struct lr_error *err)
{
    struct lr_log log = LR_LOG_NONE;
    struct lr_plan plan;
    struct lr_run_signals signals;
    *result = (struct lr_result){.status = 125};
    int failed = lr_plan_parse(&plan, launch->plan, launch->plan_size, err) ||
                 lr_plan_environ(&plan, launch->environ, launch->env, err) ||
                 lr_run_check(launch, &plan, err);
    if (!failed) {
        failed = lr_log_open(launch, true, &log, err) || lr_run_block(&signals, err) ||
                 start(launch, &plan, &signals, &log, result, err);
        if (failed && err->code == EOWNERDEAD && plan.cgroup_name) {
            /* Linux 6.18 kills what is cloned into a group if that has seen fewer or more kills than ours. */
            lr_cgroup_remove(launch->app_fd);
            plan.cgroup_name = NULL;
            failed = start(launch, &plan, &signals, &log, result, err);
        }
        lr_log_end(launch, true, !failed, &log);
        lr_run_unblock(&signals);
    }
    lr_plan_free(&plan);
    return failed ? -1 : 0;
}
