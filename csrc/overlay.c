/* overlay.c: overlays, from folders and mount points made up in memory. See the kernel's Documentation/filesystems/overlayfs.rst. */
#include "mounts.h"

#include "sys.h"
#include "volume.h"

#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>

/* fsconfig(FSCONFIG_SET_STRING, "lowerdir+") came with Linux 6.5, descriptors for it with 6.13. */
static int set_layer(int fs, const char *key, int layer)
{
    char path[32];
    if (!fsconfig(fs, FSCONFIG_SET_FD, key, NULL, layer))
        return 0;
    if (errno != EINVAL && errno != EBADF)
        return -1;
    snprintf(path, sizeof path, "/proc/self/fd/%d", layer);
    return fsconfig(fs, FSCONFIG_SET_STRING, key, path, 0);
}

/* A folder that becomes part of an overlay. Outside it is a mapped copy of its mount, reached without setuid, devices and
 * execution, which the overlay's own flags govern; inside the overlay makes a private copy by itself. */
static int open_layer(const char *path, unsigned flags, const struct lr_mounts *mounts, struct lr_error *err,
                      const struct lr_op *op)
{
    if (mounts->userns >= 0)
        return lr_clone_mount(path, flags | LR_FLAG_NOSUID | LR_FLAG_NODEV | LR_FLAG_NOEXEC, mounts->userns,
                              err, op);
    int fd = lr_openat2(AT_FDCWD, path, O_PATH | O_DIRECTORY, RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
    return fd < 0 ? lr_op_fail(err, op, "open", path) : fd;
}

/* A lower in the store, by the one mapped copy of the store's mount; -1 if it is not to be had there. */
static int open_stored(const char *path, const struct lr_mounts *mounts)
{
    size_t length = mounts->store < 0 ? 0 : strlen(mounts->store_path);
    if (!length || strncmp(path, mounts->store_path, length) || path[length] != '/')
        return -1;
    return lr_openat2(mounts->store, path + length + 1, O_PATH | O_DIRECTORY,
                      RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV);
}

/* A base that is an image; each start mounts it anew, for what is mounted goes with the app. */
static int open_base_image(const char *path, unsigned flags, const struct lr_mounts *mounts,
                           struct lr_error *err, const struct lr_op *op)
{
    struct mount_attr map = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)mounts->userns};
    LR_FD mount = lr_image_lower(AT_FDCWD, path, err);
    if (mount < 0) {
        err->op = op->number;
        return -1;
    }
    if (flags & LR_FLAG_IDMAP && mounts->userns >= 0 &&
        mount_setattr(mount, "", AT_EMPTY_PATH, &map, sizeof map))
        return lr_op_fail(err, op, "map the ids of", path);
    return lr_steal(&mount);
}

static int open_lower(const char *path, unsigned flags, const struct lr_mounts *mounts, struct lr_error *err,
                      const struct lr_op *op)
{
    if (flags & LR_FLAG_IMAGE)
        return open_base_image(path, flags, mounts, err, op);
    /* What is missing, or is a mount of its own within the store, is said or done below. */
    int fd = flags & LR_FLAG_IDMAP ? open_stored(path, mounts) : -1;
    return fd >= 0 ? fd : open_layer(path, flags | LR_FLAG_RO, mounts, err, op);
}

static int configure_overlay(int fs, bool userxattr)
{
    /* index and nfs_export tie an upper to one lower, metacopy and redirects make it unreadable by anything else, xino
     * warns in the log where it cannot serve; distributions differ in the defaults, so each is said. */
    static const char *const options[][2] = {{"source", "layerrun"},
                                             {"index", "off"},
                                             {"metacopy", "off"},
                                             {"xino", "off"},
                                             {"redirect_dir", "nofollow"}};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        if (fsconfig(fs, FSCONFIG_SET_STRING, options[i][0], options[i][1], 0))
            return -1;
    return userxattr ? fsconfig(fs, FSCONFIG_SET_FLAG, "userxattr", NULL, 0) : 0;
}

/* The app decides what its upper holds, links too, so nothing of it is followed. */
static int open_data(const struct lr_mounts *mounts, const char *path, struct lr_error *err,
                     const struct lr_op *op)
{
    int fd = lr_openat2(mounts->data, path, O_PATH | O_DIRECTORY,
                        RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV);
    return fd < 0 ? lr_op_fail(err, op, "open the app's folder", path) : fd;
}

