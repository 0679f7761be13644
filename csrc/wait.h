/* wait.h: the launcher's side of a running sandbox: signals, the terminal, the end. */
#ifndef LR_WAIT_H
#define LR_WAIT_H

#include "launch.h"

#include <signal.h>

struct lr_wait {
    int pidfd; /* pid 1 of the sandbox */
    int control; /* to pid 1 */
    int signals; /* a signalfd of everything that is blocked */
    int leave; /* 1: do not wait for the end of a pid 1 that has told the command's status */
};

int lr_wait_for(const struct lr_wait *wait, struct lr_result *result, struct lr_error *err);

#endif
