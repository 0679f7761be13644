/* transfer.h: what the launcher prepares and pid 1 attaches, by descriptor. */
#ifndef LR_TRANSFER_H
#define LR_TRANSFER_H

#include "mounts.h"

/* To pid 1: go on, with these. */
int lr_transfer_send(const struct lr_plan *plan, const struct lr_mounts *mounts, int control,
                     struct lr_error *err);

/* Wait for what the launcher does for us: pid 1's line in the lock file, without which nothing may be mounted; the maps; as root the
 * mounts; the app's socket. */
int lr_transfer_receive(struct lr_plan *plan, struct lr_mounts *mounts, int control, struct lr_error *err);

/* Wait for the network namespace, if it has not come with the rest; mounts->net is then its descriptor. */
int lr_transfer_receive_net(struct lr_plan *plan, struct lr_mounts *mounts, int control,
                            struct lr_error *err);

#endif
