/* handed.h: carrying out a start that Python has handed over, so that no Python stays behind a running app. docs/plan.md, "Handed
 * starts".
 */
#ifndef LR_HANDED_H
#define LR_HANDED_H

#include "lr.h"

#include <stdbool.h>

#define LR_HANDED_NONE -2

/* Whether Python has passed this start back already and must not be asked to again. */
bool lr_handed_is_passed(void);

/* Tell the Python that we hand over to that it must run this itself. */
void lr_handed_pass(void);

/* Tell the Python that we hand over to how a command has ended, and what it may go on with: after, a word that it chose; id, the app's;
 * a descriptor that holds the app's lock, which is then Python's. */
int lr_handed_end(const char *after, const char *id, int status, int lock_fd);

/* Carry out the start that LAYERRUN_START names. Returns as lr_door_status; LR_HANDED_NONE if there is none; or -1 if Python must go
 * on, with what it needs to know in LAYERRUN_PASSED or LAYERRUN_ENDED. In any case no such variable of anybody else's is left.
 * alone: it was handed over by whoever started us, not by whoever was this process before; status_fd and why are then for telling. */
int lr_handed_run(bool alone, int *status_fd, struct lr_error *why);

#endif
