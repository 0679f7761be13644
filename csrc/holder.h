/* holder.h: who holds an app's lock, for those who find it free. docs/store.md, locks. */
#ifndef LR_HOLDER_H
#define LR_HOLDER_H

#include "lr.h"

#include <sys/types.h>

/* Write pid 1's line into the lock file, if there is one. EOWNERDEAD: it was killed already. */
int lr_holder_record(int lock_fd, pid_t pid, struct lr_error *err);

#endif
