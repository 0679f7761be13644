/* serve.c: one loop for pid 1 and for the process that stands beside a command that joined. It is small because it stays: it reaps
 * what is orphaned to it, passes signals on, lets others in, and ends with the last process. The kernel kills a pid namespace with
 * its pid 1. See pid_namespaces(7), signalfd(2).
 */
#include "serve.h"

#include "control.h"
#include "join.h"
#include "launch.h"
#include "shed.h"
#include "sys.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

struct state {
    struct lr_server *server;
    pid_t pid; /* the command's; 0 once it has ended */
    int status; /* the command's exit status, once it has ended */
    int killer; /* the signal that it was killed by; 0: none */
    int signals;
    bool stopped, lonely, joined;
};

/* Close every descriptor but 0 to 2 and those to keep. */
static int keep_only(const int *keep, size_t count, struct lr_error *err)
{
    unsigned from = 3;
    for (;;) {
        int next = -1;
        for (size_t i = 0; i < count; i++)
            if (keep[i] >= (int)from && (next < 0 || keep[i] < next))
                next = keep[i];
        unsigned to = next < 0 ? ~0U : (unsigned)next - 1;
        if (from <= to && close_range(from, to, 0))
            return lr_fail(err, "close descriptors", "");
        if (next < 0)
            return 0;
        from = (unsigned)next + 1;
    }
}

/* The command has its descriptors by now; we hold nobody's pipe open. */
static int keep_descriptors(const struct state *state, struct lr_error *err)
{
    const struct lr_server *server = state->server;
    int keep[4 + LR_KEEP_MOST] = {server->control, server->lock_fd, server->listen_fd, state->signals};
    size_t count = 4;
    for (size_t i = 0; i < server->keep_count && i < LR_KEEP_MOST; i++)
        keep[count++] = server->keep[i];
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0)
        return lr_fail(err, "open", "/dev/null");
    for (int fd = 0; fd < 3; fd++)
        if (dup2(server->command.terminal >= 0 ? server->command.terminal : null, fd) < 0)
            return lr_fail(err, "take over the standard descriptors", "");
    return keep_only(keep, count, err);
}

static void tell(const struct state *state, int type, int value, int more)
{
    struct lr_message message = {.type = type, .value = value, .more = more};
    if (state->server->control >= 0)
        lr_send(state->server->control, &message, NULL);
}

static void reap(struct state *state)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG | WUNTRACED)) > 0) {
        if (pid != state->pid)
            continue;
        if (WIFSTOPPED(status)) {
            state->stopped = true;
            /* With the caller's terminal SIGSTOP is somebody's own affair, not a matter of the caller's shell. */
            if (state->server->command.terminal >= 0 || WSTOPSIG(status) != SIGSTOP)
                tell(state, LR_MSG_STOPPED, 0, 0);
        } else {
            state->killer = WIFEXITED(status) ? 0 : WTERMSIG(status);
            state->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + state->killer;
            state->pid = 0;
        }
    }
    state->lonely = pid < 0 && errno == ECHILD;
}

/* The command alone, as kill(2) would; what a terminal sends, and what must not be survived, goes to its group. */
static void signal_command(struct state *state, int number, bool group)
{
    if (!state->pid)
        return;
    if (number == SIGCONT && state->stopped) {
        if (state->server->command.terminal >= 0)
            tcsetpgrp(0, state->pid);
        state->stopped = false;
    }
    kill(group || number == SIGCONT || number == SIGKILL ? -state->pid : state->pid, number);
}

static void handle_signals(struct state *state)
{
    struct signalfd_siginfo info;
    while (read(state->signals, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGCHLD)
            reap(state);
        else if (info.ssi_code == SI_KERNEL || info.ssi_pid != 0 || getpid() != 1)
            continue; /* the terminal has told the command itself; and nobody inside commands us */
        else
            signal_command(state, (int)info.ssi_signo, false);
    }
}

/* The kernel closes what we keep before it ends what is left inside, and with it go the rules of a network: first those who are left,
 * then we. */
