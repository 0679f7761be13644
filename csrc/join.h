/* join.h: a second start of an app that runs: it is let in by pid 1, which listens at a socket in the app's folder. That folder
 * is the owner's alone, so whoever can knock may enter; and nothing needs to be found by a pid.
 */
#ifndef LR_JOIN_H
#define LR_JOIN_H

#include "launch.h"
#include "rlimits.h"

#include <stdbool.h>

/* The socket that pid 1 will listen at, in the app's folder. The caller holds the app's lock. */
/* Knock at a running app: pid 1 makes a process for us while we prepare what that is to run. To close is to go away again. */
int lr_join_knock(int app_fd, struct lr_error *err);

int lr_join_listen(int app_fd, struct lr_error *err);

/* Whether a join failed because nobody was there to let us in (yet, or any more): nothing has happened, and it may go better in a
 * moment. */
bool lr_join_missed(const struct lr_error *error);

/* Inside: serve a guest, in a process that pid 1 has forked for it. rlimits: the app's own. */
void lr_join_serve(int guest, const struct lr_rlimits *rlimits) __attribute__((noreturn));

#endif
