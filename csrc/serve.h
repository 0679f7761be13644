/* serve.h: the process beside a command: pid 1 of a sandbox, or what pid 1 starts for a command that joins. */
#ifndef LR_SERVE_H
#define LR_SERVE_H

#include "command.h"

struct lr_server {
    struct lr_command command;
    int control; /* to the launcher */
    int lock_fd; /* pid 1: holds the app's lock; -1 */
    int listen_fd; /* pid 1: where joiners knock; -1 */
    const int *keep; /* pid 1: what it holds as long as it lives, see struct lr_launch */
    size_t keep_count;
    bool stay; /* pid 1: live on until the last process has gone, not only the command */
};

/* Start the command and serve it. Exits with the command's status; never returns. */
void lr_serve(struct lr_server *server) __attribute__((noreturn));

#endif
