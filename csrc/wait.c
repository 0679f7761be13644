/* wait.c: one loop over four descriptors until the command or pid 1 is gone. See signalfd(2), pidfd_open(2), tty_ioctl(4).
 *
 * The command is in another session than we are, so that nothing reaches it but what we pass on: what the caller's terminal sends its
 * foreground group (si_code SI_KERNEL) to the command's group, else to the command. With a terminal of its own, the caller's is made
 * raw, and bytes, sizes and stops are carried across.
 */
#include "wait.h"

#include "control.h"
#include "shed.h"
#include "status.h"
#include "sys.h"

#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>

#define CHUNK 4096
#define LAST_WORDS 512 /* messages; what lives on may go on talking */
#define LOOK_EVERY 200 /* ms, while in the background */

struct terminal {
    int master; /* -1: the command has no terminal of its own */
    bool raw, input_ended, background;
    struct termios saved;
    char pending[CHUNK]; /* typed, and not yet taken by the command */
    size_t pending_size;
};

static void make_raw(struct terminal *terminal)
{
    struct termios raw;
    if (terminal->master < 0 || (!terminal->raw && tcgetattr(0, &terminal->saved)))
        return;
    raw = terminal->saved; /* set again even if it is: a shell that stopped us has set its own meanwhile */
    cfmakeraw(&raw);
    terminal->raw = !tcsetattr(0, TCSADRAIN, &raw);
}

static void make_cooked(struct terminal *terminal)
{
    if (terminal->raw)
        tcsetattr(0, TCSADRAIN, &terminal->saved);
    terminal->raw = false;
}

static void copy_size(const struct terminal *terminal)
{
    struct winsize size;
    if (terminal->master >= 0 && !ioctl(0, TIOCGWINSZ, &size))
        ioctl(terminal->master, TIOCSWINSZ, &size);
}

static void pass_on(const struct lr_wait *wait, int number, bool group)
{
    struct lr_message message = {.type = LR_MSG_SIGNAL, .value = number, .more = group};
    lr_send(wait->control, &message, NULL);
}

/* Only the foreground may set the caller's terminal or read it. A shell moves us there without a word if we run in the background
 * already, so it is looked at now and then. */
static void look_for_foreground(struct terminal *terminal)
{
    pid_t owner = tcgetpgrp(0);
    terminal->background = owner > 0 && owner != getpgrp();
    if (terminal->background)
        return;
    make_raw(terminal);
    copy_size(terminal);
}

/* Stop as Ctrl-Z would have: the whole group, so that a shell sees all of its job stopped, or us alone if the group has got it from
 * the terminal. The kernel takes no notice in a group that nobody could wake again (an orphaned one), so SIGSTOP will not do. */
static void stop(bool group)
{
    struct sigaction plain = {.sa_handler = SIG_DFL}, saved;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTSTP);
    sigaction(SIGTSTP, &plain, &saved);
    kill(group ? 0 : getpid(), SIGTSTP);
    sigprocmask(SIG_UNBLOCK, &set, NULL); /* here it happens */
    sigprocmask(SIG_BLOCK, &set, NULL);
    sigaction(SIGTSTP, &saved, NULL);
}

/* Stop once the command was stopped, not before: it could still take from the terminal what is typed at the shell. Go on with it when
 * the shell says so. Its SIGCONT waits in the signalfd and is passed on from there; a second one, coming late, could take back the
 * next stop. */
static void suspend(const struct lr_wait *wait, struct terminal *terminal)
{
    sigset_t pending;
    bool own = terminal->master >= 0;
    make_cooked(terminal);
    stop(own);
    if (own)
        look_for_foreground(terminal);
    if (!sigpending(&pending) && !sigismember(&pending, SIGCONT))
        pass_on(wait, SIGCONT, true); /* the kernel did not let us stop */
}

static void handle_signal(const struct lr_wait *wait, struct terminal *terminal)
{
    struct signalfd_siginfo info;
    if (read(wait->signals, &info, sizeof info) != sizeof info)
        return;
    bool shared = terminal->master < 0, by_terminal = info.ssi_code == SI_KERNEL;
    switch (info.ssi_signo) {
    case SIGCHLD:
    case SIGPIPE:
        return;
    case SIGWINCH:
        copy_size(terminal);
        return;
    case SIGTSTP:
    case SIGTTIN:
    case SIGTTOU:
        /* With a terminal of its own a Ctrl-Z comes this way too, if it is typed before the caller's terminal is raw again. */
        if (shared || !by_terminal || info.ssi_signo == SIGTSTP)
            pass_on(wait, (int)info.ssi_signo, by_terminal);
        return;
    case SIGCONT:
        if (!shared)
            look_for_foreground(terminal);
        pass_on(wait, SIGCONT, true);
        return;
    default:
        /* A shell whose terminal is gone tells its jobs, each a group. */
        pass_on(wait, (int)info.ssi_signo,
                by_terminal || (info.ssi_signo == SIGHUP && info.ssi_pid == (uint32_t)getsid(0)));
    }
}

