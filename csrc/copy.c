/* copy.c: an exact copy of a tree. */
#include "settle.h"
#include "tree.h"
#include "walk.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

struct copier {
    struct lr_walk walk; /* over the source */
    struct lr_chain made; /* the same place in the copy */
    struct lr_seen *seen;
    struct lr_copied *copied;
    bool owners, devices;
    bool commit; /* as lr_copy_entry does it, with these flags */
    int flags;
    const char *as; /* its name in the copy, if one entry alone is copied */
};

/* What an entry is called in the copy. */
static const char *named(const struct copier *copier, const char *name)
{
    return copier->as ? copier->as : name;
}

static int fail(const struct copier *copier, const char *name, const char *step, struct lr_error *err)
{
    return lr_chain_fail(&copier->made, name, step, err);
}

/* The name of an attribute in the copy, NULL: it has none there. */
static const char *key_in_copy(const struct copier *copier, const char *key, char room[256])
{
    const char *prefix = copier->flags & LR_COPY_USERXATTR ? "user.overlay." : "trusted.overlay.";
    size_t length = strlen(prefix);
    if (!copier->commit)
        /* What overlayfs would believe is never taken over, in neither flavour, escaped or not. */
        return strncmp(key, "trusted.overlay.", 16) == 0 || strncmp(key, "user.overlay.", 13) == 0 ? NULL
                                                                                                   : key;
    if (!(copier->flags & LR_COPY_CAPS) && strcmp(key, "security.capability") == 0)
        return NULL;
    if (strncmp(key, prefix, length) != 0)
        return key;
    if (strncmp(key + length, "overlay.", 8) != 0 || strlen(key) >= 256)
        return NULL;
    stpcpy(stpcpy(room, prefix), key + length + 8);
    return room;
}

static int copy_xattrs(struct copier *copier, int from, const char *source, const char *name,
                       struct lr_error *err)
{
    struct lr_names keys = {0};
    struct lr_buf value = {0};
    int to = lr_chain_fd(&copier->made), done = 0;
    if (lr_xattr_list(from, source, &keys) < 0)
        done = fail(copier, name, "list the attributes of", err);
    for (size_t i = 0; done == 0 && i < keys.count; i++) {
        char room[256];
        const char *key = lr_names_get(&keys, i);
        const char *its = key_in_copy(copier, key, room);
        if (!its)
            continue;
        value.used = 0;
        if (lr_xattr_get(from, source, key, &value, err) < 0) {
            if (errno != ENODATA)
                done = fail(copier, name, "read the attributes of", err);
        } else if (lr_xattr_set(to, name, its, value.data, value.used) < 0) {
            if (copier->owners || strncmp(key, "user.", 5) == 0)
                done = fail(copier, name, "set the attributes of", err);
            else
                copier->copied->xattrs++;
        }
    }
    lr_names_free(&keys);
    lr_buf_free(&value);
    return done;
}

static struct timespec when(const struct statx_timestamp *time)
{
    return (struct timespec){.tv_sec = time->tv_sec, .tv_nsec = time->tv_nsec};
}

/* Everything but content. Owner before mode and attributes, since chown(2) takes setuid and
 * capabilities away; times last, since all else may change them. */
static int finish(struct copier *copier, int from, const char *source, const char *name,
                  const struct statx *st, struct lr_error *err)
{
    int to = lr_chain_fd(&copier->made);
    unsigned int mode = st->stx_mode & 07777;
    if (copier->commit && !(copier->flags & LR_COPY_SETID) && S_ISREG(st->stx_mode))
        mode &= 01777;
    if (copier->owners && fchownat(to, name, st->stx_uid, st->stx_gid, AT_SYMLINK_NOFOLLOW) < 0)
        return fail(copier, name, "set the owner of", err);
    if (!S_ISLNK(st->stx_mode) && lr_chmodat(to, name, mode) < 0)
        return fail(copier, name, "set the mode of", err);
    if (copy_xattrs(copier, from, source, name, err) < 0)
        return -1;
    struct timespec times[2] = {when(&st->stx_atime), when(&st->stx_mtime)};
    if (utimensat(to, name, times, AT_SYMLINK_NOFOLLOW) < 0)
        return fail(copier, name, "set the times of", err);
    return 0;
}

