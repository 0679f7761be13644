/* join.c: both ends of the door of a running app. See unix(7), memfd_create(2). */
#include "join.h"

#include "control.h"
#include "log.h"
#include "plan.h"
#include "rlimits.h"
#include "run.h"
#include "serve.h"
#include "sys.h"
#include "terminal.h"
#include "wait.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define NAME "socket"

/* A request is a memory file of words that each end with a NUL, so that an argv may be as long as exec allows: version, own_tty,
 * cwd_must, umask, blocked and ignored signals, limits, cwd ("" for none), place, the number of words of the command, these words, then the
 * environment. */
#define VERSION "1"
enum {
    WORD_VERSION,
    WORD_TTY,
    WORD_MUST,
    WORD_UMASK,
    WORD_BLOCKED,
    WORD_IGNORED,
    WORD_LIMITS,
    WORD_CWD,
    WORD_PLACE,
    WORD_COUNT,
    HEAD
};

static void address_of(struct sockaddr_un *address, int app_fd)
{
    /* A socket's path may have 107 bytes; by descriptor it always fits. */
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(address->sun_path, sizeof address->sun_path, "/proc/self/fd/%d/" NAME, app_fd);
}

int lr_join_listen(int app_fd, struct lr_error *err)
{
    struct sockaddr_un address;
    address_of(&address, app_fd);
    if (unlinkat(app_fd, NAME, 0) && errno != ENOENT)
        return lr_fail(err, "remove the socket of an earlier run", NAME);
    LR_FD fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 128))
        return lr_fail(err, "open the app's socket", NAME);
    return lr_steal(&fd);
}

/* ---- outside: knocking ---- */

static int put(FILE *file, const char *word)
{
    return fwrite(word, strlen(word) + 1, 1, file) == 1 ? 0 : -1;
}

/* Sets of signals as the kernel prints them in /proc/PID/status. */
static void print_set(char text[17], const sigset_t *set)
{
    unsigned long long bits = 0;
    for (int number = 1; number <= 64; number++)
        if (sigismember(set, number) == 1)
            bits |= 1ULL << (number - 1);
    snprintf(text, 17, "%llx", bits);
}

static void parse_set(sigset_t *set, const char *text)
{
    unsigned long long bits = strtoull(text, NULL, 16);
    sigemptyset(set);
    for (int number = 1; number <= 64; number++)
        if (bits >> (number - 1) & 1)
            sigaddset(set, number);
}

static void find_ignored(sigset_t *set)
{
    struct sigaction action;
    sigemptyset(set);
    for (int number = 1; number < NSIG; number++)
        if (!sigaction(number, NULL, &action) && action.sa_handler == SIG_IGN)
            sigaddset(set, number);
}

static int write_request(const struct lr_launch *launch, const struct lr_plan *plan, const sigset_t *blocked,
                         struct lr_error *err)
{
    char *const *argv = launch->argv ? (char *const *)launch->argv : plan->argv;
    char number[16], mask[16], blocked_text[17], ignored_text[17], limits[LR_LIMITS_TEXT];
    sigset_t ignored;
    int count = 0;
    mode_t mode = umask(0);
    umask(mode);
    while (argv[count])
        count++;
    snprintf(number, sizeof number, "%d", count);
    snprintf(mask, sizeof mask, "%o", mode);
    find_ignored(&ignored);
    print_set(blocked_text, blocked);
    print_set(ignored_text, &ignored);
    lr_limits_print(limits);
    const char *head[HEAD] = {
        [WORD_VERSION] = VERSION,
        [WORD_TTY] = launch->own_tty ? "1" : "0",
        [WORD_MUST] = launch->cwd_must ? "1" : "0",
        [WORD_UMASK] = mask,
        [WORD_BLOCKED] = blocked_text,
        [WORD_IGNORED] = ignored_text,
        [WORD_LIMITS] = limits,
        [WORD_CWD] = launch->cwd ? launch->cwd : "",
        [WORD_PLACE] = plan->cwd,
        [WORD_COUNT] = number,
    };
    LR_FD fd = memfd_create("layerrun-request", MFD_CLOEXEC);
    LR_FD buffered = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
    FILE *file = buffered < 0 ? NULL : fdopen(buffered, "w");
    int failed = !file;
    for (int i = 0; !failed && i < HEAD; i++)
        failed = put(file, head[i]);
    for (int i = 0; !failed && argv[i]; i++)
        failed = put(file, argv[i]);
    for (int i = 0; !failed && plan->env[i]; i++) /* who started it listens for readiness, not we */
        failed = (!plan->notify || strncmp(plan->env[i], "NOTIFY_SOCKET=", 14)) && put(file, plan->env[i]);
    if (file) {
        lr_steal(&buffered);
        failed = fclose(file) || failed;
    }
    return failed ? lr_fail(err, "write the request to join", "") : lr_steal(&fd);
}

