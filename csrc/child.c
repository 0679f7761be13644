/* child.c: the child of a start, from its first instruction to pid 1 of the sandbox. It calls nothing that allocates or takes a lock: the
 * calling program may have threads.
 */
#include "child.h"

#include "confine.h"
#include "control.h"
#include "ids.h"
#include "net.h"
#include "serve.h"
#include "sys.h"
#include "terminal.h"
#include "transfer.h"

#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>

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
    if (lr_transfer_receive(plan, mounts, control, err))
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

/* What needs neither ids nor mounts, while the launcher is busy with those. */
static int begin(const struct lr_plan *plan, struct lr_error *err)
{
    if (plan->namespaces & CLONE_NEWNET && !lr_net_is_apart(plan) && lr_net_make(err))
        return -1;
    if (plan->hostname && sethostname(plan->hostname, strlen(plan->hostname)))
        return lr_fail(err, "set the host name", plan->hostname);
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
        return lr_fail(err, "make the mounts private", "/");
    return lr_confine_begin(plan, err);
}

static int enter_net(struct lr_plan *plan, struct lr_mounts *mounts, int control, struct lr_error *err)
{
    if (!lr_net_is_apart(plan))
        return 0;
    if (lr_transfer_receive_net(plan, mounts, control, err))
        return -1;
    if (setns(mounts->net, CLONE_NEWNET))
        return lr_fail(err, "enter the network namespace", "");
    lr_close(&mounts->net);
    return 0;
}

/* They are attached: the command's process must not find them by number (CVE-2024-21626). */
static void close_mounts(struct lr_plan *plan, struct lr_mounts *mounts)
{
    int listening = lr_steal(&mounts->listening);
    lr_mounts_close(plan, mounts);
    mounts->listening = listening;
}

static int build(const struct lr_launch *launch, struct lr_plan *plan, struct lr_mounts *mounts, int control,
                 int *terminal, struct lr_error *err)
{
    if (leave_session(err) || begin(plan, err) || become_root_inside(plan, mounts, control, err))
        return -1;
    if (plan->userns != LR_USERNS_RANGE && lr_mounts_prepare(plan, mounts, err))
        return -1;
    if (lr_mounts_attach(plan, mounts, launch->own_tty, err) || enter_root(mounts, err) ||
        enter_net(plan, mounts, control, err))
        return -1;
    close_mounts(plan, mounts);
    if (launch->own_tty && lr_terminal_take(mounts->ptmx, control, terminal, err))
        return -1;
    if (launch->own_tty && plan->uid && fchown(*terminal, plan->uid, (gid_t)-1))
        return lr_fail(err, "give the terminal to the command's user", "");
    if (lr_confine(plan, err))
        return -1;
    return plan->uid ? tie_to_launcher(control, err) : 0;
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

void lr_child_run(const struct lr_launch *launch, struct lr_plan *plan, struct lr_mounts *mounts, int control,
                  const struct lr_log *log, const sigset_t *mask)
{
    struct lr_error error;
    struct lr_rlimits rlimits;
    lr_plan_rlimits(plan, &rlimits);
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
                .rlimits = &rlimits,
                .terminal = -1,
            },
        .control = control,
        .lock_fd = launch->lock_fd,
        .listen_fd = -1,
        .keep = launch->keep,
        .keep_count = launch->keep_count,
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
