/* status.h: what --status-fd is told: a JSON object a line, see docs/json.md. fd <= 0: nobody asks. A reader who has gone is no
 * failure. */
#ifndef LR_STATUS_H
#define LR_STATUS_H

#include "lr.h"

#include <stdbool.h>
#include <sys/types.h>

/* The command runs. pid: the sandbox's pid 1, as the host has it; 0: unknown. */
void lr_status_started(int fd, pid_t pid, bool joined);

/* The command has ended. signal: the one it was killed by, 0. */
void lr_status_exited(int fd, int code, int signal);

/* The command never ran. */
void lr_status_failed(int fd, const struct lr_error *error);

/* Whether it will run is for Python to say, and Python must not be asked. */
void lr_status_unsure(int fd);

#endif