static int write_all(int fd, const char *bytes, size_t size)
{
    while (size) {
        ssize_t written = write(fd, bytes, size);
        if (written < 0 && errno == EAGAIN) {
            struct pollfd room = {.fd = fd, .events = POLLOUT};
            poll(&room, 1, -1);
            continue;
        }
        if (written < 0)
            return -1;
        bytes += written;
        size -= (size_t)written;
    }
    return 0;
}

/* What the command wrote. Returns whether there may be more. */
static bool carry_output(struct terminal *terminal)
{
    char bytes[CHUNK];
    ssize_t got = read(terminal->master, bytes, sizeof bytes);
    if (got <= 0)
        return false;
    write_all(1, bytes, (size_t)got); /* a terminal that is gone must not keep the command from ending */
    return true;
}

static void carry_input(struct terminal *terminal)
{
    ssize_t got = read(0, terminal->pending, sizeof terminal->pending);
    if (got > 0)
        terminal->pending_size = (size_t)got;
    else if (got == 0 || errno != EAGAIN) {
        look_for_foreground(terminal); /* the kernel refuses the background with EIO */
        terminal->input_ended = !terminal->background;
    }
}

static void flush_input(struct terminal *terminal)
{
    ssize_t written = write(terminal->master, terminal->pending, terminal->pending_size);
    if (written < 0)
        return;
    terminal->pending_size -= (size_t)written;
    memmove(terminal->pending, terminal->pending + written, terminal->pending_size);
}

static void take_terminal(struct terminal *terminal, int master)
{
    terminal->master = master;
    fcntl(master, F_SETFL, O_RDWR | O_NONBLOCK);
    look_for_foreground(terminal);
}

/* Returns whether pid 1 may still say something. */
static bool handle_message(const struct lr_wait *wait, struct terminal *terminal, struct lr_result *result,
                           struct lr_error *err)
{
    struct lr_message message;
    int fds[LR_MESSAGE_FDS];
    if (lr_receive(wait->control, &message, fds, MSG_DONTWAIT) <= 0)
        return errno == EAGAIN;
    if (message.type == LR_MSG_ERROR) {
        *err = message.error;
        result->started = 0;
    } else if (message.type == LR_MSG_TERMINAL && message.count == 1) {
        take_terminal(terminal, fds[0]);
    } else if (message.type == LR_MSG_STOPPED) {
        suspend(wait, terminal);
    } else if (message.type == LR_MSG_WELCOME) {
        result->started = 1;
    } else if (message.type == LR_MSG_ENDED) {
        result->status = message.value & 0xff;
        result->signal = message.value >> 8;
        result->ended = 1;
        result->stays = message.more == LR_ENDED_STAYS;
        result->first = message.more == LR_ENDED_FIRST;
    }
    return true;
}

/* The pipe of the execution has ended: whoever failed has said so before. Returns whether pid 1 may still say something. */
static bool handle_execution(const struct lr_wait *wait, struct terminal *terminal, struct lr_result *result,
                             struct lr_error *err)
{
    struct lr_message message = {.type = LR_MSG_DETACH};
    bool talking;
    errno = 0;
    while ((talking = handle_message(wait, terminal, result, err)) && errno != EAGAIN)
        errno = 0;
    if (!result->started || err->code)
        return talking;
    lr_status_started(wait->status, wait->pid, wait->pidfd < 0);
    if (wait->detach)
        lr_send(wait->control, &message, NULL);
    return talking;
}

/* The end as pid 1's own end tells it. */
static int reap(const struct lr_wait *wait, struct lr_result *result, struct lr_error *err)
{
    siginfo_t info = {0};
    while (waitid(P_PIDFD, (id_t)wait->pidfd, &info, WEXITED) < 0)
        if (errno != EINTR)
            return lr_fail(err, "wait for the sandbox", "");
    if (result->ended)
        return 0;
    result->signal = info.si_code == CLD_EXITED ? 0 : info.si_status;
    result->status = result->signal ? 128 + result->signal : info.si_status;
    return 0;
}

