/* error.c: filling the error record. No allocation, safe between clone and exec. */
#include "lr.h"

#include <errno.h>
#include <string.h>

/* strlcpy(3) is not in the oldest glibc we build with. A path that is too long keeps its end, which says more. */
static void put(char *to, size_t size, const char *from)
{
    size_t length = strlen(from);
    if (length >= size) {
        from += length - (size - 1);
        length = size - 1;
    }
    memcpy(to, from, length);
    memset(to + length, 0, size - length);
}

int lr_fail_code(struct lr_error *err, int code, const char *step, const char *path)
{
    err->code = code;
    err->op = -1;
    put(err->step, sizeof err->step, step);
    put(err->path, sizeof err->path, path ? path : "");
    return -1;
}

int lr_fail(struct lr_error *err, const char *step, const char *path)
{
    return lr_fail_code(err, errno, step, path);
}
