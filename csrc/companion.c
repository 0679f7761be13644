/* companion.c: a process stands between pasta and everything else. It waits for pid 1's end and for pasta's, and pasta has the kernel
 * kill it with that process: whoever of them is killed, nothing stays behind. Neither is inside the sandbox, and neither holds anything of
 * the caller's, so that a pipe or a terminal ends when the command does. See pidfd_open(2), prctl(2).
 */
#include "companion.h"

#include "sys.h"

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define SAID 4096 /* bytes of what pasta says, for an error message; the rest is lost */
#define MOST_WORDS 512
#define PIDFD 3 /* of pid 1, in the process between */

/* Its words: the plan's, and where the namespaces are. keeper is in them: what reads a process's links in /proc must have power over its
 * user namespace, and pasta has none over ours any more when it gets there. */
static int words(const struct lr_plan *plan, pid_t keeper, int ready, char **argv)
{
    static char text[3][64];
    size_t count = 0;
    for (size_t i = 0; i < plan->count; i++)
        if (plan->ops[i].kind == LR_OP_PASTA) {
            if (count + 7 > MOST_WORDS)
                return -1;
            argv[count++] = (char *)plan->ops[i].arg[0];
        }
    snprintf(text[0], sizeof text[0], "/proc/%d/ns/user", keeper);
    snprintf(text[1], sizeof text[1], "/proc/%d/ns/net", keeper);
    snprintf(text[2], sizeof text[2], "/proc/%d/fd/%d", keeper, ready);
    static const char *const options[] = {"--userns", "--netns", "--pid"};
    for (int i = 0; i < 3; i++) {
        argv[count++] = (char *)options[i];
        argv[count++] = text[i];
    }
    argv[count] = NULL;
    return 0;
}

static void run(char **argv, pid_t parent)
{
    static char *const environment[] = {"PATH=/usr/bin:/bin", NULL};
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) || getppid() != parent || close_range(3, ~0U, 0))
        _exit(125);
    execve(argv[0], argv, environment);
    _exit(errno == ENOENT ? 127 : 126);
}

/* The process between. Whatever it holds is pid 1's pidfd and what pasta says. */
static void stand_between(char **argv, int pidfd, int said)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    setsid();
    /* By way of high numbers, lest one takes another's place. */
    int high[2] = {fcntl(pidfd, F_DUPFD_CLOEXEC, 64), fcntl(said, F_DUPFD_CLOEXEC, 64)};
    if (null < 0 || chdir("/") || high[0] < 0 || high[1] < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 ||
        dup2(high[1], 2) < 0 || dup2(high[0], PIDFD) < 0 || close_range(PIDFD + 1, ~0U, 0))
        _exit(125);
    pid_t self = getpid(), pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (pid == 0)
        run(argv, self);
    int companion = pid < 0 ? -1 : (int)syscall(SYS_pidfd_open, pid, 0);
    if (companion < 0)
        _exit(125); /* which kills it */
    struct pollfd ends[] = {{.fd = PIDFD, .events = POLLIN}, {.fd = companion, .events = POLLIN}};
    while (poll(ends, 2, -1) < 0)
        ;
    kill(pid, SIGKILL);
    int status = 0;
    while (waitpid(pid, &status, __WALL) < 0 && errno == EINTR)
        ;
    _exit(ends[1].revents && WIFEXITED(status) ? WEXITSTATUS(status) : 0);
}

/* What it said last, in a line. */
static int failed(int said, int status, const char *program, struct lr_error *err)
{
    char text[SAID + 1];
    ssize_t size = pread(said, text, SAID, 0);
    text[size > 0 ? size : 0] = 0;
    size_t length = strlen(text);
    while (length && (text[length - 1] == '\n' || text[length - 1] == ' '))
        text[--length] = 0;
    const char *line = strrchr(text, '\n');
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
    if (code == 126 || code == 127)
        return lr_fail_code(err, code == 127 ? ENOENT : EACCES, "start pasta", program);
    return lr_fail_code(err, ECANCELED, "set up the network by pasta", line ? line + 1 : text);
}

static int wait_until_ready(pid_t between, int reading, int pidfd, int said, const char *program,
                            struct lr_error *err)
{
    char text[32];
    int status = 0;
    LR_FD end = (int)syscall(SYS_pidfd_open, between, 0);
    if (end < 0)
        return lr_fail(err, "wait for pasta", "");
    struct pollfd polled[] = {
        {.fd = reading, .events = POLLIN}, {.fd = end, .events = POLLIN}, {.fd = pidfd, .events = POLLIN}};
    while (poll(polled, 3, -1) < 0)
        ;
    if (polled[0].revents & POLLIN && read(reading, text, sizeof text) > 0)
        return 0;
    if (polled[2].revents)
        return lr_fail_code(err, ECANCELED, "wait for pasta", "");
    waitpid(between, &status, __WALL);
    return failed(said, status, program, err);
}

pid_t lr_companion_start(const struct lr_plan *plan, pid_t keeper, const int ready[2], int pidfd,
                         struct lr_error *err)
{
    char *argv[MOST_WORDS];
    /* A file of a fixed size in memory: nobody has to read it, and it cannot grow while an app runs for years. */
    LR_FD said = memfd_create("layerrun-pasta", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (said < 0 || ftruncate(said, SAID) || fcntl(said, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SEAL))
        return lr_fail(err, "make a memory file", "");
    if (words(plan, keeper, ready[1], argv))
        return lr_fail_code(err, E2BIG, "start pasta", "");
    pid_t between = (pid_t)syscall(SYS_clone, 0, 0, 0, 0, 0);
    if (between == 0)
        stand_between(argv, pidfd, said);
    if (between < 0)
        return lr_fail(err, "start the process beside pasta", "");
    if (!wait_until_ready(between, ready[0], pidfd, said, argv[0], err))
        return between;
    kill(between, SIGKILL);
    return -1;
}
