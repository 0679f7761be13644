/* lines.c: what the lines of a manifest are made of, and their order; docs/store.md, manifests. */
#include "taking.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int lr_in_order(const char *a, const char *b)
{
    for (; *a == *b; a++, b++)
        if (!*a)
            return 0;
    unsigned left = !*a ? 0 : *a == '/' ? 1 : (unsigned char)*a + 1U;
    unsigned right = !*b ? 0 : *b == '/' ? 1 : (unsigned char)*b + 1U;
    return left < right ? -1 : 1;
}

int lr_escape(struct lr_buf *out, const char *data, size_t size, struct lr_error *err)
{
    static const char digits[] = "0123456789abcdef";
    if (lr_buf_room(out, 4 * size, err) < 0)
        return -1;
    char *at = out->data + out->used;
    for (size_t i = 0; i < size; i++) {
        unsigned char byte = (unsigned char)data[i];
        if (byte > ' ' && byte < 0x7f && byte != '\\' && byte != '=') {
            *at++ = (char)byte;
            continue;
        }
        *at++ = '\\';
        *at++ = 'x';
        *at++ = digits[byte >> 4];
        *at++ = digits[byte & 15];
    }
    out->used = (size_t)(at - out->data);
    return 0;
}

int lr_line_begin(struct lr_buf *out, char kind, unsigned mode, unsigned uid, unsigned gid,
                  struct lr_error *err)
{
    char text[64];
    int size = snprintf(text, sizeof text, "%c %04o %u %u ", kind, mode & 07777U, uid, gid);
    return lr_buf_add(out, text, (size_t)size, err);
}

/* The attributes of an entry; labels of SELinux belong to the machine. */
int lr_line_attributes(struct lr_buf *out, struct lr_buf *value, int dirfd, const char *name,
                       struct lr_error *err)
{
    struct lr_names keys = {0};
    int done = lr_xattr_list(dirfd, name, &keys) < 0 ? lr_fail(err, "list the attributes of", name) : 0;
    for (size_t i = 0; done == 0 && i < keys.count; i++) {
        const char *key = lr_names_get(&keys, i);
        if (strcmp(key, "security.selinux") == 0)
            continue;
        value->used = 0;
        if (lr_xattr_get(dirfd, name, key, value, err) < 0)
            done = lr_fail(err, "read the attributes of", name);
        else if (lr_buf_add(out, " ", 1, err) < 0 || lr_escape(out, key, strlen(key), err) < 0 ||
                 lr_buf_add(out, "=", 1, err) < 0 || lr_escape(out, value->data, value->used, err) < 0)
            done = -1;
    }
    lr_names_free(&keys);
    return done;
}

char lr_line_kind(unsigned mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG:
        return 'f';
    case S_IFDIR:
        return 'd';
    case S_IFLNK:
        return 'l';
    case S_IFIFO:
        return 'p';
    case S_IFCHR:
        return 'c';
    case S_IFBLK:
        return 'b';
    default:
        return 's';
    }
}
