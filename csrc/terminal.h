/* terminal.h: a terminal of its own for a command. */
#ifndef LR_TERMINAL_H
#define LR_TERMINAL_H

#include "lr.h"

/* Become the leader of a session whose terminal is the one behind ptmx (unless we lead one already), open its slave, and send the
 * master to the launcher. Descriptor 0 is the caller's terminal still, whose mode and size it gets. Whoever does this serves the command: a group without a parent in its session cannot be stopped. */
int lr_terminal_take(int ptmx, int control, int *slave, struct lr_error *err);

#endif