static _Noreturn void end(const struct state *state, int status)
{
    if (getpid() == 1 && state->server->keep_count && !state->lonely) {
        kill(-1, SIGKILL);
        while (waitpid(-1, NULL, __WALL) > 0 || errno == EINTR)
            ;
    }
    _exit(status);
}

/* The launcher is gone: the command was its child, as it were, and goes too. Others who joined stay. */
static void lose_launcher(struct state *state)
{
    lr_close(&state->server->control);
    if (getpid() == 1 && !state->joined)
        end(state, 137);
    signal_command(state, SIGKILL, true);
}

static void handle_control(struct state *state)
{
    struct lr_message message;
    int fds[LR_MESSAGE_FDS];
    int got = lr_receive(state->server->control, &message, fds, MSG_DONTWAIT);
    if (got == 0 || (got < 0 && errno != EAGAIN))
        lose_launcher(state);
    for (uint32_t i = 0; got > 0 && i < message.count; i++)
        close(fds[i]);
    if (got > 0 && message.type == LR_MSG_SIGNAL)
        signal_command(state, message.value, message.more);
    if (got > 0 && message.type == LR_MSG_DETACH) {
        prctl(PR_SET_PDEATHSIG, 0, 0, 0,
              0); /* before the launcher may go, which is when the socket is closed */
        lr_close(&state->server->control);
    }
}

static void let_in(struct state *state)
{
    int guest = accept4(state->server->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (guest < 0)
        return;
    pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (pid == 0)
        lr_join_serve(guest, state->server->command.rlimits);
    if (pid < 0) {
        struct lr_message message = {.type = LR_MSG_ERROR};
        lr_fail(&message.error, "start the command's process", "");
        lr_send(guest, &message, NULL);
    }
    close(guest);
    if (pid < 0)
        return;
    state->joined = true;
    state->lonely = false;
    prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0); /* from here on the first launcher's death is not everybody's */
}

/* The command has ended. Say so, and say whether anything lives on. */
static void finish_command(struct state *state)
{
    bool staying = getpid() == 1 && state->server->stay && !state->lonely;
    if (staying)
        prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0);
    else /* before the launcher returns: its caller must not find the app busy, but ending, which the line in the lock file tells */
        lr_close(&state->server->lock_fd);
    tell(state, LR_MSG_ENDED, state->status | state->killer << 8,
         staying         ? LR_ENDED_STAYS
         : state->lonely ? LR_ENDED_ALL
                         : LR_ENDED_FIRST);
    lr_close(&state->server->control);
    if (!staying)
        end(state, state->status);
}

void lr_serve(struct lr_server *server)
{
    struct state state = {.server = server, .signals = -1, .status = -1};
    struct lr_error error;
    sigset_t all;
    sigfillset(&all);
    state.signals = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
    if (state.signals < 0) {
        lr_fail(&error, "open a signalfd", "");
        lr_command_fail(server->control, &error);
    }
    /* It shares our memory until its exec, copies no pages and leaves what it was told as it was; with every signal blocked. */
    state.pid = vfork();
    if (state.pid < 0) {
        lr_fail(&error, "start the command's process", "");
        lr_command_fail(server->control, &error);
    }
    if (state.pid == 0)
        lr_command_run(&server->command, server->control);
    setpgid(state.pid, state.pid); /* the child does it too: whoever comes first */
    if (keep_descriptors(&state, &error))
        lr_command_fail(server->control, &error);
    bool shed = false;
    while (state.pid || !state.lonely) {
        struct pollfd polled[] = {
            {.fd = state.signals, .events = POLLIN},
            {.fd = server->control, .events = POLLIN},
            {.fd = server->listen_fd, .events = POLLIN},
        };
        int ready = poll(polled, sizeof polled / sizeof *polled, shed ? -1 : LR_SHED_AFTER);
        if (!ready && !shed) {
            lr_shed();
            shed = true;
        }
        if (ready <= 0)
            continue;
        bool running = state.pid != 0;
        if (polled[0].revents)
            handle_signals(&state);
        if (polled[1].revents && state.pid)
            handle_control(&state);
        if (polled[2].revents)
            let_in(&state);
        if (running && !state.pid)
            finish_command(&state);
    }
    _exit(state.status);
}
