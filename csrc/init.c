/* init.c: pid 1. It is small because it stays: it reaps whatever is orphaned to it, passes on the signals that come from outside, and
 * takes everything with it when the command ends (the kernel kills a pid namespace with its pid 1). See pid_namespaces(7).
 */
#include "init.h"

#include "confine.h"
#include "control.h"
#include "sys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

void lr_init_fail(int control, const struct lr_error *error)
{
    struct lr_message message = {.type = LR_MSG_ERROR, .error = *error};
    lr_send(control, &message, NULL);
    _exit(error->code == ENOENT ? 127 : error->code == EACCES ? 126 : 125);
}

static int enter_cwd(const struct lr_init *init, struct lr_error *err)
{
    const char *wanted = init->launch->cwd;
    char where[4096];
    if (wanted && !chdir(wanted)) {
        /* "(unreachable)": a descriptor from outside smuggled in by name, as in CVE-2024-21626. */
        if (syscall(SYS_getcwd, where, sizeof where) > 0 && *where == '/')
            return 0;
        errno = EXDEV;
    }
    if (wanted && init->launch->cwd_must)
        return lr_fail(err, "enter the working folder", wanted);
    const char *place = !chdir(init->plan->cwd) ? init->plan->cwd : "/";
    if (wanted)
        dprintf(2, "layerrun: %s cannot be entered inside; starting in %s\n", wanted, place);
    if (*place == '/' && !place[1] && chdir("/"))
        return lr_fail(err, "enter the working folder", "/");
    return 0;
}

/* Like execvpe(3), but it searches the PATH inside, knows no default, and never hands a file to a shell. */
static int execute(char *const argv[], char *const env[], struct lr_error *err)
{
    const char *name = argv[0], *path = NULL;
    char full[4096];
    int denied = 0;
    if (strchr(name, '/')) {
        execve(name, argv, env);
        return lr_fail(
            err, errno == ENOENT && !access(name, F_OK) ? "execute (its interpreter is missing)" : "execute",
            name);
    }
    for (char *const *entry = env; *entry; entry++)
        if (!strncmp(*entry, "PATH=", 5))
            path = *entry + 5;
    for (const char *at = path; at && *name; at += *at == ':') {
        size_t length = strcspn(at, ":");
        if (length + 1 + strlen(name) + 1 < sizeof full && length) {
            memcpy(full, at, length);
            full[length] = '/';
            strcpy(full + length + 1, name);
            execve(full, argv, env);
            if (errno == ENOENT && !access(full, X_OK))
                return lr_fail(err, "execute (its interpreter is missing)", full);
            if (errno == EACCES)
                denied = 1;
            else if (errno != ENOENT && errno != ENOTDIR)
                return lr_fail(err, "execute", full);
        }
        at += length;
        if (!*at)
            break;
    }
    return lr_fail_code(err, denied ? EACCES : ENOENT, "execute", name);
}

/* What the command inherits: the caller's mask, no ignored signal that Python (which ignores these two) put there. */
static void reset_signals(const struct lr_init *init)
{
    signal(SIGPIPE, SIG_DFL);
    signal(SIGXFSZ, SIG_DFL);
    sigprocmask(SIG_SETMASK, init->mask, NULL);
}

static void run_command(const struct lr_init *init)
{
    struct lr_error error;
    char *const *argv = init->launch->argv ? (char *const *)init->launch->argv : init->plan->argv;
    setpgid(0, 0);
    if (init->terminal >= 0) {
        tcsetpgrp(init->terminal, getpid());
        for (int fd = 0; fd < 3; fd++)
            dup2(init->terminal, fd);
    }
    if (init->plan->has_umask)
        umask(init->plan->umask);
    int failed = enter_cwd(init, &error);
    if (!failed && close_range(3, ~0U, CLOSE_RANGE_CLOEXEC))
        failed = lr_fail(&error, "close the descriptors that do not belong inside", "");
    if (!failed) {
        reset_signals(init);
        execute(argv, init->plan->env, &error);
    }
    lr_init_fail(init->control, &error);
}

/* Keep the two descriptors that are needed and drop every other one. */
static int keep_descriptors(const struct lr_init *init, struct lr_error *err)
{
    int low = init->control, high = init->launch->lock_fd;
    if (high < 0)
        high = low;
    if (high < low) {
        low = high;
        high = init->control;
    }
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0)
        return lr_fail(err, "open", "/dev/null");
    for (int fd = 0; fd < 3; fd++)
        if (dup2(init->terminal >= 0 ? init->terminal : null, fd) < 0)
            return lr_fail(err, "take over the standard descriptors", "");
    if ((low > 3 && close_range(3, (unsigned)low - 1, 0)) ||
        (high > low + 1 && close_range((unsigned)low + 1, (unsigned)high - 1, 0)) ||
        close_range((unsigned)high + 1, ~0U, 0))
        return lr_fail(err, "close descriptors", "");
    return 0;
}

/* Reap all there is. Returns the command's exit status once it has ended, else -1. */
static int reap(const struct lr_init *init, pid_t command, int *stopped)
{
    int status, ended = -1;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG | WUNTRACED)) > 0) {
        if (pid != command)
            continue;
        if (WIFSTOPPED(status)) {
            struct lr_message message = {.type = LR_MSG_STOPPED};
            *stopped = 1;
            /* With the caller's terminal SIGSTOP is somebody's own affair, not a matter of the caller's shell. */
            if (init->terminal >= 0 || WSTOPSIG(status) != SIGSTOP)
                lr_send(init->control, &message, NULL);
        } else {
            ended = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        }
    }
    return ended;
}

static void resume(const struct lr_init *init, pid_t command, int *stopped)
{
    if (init->terminal >= 0 && *stopped)
        tcsetpgrp(0, command);
    *stopped = 0;
    kill(-command, SIGCONT);
}

void lr_init_serve(const struct lr_init *init)
{
    struct lr_error error;
    sigset_t all;
    siginfo_t info;
    int status = -1, stopped = 0;
    pid_t command = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (command < 0) {
        lr_fail(&error, "start the command's process", "");
        lr_init_fail(init->control, &error);
    }
    if (command == 0)
        run_command(init);
    setpgid(command, command); /* the child does it too: whoever comes first */
    if (keep_descriptors(init, &error))
        lr_init_fail(init->control, &error);
    sigfillset(&all);
    while (status < 0) {
        if (sigwaitinfo(&all, &info) < 0)
            continue;
        if (info.si_signo == SIGCHLD)
            status = reap(init, command, &stopped);
        else if (info.si_code == SI_KERNEL || info.si_pid != 0)
            continue; /* the terminal has told the command itself; and nobody inside commands pid 1 */
        else if (info.si_signo == SIGCONT)
            resume(init, command, &stopped);
        else /* what the terminal sends goes to the whole group */
            kill(info.si_code == SI_QUEUE && info.si_value.sival_int ? -command : command, info.si_signo);
    }
    _exit(status);
}
