/* mounts.c: binds, tmpfs, /proc and /dev by the mount API that works on descriptors.
 *
 * Sources are opened with RESOLVE_NO_SYMLINKS (Python has made them canonical, so a link that is met now was put there
 * since), targets with RESOLVE_IN_ROOT beneath the new root, so that no link of the base or the app leads outside.
 * See open_tree(2), move_mount(2), mount_setattr(2) and the kernel's Documentation/filesystems/overlayfs.rst.
 */
#include "mounts.h"

#include "devices.h"
#include "make.h"
#include "sys.h"

#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>

const char *const lr_device_names[LR_DEVICES] = {"null", "zero", "full", "random", "urandom", "tty"};

static uint64_t mount_attributes(unsigned flags)
{
    return (flags & LR_FLAG_RO ? MOUNT_ATTR_RDONLY : 0) | (flags & LR_FLAG_NOEXEC ? MOUNT_ATTR_NOEXEC : 0) |
           (flags & LR_FLAG_NOSUID ? MOUNT_ATTR_NOSUID : 0) | (flags & LR_FLAG_NODEV ? MOUNT_ATTR_NODEV : 0);
}

/* A detached copy of the mount at source, with attributes and, where asked, mapped ids. */
static int clone_from(int dir, uint64_t resolve, const char *source, unsigned flags, int userns,
                      struct lr_error *err, const struct lr_op *op)
{
    LR_FD from = lr_openat2(dir, source, O_PATH, resolve | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
    if (from < 0)
        return lr_op_fail(err, op, "open", source);
    unsigned recursive = flags & LR_FLAG_REC ? AT_RECURSIVE : 0;
    LR_FD mount = open_tree(from, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | recursive);
    if (mount < 0)
        return lr_op_fail(err, op, "copy the mount", source);
    struct mount_attr attr = {.attr_set = mount_attributes(flags),
                              .attr_clr =
                                  flags & LR_FLAG_DATA && !(flags & LR_FLAG_NOEXEC) ? MOUNT_ATTR_NOEXEC : 0,
                              .propagation = MS_PRIVATE};
    if (mount_setattr(mount, "", AT_EMPTY_PATH | recursive, &attr, sizeof attr))
        return lr_op_fail(err, op, "set the attributes of the mount", source);
    if (flags & LR_FLAG_IDMAP && userns >= 0) {
        struct mount_attr map = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)userns};
        if (mount_setattr(mount, "", AT_EMPTY_PATH | recursive, &map, sizeof map))
            return lr_op_fail(err, op, "map the ids of", source);
    }
    return lr_steal(&mount);
}

int lr_clone_mount(const char *source, unsigned flags, int userns, struct lr_error *err,
                   const struct lr_op *op)
{
    return clone_from(AT_FDCWD, 0, source, flags, userns, err, op);
}

/* The kernel says what it disliked through the context's descriptor ("e overlay: ..."); errno alone says little. */
int lr_context_fail(int fs, struct lr_error *err, const struct lr_op *op, const char *step)
{
    char path[sizeof err->path], message[256];
    int code = errno;
    ssize_t length = read(fs, message, sizeof message - 1);
    message[length > 0 ? length : 0] = 0;
    if (length > 0 && message[length - 1] == '\n')
        message[length - 1] = 0;
    if (length > 2)
        snprintf(path, sizeof path, "%.120s (%s)", op->arg[0], message + 2);
    else
        snprintf(path, sizeof path, "%s", op->arg[0]);
    errno = code;
    return lr_op_fail(err, op, step, path);
}

static int prepare_tmpfs(struct lr_op *op, struct lr_error *err)
{
    const char *const options[][2] = {{"source", "tmpfs"}, {"mode", op->arg[1]}, {0}};
    return op->fd = lr_new_mount("tmpfs", options, op->flags | LR_FLAG_NOSUID | LR_FLAG_NODEV, err, op);
}