/* One run of data from `at` to `end`. 0, or -1 with errno. */
static int copy_range(int from, int to, off_t at, off_t end)
{
    static const size_t most = 1 << 30;
    bool whole = true; /* copy_file_range(2) works here */
    char *data = NULL;
    while (at < end) {
        off_t in = at, out = at;
        size_t size = (size_t)(end - at) < most ? (size_t)(end - at) : most;
        ssize_t got = whole ? copy_file_range(from, &in, to, &out, size, 0) : 0;
        if (whole && got <= 0) {
            whole = false; /* EXDEV, EINVAL, EOPNOTSUPP, or a file system that says 0 */
            data = malloc(262144);
            if (!data)
                return -1;
        }
        if (!whole) {
            got = pread(from, data, size < 262144 ? size : 262144, at);
            if (got > 0)
                got = pwrite(to, data, (size_t)got, at);
            if (got < 0 && errno != EINTR)
                break;
            if (got == 0)
                end = at; /* it became shorter meanwhile */
        }
        at += got > 0 ? got : 0;
    }
    free(data);
    return at < end ? -1 : 0;
}

static int copy_content(int from, int to, off_t size)
{
    if (size == 0 || ioctl(to, FICLONE, from) == 0)
        return 0;
    for (off_t at = 0; at < size;) {
        off_t data = lseek(from, at, SEEK_DATA);
        if (data < 0 && errno == ENXIO)
            break; /* only a hole is left */
        off_t hole = data < 0 ? size : lseek(from, data, SEEK_HOLE);
        if (data < 0)
            data = at;
        if (hole < 0 || hole > size)
            hole = size;
        if (copy_range(from, to, data, hole) < 0)
            return -1;
        at = hole;
    }
    return ftruncate(to, size);
}

