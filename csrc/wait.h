/* wait.h: the launcher's side of a running sandbox: signals, the terminal, the end. */
#ifndef LR_WAIT_H
#define LR_WAIT_H

#include "launch.h"
#include "notify.h"

#include <signal.h>

struct lr_wait {
    int pidfd; /* pid 1 of the sandbox */
    int control; /* to pid 1 */
    int signals; /* a signalfd of everything that is blocked */
    int leave; /* 1: do not wait for the end of a pid 1 that has told the command's status */
    int executed; /* a pipe that ends when the command has been executed, or never will be; -1: nobody asks */
    int status; /* where that is told; 0: nowhere */
    pid_t pid; /* pid 1, as the host has it */
    int detach; /* 1: leave the command alone once it has been executed */
    const struct lr_notify *notify; /* NULL: the command has nothing to say about its readiness */
};

/* Wait for the command's end, or until it is left alone. Returns as lr_run. */
int lr_wait_for(const struct lr_wait *wait, struct lr_result *result, struct lr_error *err);

#endif
