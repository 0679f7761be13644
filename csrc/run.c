/* run.c: see run.h, signalfd(2). */
#include "run.h"

#include "sys.h"

#include <sys/signalfd.h>

int lr_run_check(const struct lr_launch *launch, const struct lr_plan *plan, struct lr_error *err)
{
    const char *const *argv = launch->argv ? launch->argv : (const char *const *)plan->argv;
    if (launch->detach && (launch->own_tty || launch->app_fd < 0))
        return lr_fail_code(err, EINVAL, "detach", "");
    if (launch->keep_count > LR_KEEP_MOST)
        return lr_fail_code(err, E2BIG, "keep descriptors", "");
    for (size_t i = 0; i < launch->keep_count; i++)
        if (launch->keep[i] < 3) /* the standard ones are taken over */
            return lr_fail_code(err, EBADF, "keep descriptors", "");
    return argv[0] && *argv[0] ? 0 : lr_fail_code(err, ENOENT, "execute", "");
}

int lr_run_watch(const struct lr_launch *launch, int *executed, int *executing, struct lr_error *err)
{
    int pair[2];
    if (launch->status_fd <= 0 && !launch->detach)
        return 0;
    if (pipe2(pair, O_CLOEXEC))
        return lr_fail(err, "open a pipe", "");
    *executed = pair[0];
    *executing = pair[1];
    return 0;
}

int lr_run_block(struct lr_run_signals *signals, struct lr_error *err)
{
    struct sigaction plain = {.sa_handler = SIG_DFL};
    sigset_t all;
    /* What the processor sends to this very thread must not wait. */
    const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
    sigfillset(&all);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        sigdelset(&all, faults[i]);
    /* With SIGCHLD ignored the kernel would reap for us, and the status be lost. */
    sigaction(SIGCHLD, &plain, &signals->chld);
    sigprocmask(SIG_BLOCK, &all, &signals->mask);
    signals->fd = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
    return signals->fd < 0 ? lr_fail(err, "open a signalfd", "") : 0;
}

void lr_run_unblock(struct lr_run_signals *signals)
{
    lr_close(&signals->fd);
    sigprocmask(SIG_SETMASK, &signals->mask, NULL);
    sigaction(SIGCHLD, &signals->chld, NULL);
}