static int make_node(int dev, const char *name, struct lr_error *err, const struct lr_op *op)
{
    LR_FD file = openat(dev, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0666);
    return file < 0 ? lr_op_fail(err, op, "make the device", name) : 0;
}

static bool has_devices(const struct lr_plan *plan)
{
    for (size_t i = 0; i < plan->count; i++)
        if (plan->ops[i].kind == LR_OP_DEVICE)
            return true;
    return false;
}

/* /dev: a tmpfs with places for the six harmless nodes, an own devpts, shared memory and message queues. */
static int prepare_dev(const struct lr_plan *plan, struct lr_mounts *mounts, struct lr_op *op,
                       struct lr_error *err)
{
    static const char *const links[][2] = {{"pts/ptmx", "ptmx"},
                                           {"/proc/self/fd", "fd"},
                                           {"/proc/self/fd/0", "stdin"},
                                           {"/proc/self/fd/1", "stdout"},
                                           {"/proc/self/fd/2", "stderr"}};
    static const char *const dev_options[][2] = {{"source", "tmpfs"}, {"mode", "0755"}, {"size", "1m"}, {0}};
    static const char *const shm_options[][2] = {{"source", "shm"}, {"mode", "1777"}, {0}};
    /* Made outside it would not know by itself that nodes in it are nobody's; the six are mounts of their own. Only root outside can
     * make one, and does where devices are granted. */
    unsigned nodev = mounts->userns >= 0 && !has_devices(plan) ? LR_FLAG_NODEV : 0;
    int dev = op->fd = lr_new_mount("tmpfs", dev_options, LR_FLAG_NOSUID | LR_FLAG_NOEXEC | nodev, err, op);
    if (dev < 0)
        return -1;
    for (int i = 0; i < LR_DEVICES; i++)
        if (make_node(dev, lr_device_names[i], err, op))
            return -1;
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        if (symlinkat(links[i][0], dev, links[i][1]))
            return lr_op_fail(err, op, "make the link", links[i][1]);
    if (mkdirat(dev, "pts", 0755) || mkdirat(dev, "shm", 01777) || mkdirat(dev, "mqueue", 0755))
        return lr_op_fail(err, op, "make a folder in", op->arg[0]);
    return mounts->shm = lr_new_mount("tmpfs", shm_options, LR_FLAG_NOSUID | LR_FLAG_NODEV, err, op);
}

/* What belongs to the sandbox's root. */
static int prepare_own(struct lr_plan *plan, struct lr_mounts *mounts, struct lr_error *err)
{
    const struct lr_op *dev = NULL;
    int failed = lr_overlays_prepare(plan, mounts, err);
    for (size_t i = 0; !failed && i < plan->count; i++) {
        struct lr_op *op = &plan->ops[i];
        if (op->kind == LR_OP_TMPFS)
            failed = prepare_tmpfs(op, err) < 0;
        else if (op->kind == LR_OP_DEV)
            failed = prepare_dev(plan, mounts, op, err) < 0, dev = op;
        else if (op->kind == LR_OP_DEVICE)
            failed = lr_device_prepare(plan, mounts, dev, op, err);
    }
    return failed ? -1 : 0;
}

/* Outside, a file system works with the credentials of whoever makes it: these must be the sandbox's root for file ownership
 * and the machine's root for everything else, hence fsuid with the capabilities kept (capabilities(7), SECBIT_NO_SETUID_FIXUP,
 * set by the caller). All of it is per thread. */
static int prepare_own_as_root(struct lr_plan *plan, struct lr_mounts *mounts, struct lr_error *err)
{
    int uid = setfsuid(plan->root_uid), gid = setfsgid(plan->root_gid);
    int result = prepare_own(plan, mounts, err);
    setfsgid((gid_t)gid);
    setfsuid((uid_t)uid);
    return result;
}

