/* volume.c: see volume.h, loop(4). One image must never be on two loop devices, whose caches would not know of each other. So the
 * descriptor that a loop device is given has a lock, flock(2), which is held for as long as the device has it: whoever does not get
 * that lock looks for the device. Nothing here allocates: it may run in the child of a start.
 */
#include "volume.h"

#include "mounts.h"
#include "sys.h"

#include <dirent.h>
#include <endian.h>
#include <linux/loop.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>

#define LOOPS 1024 /* devices that are looked at */
#define TURNS 500 /* of a moment each: for a device that is just being made, or is just going */
#define MOMENT 10000000 /* ns */
#define DEPTH 64
#define SQUASHFS_MAGIC 0x73717368U /* "hsqs" */
#define EROFS_MAGIC 0xE0F5E1E2U
#define EROFS_AT 1024

static const struct lr_op nobody = {.number = -1, .arg = {"the app's data"}},
                          base = {.number = -1, .arg = {"the base"}};

/* What can be told from an image: the type of its file system. */
static const char *type_of(int image)
{
    uint32_t magic;
    if (pread(image, &magic, sizeof magic, 0) == sizeof magic && magic == le32toh(SQUASHFS_MAGIC))
        return "squashfs";
    if (pread(image, &magic, sizeof magic, EROFS_AT) == sizeof magic && magic == le32toh(EROFS_MAGIC))
        return "erofs";
    return NULL;
}

