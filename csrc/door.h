/* door.h: the front door's hot path: a start whose stored plan is known to be current. docs/plan.md, "Stored plans". */
#ifndef LR_DOOR_H
#define LR_DOOR_H

/* Try to run the app called name without Python. Returns the exit status of the command, or -1 if there is any doubt:
 * nothing has happened then, and Python must decide. argv may be NULL: the app's own command. */
int lr_door_run(const char *name, const char *const *argv);

#endif
