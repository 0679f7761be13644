/* tar_pax.c: the records of pax headers, and extended attributes among them.
 *
 * "LENGTH KEY=VALUE\n", one after the other; LENGTH counts all of it. POSIX.1-2017, pax, extended header; tar's and
 * star's own keys as GNU tar's manual has them.
 */
#include "tar_parts.h"

#include <stdlib.h>

#define STAR "SCHILY.xattr."
#define LIBARCHIVE "LIBARCHIVE.xattr."
/* The largest time that is kept: that of ext4, in seconds. xattr(7): the longest name and value. */
#define LAST ((int64_t)1 << 34)
#define KEY_BYTES 255
#define VALUE_BYTES 65536

static bool is(struct lr_text text, const char *word)
{
    return text.size == strlen(word) && memcmp(text.data, word, text.size) == 0;
}

static bool begins(struct lr_text text, const char *word)
{
    return text.size >= strlen(word) && memcmp(text.data, word, strlen(word)) == 0;
}

int lr_tar_decimal(struct lr_text text, int64_t *value)
{
    bool negative = text.size && text.data[0] == '-';
    uint64_t sum = 0;
    if (text.size == negative)
        return -1;
    for (size_t i = negative; i < text.size; i++) {
        unsigned digit = (unsigned)(unsigned char)text.data[i] - '0';
        if (digit > 9)
            return -1;
        sum = sum > ((uint64_t)INT64_MAX - digit) / 10 ? INT64_MAX : sum * 10 + digit;
    }
    *value = negative ? -(int64_t)sum : (int64_t)sum;
    return 0;
}

static int set_number(struct lr_tar *tar, struct lr_number *number, struct lr_text value)
{
    /* Without a value it is as if it were not there. */
    number->given = value.size != 0;
    return number->given && lr_tar_decimal(value, &number->value)
               ? lr_tar_damaged(tar, "a pax header has no number")
               : 0;
}

/* Times before 1970, and what is none, become 0. */
static void set_mtime(struct lr_tar_meta *meta, struct lr_text value)
{
    const char *dot = memchr(value.data, '.', value.size);
    struct lr_text whole = {value.data, dot ? (size_t)(dot - value.data) : value.size};
    meta->has_mtime = value.size != 0;
    meta->mtime = meta->mtime_ns = 0;
    if (lr_tar_decimal(whole, &meta->mtime) || meta->mtime < 0 || meta->mtime > LAST) {
        meta->mtime = meta->mtime < 0 ? 0 : meta->mtime ? LAST : 0;
        return;
    }
    uint32_t unit = 100000000, sum = 0;
    for (size_t i = whole.size + 1; i < value.size && unit && value.data[i] >= '0' && value.data[i] <= '9';
         i++) {
        sum += unit * (uint32_t)(value.data[i] - '0');
        unit /= 10;
    }
    meta->mtime_ns = whole.data[0] == '-' ? 0 : sum;
}

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

/* In its place: libarchive writes keys as URLs have them. */
static void unquote(char *data, size_t *size)
{
    size_t to = 0;
    for (size_t i = 0; i < *size; i++)
        if (data[i] == '%' && i + 2 < *size && hex(data[i + 1]) >= 0 && hex(data[i + 2]) >= 0) {
            data[to++] = (char)(hex(data[i + 1]) << 4 | hex(data[i + 2]));
            i += 2;
        } else
            data[to++] = data[i];
    *size = to;
}

/* In its place: base 64, without its padding. */
static void decode(char *data, size_t *size)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t bits = 0;
    size_t to = 0;
    unsigned have = 0;
    for (size_t i = 0; i < *size; i++) {
        const char *digit = data[i] ? strchr(digits, data[i]) : NULL;
        if (!digit)
            break;
        bits = bits << 6 | (uint32_t)(digit - digits);
        have += 6;
        if (have >= 8) {
            have -= 8;
            data[to++] = (char)(bits >> have);
        }
    }
    *size = to;
}

static int add_xattr(struct lr_tar *tar, struct lr_text key, struct lr_text value, bool star)
{
    if (lr_tar_room((void **)&tar->xattrs, tar->xattr_count, &tar->xattr_room, sizeof *tar->xattrs, tar->err))
        return -1;
    if (!star) {
        unquote((char *)key.data, &key.size);
        decode((char *)value.data, &value.size);
    }
    /* A later one holds; libarchive's only where star's is not there, for it writes both. */
    size_t rank = tar->xattr_count + (star ? SIZE_MAX / 2 : 0);
    tar->xattrs[tar->xattr_count++] = (struct lr_tar_xattr){key, value, rank};
    return 0;
}

