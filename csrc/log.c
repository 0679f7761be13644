/* log.c: see log.h. */
#include "log.h"

#include "sys.h"

#include <stdio.h>

#define FLAGS (O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)

int lr_log_open(const struct lr_launch *launch, bool fresh, struct lr_log *log, struct lr_error *err)
{
    *log = LR_LOG_NONE;
    if (!launch->detach)
        return 0;
    if (fresh && unlinkat(launch->app_fd, "log.new", 0) && errno != ENOENT)
        return lr_fail(err, "remove what was left of a log", "log.new");
    LR_FD in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (in < 0)
        return lr_fail(err, "open", "/dev/null");
    LR_FD out =
        openat(launch->app_fd, fresh ? "log.new" : "log", fresh ? FLAGS | O_EXCL : FLAGS, (mode_t)0600);
    if (out < 0)
        return lr_fail(err, "open the app's log", "");
    log->in = lr_steal(&in);
    log->out = lr_steal(&out);
    return 0;
}

void lr_log_end(const struct lr_launch *launch, bool fresh, bool ran, struct lr_log *log)
{
    if (log->out >= 0 && fresh && !ran)
        unlinkat(launch->app_fd, "log.new", 0);
    if (log->out >= 0 && fresh && ran) {
        renameat(launch->app_fd, "log", launch->app_fd, "log.1");
        renameat(launch->app_fd, "log.new", launch->app_fd, "log");
    }
    lr_close(&log->in);
    lr_close(&log->out);
}