int lr_join_knock(int app_fd, struct lr_error *err)
{
    struct sockaddr_un address;
    address_of(&address, app_fd);
    LR_FD fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address))
        return lr_fail(err, "join the running app", "");
    return lr_steal(&fd);
}

static int send_request(const struct lr_launch *launch, const struct lr_plan *plan, const sigset_t *blocked,
                        int control, int executing, const struct lr_log *log, struct lr_error *err)
{
    struct lr_message message = {.type = LR_MSG_JOIN, .count = executing < 0 ? 4 : 5};
    LR_FD request = write_request(launch, plan, blocked, err);
    bool own = log->out < 0;
    const int fds[] = {request, own ? 0 : log->in, own ? 1 : log->out, own ? 2 : log->out, executing};
    if (request < 0)
        return -1;
    return lr_send(control, &message, fds) ? lr_fail(err, "join the running app", "") : 0;
}

/* The host's pid of the pid 1 that let us in, from the lock file; it is for people, nothing is done by it. */
static pid_t pid_of(int app_fd)
{
    char line[32];
    LR_FD lock = openat(app_fd, "lock", O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    ssize_t size = lock < 0 ? -1 : pread(lock, line, sizeof line - 1, 0);
    line[size > 0 ? size : 0] = 0;
    return (pid_t)strtol(line, NULL, 10);
}

static int join(const struct lr_launch *launch, const struct lr_plan *plan, int control,
                const struct lr_run_signals *signals, const struct lr_log *log, struct lr_result *result,
                struct lr_error *err)
{
    LR_FD executed = -1;
    LR_FD executing = -1;
    if (lr_run_watch(launch, &executed, &executing, err) ||
        send_request(launch, plan, &signals->mask, control, executing, log, err))
        return -1;
    lr_close(&executing);
    const struct lr_wait wait = {
        .pidfd = -1,
        .control = control,
        .signals = signals->fd,
        .executed = executed,
        .status = launch->status_fd,
        .pid = executed < 0 ? 0 : pid_of(launch->app_fd),
        .detach = launch->detach,
    };
    return lr_wait_for(&wait, result, err);
}

int lr_join(const struct lr_launch *launch, struct lr_result *result, struct lr_error *err)
{
    struct lr_log log = LR_LOG_NONE;
    struct lr_plan plan;
    struct lr_run_signals signals;
    LR_FD knocked = launch->knocked_fd > 0 ? launch->knocked_fd : -1;
    *result = (struct lr_result){.status = 125};
    int failed = lr_plan_parse(&plan, launch->plan, launch->plan_size, err) ||
                 lr_plan_environ(&plan, launch->environ, launch->env, err) ||
                 lr_run_check(launch, &plan, err);
    if (!failed) {
        LR_FD control = knocked >= 0 ? lr_steal(&knocked) : lr_join_knock(launch->app_fd, err);
        failed = control < 0;
        if (!failed) {
            failed = lr_log_open(launch, false, &log, err) || lr_run_block(&signals, err) ||
                     join(launch, &plan, control, &signals, &log, result, err);
            lr_log_end(launch, false, !failed, &log);
            lr_run_unblock(&signals);
        }
    }
    lr_plan_free(&plan);
    return failed ? -1 : 0;
}

bool lr_join_missed(const struct lr_error *error)
{
    return error->code == ECONNREFUSED || error->code == ECONNRESET || error->code == EPIPE ||
           (error->code == ENOENT && !strcmp(error->step, "join the running app"));
}

int lr_signal(int app_fd, int number, struct lr_error *err)
{
    struct lr_message message = {.type = LR_MSG_SIGNAL, .value = number};
    LR_FD control = lr_join_knock(app_fd, err);
    if (control < 0)
        return -1;
    return lr_send(control, &message, NULL) ? lr_fail(err, "signal the running app", "") : 0;
}

/* ---- inside: opening ---- */

struct request {
    struct lr_command command;
    bool own_tty;
};

/* Pointers to the words of a request. No malloc: we descend from a bare clone of a program that may have had threads. */
static char **split(char *bytes, size_t size, size_t *count)
{
    *count = 0;
    for (size_t i = 0; i < size; i++)
        *count += !bytes[i];
    char **words =
        mmap(NULL, (*count + 2) * sizeof *words, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (words == MAP_FAILED)
        return NULL;
    char *at = bytes;
    for (size_t i = 0; i < *count; i++, at += strlen(at) + 1)
        words[i] = at;
    return words;
}

static int read_request(int fd, struct request *request, struct lr_error *err)
{
    struct stat info;
    size_t count;
    if (fstat(fd, &info) || info.st_size <= 0)
        return lr_fail_code(err, EPROTO, "read the request to join", "");
    size_t size = (size_t)info.st_size;
    char *bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED)
        return lr_fail(err, "read the request to join", "");
    bytes[size - 1] = 0;
    char **words = split(bytes, size, &count);
    long argc = words && count > HEAD ? strtol(words[WORD_COUNT], NULL, 10) : 0;
    if (argc < 1 || (size_t)argc > count - HEAD || strcmp(words[WORD_VERSION], VERSION))
        return lr_fail_code(err, EPROTO, "read the request to join", "");
    static sigset_t blocked, ignored;
    static struct lr_limits limits;
    if (lr_limits_parse(&limits, words[WORD_LIMITS]))
        return lr_fail_code(err, EPROTO, "read the request to join", "");
    parse_set(&blocked, words[WORD_BLOCKED]);
    parse_set(&ignored, words[WORD_IGNORED]);
    request->own_tty = *words[WORD_TTY] == '1';
    /* The environment moves up by one, so that the command's words can end with a NULL. */
    memmove(words + HEAD + argc + 1, words + HEAD + argc, (count - HEAD - (size_t)argc) * sizeof *words);
    words[HEAD + argc] = NULL;
    words[count + 1] = NULL;
    request->command = (struct lr_command){
        .argv = words + HEAD,
        .env = words + HEAD + argc + 1,
        .cwd = *words[WORD_CWD] ? words[WORD_CWD] : NULL,
        .place = words[WORD_PLACE],
        .cwd_must = *words[WORD_MUST] == '1',
        .has_umask = true,
        .umask = (mode_t)strtol(words[WORD_UMASK], NULL, 8) & 0777,
        .mask = &blocked,
        .ignored = &ignored,
        .limits = &limits,
        .terminal = -1,
    };
    return 0;
}

static int take_in(int guest, const int *fds, struct request *request, struct lr_error *err)
{
    if (read_request(fds[0], request, err))
        return -1;
    /* A session of its own: signals of the guest's terminal come by message. */
    if (setsid() < 0)
        return lr_fail(err, "open a session", "");
    for (int i = 0; i < 3; i++)
        if (dup2(fds[i + 1], i) < 0)
            return lr_fail(err, "take over the standard descriptors", "");
    if (!request->own_tty)
        return 0;
    LR_FD ptmx = open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NOFOLLOW);
    if (ptmx < 0)
        return lr_fail(err, "open a terminal in", "/dev/pts");
    return lr_terminal_take(ptmx, guest, &request->command.terminal, err);
}

