/* make.c: see make.h. */
#include "make.h"

#include "sys.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Open the folder that holds the last part of path, which *name then points at. */
static int open_parent(int root, const char *path, const char **name)
{
    char parent[4096];
    const char *slash = strrchr(path, '/');
    size_t length = (size_t)(slash - path);
    if (length >= sizeof parent) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(parent, path, length);
    parent[length] = 0;
    *name = slash + 1;
    return lr_openat2(root, length > 1 ? parent + 1 : ".", O_PATH | O_DIRECTORY,
                      RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
}

/* Into memory: what is written in part is an error. */
static int write_text(int file, const char *text)
{
    ssize_t length = (ssize_t)strlen(text);
    return write(file, text, (size_t)length) == length ? 0 : -1;
}

int lr_make(int root, const struct lr_op *op, struct lr_error *err)
{
    const char *path = op->kind == LR_OP_SYMLINK ? op->arg[1] : op->arg[0], *name;
    mode_t mode = op->kind == LR_OP_SYMLINK ? 0 : (mode_t)strtoul(op->arg[1], NULL, 8);
    LR_FD parent = open_parent(root, path, &name);
    LR_FD file = -1;
    if (parent < 0)
        return lr_op_fail(err, op, "open the folder of", path);
    int failed;
    if (op->kind == LR_OP_SYMLINK)
        failed = symlinkat(op->arg[0], parent, name);
    else if (op->kind == LR_OP_DIR)
        failed = mkdirat(parent, name, mode) || fchmodat(parent, name, mode, 0);
    else
        failed =
            (file = openat(parent, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, mode)) < 0 ||
            (op->kind == LR_OP_TEXT && write_text(file, op->arg[2]));
    return failed && (errno != EEXIST || op->kind == LR_OP_TEXT) ? lr_op_fail(err, op, "make", path) : 0;
}
