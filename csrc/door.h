/* door.h: the front door's hot path: a start whose stored plan is known to be current. docs/plan.md, "Stored plans". */
#ifndef LR_DOOR_H
#define LR_DOOR_H

#include "launch.h"
#include "options.h"

/* How a command has ended, in a word: its exit status, and the signal that killed it << 8. */
int lr_door_status(const struct lr_result *result);

/* Try to run an app without Python. Returns as lr_door_status, or -1 if there is any doubt: nothing has happened then, and
 * Python must decide. why->code: not 0 if the command itself is what cannot be run. */
int lr_door_run(const struct lr_options *options, struct lr_error *why);

/* Say to a person how to read what a detached command writes; as say() in layerrun/cli/output.py. */
void lr_door_say_detached(const char *name);

/* Say that a command that was started has been lost sight of; returns the exit status. */
int lr_door_lost(int status_fd, const struct lr_error *error);

#endif
