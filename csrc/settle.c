/* settle.c: see settle.h. */
#include "settle.h"

#include "walk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define SETID 1
#define CAPS 2

static int64_t ns(const struct statx_timestamp *time)
{
    return time->tv_sec * 1000000000LL + time->tv_nsec;
}

int lr_look(int dirfd, const char *name, struct lr_looked *looked, struct lr_error *err)
{
    struct statx st;
    int flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | (*name ? 0 : AT_EMPTY_PATH);
    if (statx(dirfd, name, flags, STATX_BASIC_STATS | STATX_MNT_ID | STATX_BTIME, &st) < 0)
        return errno == ENOENT || errno == ENOTDIR ? 0 : lr_fail(err, "look at", name);
    *looked = (struct lr_looked){
        .ino = st.stx_ino,
        .dev = makedev(st.stx_dev_major, st.stx_dev_minor),
        .rdev = makedev(st.stx_rdev_major, st.stx_rdev_minor),
        .mount = lr_mount_of(&st),
        .size = st.stx_size,
        .mtime = ns(&st.stx_mtime),
        .ctime = ns(&st.stx_ctime),
        .btime = st.stx_mask & STATX_BTIME ? ns(&st.stx_btime) : 0,
        .mode = st.stx_mode,
        .uid = st.stx_uid,
        .gid = st.stx_gid,
        .nlink = st.stx_nlink,
    };
    return 1;
}

/* A scan under way: its two runs of records, and what to look for. */
struct scan {
    struct lr_buf marks, names, path, value;
    bool userxattr;
    int drop;
    int64_t since;
    size_t most, count;
};

static void scan_free(struct scan *scan)
{
    lr_buf_free(&scan->marks);
    lr_buf_free(&scan->names);
    lr_buf_free(&scan->path);
    lr_buf_free(&scan->value);
}

void lr_found_free(struct lr_found *found)
{
    free(found->marks);
    free(found->names);
    *found = (struct lr_found){0};
}

/* The path of an entry, relative to what is scanned, into scan->path; NUL-terminated. */
static int set_path(struct scan *scan, const struct lr_chain *chain, const char *name, struct lr_error *err)
{
    scan->path.used = 0;
    size_t length = chain ? chain->path.used - 1 : 0;
    if ((length && (lr_buf_add(&scan->path, chain->path.data, length, err) < 0 ||
                    lr_buf_add(&scan->path, "/", 1, err) < 0)))
        return -1;
    return lr_buf_add(&scan->path, name, strlen(name) + 1, err);
}

static int add_mark(struct scan *scan, char kind, const char *key, const void *value, size_t size,
                    struct lr_error *err)
{
    uint32_t lengths[3] = {(uint32_t)scan->path.used - 1, (uint32_t)strlen(key), (uint32_t)size};
    struct lr_buf *to = &scan->marks;
    return lr_buf_add(to, &kind, 1, err) < 0 || lr_buf_add(to, lengths, sizeof lengths, err) < 0 ||
                   lr_buf_add(to, scan->path.data, lengths[0], err) < 0 ||
                   lr_buf_add(to, key, lengths[1], err) < 0 || lr_buf_add(to, value, size, err) < 0
               ? -1
               : 0;
}

static int add_name(struct scan *scan, const struct statx *st, uint64_t number, struct lr_error *err)
{
    unsigned char type = (unsigned char)IFTODT(st->stx_mode);
    uint32_t length = (uint32_t)scan->path.used - 1;
    struct lr_buf *to = &scan->names;
    scan->count++;
    return lr_buf_add(to, &type, 1, err) < 0 || lr_buf_add(to, &number, sizeof number, err) < 0 ||
                   lr_buf_add(to, &length, sizeof length, err) < 0 ||
                   lr_buf_add(to, scan->path.data, length, err) < 0
               ? -1
               : 0;
}

static bool is_marked(const struct scan *scan, const char *key)
{
    const char *prefix = scan->userxattr ? "user.overlay." : "trusted.overlay.";
    return strncmp(key, prefix, strlen(prefix)) == 0 ||
           (scan->drop & CAPS && strcmp(key, "security.capability") == 0);
}

