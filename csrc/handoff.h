/* handoff.h: a start that Python has worked out, and that this program carries out in its place. The format is prose in docs/plan.md,
 * "Handed starts". Nothing here touches the machine, so that the fuzzer can have all of it.
 */
#ifndef LR_HANDOFF_H
#define LR_HANDOFF_H

#include "launch.h"

#include <stdbool.h>
#include <stddef.h>

/* Every string points into the caller's buffer. */
struct lr_handoff {
    bool join; /* into what runs, instead of starting it */
    const char *cwd; /* NULL: the plan's place */
    bool cwd_must, stay, own_tty, detach;
    int lock_fd, app_fd, status_fd, net_fd; /* -1: none */
    int keep[LR_KEEP_MOST];
    size_t keep_count;
    const char *passed; /* what LAYERRUN_PASSED is to be if the command never ran */
    const char *again; /* the same if it may go better in a moment */
    const char *after; /* what is left for Python to do after the end, in a word; "": nothing */
    const char *id, *name; /* the app's */
    const char **argv; /* NULL-terminated; NULL: the plan's own command */
    const char **env; /* NULL-terminated; NULL: none */
    const char **
        uppers; /* folders, each with what it is like, NULL-terminated: while they are like that nothing is left to do */
    const char *plan;
    size_t plan_size;
};

/* Returns 0, or -1 if it is not a start of this version. In any case lr_handoff_free is due. */
int lr_handoff_parse(struct lr_handoff *handoff, const char *bytes, size_t size);
void lr_handoff_free(struct lr_handoff *handoff);

#endif
