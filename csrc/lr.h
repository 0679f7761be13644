/* lr.h: what the C core offers. It knows no Python and no SQLite; Python decides, C executes.
 *
 * The error contract (docs/errors.md): every function that can fail takes a caller-allocated
 * `struct lr_error *err` last; it returns 0, a count or a descriptor (>= 0) on success and -1 on
 * failure, with the record filled. The record has a fixed size and no pointers, so that a child
 * can write it whole (it is smaller than PIPE_BUF) to a close-on-exec pipe without allocating.
 *
 * What stands between "cffi:begin" and "cffi:end" is read by layerrun/native/build.py as the cdef.
 */
#ifndef LR_H
#define LR_H

#include <stddef.h>
#include <stdint.h>

/* cffi:begin */

/* code: an errno. step: what was being done ("mount the overlay"). path: what it was done to, or "". */
struct lr_error {
    int32_t code;
    int32_t op; /* the number of the plan's operation, from 0; -1 where there is none */
    char step[88];
    char path[416];
};

/* cffi:end */

/* Fill the record from errno (lr_fail) or from a given code (lr_fail_code); both return -1. */
int lr_fail(struct lr_error *err, const char *step, const char *path);
int lr_fail_code(struct lr_error *err, int code, const char *step, const char *path);

#endif