static int scan_entry(struct scan *scan, int dirfd, const char *name, const struct statx *st,
                      struct lr_error *err)
{
    struct lr_names keys = {0};
    if (lr_is_whiteout(st))
        return add_mark(scan, 'w', "", "", 0, err);
    uint32_t mode = st->stx_mode;
    if (scan->drop & SETID && S_ISREG(mode) && mode & (S_ISUID | S_ISGID) &&
        add_mark(scan, 'm', "", &mode, sizeof mode, err) < 0)
        return -1;
    int done =
        lr_xattr_list(dirfd, name, &keys) < 0 ? lr_fail(err, "list the attributes of", scan->path.data) : 0;
    bool kept = mode & S_IWUSR || S_ISLNK(mode);
    uint64_t shared[2] = {st->stx_ino, st->stx_nlink};
    if (done == 0 && !S_ISDIR(mode) && st->stx_nlink > 1)
        done = add_mark(scan, 'h', "", shared, sizeof shared, err);
    for (size_t i = 0; done == 0 && i < keys.count; i++) {
        const char *key = lr_names_get(&keys, i);
        if (!is_marked(scan, key))
            continue;
        if (!kept && add_mark(scan, 'k', "", &mode, sizeof mode, err) < 0)
            done = -1;
        kept = true;
        if (done < 0)
            break;
        scan->value.used = 0;
        done = lr_xattr_get(dirfd, name, key, &scan->value, err) < 0
                   ? lr_fail(err, "read the attributes of", scan->path.data)
                   : add_mark(scan, 'x', key, scan->value.data, scan->value.used, err);
    }
    lr_names_free(&keys);
    return done < 0 ? -1 : add_name(scan, st, S_ISREG(mode) ? st->stx_size : 0, err);
}

static int newer_entry(struct scan *scan, int dirfd, const char *name, const struct statx *st,
                       struct lr_error *err)
{
    (void)dirfd;
    (void)name;
    int64_t changed = ns(&st->stx_ctime);
    if (changed <= scan->since || scan->count >= scan->most)
        return 0;
    return add_name(scan, st, (uint64_t)changed, err);
}

typedef int (*each)(struct scan *, int, const char *, const struct statx *, struct lr_error *);

static int walk_folder(struct scan *scan, int folder, each visit, struct lr_error *err)
{
    struct lr_walk walk;
    struct lr_entry entry;
    int event = lr_walk_open(&walk, folder, true, err) < 0 ? -1 : 1;
    while (event > 0 && (event = lr_walk_next(&walk, &entry, err)) > 0) {
        if (event != LR_ENTRY)
            continue;
        if (set_path(scan, &walk.chain, entry.name, err) < 0 ||
            visit(scan, lr_chain_fd(&walk.chain), entry.name, &entry.st, err) < 0) {
            event = -1;
        } else if (S_ISDIR(entry.st.stx_mode)) {
            int entered = lr_walk_enter(&walk, &entry, err);
            if (entered == 0 && errno == EXDEV)
                entered = add_name(scan, &entry.st, UINT64_MAX >> 1, err); /* a mount point */
            if (entered < 0)
                event = -1;
        }
    }
    lr_walk_close(&walk);
    return event;
}

static int walk_all(struct scan *scan, int dirfd, const char *name, each visit, struct lr_error *err)
{
    struct statx st;
    if (lr_statx(dirfd, name, &st) < 0)
        return lr_fail(err, "look at", name);
    if (set_path(scan, NULL, "", err) < 0 || visit(scan, dirfd, name, &st, err) < 0)
        return -1;
    if (!S_ISDIR(st.stx_mode))
        return 0;
    LR_CLEANUP(lr_close)
    int folder = openat(dirfd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return folder < 0 ? lr_fail(err, "open", name) : walk_folder(scan, folder, visit, err);
}

static int give(struct scan *scan, int done, struct lr_found *found)
{
    *found = (struct lr_found){0};
    if (done == 0) {
        *found = (struct lr_found){scan->marks.data, scan->marks.used, scan->names.data, scan->names.used,
                                   scan->count};
        scan->marks = scan->names = (struct lr_buf){0};
    }
    scan_free(scan);
    return done;
}

int lr_scan(int dirfd, const char *name, int userxattr, int drop, struct lr_found *found,
            struct lr_error *err)
{
    struct scan scan = {.userxattr = userxattr, .drop = drop};
    return give(&scan, walk_all(&scan, dirfd, name, scan_entry, err), found);
}

int lr_newer(int dirfd, const char *name, int64_t since, size_t most, struct lr_found *found,
             struct lr_error *err)
{
    struct scan scan = {.since = since, .most = most};
    return give(&scan, walk_all(&scan, dirfd, name, newer_entry, err), found);
}
