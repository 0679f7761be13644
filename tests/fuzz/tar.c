/* Fuzzes the reading of tar archives. What comes out must be a stream as stream.h says, whatever goes in. */
#include "tar.h"
#include "stream.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void must(int holds)
{
    if (!holds)
        abort();
}

/* No fuzzer would hit on the sums of headers: set those of all blocks that look like one. */
static char *with_sums(const char *bytes, size_t size)
{
    char *made = malloc(size + 1);
    must(made != NULL);
    if (size)
        memcpy(made, bytes, size);
    for (size_t at = 0; at + 512 <= size; at += 512) {
        unsigned sum = 0;
        if (memcmp(made + at + 257, "ustar", 5) != 0)
            continue;
        memset(made + at + 148, ' ', 8);
        for (size_t i = 0; i < 512; i++)
            sum += (unsigned char)made[at + i];
        for (int i = 5; i >= 0; i--, sum /= 8)
            made[at + 148 + (size_t)i] = (char)('0' + sum % 8);
        made[at + 154] = 0;
    }
    return made;
}

static void check_path(const char *path, size_t size)
{
    size_t begin = 0;
    if (size == 0)
        return;
    for (size_t i = 0; i <= size; i++) {
        must(i == size || path[i] != 0);
        if (i < size && path[i] != '/')
            continue;
        size_t part = i - begin;
        must(part > 0 && part <= 255 && !(part == 1 && path[begin] == '.') &&
             !(part == 2 && memcmp(path + begin, "..", 2) == 0));
        begin = i + 1;
    }
}

static void check_xattrs(const char *at, size_t size)
{
    while (size) {
        uint16_t key;
        uint32_t value;
        must(size >= 6);
        memcpy(&key, at, 2);
        memcpy(&value, at + 2, 4);
        must(6 + (uint64_t)key + value <= size);
        bool capable = key == 19 && memcmp(at + 6, "security.capability", 19) == 0;
        must(capable || (key > 5 && memcmp(at + 6, "user.", 5) == 0));
        must(key < 13 || memcmp(at + 6, "user.overlay.", 13) != 0);
        at += 6 + key + value;
        size -= 6 + key + value;
    }
}

/* Returns how long a file's content is in the stream; `whole`: it must be all there. */
static size_t check_content(const char *at, size_t left, uint64_t size, bool whole)
{
    uint64_t end = 0;
    for (const char *begin = at;;) {
        uint64_t offset;
        uint32_t length;
        if (left < 12 && !whole)
            return SIZE_MAX;
        must(left >= 12);
        memcpy(&offset, at, 8);
        memcpy(&length, at + 8, 4);
        at += 12;
        left -= 12;
        must(offset >= end && offset + length <= size);
        if (!length)
            return (size_t)(at - begin);
        end = offset + length;
        if (left < length && !whole)
            return SIZE_MAX;
        must(left >= length);
        at += length;
        left -= length;
    }
}

/* length: of the archive. */
static void check(const char *at, size_t left, const struct lr_tar_limits *limits, size_t length, bool whole)
{
    while (left) {
        struct lr_record is;
        if (left < sizeof is && !whole)
            return;
        must(left >= sizeof is);
        memcpy(&is, at, sizeof is);
        uint64_t texts = (uint64_t)is.path + is.link + is.xattrs;
        must(strchr("dflhpcbwo", is.kind) != NULL && is.kind);
        must(is.uid < limits->ids && is.gid < limits->ids && is.mode <= 07777 && is.mtime_ns < 1000000000);
        must(limits->layer || !strchr("wo", is.kind));
        at += sizeof is;
        left -= sizeof is;
        if (left < texts && !whole)
            return;
        must(left >= texts);
        check_path(at, is.path);
        must(is.path || is.kind == 'd' || is.kind == 'o');
        if (is.kind == 'h')
            check_path(at + is.path, is.link);
        must((is.link != 0) == (is.kind == 'h' || is.kind == 'l'));
        check_xattrs(at + is.path + is.link, is.xattrs);
        at += texts;
        left -= texts;
        must(!is.at || (is.kind == 'f' && limits->direct && is.size && is.at - 1 + is.size <= length));
        if (is.kind != 'f' || is.at)
            continue;
        must(is.size <= limits->size);
        size_t used = check_content(at, left, is.size, whole);
        if (used == SIZE_MAX)
            return;
        at += used;
        left -= used;
    }
}

int LLVMFuzzerTestOneInput(const char *bytes, size_t size);
int LLVMFuzzerTestOneInput(const char *bytes, size_t size)
{
    static int in = -1, out = -1;
    struct lr_tar_limits limits = {.size = 1 << 20, .entries = 50, .header = 8192, .depth = 20, .ids = 65536};
    struct lr_tar_found found = {0};
    struct lr_error error = {0};
    if (in < 0) {
        in = memfd_create("in", 0);
        out = memfd_create("out", 0);
    }
    /* The first byte chooses. */
    limits.layer = size && (bytes[0] & 1);
    limits.direct = size && (bytes[0] & 2);
    char *made = size ? with_sums(bytes + 1, size - 1) : with_sums(NULL, 0);
    size_t length = size ? size - 1 : 0;
    must(ftruncate(in, 0) == 0 && ftruncate(out, 0) == 0);
    must(pwrite(in, made, length, 0) == (ssize_t)length && lseek(in, 0, SEEK_SET) == 0);
    must(lseek(out, 0, SEEK_SET) == 0);
    free(made);
    int result = lr_tar(in, out, &limits, &found, &error);
    must(result == 0 || (error.code == EBADMSG && error.step[0]));
    off_t written = lseek(out, 0, SEEK_CUR);
    char *stream = malloc((size_t)written + 1);
    must(stream && pread(out, stream, (size_t)written, 0) == written);
    check(stream, (size_t)written, &limits, length, result == 0);
    free(stream);
    return 0;
}