int lr_mounts_prepare(struct lr_plan *plan, struct lr_mounts *mounts, struct lr_error *err)
{
    char path[32];
    const struct lr_op none = {.number = -1};
    int failed =
        mounts->userns >= 0 ? prepare_own_as_root(plan, mounts, err) : prepare_own(plan, mounts, err);
    for (size_t i = 0; !failed && i < plan->count; i++) {
        struct lr_op *op = &plan->ops[i];
        if (op->kind != LR_OP_BIND)
            continue;
        /* What lies in the data's own volume has its ids mapped there already. */
        op->fd = op->flags & LR_FLAG_DATA ? clone_from(mounts->data, RESOLVE_BENEATH, op->arg[0],
                                                       op->flags & ~(unsigned)LR_FLAG_IDMAP, -1, err, op)
                                          : lr_clone_mount(op->arg[0], op->flags, mounts->userns, err, op);
        failed = op->fd < 0 && !(op->flags & LR_FLAG_TRY);
    }
    for (int i = 0; !failed && i < LR_DEVICES; i++) {
        snprintf(path, sizeof path, "/dev/%s", lr_device_names[i]);
        mounts->devices[i] = lr_clone_mount(path, LR_FLAG_NOSUID | LR_FLAG_NOEXEC, -1, err, &none);
        failed = mounts->devices[i] < 0;
    }
    return failed ? -1 : 0;
}