static int copy_file(struct copier *copier, const struct lr_entry *entry, struct lr_error *err)
{
    struct statx st;
    int source = lr_chain_fd(&copier->walk.chain);
    LR_CLEANUP(lr_close) int from = lr_open_seen(source, entry->name, &entry->st);
    if (from < 0 || lr_statx(from, "", &st) < 0)
        return fail(copier, entry->name, "read", err);
    LR_CLEANUP(lr_close)
    int to = openat(lr_chain_fd(&copier->made), named(copier, entry->name),
                    O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (to < 0)
        return fail(copier, entry->name, "make", err);
    if (copy_content(from, to, (off_t)st.stx_size) < 0)
        return fail(copier, entry->name, "write", err);
    copier->copied->bytes += st.stx_size;
    return 0;
}

/* Link to where this inode was copied before. */
static int link_to(struct copier *copier, const char *name, const char *before, struct lr_error *err)
{
    const char *slash = strrchr(before, '/');
    LR_CLEANUP(lr_close) int folder = -1;
    int at = copier->made.levels[0].fd;
    if (slash) {
        char *path = strndup(before, (size_t)(slash - before));
        if (!path)
            return lr_fail(err, "get memory", NULL);
        at = folder = lr_beneath(at, path, O_PATH | O_DIRECTORY, 0, false);
        free(path);
        before = slash + 1;
    }
    if (at < 0 || linkat(at, before, lr_chain_fd(&copier->made), name, 0) < 0)
        return fail(copier, name, "link", err);
    return 0;
}

/* Is this a further name of a file already copied? Then link it: 1. */
static int linked(struct copier *copier, const struct lr_entry *entry, struct lr_error *err)
{
    bool device = S_ISCHR(entry->st.stx_mode) || S_ISBLK(entry->st.stx_mode);
    if (entry->st.stx_nlink < 2 || (device && !copier->devices))
        return 0; /* a device that may be left out is nothing to link to */
    const struct lr_buf *folder = &copier->made.path;
    const char *before = NULL;
    struct lr_buf path = {0};
    int done = lr_buf_add(&path, folder->data, folder->used - 1, err);
    if (done == 0 && folder->used > 1)
        done = lr_buf_add(&path, "/", 1, err);
    if (done == 0)
        done = lr_buf_add(&path, entry->name, strlen(entry->name) + 1, err);
    if (done == 0)
        done = lr_seen_add(copier->seen, &entry->st, path.data, &before, err);
    lr_buf_free(&path);
    if (done == 1)
        done = link_to(copier, entry->name, before, err) < 0 ? -1 : 1;
    return done;
}

static int copy_link(struct copier *copier, const struct lr_entry *entry, struct lr_error *err)
{
    char target[4097];
    ssize_t got = readlinkat(lr_chain_fd(&copier->walk.chain), entry->name, target, sizeof target - 1);
    if (got < 0)
        return fail(copier, entry->name, "read the link", err);
    target[got] = '\0';
    if (symlinkat(target, lr_chain_fd(&copier->made), named(copier, entry->name)) < 0)
        return fail(copier, entry->name, "make the link", err);
    return 0;
}

/* A fifo or a device. 1: left out. */
static int copy_special(struct copier *copier, const struct lr_entry *entry, struct lr_error *err)
{
    const struct statx *st = &entry->st;
    dev_t device = makedev(st->stx_rdev_major, st->stx_rdev_minor);
    mode_t mode = (st->stx_mode & S_IFMT) | 0600;
    if (mknodat(lr_chain_fd(&copier->made), named(copier, entry->name), mode, device) == 0)
        return 0;
    if (errno == EPERM && !S_ISFIFO(mode) && !copier->devices) {
        copier->copied->devices++;
        return 1;
    }
    return fail(copier, entry->name, S_ISFIFO(mode) ? "make the fifo" : "make the device node", err);
}

static int copy_folder(struct copier *copier, const struct lr_entry *entry, struct lr_error *err)
{
    if (mkdirat(lr_chain_fd(&copier->made), entry->name, 0700) < 0)
        return fail(copier, entry->name, "make the folder", err);
    copier->copied->entries++;
    int entered = lr_walk_enter(&copier->walk, entry, err);
    if (entered < 0)
        return -1;
    if (entered == 0) /* a mount point: what is mounted is not copied */
        return finish(copier, lr_chain_fd(&copier->walk.chain), entry->name, entry->name, &entry->st, err);
    entered = lr_chain_enter(&copier->made, entry->name, err);
    if (entered == 0)
        return fail(copier, entry->name, "open the new folder", err);
    return entered < 0 ? -1 : 0;
}

static int copy_entry(struct copier *copier, const struct lr_entry *entry, struct lr_error *err)
{
    mode_t type = entry->st.stx_mode & S_IFMT;
    if (type == S_IFDIR)
        return copy_folder(copier, entry, err);
    if (lr_mount_of(&entry->st) != copier->walk.chain.levels[0].mount) {
        errno = EXDEV;
        return fail(copier, entry->name, "copy what is mounted on", err);
    }
    if (type == S_IFSOCK && !copier->commit) {
        copier->copied->sockets++;
        return 0;
    }
    if (copier->commit && lr_is_whiteout(&entry->st))
        return 0;
    int done = linked(copier, entry, err);
    if (done == 0) {
        done = type == S_IFREG   ? copy_file(copier, entry, err)
               : type == S_IFLNK ? copy_link(copier, entry, err)
                                 : copy_special(copier, entry, err);
        if (done == 1)
            return 0; /* left out */
        if (done == 0)
            done = finish(copier, lr_chain_fd(&copier->walk.chain), entry->name, named(copier, entry->name),
                          &entry->st, err);
    }
    if (done >= 0)
        copier->copied->entries++;
    return done < 0 ? -1 : 0;
}

static int run(struct copier *copier, int src, struct lr_error *err)
{
    struct lr_entry entry;
    int event;
    while ((event = lr_walk_next(&copier->walk, &entry, err)) > 0) {
        if (event == LR_ENTRY) {
            if (copy_entry(copier, &entry, err) < 0)
                return -1;
            continue;
        }
        if (lr_chain_leave(&copier->made, err) < 0 ||
            finish(copier, lr_chain_fd(&copier->walk.chain), entry.name, entry.name, &entry.st, err) < 0)
            return -1;
    }
    if (event < 0)
        return -1;
    struct statx st;
    if (lr_statx(src, ".", &st) < 0)
        return lr_fail(err, "look at the folder", NULL);
    return finish(copier, copier->walk.chain.levels[0].fd, ".", ".", &st, err);
}

static int copy_tree(struct copier *copier, int src, int dst, struct lr_error *err)
{
    struct lr_copied copied = {0};
    if (!copier->copied)
        copier->copied = &copied;
    copier->seen = lr_seen_new();
    int done = copier->seen ? 0 : lr_fail(err, "get memory", NULL);
    if (done == 0)
        done = lr_chain_open(&copier->made, dst, LR_KEEP, false, err);
    if (done == 0)
        done = lr_walk_open(&copier->walk, src, false, err);
    if (done == 0)
        done = run(copier, src, err);
    lr_walk_close(&copier->walk);
    lr_chain_close(&copier->made);
    lr_seen_free(copier->seen);
    return done;
}

int lr_copy(int src, int dst, int owners, int devices, struct lr_copied *copied, struct lr_error *err)
{
    *copied = (struct lr_copied){0};
    struct copier copier = {.copied = copied, .owners = owners, .devices = devices};
    return copy_tree(&copier, src, dst, err);
}

/* Anything but a folder. */
static int copy_single(struct copier *copier, int src, const char *name, int dst, struct lr_error *err)
{
    struct lr_copied copied = {0};
    struct lr_entry entry = {.name = name};
    copier->copied = &copied;
    copier->seen = lr_seen_new();
    int done = copier->seen ? 0 : lr_fail(err, "get memory", NULL);
    if (done == 0)
        done = lr_chain_open(&copier->made, dst, LR_KEEP, false, err);
    if (done == 0)
        done = lr_chain_open(&copier->walk.chain, src, LR_KEEP, false, err);
    if (done == 0 && lr_statx(src, name, &entry.st) < 0)
        done = lr_fail(err, "look at", name);
    if (done == 0)
        done = copy_entry(copier, &entry, err);
    lr_walk_close(&copier->walk);
    lr_chain_close(&copier->made);
    lr_seen_free(copier->seen);
    return done;
}

int lr_copy_entry(int src, const char *name, int dst, const char *as, int flags, struct lr_error *err)
{
    struct copier copier = {
        .owners = flags & LR_COPY_OWNERS, .devices = true, .commit = true, .flags = flags, .as = as};
    LR_CLEANUP(lr_close) int from = openat(src, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (from < 0 && (errno == ENOTDIR || errno == ELOOP))
        return copy_single(&copier, src, name, dst, err);
    if (from < 0)
        return lr_fail(err, "open", name);
    copier.as = NULL;
    if (mkdirat(dst, as, 0700) < 0)
        return lr_fail(err, "make the folder", as);
    LR_CLEANUP(lr_close) int to = openat(dst, as, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return to < 0 ? lr_fail(err, "open", as) : copy_tree(&copier, from, to, err);
}

int lr_refill(int from, int to, struct lr_error *err)
{
    struct statx st;
    if (lr_statx(from, "", &st) < 0 || ftruncate(to, 0) < 0 || copy_content(from, to, (off_t)st.stx_size) < 0)
        return lr_fail(err, "write", "");
    return 0;
}