static int set_sparse(struct lr_tar *tar, struct lr_tar_meta *meta, struct lr_text key, struct lr_text value,
                      bool for_one)
{
    int64_t number = 0;
    if (is(key, "size") || is(key, "realsize"))
        return set_number(tar, &meta->real, value);
    if (is(key, "major"))
        return set_number(tar, &meta->major, value);
    if (is(key, "minor"))
        return set_number(tar, &meta->minor, value);
    if (is(key, "name"))
        meta->path = value;
    else if (is(key, "map"))
        meta->map = value;
    else if (for_one && (is(key, "offset") || is(key, "numbytes"))) {
        /* Form 0.0: pairs, one after the other. */
        bool begins_one = is(key, "offset");
        if (lr_tar_decimal(value, &number) || number < 0 || (!begins_one && !tar->part_count))
            return lr_tar_damaged(tar, "a map of holes has no number");
        if (begins_one)
            return lr_tar_add_part(tar, number, 0);
        tar->parts[tar->part_count - 1].size = (uint64_t)number;
    }
    return 0;
}

static struct lr_text behind(struct lr_text text, const char *word)
{
    return (struct lr_text){text.data + strlen(word), text.size - strlen(word)};
}

static int set(struct lr_tar *tar, struct lr_tar_meta *meta, struct lr_text key, struct lr_text value,
               bool for_one)
{
    struct lr_text given = value.size ? value : (struct lr_text){0};
    if (begins(key, STAR) || begins(key, LIBARCHIVE)) {
        bool star = begins(key, STAR);
        if (for_one)
            return add_xattr(tar, behind(key, star ? STAR : LIBARCHIVE), value, star);
        tar->found->xattrs++;
        return 0;
    }
    if (begins(key, "GNU.sparse."))
        return set_sparse(tar, meta, behind(key, "GNU.sparse."), value, for_one);
    if (is(key, "size"))
        return set_number(tar, &meta->size, value);
    if (is(key, "uid"))
        return set_number(tar, &meta->uid, value);
    if (is(key, "gid"))
        return set_number(tar, &meta->gid, value);
    if (is(key, "mtime"))
        set_mtime(meta, value);
    else if (is(key, "path"))
        meta->path = given;
    else if (is(key, "linkpath"))
        meta->link = given;
    return 0;
}

int lr_tar_pax(struct lr_tar *tar, struct lr_buf *records, struct lr_tar_meta *meta, bool for_one)
{
    struct lr_text rest = {records->data, records->used};
    /* GNU.sparse.name holds against a path that comes later. */
    struct lr_text name = {0};
    while (rest.size) {
        const char *blank = memchr(rest.data, ' ', rest.size < 20 ? rest.size : 20);
        int64_t length = 0;
        if (!blank || lr_tar_decimal((struct lr_text){rest.data, (size_t)(blank - rest.data)}, &length) ||
            length > (int64_t)rest.size || length <= blank - rest.data + 2 || rest.data[length - 1] != '\n')
            return lr_tar_damaged(tar, "a pax header is damaged");
        const char *begin = blank + 1, *end = rest.data + length - 1;
        const char *equals = memchr(begin, '=', (size_t)(end - begin));
        if (!equals || equals == begin)
            return lr_tar_damaged(tar, "a pax header is damaged");
        struct lr_text key = {begin, (size_t)(equals - begin)};
        struct lr_text value = {equals + 1, (size_t)(end - equals) - 1};
        if (set(tar, meta, key, value, for_one))
            return -1;
        if (is(key, "GNU.sparse.name"))
            name = value;
        rest = (struct lr_text){rest.data + length, rest.size - (size_t)length};
    }
    if (name.data)
        meta->path = name;
    return 0;
}

static int compare(const void *left, const void *right)
{
    const struct lr_tar_xattr *a = left, *b = right;
    size_t common = a->key.size < b->key.size ? a->key.size : b->key.size;
    int order = memcmp(a->key.data, b->key.data, common);
    if (order == 0 && a->key.size != b->key.size)
        order = a->key.size < b->key.size ? -1 : 1;
    return order ? order : a->rank < b->rank ? 1 : -1;
}

static bool is_kept(const struct lr_tar_xattr *attr, bool folder)
{
    if (memchr(attr->key.data, 0, attr->key.size))
        return false;
    /* VFS_CAP_REVISION_2, capabilities(7): they name no user namespace. */
    if (is(attr->key, "security.capability"))
        return !folder && attr->value.size == 20 && attr->value.data[3] == 2;
    return begins(attr->key, "user.") && attr->key.size > 5 && !begins(attr->key, "user.overlay.");
}

int lr_tar_xattrs(struct lr_tar *tar, bool folder)
{
    size_t kept = 0;
    if (tar->xattr_count > 1)
        qsort(tar->xattrs, tar->xattr_count, sizeof *tar->xattrs, compare);
    for (size_t i = 0; i < tar->xattr_count; i++) {
        const struct lr_tar_xattr *attr = &tar->xattrs[i], *last = kept ? &tar->xattrs[kept - 1] : NULL;
        if (last && last->key.size == attr->key.size &&
            !memcmp(last->key.data, attr->key.data, attr->key.size))
            continue;
        if (!is_kept(attr, folder)) {
            tar->found->xattrs++;
            continue;
        }
        if (attr->key.size > KEY_BYTES || attr->value.size > VALUE_BYTES)
            return lr_tar_refuse(tar, "has an attribute that is longer than any can be");
        tar->xattrs[kept++] = *attr;
    }
    tar->xattr_count = kept;
    return 0;
}