static int open_target(const struct lr_mounts *mounts, const char *path, uint64_t flags)
{
    return lr_openat2(mounts->root, path[1] ? path + 1 : ".", flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
}

static int attach(const struct lr_mounts *mounts, int mount, const char *target, struct lr_error *err,
                  const struct lr_op *op)
{
    LR_FD at = open_target(mounts, target, O_PATH);
    if (at < 0)
        return lr_op_fail(err, op, "find the mount point", target);
    if (move_mount(mount, "", at, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH))
        return lr_op_fail(err, op, "attach the mount on", target);
    return 0;
}

static int attach_root(struct lr_mounts *mounts, int mount, struct lr_error *err, const struct lr_op *op)
{
    if (move_mount(mount, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH))
        return lr_op_fail(err, op, "attach the new root", "/");
    mounts->root = mount;
    return 0;
}

int lr_new_mount(const char *type, const char *const options[][2], unsigned flags, struct lr_error *err,
                 const struct lr_op *op)
{
    LR_FD fs = fsopen(type, FSOPEN_CLOEXEC);
    if (fs < 0)
        return lr_op_fail(err, op, "open a file system of type", type);
    for (; options && (*options)[0]; options++)
        if (fsconfig(fs, FSCONFIG_SET_STRING, (*options)[0], (*options)[1], 0))
            return lr_context_fail(fs, err, op, "configure the mount on");
    if (fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
        return lr_context_fail(fs, err, op, "create the mount for");
    int mount = fsmount(fs, FSMOUNT_CLOEXEC, mount_attributes(flags));
    return mount < 0 ? lr_op_fail(err, op, "make the mount for", op->arg[0]) : mount;
}

static int attach_new(const struct lr_mounts *mounts, const char *type, const char *const options[][2],
                      unsigned flags, const char *target, struct lr_error *err, const struct lr_op *op)
{
    LR_FD mount = lr_new_mount(type, options, flags, err, op);
    return mount < 0 ? -1 : attach(mounts, mount, target, err, op);
}

static int do_proc(const struct lr_mounts *mounts, const struct lr_op *op, struct lr_error *err)
{
    const char *const options[][2] = {{"source", "proc"}, {0}};
    return attach_new(mounts, "proc", options, LR_FLAG_NOSUID | LR_FLAG_NODEV | LR_FLAG_NOEXEC, op->arg[0],
                      err, op);
}

static int do_dev(const struct lr_plan *plan, struct lr_mounts *mounts, int own_tty, const struct lr_op *op,
                  struct lr_error *err)
{
    static const char *const queue_options[][2] = {{"source", "mqueue"}, {0}};
    /* gid 5 is tty in every distribution we know of; it can be used only where ids beside the caller's are mapped. */
    const char *const pts_options[][2] = {{"source", "devpts"},
                                          {"ptmxmode", "0666"},
                                          {"mode", "0620"},
                                          {lr_has_one_id(plan) ? NULL : "gid", "5"},
                                          {0}};
    int dev = op->fd;
    if (attach(mounts, dev, op->arg[0], err, op))
        return -1;
    for (int i = 0; i < LR_DEVICES; i++)
        if (move_mount(mounts->devices[i], "", dev, lr_device_names[i], MOVE_MOUNT_F_EMPTY_PATH))
            return lr_op_fail(err, op, "attach the device", lr_device_names[i]);
    LR_FD pts = lr_new_mount("devpts", pts_options, LR_FLAG_NOSUID | LR_FLAG_NOEXEC, err, op);
    LR_FD queue = pts < 0 ? -1
                          : lr_new_mount("mqueue", queue_options,
                                         LR_FLAG_NOSUID | LR_FLAG_NODEV | LR_FLAG_NOEXEC, err, op);
    if (pts < 0 || queue < 0)
        return -1;
    if (move_mount(pts, "", dev, "pts", MOVE_MOUNT_F_EMPTY_PATH) ||
        move_mount(mounts->shm, "", dev, "shm", MOVE_MOUNT_F_EMPTY_PATH) ||
        move_mount(queue, "", dev, "mqueue", MOVE_MOUNT_F_EMPTY_PATH))
        return lr_op_fail(err, op, "attach a mount in", op->arg[0]);
    if (own_tty && (mounts->ptmx = openat(pts, "ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC)) < 0)
        return lr_op_fail(err, op, "open a terminal in", "/dev/pts");
    return 0;
}

/* Cover a path: a folder by an empty read-only one, anything else by our own /dev/null, held by descriptor and looked at. */
static int do_mask(struct lr_mounts *mounts, const struct lr_op *op, struct lr_error *err)
{
    static const char *const options[][2] = {
        {"source", "layerrun-hidden"}, {"mode", "0555"}, {"size", "4k"}, {"nr_inodes", "2"}, {0}};
    struct stat info;
    LR_FD at = open_target(mounts, op->arg[0], O_PATH);
    if (at < 0)
        return op->flags & LR_FLAG_TRY && (errno == ENOENT || errno == ENOTDIR || errno == EACCES)
                   ? 0
                   : lr_op_fail(err, op, "find what is to be hidden", op->arg[0]);
    if (fstat(at, &info))
        return lr_op_fail(err, op, "look at", op->arg[0]);
    LR_FD cover = -1;
    if (S_ISDIR(info.st_mode)) {
        cover = lr_new_mount("tmpfs", options, LR_FLAG_RO | LR_FLAG_NOSUID | LR_FLAG_NODEV | LR_FLAG_NOEXEC,
                             err, op);
        if (cover < 0)
            return -1;
    } else {
        LR_FD null = open_target(mounts, "/dev/null", O_PATH);
        if (null < 0 || fstat(null, &info))
            return lr_op_fail(err, op, "open", "/dev/null");
        if (!S_ISCHR(info.st_mode) || info.st_rdev != makedev(1, 3)) {
            errno = ENODEV;
            return lr_op_fail(err, op, "use the null device", "/dev/null");
        }
        cover = open_tree(null, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
        if (cover < 0)
            return lr_op_fail(err, op, "copy the mount of", "/dev/null");
    }
    if (move_mount(cover, "", at, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH))
        return lr_op_fail(err, op, "hide", op->arg[0]);
    return 0;
}

static int attach_overlay(struct lr_mounts *mounts, const struct lr_op *op, struct lr_error *err)
{
    if (op->fd < 0)
        return do_mask(mounts, op, err);
    return mounts->root < 0 ? attach_root(mounts, op->fd, err, op)
                            : attach(mounts, op->fd, op->arg[0], err, op);
}

static int do_readonly(struct lr_mounts *mounts, const struct lr_op *op, struct lr_error *err)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV |
                                          MOUNT_ATTR_NOEXEC};
    LR_FD at = open_target(mounts, op->arg[0], O_PATH);
    if (at < 0)
        return op->flags & LR_FLAG_TRY && errno == ENOENT ? 0 : lr_op_fail(err, op, "find", op->arg[0]);
    LR_FD copy = open_tree(at, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
    if (copy < 0 || mount_setattr(copy, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof attr))
        return lr_op_fail(err, op, "make a read-only copy of", op->arg[0]);
    if (move_mount(copy, "", at, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH))
        return lr_op_fail(err, op, "make read-only", op->arg[0]);
    return 0;
}

/* Of the sandbox's own user namespace: which one, the kernel sees by who opens the file. */
static int do_sysctl(const struct lr_mounts *mounts, const struct lr_op *op, struct lr_error *err)
{
    char path[256];
    struct statfs info;
    snprintf(path, sizeof path, "/proc/sys/%s", op->arg[0]);
    LR_FD file = open_target(mounts, path, O_WRONLY);
    if (file < 0 && errno == ENOENT) /* a kernel without it */
        return 0;
    if (file < 0 || fstatfs(file, &info))
        return lr_op_fail(err, op, "open", path);
    if (info.f_type != PROC_SUPER_MAGIC) {
        errno = EXDEV;
        return lr_op_fail(err, op, "open", path);
    }
    return write(file, op->arg[1], strlen(op->arg[1])) < 0 ? lr_op_fail(err, op, "set", path) : 0;
}

/* What the plan made for the command's user, who is not root. */
static int do_own(const struct lr_plan *plan, const struct lr_mounts *mounts, const struct lr_op *op,
                  struct lr_error *err)
{
    LR_FD at = open_target(mounts, op->arg[0], O_PATH | O_NOFOLLOW);
    return at < 0 || fchownat(at, "", plan->uid, plan->gid, AT_EMPTY_PATH)
               ? lr_op_fail(err, op, "give away", op->arg[0])
               : 0;
}

int lr_mounts_attach(struct lr_plan *plan, struct lr_mounts *mounts, int own_tty, struct lr_error *err)
{
    for (size_t i = 0; i < plan->count; i++) {
        const struct lr_op *op = &plan->ops[i];
        int failed = 0;
        switch (op->kind) {
        case LR_OP_OVERLAY:
            failed = attach_overlay(mounts, op, err);
            break;
        case LR_OP_DEVICE: /* no descriptor: it is a node in /dev already, or missing */
        case LR_OP_BIND: /* no descriptor: its source is missing and the plan said to try */
            failed = op->fd >= 0 && attach(mounts, op->fd, op->arg[1], err, op);
            break;
        case LR_OP_TMPFS:
            failed = attach(mounts, op->fd, op->arg[0], err, op);
            break;
        case LR_OP_DIR:
        case LR_OP_FILE:
        case LR_OP_SYMLINK:
        case LR_OP_TEXT:
            failed = lr_make(mounts->root, op, err);
            break;
        case LR_OP_PROC:
            failed = do_proc(mounts, op, err);
            break;
        case LR_OP_DEV:
            failed = do_dev(plan, mounts, own_tty, op, err);
            break;
        case LR_OP_MASK:
            failed = do_mask(mounts, op, err);
            break;
        case LR_OP_READONLY:
            failed = do_readonly(mounts, op, err);
            break;
        case LR_OP_OWN:
            failed = do_own(plan, mounts, op, err);
            break;
        case LR_OP_SYSCTL:
            failed = do_sysctl(mounts, op, err);
            break;
        default:
            break;
        }
        if (failed)
            return -1;
    }
    return 0;
}

void lr_mounts_close(struct lr_plan *plan, struct lr_mounts *mounts)
{
    for (size_t i = 0; i < plan->count; i++)
        lr_close(&plan->ops[i].fd);
    for (int i = 0; i < LR_DEVICES; i++)
        lr_close(&mounts->devices[i]);
    lr_close(&mounts->listening);
    lr_close(&mounts->shm);
    lr_close(&mounts->store);
    lr_close(&mounts->data);
}
