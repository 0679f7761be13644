/* tar_parts.c: errors, limits and numbers of the reader of tar archives. */
#include "tar_parts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

int lr_tar_refuse(struct lr_tar *tar, const char *why)
{
    return lr_fail_code(tar->err, EBADMSG, why, tar->shown.used ? tar->shown.data : "");
}

int lr_tar_damaged(struct lr_tar *tar, const char *why)
{
    char text[sizeof tar->err->step];
    snprintf(text, sizeof text, "is damaged, or no tar archive: %s", why);
    return lr_fail_code(tar->err, EBADMSG, text, "");
}

int lr_tar_spend(struct lr_tar *tar, uint64_t size)
{
    if (size > tar->budget) {
        char why[80];
        snprintf(why, sizeof why, "has a header of more than %llu bytes",
                 (unsigned long long)tar->limits->header);
        return lr_tar_refuse(tar, why);
    }
    tar->budget -= size;
    return 0;
}

int lr_tar_room(void **array, size_t count, size_t *room, size_t each, struct lr_error *err)
{
    if (count < *room)
        return 0;
    size_t more = *room ? 2 * *room : 16;
    void *got = reallocarray(*array, more, each);
    if (!got)
        return lr_fail(err, "get memory", NULL);
    *array = got;
    *room = more;
    return 0;
}

static int64_t base_256(const unsigned char *field, size_t size)
{
    /* Its first bit says that it is one, its second is the sign. */
    int64_t sum = (field[0] & 0x40) ? (int64_t)(field[0] | ~0x7f) : field[0] & 0x3f;
    for (size_t i = 1; i < size; i++) {
        if (sum > INT64_MAX >> 8)
            return INT64_MAX;
        if (sum < INT64_MIN / 256)
            return INT64_MIN;
        sum = sum * 256 + field[i];
    }
    return sum;
}

int lr_tar_number(const char *field, size_t size, int64_t *value)
{
    size_t i = 0;
    *value = 0;
    if (field[0] & 0x80) {
        *value = base_256((const unsigned char *)field, size);
        return 0;
    }
    while (i < size && field[i] == ' ')
        i++;
    for (; i < size && field[i] && field[i] != ' '; i++) {
        if (field[i] < '0' || field[i] > '7')
            return -1;
        *value = *value * 8 + (field[i] - '0');
    }
    return 0;
}
