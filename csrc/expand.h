/* expand.h: LZ4 blocks and LZO1X, as squashfs and erofs have them. What is given is hostile, and who calls is in a jail. */
#ifndef LR_EXPAND_H
#define LR_EXPAND_H

#include "lr.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* cffi:begin */

/* Returns how many bytes came out, at most `most`, or -1 for what is damaged or makes more. part: what makes more ends there. */
ssize_t lr_unlz4(const void *data, size_t size, void *to, size_t most, int part);
ssize_t lr_unlzo(const void *data, size_t size, void *to, size_t most);

/* cffi:end */

#endif