/* Processes that go with pid 1 have to be gone when we are: they could still write. */
static bool may_leave(const struct lr_wait *wait, const struct lr_result *result)
{
    return result->ended && (result->stays || (wait->leave && !result->first));
}

static int finish(const struct lr_wait *wait, struct terminal *terminal, struct lr_result *result,
                  struct lr_error *err)
{
    for (int left = LAST_WORDS; wait->notify && left && lr_notify_carry(wait->notify); left--)
        ;
    errno = 0;
    while (handle_message(wait, terminal, result, err) && errno != EAGAIN)
        errno = 0;
    if (terminal->master >= 0)
        while (carry_output(terminal))
            ;
    make_cooked(terminal);
    lr_close(&terminal->master);
    bool left = may_leave(wait, result);
    if (wait->pidfd >= 0 && !left && reap(wait, result, err))
        return -1;
    if (wait->pidfd < 0 && !result->ended) {
        if (!result->started && !err->code)
            return lr_fail_code(err, ECONNRESET, "join the running app", "");
        result->signal = SIGKILL; /* the app was killed */
        result->status = 128 + SIGKILL;
    }
    return result->started ? 0 : -1;
}

/* Returns as lr_wait_for; in asking: nothing has been said of an execution yet. */
static int serve_until_end(const struct lr_wait *wait, bool *asking, struct lr_result *result,
                           struct lr_error *err)
{
    struct terminal terminal = {.master = -1};
    bool talking = true, output = true, shed = false;
    for (;;) {
        bool input =
            terminal.master >= 0 && !terminal.input_ended && !terminal.background && !terminal.pending_size;
        short events = (short)((output ? POLLIN : 0) | (terminal.pending_size ? POLLOUT : 0));
        struct pollfd polled[] = {
            {.fd = wait->pidfd, .events = POLLIN},
            {.fd = wait->signals, .events = POLLIN},
            {.fd = talking ? wait->control : -1, .events = POLLIN},
            {.fd = events ? terminal.master : -1, .events = events},
            {.fd = input ? 0 : -1, .events = POLLIN},
            {.fd = *asking ? wait->executed : -1, .events = POLLIN},
            {.fd = wait->notify ? wait->notify->fd : -1, .events = POLLIN},
        };
        int most = terminal.background ? LOOK_EVERY : shed ? -1 : LR_SHED_AFTER;
        int ready = poll(polled, sizeof polled / sizeof *polled, most);
        if (ready < 0 && errno != EINTR) {
            make_cooked(&terminal);
            lr_close(&terminal.master);
            return lr_fail(err, "wait for the sandbox", "");
        }
        if (!ready && !shed) {
            lr_shed();
            shed = true;
        }
        if (terminal.background)
            look_for_foreground(&terminal);
        if (polled[1].revents)
            handle_signal(wait, &terminal);
        if (polled[2].revents) {
            errno = 0;
            talking = handle_message(wait, &terminal, result, err);
        }
        if (polled[5].revents) {
            *asking = false;
            talking = talking && handle_execution(wait, &terminal, result, err);
        }
        if (polled[3].revents & POLLOUT)
            flush_input(&terminal);
        if (polled[3].revents & (POLLIN | POLLHUP | POLLERR))
            output = carry_output(&terminal) || errno == EAGAIN;
        if (polled[6].revents)
            lr_notify_carry(wait->notify);
        if (polled[4].revents && !terminal.background)
            carry_input(&terminal);
        if (!talking && !*asking && wait->detach && result->started && !result->ended && !polled[0].revents)
            return 0;
        if (polled[0].revents || may_leave(wait, result) || (wait->pidfd < 0 && (result->ended || !talking)))
            return finish(wait, &terminal, result, err);
    }
}

int lr_wait_for(const struct lr_wait *wait, struct lr_result *result, struct lr_error *err)
{
    bool asking = wait->executed >= 0;
    result->started = wait->pidfd >= 0; /* who joins has yet to be let in */
    err->code = 0;
    if (serve_until_end(wait, &asking, result, err))
        return -1;
    if (asking) /* it was over too soon to see it begin */
        lr_status_started(wait->status, wait->pid, wait->pidfd < 0);
    if (wait->detach)
        result->status = result->signal = 0;
    else
        lr_status_exited(wait->status, result->status, result->signal);
    return 0;
}
