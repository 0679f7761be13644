/* launch.c: from a plan to a running command. It makes no choice: everything is in the plan.
 *
 *   launcher                                   child, pid 1 of the sandbox
 *   parse the plan
 *   clone3 with all namespaces but the net's -> make that one; wait, if others write its maps or build its mounts
 *   record pid 1 in the lock file; write the maps; as root: build the mounts
 *   send them by descriptor  ----------------> build them itself, if without root; attach; /proc, /dev, masks
 *                                              pivot_root, give up privileges, start the command
 *   serve signals and the terminal <---------- serve as pid 1
 *
 * The child (child.c) is made by a bare clone3(2), so no handler of the calling program runs in it.
 */
#include "launch.h"

#include "cgroup.h"
#include "child.h"
#include "holder.h"
#include "ids.h"
#include "join.h"
#include "log.h"
#include "mounts.h"
#include "net.h"
#include "notify.h"
#include "run.h"
#include "sys.h"
#include "transfer.h"
#include "wait.h"

#include <linux/securebits.h>
#include <sched.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

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
    else if (plan->userns == LR_USERNS_UNGROUPED)
        failed = lr_ids_map_ungrouped(plan, pid, err);
    failed = failed || open_socket(launch, mounts, err) || lr_transfer_send(plan, mounts, control, err);
    lr_mounts_close(plan, mounts); /* the socket too: when pid 1 ends, nobody must wait at the door */
    return failed ? -1 : 0;
}

/* In the app's own control group, where there is one to be had. The pid namespace holds it together where not. */
static pid_t clone_into_group(struct clone_args *args, struct lr_plan *plan, int app_fd)
{
    bool later = plan->cgroup_late;
    LR_FD group = plan->cgroup_name && app_fd >= 0 ? lr_cgroup_open(plan, app_fd) : -1;
    struct clone_args into = *args;
    into.flags |= CLONE_INTO_CGROUP;
    into.cgroup = (uint64_t)group;
    pid_t pid = group < 0 || later ? -1 : (pid_t)lr_clone3(&into);
    if (pid >= 0)
        return pid;
    if (plan->limited && !(group >= 0 && later))
        lr_cgroup_give_up(plan); /* before the child has its copy of the plan */
    pid = (pid_t)lr_clone3(args);
    if (pid > 0 && group >= 0 && later && lr_cgroup_enter(group, pid)) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, __WALL);
        return -1;
    }
    return pid;
}

/* A network namespace that belongs to the machine's user namespace, so that nothing inside can configure it: only we may enter it, and
 * pid 1 inherits it from us. Whatever else we do is done in our own, so we are there for the clone only. */
static pid_t clone_into_net(struct clone_args *args, const struct lr_launch *launch, struct lr_plan *plan,
                            struct lr_error *err)
{
    LR_FD own = plan->net_given ? open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC) : -1;
    if (plan->net_given && own < 0)
        return lr_fail(err, "open the network namespace", "/proc/thread-self/ns/net");
    if (plan->net_given && setns(launch->net_fd, CLONE_NEWNET))
        return lr_fail(err, "enter the network namespace", "");
    pid_t pid = clone_into_group(args, plan, launch->app_fd);
    if (pid < 0)
        lr_fail(err, "create the namespaces", "");
    if (pid != 0 && plan->net_given && setns(own, CLONE_NEWNET)) {
        lr_fail(err, "go back to the network namespace", "");
        if (pid > 0)
            syscall(SYS_pidfd_send_signal, *(int *)(uintptr_t)args->pidfd, SIGKILL, NULL, 0);
        return -1; /* the child ends too, and our caller in a moment: better than to go on elsewhere */
    }
    return pid;
}

static int start(const struct lr_launch *launch, struct lr_plan *plan, const struct lr_run_signals *signals,
                 const struct lr_log *log, struct lr_result *result, struct lr_error *err)
{
    struct lr_mounts mounts = {.userns = -1,
                               .store = -1,
                               .data = -1,
                               .devices = {-1, -1, -1, -1, -1, -1},
                               .shm = -1,
                               .net = -1,
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
    pid_t pid = clone_into_net(&args, launch, plan, err);
    if (pid < 0)
        return -1;
    if (pid == 0) {
        lr_close(&ours);
        lr_child_run(launch, plan, &mounts, theirs, log, &signals->mask);
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
    struct lr_net net;
    int failed =
        lr_net_spawn(&net, plan, pidfd, ours, &failure) || lr_holder_record(launch->lock_fd, pid, &failure) ||
        serve_child(launch, plan, pid, &mounts, ours, &failure) || lr_net_open(&net, plan, pidfd, &failure);
    lr_net_close(&net);
    if (failed) {
        /* If the child failed first, what it says is the cause and ours only the consequence. */
        syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
        wait.executed = -1;
        wait.status = 0;
        if (!lr_wait_for(&wait, result, err))
            *err = failure;
        result->started = 0;
        lr_net_end(&net);
        return -1;
    }
    failed = lr_wait_for(&wait, result, err);
    if (!launch->leave && !result->stays && !launch->detach)
        lr_net_end(&net);
    return failed;
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
    /* A stored plan of an app whose network Python makes: enough to join it by. */
    if (!failed && plan.net_given && launch->net_fd < 3)
        failed = lr_fail_code(err, EBADF, "enter the network namespace", "");
    if (!failed) {
        failed = lr_log_open(launch, true, &log, err) || lr_run_block(&signals, err) ||
                 start(launch, &plan, &signals, &log, result, err);
        if (failed && err->code == EOWNERDEAD && plan.cgroup_name) {
            /* Linux 6.18 kills what is cloned into a group if that has seen fewer or more kills than ours. */
            lr_cgroup_remove(launch->app_fd);
            plan.cgroup_late = plan.limited;
            plan.cgroup_name = plan.limited ? plan.cgroup_name : NULL;
            failed = start(launch, &plan, &signals, &log, result, err);
        }
        lr_log_end(launch, true, !failed, &log);
        lr_run_unblock(&signals);
    }
    lr_plan_free(&plan);
    return failed ? -1 : 0;
}