/* Everybody but pid 1 and us. What is stopped could not end otherwise. */
static void signal_all(int number)
{
    kill(-1, number);
    if (number == SIGTERM)
        kill(-1, SIGCONT);
    _exit(0);
}

void lr_join_serve(int guest, const struct lr_rlimits *rlimits)
{
    struct lr_message message;
    struct lr_error error;
    struct request request;
    int fds[LR_MESSAGE_FDS];
    int got = lr_receive(guest, &message, fds, 0);
    if (got < 0) {
        lr_fail(&error, "take over the standard descriptors", ""); /* EMFILE: pid 1 may have few */
        lr_command_fail(guest, &error);
    }
    if (got == 0)
        _exit(125);
    if (message.type == LR_MSG_SIGNAL)
        signal_all(message.value);
    if (message.type != LR_MSG_JOIN || message.count < 4 || message.count > 5)
        _exit(125);
    struct lr_message welcome = {.type = LR_MSG_WELCOME};
    lr_send(guest, &welcome, NULL);
    if (take_in(guest, fds, &request, &error))
        lr_command_fail(guest, &error);
    request.command.rlimits = rlimits;
    struct lr_server server = {.command = request.command, .control = guest, .lock_fd = -1, .listen_fd = -1};
    lr_serve(&server);
}
