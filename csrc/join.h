/* join.h: a second start of an app that runs: it is let in by pid 1, which listens at a socket in the app's folder. That folder
 * is the owner's alone, so whoever can knock may enter; and nothing needs to be found by a pid.
 */
#ifndef LR_JOIN_H
#define LR_JOIN_H

#include "launch.h"

/* The socket that pid 1 will listen at, in the app's folder. The caller holds the app's lock. */
int lr_join_listen(int app_fd, struct lr_error *err);

/* Inside: serve a guest, in a process that pid 1 has forked for it. */
void lr_join_serve(int guest) __attribute__((noreturn));

#endif
