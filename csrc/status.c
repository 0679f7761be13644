/* status.c: see status.h. */
#include "status.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* No SIGPIPE, whoever we are linked into: blocked, it would wait to be unblocked. */
static void put(int fd, const char *line, size_t size)
{
    static const struct timespec now = {0};
    sigset_t pipe_set, before, pending;
    if (fd <= 0)
        return;
    sigemptyset(&pipe_set);
    sigaddset(&pipe_set, SIGPIPE);
    sigpending(&pending);
    sigprocmask(SIG_BLOCK, &pipe_set, &before);
    while (size) {
        ssize_t written = write(fd, line, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0) {
            if (errno == EPIPE && sigismember(&pending, SIGPIPE) == 0)
                sigtimedwait(&pipe_set, NULL, &now);
            break;
        }
        line += written;
        size -= (size_t)written;
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
}

/* Bytes that are not ASCII as Python's surrogateescape has them: so any path survives. */
static void escape(char *to, size_t size, const char *text)
{
    size_t used = 0;
    for (; *text && used + 7 < size; text++) {
        unsigned char byte = (unsigned char)*text;
        if (byte >= 0x80)
            used += (size_t)snprintf(to + used, size - used, "\\udc%02x", byte);
        else if (byte < 0x20 || byte == 0x7f || byte == '"' || byte == '\\')
            used += (size_t)snprintf(to + used, size - used, "\\u%04x", byte);
        else
            to[used++] = (char)byte;
    }
    to[used] = 0;
}

void lr_status_started(int fd, pid_t pid, bool joined)
{
    char line[96];
    put(fd, line,
        (size_t)snprintf(line, sizeof line, "{\"event\":\"started\",\"pid\":%d,\"joined\":%s}\n", pid,
                         joined ? "true" : "false"));
}

void lr_status_exited(int fd, int code, int signal)
{
    char line[96], killed[32] = "";
    if (signal)
        snprintf(killed, sizeof killed, ",\"signal\":%d", signal);
    put(fd, line,
        (size_t)snprintf(line, sizeof line, "{\"event\":\"exited\",\"exit_code\":%d%s}\n", code, killed));
}

void lr_status_failed(int fd, const struct lr_error *error)
{
    char step[sizeof error->step * 6 + 8], path[sizeof error->path * 6 + 8],
        line[sizeof step + sizeof path + 96];
    escape(step, sizeof step, error->step);
    escape(path, sizeof path, error->path);
    put(fd, line,
        (size_t)snprintf(line, sizeof line,
                         "{\"event\":\"failed\",\"errno\":%d,\"step\":\"%s\",\"path\":\"%s\",\"op\":%d}\n",
                         error->code, step, path, error->op));
}

void lr_status_unsure(int fd)
{
    static const char line[] = "{\"event\":\"unsure\"}\n";
    put(fd, line, sizeof line - 1);
}
