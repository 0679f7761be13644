/* devices.c: see devices.h, mknod(2).
 *
 * Within the caller's own user namespace a node is bound, so the host's permissions hold, access lists and groups included. Root's
 * apps have ids that no node of the host knows, and devtmpfs cannot be mapped: for them root, who has granted the device, makes a node
 * of the same number in their own /dev, with the owner and the mode that the host's has, by ids inside. */
#include "devices.h"

#include "sys.h"

#include <string.h>
#include <sys/stat.h>

#define RANGE 65536 /* ids of an app of root's */

/* Open the folder in dev that is to hold the last part of path; make what is missing on the way. */
static int open_folder(int dev, const char *path, const char **last)
{
    char part[256];
    LR_FD folder = openat(dev, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    for (size_t length; folder >= 0 && path[length = strcspn(path, "/")]; path += length + 1) {
        if (!length || length >= sizeof part || (*path == '.' && length < 3)) {
            errno = EINVAL;
            return -1;
        }
        memcpy(part, path, length);
        part[length] = 0;
        if (mkdirat(folder, part, 0755) && errno != EEXIST)
            return -1;
        int next = openat(folder, part, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        lr_close(&folder);
        folder = next;
    }
    *last = path;
    return lr_steal(&folder);
}

static int make_node(const struct lr_plan *plan, int folder, const char *name, const struct stat *info)
{
    uid_t uid = plan->root_uid + (info->st_uid < RANGE ? info->st_uid : 0);
    gid_t gid = plan->root_gid + (info->st_gid < RANGE ? info->st_gid : 0);
    return mknodat(folder, name, info->st_mode & S_IFMT, info->st_rdev) ||
           fchownat(folder, name, uid, gid, AT_SYMLINK_NOFOLLOW) ||
           fchmodat(folder, name, info->st_mode & 0777, 0);
}

int lr_device_prepare(const struct lr_plan *plan, const struct lr_mounts *mounts, const struct lr_op *dev,
                      struct lr_op *op, struct lr_error *err)
{
    const char *source = op->arg[0], *name, *path = op->arg[1] + strlen(dev->arg[0]) + 1;
    struct stat info;
    LR_FD from = lr_openat2(AT_FDCWD, source, O_PATH, RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
    if (from < 0 || fstat(from, &info))
        return op->flags & LR_FLAG_TRY && errno == ENOENT ? 0
                                                          : lr_op_fail(err, op, "open the device", source);
    if (!S_ISCHR(info.st_mode) && !S_ISBLK(info.st_mode)) {
        errno = ENODEV;
        return lr_op_fail(err, op, "use as a device", source);
    }
    LR_FD folder = open_folder(dev->fd, path, &name);
    if (folder < 0)
        return lr_op_fail(err, op, "make the folder of the device", op->arg[1]);
    if (mounts->userns >= 0)
        return make_node(plan, folder, name, &info) ? lr_op_fail(err, op, "make the device", op->arg[1]) : 0;
    LR_FD place = openat(folder, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (place < 0)
        return lr_op_fail(err, op, "make the device", op->arg[1]);
    op->fd = lr_clone_mount(source, LR_FLAG_RO | LR_FLAG_NOSUID | LR_FLAG_NOEXEC, -1, err, op);
    return op->fd < 0 ? -1 : 0;
}
