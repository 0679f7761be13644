/* expand.c: the two kinds of compression of file systems in files that no library we need has; see expand.h. */
#include "expand.h"

#include <string.h>

struct work {
    const uint8_t *in, *in_end;
    uint8_t *out, *begin, *end;
};

static bool copy_in(struct work *work, size_t size)
{
    if ((size_t)(work->in_end - work->in) < size || (size_t)(work->end - work->out) < size)
        return false;
    memcpy(work->out, work->in, size);
    work->in += size;
    work->out += size;
    return true;
}

/* What was made before, again; it may reach into what it makes itself. */
static bool copy_back(struct work *work, size_t distance, size_t size)
{
    if (distance == 0 || (size_t)(work->out - work->begin) < distance ||
        (size_t)(work->end - work->out) < size)
        return false;
    for (const uint8_t *from = work->out - distance; size; size--)
        *work->out++ = *from++;
    return true;
}

/* lz4_Block_format.md: a length of 15 goes on in bytes, up to one that is not 255. */
static bool lz4_length(struct work *work, size_t *length)
{
    uint8_t more = 255;
    if (*length == 15)
        while (more == 255) {
            if (work->in == work->in_end || *length > (1U << 30))
                return false;
            more = *work->in++;
            *length += more;
        }
    return true;
}

ssize_t lr_unlz4(const void *data, size_t size, void *to, size_t most, int part)
{
    struct work work = {.in = data, .out = to, .begin = to};
    work.in_end = work.in + size;
    work.end = work.out + most;
    while (work.in < work.in_end) {
        uint8_t token = *work.in++;
        size_t literals = token >> 4, length = token & 15;
        if (!lz4_length(&work, &literals))
            return -1;
        if (part && literals > (size_t)(work.end - work.out))
            literals = (size_t)(work.end - work.out);
        if (!copy_in(&work, literals))
            return -1;
        if (work.in == work.in_end || (part && work.out == work.end))
            break;
        if (work.in_end - work.in < 2)
            return -1;
        size_t distance = (size_t)(work.in[0] | work.in[1] << 8);
        work.in += 2;
        if (!lz4_length(&work, &length))
            return -1;
        length += 4;
        if (part && length > (size_t)(work.end - work.out))
            length = (size_t)(work.end - work.out);
        if (!copy_back(&work, distance, length))
            return -1;
        if (part && work.out == work.end)
            break;
    }
    return work.out - work.begin;
}

/* Documentation/staging/lzo.rst: a length of 0 is `base`, and goes on in bytes, up to one that is not 0. */
static bool lzo_length(struct work *work, size_t *length, size_t base)
{
    if (*length)
        return true;
    *length = base;
    for (;;) {
        if (work->in == work->in_end || *length > (1U << 30))
            return false;
        uint8_t more = *work->in++;
        *length += more ? more : 255;
        if (more)
            return true;
    }
}

/* The end of a block from far back, or not so far; two bytes follow. 1: it was the end of all; -1: damaged. */
static int lzo_far(struct work *work, uint8_t code, size_t *state)
{
    bool farther = code < 32;
    size_t length = farther ? code & 7 : code & 31;
    if (!lzo_length(work, &length, farther ? 7 : 31) || work->in_end - work->in < 2)
        return -1;
    size_t word = (size_t)(work->in[0] | work->in[1] << 8);
    work->in += 2;
    size_t distance = farther ? 16384 + ((size_t)(code & 8) << 11) + (word >> 2) : (word >> 2) + 1;
    if (farther && distance == 16384)
        return 1;
    *state = word & 3;
    return copy_back(work, distance, length + 2) && copy_in(work, *state) ? 0 : -1;
}

/* A block from nearby; one byte follows. */
static bool lzo_near(struct work *work, uint8_t code, size_t *state)
{
    if (work->in == work->in_end)
        return false;
    size_t high = *work->in++, length, distance;
    if (code >= 64) {
        length = code >= 128 ? 5 + (code >> 5 & 3) : 3 + (code >> 5 & 1);
        distance = (high << 3) + (code >> 2 & 7) + 1;
    } else {
        length = *state == 4 ? 3 : 2;
        distance = (high << 2) + (code >> 2) + (*state == 4 ? 2049 : 1);
    }
    *state = code & 3;
    return copy_back(work, distance, length) && copy_in(work, *state);
}

ssize_t lr_unlzo(const void *data, size_t size, void *to, size_t most)
{
    struct work work = {.in = data, .out = to, .begin = to};
    size_t state = 0; /* how many bytes the last step took over as they were; 4: or more */
    work.in_end = work.in + size;
    work.end = work.out + most;
    if (size && *work.in > 17) {
        size_t literals = *work.in++ - 17U;
        state = literals < 4 ? literals : 4;
        if (!copy_in(&work, literals))
            return -1;
    }
    while (work.in < work.in_end) {
        uint8_t code = *work.in++;
        bool good = true;
        if (code >= 16 && code < 64) {
            int done = lzo_far(&work, code, &state);
            if (done == 1)
                return work.in == work.in_end ? work.out - work.begin : -1;
            good = done == 0;
        } else if (code < 16 && state == 0) {
            size_t literals = code;
            good = lzo_length(&work, &literals, 15) && copy_in(&work, literals + 3);
            state = 4;
        } else {
            good = lzo_near(&work, code, &state);
        }
        if (!good)
            return -1;
    }
    return -1; /* it has no end */
}
