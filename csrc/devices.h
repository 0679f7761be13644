/* devices.h: device nodes of the host in the sandbox's own /dev. */
#ifndef LR_DEVICES_H
#define LR_DEVICES_H

#include "mounts.h"

/* Prepare what a plan's device says: a copy of the node's mount in op->fd, and its mount point in dev, a detached /dev; where mounts
 * are built outside, a node in dev instead. With the credentials of who is to own what is made. */
int lr_device_prepare(const struct lr_plan *plan, const struct lr_mounts *mounts, const struct lr_op *dev,
                      struct lr_op *op, struct lr_error *err);

#endif
