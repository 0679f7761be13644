/* volume.h: file systems of a fixed size that hold an app's data: an image file, or memory. See docs/limits.md. */
#ifndef LR_VOLUME_H
#define LR_VOLUME_H

#include "lr.h"

struct lr_op;
struct lr_plan;

/* Make a detached mount of the plan's volume, for the data folder that is at path. */
int lr_volume_open(const struct lr_plan *plan, const char *path, struct lr_error *err);

/* cffi:begin */

/* Make a detached mount of the ext4 image called name in a folder, without setuid, devices and execution: as root. The loop device that
 * it is on is shared with all who have it open, and goes with the last of them. */
int lr_image_open(int dir_fd, const char *name, struct lr_error *err);

/* cffi:end */

#endif
