/* jail.c: see jail.h, open_tree(2), mount_setattr(2), pivot_root(2). */
#include "jail.h"

#include "confine.h"
#include "sys.h"

#include <stdbool.h>
#include <sys/mount.h>
#include <sys/prctl.h>

int lr_jail_mount(const char *path, int userns, struct lr_error *err)
{
    struct mount_attr attr = {
        .attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC,
        .propagation = MS_PRIVATE,
    };
    LR_FD from =
        lr_openat2(AT_FDCWD, path, O_PATH | O_DIRECTORY, RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
    if (from < 0)
        return lr_fail(err, "open", path);
    LR_FD mount = open_tree(from, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (mount < 0)
        return lr_fail(err, "copy the mount", path);
    if (userns >= 0) {
        attr.attr_set |= MOUNT_ATTR_IDMAP;
        attr.userns_fd = (uint64_t)userns;
    }
    if (mount_setattr(mount, "", AT_EMPTY_PATH, &attr, sizeof attr))
        return lr_fail(err, userns < 0 ? "set the attributes of the mount" : "map the ids of", path);
    return lr_steal(&mount);
}

int lr_jail_enter(struct lr_error *err)
{
    LR_FD fs = fsopen("tmpfs", FSOPEN_CLOEXEC);
    if (fs < 0 || fsconfig(fs, FSCONFIG_SET_STRING, "mode", "0555", 0) ||
        fsconfig(fs, FSCONFIG_SET_STRING, "size", "4k", 0) ||
        fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
        return lr_fail(err, "make an empty root", "");
    LR_FD root = fsmount(fs, FSMOUNT_CLOEXEC,
                         MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
    if (root < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        move_mount(root, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH))
        return lr_fail(err, "attach an empty root", "/");
    if (fchdir(root) || lr_pivot_root(".", ".") || umount2(".", MNT_DETACH) || chdir("/"))
        return lr_fail(err, "change to an empty root", "/");
    return 0;
}

/* linux/landlock.h of the oldest headers we build with knows less. */
#define CREATE_RULESET 444
#define ADD_RULE 445
#define RESTRICT_SELF 446
#define EXECUTE (1ULL << 0)
#define IOCTL_DEV (1ULL << 15)

struct ruleset {
    uint64_t files, net, scoped;
};

struct __attribute__((packed)) beneath {
    uint64_t allowed;
    int32_t parent;
};

int lr_jail_landlock(int folder, struct lr_error *err)
{
    /* How many of the file rights each ABI knows: 13, REFER, TRUNCATE, IOCTL_DEV. */
    static const unsigned rights[] = {0, 13, 14, 15, 15, 16};
    long abi = syscall(CREATE_RULESET, NULL, 0, 1);
    if (abi <= 0)
        return 0;
    struct ruleset ruleset = {.files = (1ULL << rights[abi < 5 ? abi : 5]) - 1,
                              .net = abi >= 4 ? 3 : 0,
                              .scoped = abi >= 6 ? 3 : 0};
    size_t size = abi >= 6 ? sizeof ruleset : abi >= 4 ? 2 * sizeof(uint64_t) : sizeof(uint64_t);
    LR_FD rules = (int)syscall(CREATE_RULESET, &ruleset, size, 0);
    if (rules < 0)
        return lr_fail(err, "make rules of Landlock", "");
    struct beneath beneath = {.allowed = ruleset.files & ~(EXECUTE | IOCTL_DEV), .parent = folder};
    if ((folder >= 0 && syscall(ADD_RULE, rules, 1, &beneath, 0)) || syscall(RESTRICT_SELF, rules, 0))
        return lr_fail(err, "set rules of Landlock", "");
    return (int)abi;
}

int lr_jail_filter(struct lr_error *err)
{
    struct lr_plan plan = {0};
    return lr_seccomp_parse(&plan, "strict") ? lr_fail_code(err, EINVAL, "find the filter", "strict")
                                             : lr_seccomp_load(&plan, err);
}