/* A lower through an overlay of its own: the kernel takes no lower within another (ELOOP), and looks for that in one file system
 * only. An overlay without an upper has two lowers at least, so an empty one goes beneath. Its depth is 1, with the one above it
 * 2, and 2 is as much as the kernel allows: a lower that is an overlay itself is refused. */
static int set_apart(int lower, bool userxattr, struct lr_error *err, const struct lr_op *op)
{
    static const char *const options[][2] = {{"source", "layerrun"}, {"mode", "0755"}, {0}};
    LR_FD empty = lr_new_mount("tmpfs", options, LR_FLAG_NOSUID | LR_FLAG_NODEV | LR_FLAG_NOEXEC, err, op);
    if (empty < 0)
        return -1;
    LR_FD fs = fsopen("overlay", FSOPEN_CLOEXEC);
    if (fs < 0)
        return lr_op_fail(err, op, "open an overlay", op->arg[0]);
    if (configure_overlay(fs, userxattr) || set_layer(fs, "lowerdir+", lower) ||
        set_layer(fs, "lowerdir+", empty) || fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
        return lr_context_fail(fs, err, op, "set apart from the layers in it");
    int mount = fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    return mount < 0 ? lr_context_fail(fs, err, op, "set apart from the layers in it") : mount;
}

static int add_lowers(int fs, struct lr_op *op, const struct lr_op *end, const struct lr_mounts *mounts,
                      struct lr_error *err)
{
    for (struct lr_op *lower = op + 1; lower < end && lower->kind == LR_OP_LOWER; lower++) {
        lower->fd = open_lower(lower->arg[0], lower->flags, mounts, err, lower);
        if (lower->fd < 0)
            return -1;
        if (lower->flags & LR_FLAG_APART) {
            int apart = set_apart(lower->fd, op->flags & LR_FLAG_USERXATTR, err, lower);
            if (apart < 0)
                return -1;
            lr_close(&lower->fd);
            lower->fd = apart;
        }
        if (set_layer(fs, "lowerdir+", lower->fd))
            return lr_context_fail(fs, err, lower, "add a lower to the overlay");
    }
    return 0;
}

static int make_place(int top, const struct lr_op *op, struct lr_error *err)
{
    const char *path = op->arg[0] + 1, *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    char parent[4096] = ".";
    if (slash)
        snprintf(parent, sizeof parent, "%.*s", (int)(slash - path), path);
    LR_FD at = lr_openat2(top, parent, O_PATH | O_DIRECTORY, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS);
    if (at < 0)
        return lr_op_fail(err, op, "make a mount point", op->arg[0]);
    if (!strcmp(op->arg[1], "dir")) /* whatever the umask is */
        return mkdirat(at, name, 0755) || fchmodat(at, name, 0755, 0)
                   ? lr_op_fail(err, op, "make a mount point", op->arg[0])
                   : 0;
    LR_FD file = openat(at, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0444);
    return file < 0 ? lr_op_fail(err, op, "make a mount point", op->arg[0]) : 0;
}

/* Mount points that no lower has, in a lowest one of their own, since in the upper they would be a change that nobody made. It lies
 * in memory: one in the store would lie beneath the lower "/", and the kernel takes no lower within another (ELOOP). */
static int add_places(int fs, struct lr_op *op, const struct lr_op *end, struct lr_error *err)
{
    static const char *const options[][2] = {{"source", "layerrun"}, {"mode", "0755"}, {0}};
    while (op < end && op->kind == LR_OP_LOWER)
        op++;
    if (op == end || op->kind != LR_OP_PLACE)
        return 0;
    op->fd = lr_new_mount("tmpfs", options, LR_FLAG_NOSUID | LR_FLAG_NODEV | LR_FLAG_NOEXEC, err, op);
    if (op->fd < 0)
        return -1;
    for (const struct lr_op *place = op; place < end && place->kind == LR_OP_PLACE; place++)
        if (make_place(op->fd, place, err))
            return -1;
    return set_layer(fs, "lowerdir+", op->fd)
               ? lr_context_fail(fs, err, op, "add mount points to the overlay")
               : 0;
}

static void close_lowers(struct lr_op *op, const struct lr_op *end)
{
    for (op++; op < end && (op->kind == LR_OP_LOWER || op->kind == LR_OP_PLACE); op++)
        lr_close(&op->fd);
}

static int create_overlay(int fs, const struct lr_op *op, const struct lr_mounts *mounts,
                          struct lr_error *err)
{
    LR_FD upper = open_data(mounts, op->arg[1], err, op);
    LR_FD work = upper < 0 ? -1 : open_data(mounts, op->arg[2], err, op);
    if (upper < 0 || work < 0)
        return -1;
    if (set_layer(fs, "upperdir", upper) || set_layer(fs, "workdir", work))
        return lr_context_fail(fs, err, op, "set the upper of the overlay on");
    if (fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
        return lr_context_fail(fs, err, op, "mount the overlay on");
    /* noatime: the time of access of a copied-up file stays that of its origin; a commit tells by it that it is no new one. */
    LR_FD mount = fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NODEV | MOUNT_ATTR_NOATIME);
    if (mount < 0)
        return lr_context_fail(fs, err, op, "mount the overlay on");
    /* An upper that the mounter may not write (ids not mapped) gives a read-only overlay, and only the log says so. */
    struct statfs info;
    if (fstatfs(mount, &info))
        return lr_op_fail(err, op, "look at the overlay on", op->arg[0]);
    if (info.f_flags & ST_RDONLY) {
        errno = EROFS;
        return lr_op_fail(err, op, "mount the overlay writable on", op->arg[0]);
    }
    return lr_steal(&mount);
}

/* A detached mount goes with its last descriptor, so the lowers are held until the overlay has its own copies. */
static int make_overlay(struct lr_op *op, const struct lr_op *end, const struct lr_mounts *mounts,
                        struct lr_error *err)
{
    LR_FD fs = fsopen("overlay", FSOPEN_CLOEXEC);
    if (fs < 0)
        return lr_op_fail(err, op, "open an overlay", op->arg[0]);
    if (configure_overlay(fs, op->flags & LR_FLAG_USERXATTR))
        return lr_context_fail(fs, err, op, "configure the overlay on");
    int mount = add_lowers(fs, op, end, mounts, err) || add_places(fs, op + 1, end, err)
                    ? -1
                    : create_overlay(fs, op, mounts, err);
    /* Outside, a lower is a detached mount, and closing one waits for the kernel: later, when the child has its mounts. */
    if (mounts->userns < 0)
        close_lowers(op, end);
    return mount;
}

/* The data folder where it lies in a file system of a fixed size. */
static int open_volume(const struct lr_plan *plan, const struct lr_mounts *mounts, struct lr_error *err,
                       const struct lr_op *op)
{
    struct mount_attr map = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)mounts->userns};
    LR_FD mount = lr_volume_open(plan, op->arg[0], err);
    if (mount < 0)
        return -1;
    if (mounts->userns >= 0 && mount_setattr(mount, "", AT_EMPTY_PATH, &map, sizeof map))
        return lr_op_fail(err, op, "map the ids of", plan->volume);
    return lr_steal(&mount);
}