/* source: a device or, of an erofs, a file. */
static int mount_lower(const char *type, const char *source, struct lr_error *err)
{
    LR_FD fs = fsopen(type, FSOPEN_CLOEXEC);
    if (fs < 0)
        return lr_fail(err, "open a file system of type", type);
    if (fsconfig(fs, FSCONFIG_SET_STRING, "source", source, 0) ||
        fsconfig(fs, FSCONFIG_SET_FLAG, "ro", NULL, 0) || fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
        return lr_context_fail(fs, err, &base, "mount the image of");
    int mount = fsmount(fs, FSMOUNT_CLOEXEC,
                        MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
    return mount < 0 ? lr_context_fail(fs, err, &base, "mount the image of") : mount;
}

/* type: NULL for an app's data. */
static int mount_device(int number, const char *type, struct lr_error *err)
{
    char device[32];
    snprintf(device, sizeof device, "/dev/loop%d", number);
    if (type)
        return mount_lower(type, device, err);
    LR_FD fs = fsopen("ext4", FSOPEN_CLOEXEC);
    if (fs < 0)
        return lr_fail(err, "open a file system of type", "ext4");
    /* What is deleted inside is given back to the disk; and the tables of an image that was sparse are zeros already. */
    if (fsconfig(fs, FSCONFIG_SET_STRING, "source", device, 0) ||
        fsconfig(fs, FSCONFIG_SET_FLAG, "discard", NULL, 0) ||
        fsconfig(fs, FSCONFIG_SET_FLAG, "noinit_itable", NULL, 0) ||
        fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
        return lr_context_fail(fs, err, &nobody, "mount the image of");
    int mount = fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
    return mount < 0 ? lr_context_fail(fs, err, &nobody, "mount the image of") : mount;
}

static int open_device(int number, int mode)
{
    char device[32];
    snprintf(device, sizeof device, "/dev/loop%d", number);
    return open(device, mode | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
}

/* On a device of its own. -1 with errno EBUSY: somebody else was given the same one. */
static int attach(int image, const char *type, struct lr_error *err)
{
    struct loop_config config = {.fd = (uint32_t)image,
                                 .info.lo_flags = LO_FLAGS_AUTOCLEAR | (type ? LO_FLAGS_READ_ONLY : 0)};
    LR_FD control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    int number = control < 0 ? -1 : ioctl(control, LOOP_CTL_GET_FREE);
    if (number < 0)
        return lr_fail(err, "get a loop device from", "/dev/loop-control");
    LR_FD device = open_device(number, O_RDWR);
    if (device < 0)
        return lr_fail(err, "open a loop device", "");
    if (ioctl(device, LOOP_CONFIGURE, &config))
        return lr_fail(err, "set up a loop device", "");
    return mount_device(number, type, err);
}

/* On the device that has it already. -1 with errno EBUSY: there is none, or not any more. */
static int share(const struct stat *image, const char *type, struct lr_error *err)
{
    struct loop_info64 info;
    for (int number = 0; number < LOOPS; number++) {
        LR_FD device = open_device(number, type ? O_RDONLY : O_RDWR);
        /* While we have it open it cannot become another file's. */
        if (device >= 0 && !ioctl(device, LOOP_GET_STATUS64, &info) && info.lo_inode == image->st_ino &&
            info.lo_device == image->st_dev)
            return mount_device(number, type, err);
    }
    return lr_fail_code(err, EBUSY, "find the loop device of an image", "");
}

static int open_image(int dir_fd, const char *name, int mode, struct stat *info, struct lr_error *err)
{
    LR_FD image = lr_openat2(dir_fd, name, mode, RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
    if (image < 0 || fstat(image, info))
        return lr_fail(err, "open the image", name);
    if (!S_ISREG(info->st_mode))
        return lr_fail_code(err, EINVAL, "open the image", name);
    return lr_steal(&image);
}

static int on_loop(int dir_fd, const char *name, const char *type, struct lr_error *err)
{
    struct timespec moment = {.tv_nsec = MOMENT};
    struct stat info;
    int mount = -1;
    for (int turn = 0; turn < TURNS; turn++) {
        /* Anew each time: the lock belongs to the open file, which a device that has failed would keep for a moment. */
        LR_FD image = open_image(dir_fd, name, type ? O_RDONLY : O_RDWR, &info, err);
        if (image < 0)
            return -1;
        mount = flock(image, LOCK_EX | LOCK_NB) ? share(&info, type, err) : attach(image, type, err);
        if (mount >= 0 || (err->code != EBUSY && err->code != ENXIO))
            break;
        nanosleep(&moment, NULL);
    }
    return mount;
}

int lr_image_open(int dir_fd, const char *name, struct lr_error *err)
{
    return on_loop(dir_fd, name, NULL, err);
}

int lr_image_lower(int dir_fd, const char *name, struct lr_error *err)
{
    struct stat info;
    char path[32];
    LR_FD image = open_image(dir_fd, name, O_RDONLY, &info, err);
    if (image < 0)
        return -1;
    const char *type = type_of(image);
    if (!type)
        return lr_fail_code(err, EINVAL, "mount what is no erofs and no squashfs", name);
    if (*type == 'e') {
        snprintf(path, sizeof path, "/proc/self/fd/%d", image);
        int mount = mount_lower(type, path, err);
        /* ENOTBLK: this kernel mounts devices alone. */
        if (mount >= 0 || err->code != ENOTBLK)
            return mount;
    }
    return on_loop(dir_fd, name, type, err);
}

/* Folders alone, with their modes: an upper that nobody has written to, and work folders. */
static int copy_folders(int from, int to, int depth, struct lr_error *err)
{
    struct {
        uint64_t ino, off;
        uint16_t size;
        uint8_t type;
        char name[];
    } *entry;
    _Alignas(8) char buffer[2048];
    struct stat info;
    long got;
    while ((got = syscall(SYS_getdents64, from, buffer, sizeof buffer)) > 0)
        for (long at = 0; at < got; at += entry->size) {
            entry = (void *)(buffer + at);
            if (entry->name[0] == '.' && (!entry->name[1] || (entry->name[1] == '.' && !entry->name[2])))
                continue;
            LR_FD deeper = openat(from, entry->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (deeper < 0)
                continue;
            LR_FD made = -1;
            if (depth == DEPTH || fstat(deeper, &info) || mkdirat(to, entry->name, 0700) ||
                (made = openat(to, entry->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)) < 0)
                return lr_fail(err, "make a folder in memory", entry->name);
            if (copy_folders(deeper, made, depth + 1, err))
                return -1;
            fchmod(made, info.st_mode & 07777);
        }
    return got < 0 ? lr_fail(err, "read a folder of the app's data", "") : 0;
}

static int open_memory(const char *size, const char *path, struct lr_error *err)
{
    const char *const options[][2] = {{"source", "layerrun"}, {"mode", "0700"}, {"size", size}, {0}};
    LR_FD data =
        lr_openat2(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
    if (data < 0)
        return lr_fail(err, "open", path);
    LR_FD mount =
        lr_new_mount("tmpfs", options, LR_FLAG_NOSUID | LR_FLAG_NODEV | LR_FLAG_NOEXEC, err, &nobody);
    LR_FD top = mount < 0 ? -1 : openat(mount, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return top < 0 || copy_folders(data, top, 0, err) ? -1 : lr_steal(&mount);
}

int lr_volume_open(const struct lr_plan *plan, const char *path, struct lr_error *err)
{
    return plan->volume_in_memory ? open_memory(plan->volume, path, err)
                                  : lr_image_open(AT_FDCWD, plan->volume, err);
}
