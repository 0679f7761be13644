/* volume.h: file systems in files: those of a fixed size that hold an app's data (docs/limits.md; they may lie in memory too), and
 * images that are bases as they are (docs/images.md). */
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

/* Make a detached mount, read-only and without setuid, devices and execution, of the erofs or squashfs image called name in a folder:
 * as root. erofs needs no loop device from Linux 6.12 on. */
int lr_image_lower(int dir_fd, const char *name, struct lr_error *err);

/* cffi:end */

#endif