/* Overlays are made deepest first: the kernel warns of an upper whose parent folder is in use by another overlay, not of one
 * whose child folder is. */
int lr_overlays_prepare(struct lr_plan *plan, struct lr_mounts *mounts, struct lr_error *err)
{
    for (size_t i = 0; i < plan->count; i++) {
        struct lr_op *op = &plan->ops[i];
        if (op->kind == LR_OP_DATA &&
            (mounts->data = plan->volume ? open_volume(plan, mounts, err, op)
                                         : open_layer(op->arg[0], LR_FLAG_IDMAP, mounts, err, op)) < 0)
            return -1;
        if (op->kind == LR_OP_STORE && mounts->userns >= 0) {
            mounts->store_path = op->arg[0];
            mounts->store = open_layer(op->arg[0], LR_FLAG_IDMAP | LR_FLAG_RO, mounts, err, op);
            if (mounts->store < 0)
                return -1;
        }
    }
    for (size_t i = plan->count; i-- > 0;) {
        struct lr_op *op = &plan->ops[i];
        if (op->kind != LR_OP_OVERLAY)
            continue;
        op->fd = make_overlay(op, plan->ops + plan->count, mounts, err);
        if (op->fd >= 0)
            continue;
        if (!(op->flags & LR_FLAG_TRY))
            return -1;
        /* One mount of the host must not keep a program from starting; it is hidden instead. */
        if (err->code != ENOENT)
            dprintf(2, "layerrun: %s is hidden: cannot %s %s: %s\n", op->arg[0], err->step, err->path,
                    strerrordesc_np(err->code));
    }
    return 0;
}
