/* tar_path.c: what the names in a tar archive stand for. */
#include "tar_parts.h"

#include <stdio.h>

#define NAME_BYTES 255

/* Add a part of a path; *depth counts them. */
static int add_part(struct lr_tar *tar, struct lr_text part, size_t *depth, struct lr_buf *to)
{
    if (part.size == 2 && part.data[0] == '.' && part.data[1] == '.')
        return lr_tar_refuse(tar, "leads elsewhere: it has a \"..\"");
    if (part.size > NAME_BYTES)
        return lr_tar_refuse(tar, "has a name of more than 255 bytes");
    if (++*depth > tar->limits->depth) {
        char why[80];
        snprintf(why, sizeof why, "lies deeper than %u folders", (unsigned)tar->limits->depth);
        return lr_tar_refuse(tar, why);
    }
    if (to->used && lr_buf_add(to, "/", 1, tar->err))
        return -1;
    return lr_buf_add(to, part.data, part.size, tar->err);
}

int lr_tar_path(struct lr_tar *tar, struct lr_text name, struct lr_buf *to)
{
    to->used = 0;
    size_t depth = 0;
    if (name.size && (memchr(name.data, 0, name.size) || (name.data[0] == '/' && !tar->limits->layer)))
        return lr_tar_refuse(tar, "leads elsewhere: its path begins with a slash, or holds a zero");
    for (size_t at = 0; at < name.size;) {
        const char *slash = memchr(name.data + at, '/', name.size - at);
        struct lr_text part = {name.data + at, slash ? (size_t)(slash - name.data) - at : name.size - at};
        at += part.size + 1;
        if (part.size == 0 || (part.size == 1 && part.data[0] == '.'))
            continue;
        if (add_part(tar, part, &depth, to))
            return -1;
    }
    if (lr_buf_room(to, 1, tar->err))
        return -1;
    to->data[to->used] = 0;
    return 0;
}

static bool is_marked(const char *part)
{
    return strncmp(part, ".wh.", 4) == 0;
}

/* Cut the last part of the path off, and put `name` there. */
static void replace_last(struct lr_buf *path, size_t folder, const char *name)
{
    size_t size = strlen(name), at = size && folder ? folder + 1 : folder;
    memmove(path->data + at, name, size + 1);
    path->used = at + size;
}

int lr_tar_whiteout(struct lr_tar *tar)
{
    char *path = tar->path.data, *slash = strrchr(path, '/'), *last = slash ? slash + 1 : path;
    size_t folder = slash ? (size_t)(slash - path) : 0;
    for (char *at = path; at && at < last; at = strchr(at, '/') ? strchr(at, '/') + 1 : NULL)
        if (is_marked(at))
            /* Aufs kept notes in such folders. */
            return is_marked(at + 4) ? 1 : lr_tar_refuse(tar, "lies in a folder whose name is a whiteout's");
    if (!is_marked(last))
        return 0;
    const char *name = last + 4;
    if (strcmp(name, ".wh..opq") == 0) {
        replace_last(&tar->path, folder, "");
        return LR_RECORD_OPAQUE;
    }
    /* Aufs's own notes. */
    if (is_marked(name))
        return 1;
    if (!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return lr_tar_refuse(tar, "is a whiteout of what has no name");
    replace_last(&tar->path, folder, name);
    return LR_RECORD_WHITEOUT;
}
