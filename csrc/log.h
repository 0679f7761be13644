/* log.h: where a detached command writes: apps/ID/log, the one before it as log.1. docs/store.md. */
#ifndef LR_LOG_H
#define LR_LOG_H

#include "launch.h"

#include <stdbool.h>

/* The standard descriptors of a detached command; -1 where the caller's own are to be used. */
struct lr_log {
    int in, out;
};

#define LR_LOG_NONE ((struct lr_log){-1, -1})

/* Open them, if the command is to be detached. fresh: a log of its own, which is not seen before lr_log_end says so. */
int lr_log_open(const struct lr_launch *launch, bool fresh, struct lr_log *log, struct lr_error *err);

/* Close them. A fresh log takes the place of the one before it, which is kept beside it, if the command ran; else nothing has
 * happened. */
void lr_log_end(const struct lr_launch *launch, bool fresh, bool ran, struct lr_log *log);

#endif
