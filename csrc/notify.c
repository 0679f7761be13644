/* notify.c: see notify.h, sd_notify(3), unix(7). The manager looks at who sends: with NotifyAccess=main it hears its own child alone,
 * and that is the launcher. */
#include "notify.h"

#include "sys.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>

#define NAME "notify"
#define MOST 4096 /* bytes; NOTIFY_BUFFER_MAX of systemd */

/* What is the command's to say. Not: which process is the service (MAINPID), who may speak for it (NOTIFYACCESS), descriptors for the
 * manager to keep (FDSTORE). A barrier is over once what came before it was passed on. */
static const char *const allowed[] = {
    "READY=",
    "RELOADING=",
    "STOPPING=",
    "STATUS=",
    "ERRNO=",
    "BUSERROR=",
    "VARLINKERROR=",
    "EXIT_STATUS=",
    "WATCHDOG=",
    "WATCHDOG_USEC=",
    "MONOTONIC_USEC=",
    "X_",
    "EXTEND_TIMEOUT_USEC=",
};

static int find_manager(struct lr_notify *notify, const char *const *environ)
{
    const char *path = NULL;
    for (const char *const *entry = environ; entry && *entry; entry++)
        if (!strncmp(*entry, "NOTIFY_SOCKET=", 14))
            path = *entry + 14;
    size_t length = path ? strlen(path) : 0;
    if (length < 2 || length >= sizeof notify->manager.sun_path || (*path != '/' && *path != '@')) {
        errno = EINVAL;
        return -1;
    }
    notify->manager = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(notify->manager.sun_path, path, length);
    if (*path == '@')
        notify->manager.sun_path[0] = 0;
    notify->size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + (*path == '/'));
    return 0;
}

int lr_notify_open(struct lr_notify *notify, int app_fd, const char *const *environ, struct lr_error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval patience = {.tv_sec = 1}; /* a manager that does not listen must not hold us up */
    if (find_manager(notify, environ))
        return lr_fail(err, "use NOTIFY_SOCKET", "");
    /* A socket's path may have 107 bytes; by descriptor it always fits. */
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/" NAME, app_fd);
    if (unlinkat(app_fd, NAME, 0) && errno != ENOENT)
        return lr_fail(err, "remove the socket of an earlier run", NAME);
    LR_FD fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    /* Anybody inside may send to it, whoever they are there; outside nobody gets past the store. */
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) || fchmodat(app_fd, NAME, 0666, 0) ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience))
        return lr_fail(err, "open the app's socket", NAME);
    notify->fd = lr_steal(&fd);
    return 0;
}

static bool is_allowed(const char *line, size_t length)
{
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++)
        if (length >= strlen(allowed[i]) && !memcmp(line, allowed[i], strlen(allowed[i])))
            return true;
    return false;
}

/* Keep the lines that are allowed; returns how many bytes they are. */
static size_t sift(char *bytes, size_t size)
{
    size_t kept = 0;
    for (size_t at = 0; at < size;) {
        const char *end = memchr(bytes + at, '\n', size - at);
        size_t length = end ? (size_t)(end - bytes) - at + 1 : size - at;
        if (is_allowed(bytes + at, length)) {
            memmove(bytes + kept, bytes + at, length);
            kept += length;
        }
        at += length;
    }
    return kept;
}

bool lr_notify_carry(const struct lr_notify *notify)
{
    char bytes[MOST];
    ssize_t got = recv(notify->fd, bytes, sizeof bytes, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT);
    if (got < 0)
        return false;
    size_t size = (size_t)got <= sizeof bytes ? sift(bytes, (size_t)got) : 0;
    if (size)
        sendto(notify->fd, bytes, size, MSG_NOSIGNAL, (const struct sockaddr *)&notify->manager,
               notify->size);
    /* Only now: descriptors that came along are closed with it, which is what sd_notify_barrier(3) waits for. */
    recv(notify->fd, bytes, 1, MSG_DONTWAIT);
    return true;
}
