/* taker.c: the tree that a stream becomes, name by name beneath a descriptor and through no link; see taking.h. */
#include "taking.h"

#include "tree.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int lr_taker_refuse(const char *why, const char *path, struct lr_error *err)
{
    return lr_fail_code(err, EBADMSG, why, path);
}

int lr_taker_open(struct lr_taker *taker, const struct lr_intake_options *options, struct lr_error *err)
{
    *taker = (struct lr_taker){.options = options, .uid = geteuid(), .gid = getegid()};
    return lr_objects_look(taker, err) < 0 ? -1
                                           : lr_chain_open(&taker->chain, options->tree, LR_KEEP, false, err);
}

void lr_taker_close(struct lr_taker *taker)
{
    lr_chain_close(&taker->chain);
    free(taker->inodes.all);
    lr_kept_free(taker);
    lr_set_free(&taker->made);
    lr_buf_free(&taker->real[0]);
    lr_buf_free(&taker->real[1]);
    lr_set_free(&taker->added);
}

/* Note a path of this layer, and the folders around it, so that its own whiteouts leave them alone. */
static int note(struct lr_taker *taker, const char *path, struct lr_error *err)
{
    struct lr_set *made = &taker->made;
    if (taker->layer < 2)
        return 0;
    size_t length = strlen(path);
    int done = lr_set_add(made, path, length, err);
    while (done == 0 && length > 0) {
        const char *slash = memrchr(path, '/', length);
        length = slash ? (size_t)(slash - path) : 0;
        if (lr_set_has(made, path, length))
            break;
        done = lr_set_add(made, path, length, err);
    }
    return done;
}

int lr_taker_fail(const struct lr_taker *taker, const char *step, const char *name, struct lr_error *err)
{
    return lr_chain_fail(&taker->chain, name, step, err);
}

static int make_folder(struct lr_taker *taker, const char *name, struct lr_error *err)
{
    int at = lr_chain_fd(&taker->chain);
    if (mkdirat(at, name, 0755) < 0)
        return lr_taker_fail(taker, "make the folder", name, err);
    if (lr_chmodat(at, name, 0755) < 0)
        return lr_taker_fail(taker, "set the mode of", name, err);
    return 0;
}

/* Go into a folder, which is made if it is not there. 0; 1: it lies behind a link; -1. */
static int enter(struct lr_taker *taker, const char *name, const char *path, struct lr_error *err)
{
    struct statx st;
    int done = lr_chain_enter(&taker->chain, name, err);
    if (done != 0)
        return done < 0 ? -1 : 0;
    if (lr_statx(lr_chain_fd(&taker->chain), name, &st) == 0) {
        int earlier = lr_taker_is_earlier(taker, name, err);
        if (earlier == 0)
            return lr_taker_refuse("lies behind a link, or behind what is no folder", path, err);
        if (earlier < 0)
            return -1;
        if (S_ISLNK(st.stx_mode))
            return lr_taker_follow(taker, name, path, err) < 0 ? -1 : 1;
        if (unlinkat(lr_chain_fd(&taker->chain), name, 0) < 0)
            return lr_taker_fail(taker, "remove", name, err);
    }
    if (make_folder(taker, name, err) < 0)
        return -1;
    done = lr_chain_enter(&taker->chain, name, err);
    return done == 1 ? 0 : done < 0 ? -1 : lr_taker_fail(taker, "open the new folder", name, err);
}

int lr_taker_go_to(struct lr_taker *taker, const char *path, size_t length, struct lr_error *err)
{
    struct lr_chain *chain = &taker->chain;
    for (;;) {
        size_t here = chain->path.used - 1;
        if (here <= length && memcmp(chain->path.data, path, here) == 0 &&
            (here == 0 || here == length || path[here] == '/'))
            break;
        if (lr_chain_leave(chain, err) < 0)
            return -1;
    }
    size_t here = chain->path.used - 1;
    int moved = 0;
    while (here < length) {
        char name[256];
        const char *at = path + here + (here > 0), *end = memchr(at, '/', (size_t)(path + length - at));
        size_t size = (size_t)((end ? end : path + length) - at);
        memcpy(name, at, size);
        name[size] = '\0';
        int done = enter(taker, name, path, err);
        if (done < 0)
            return -1;
        moved |= done;
        here = (size_t)(at + size - path);
    }
    return moved;
}

static const char *last_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Go to the folder around an item's path, which becomes its real one; its last name, NULL: an error. */
static const char *go_around(struct lr_taker *taker, struct lr_item *item, struct lr_error *err)
{
    const char *name = last_name(item->path);
    size_t folder = name == item->path ? 0 : (size_t)(name - item->path - 1);
    int moved = lr_taker_go_to(taker, item->path, folder, err);
    if (moved < 0 || (moved && lr_taker_moved(taker, item, name, err) < 0))
        return NULL;
    return last_name(item->path);
}

int lr_taker_clear(struct lr_taker *taker, const char *name, const char *path, struct lr_error *err)
{
    int at = lr_chain_fd(&taker->chain);
    if (unlinkat(at, name, 0) == 0)
        return 0;
    if (errno != EISDIR)
        return lr_taker_fail(taker, "remove", name, err);
    int earlier = lr_taker_is_earlier(taker, name, err);
    if (earlier < 1)
        return earlier < 0 ? -1 : lr_taker_refuse("would take the place of a folder", path, err);
    lr_taker_forget(taker, path, true);
    return lr_remove(at, name, err);
}

static int set_attributes(const struct lr_taker *taker, const struct lr_item *item, const char *name,
                          struct lr_error *err)
{
    for (size_t i = 0; i < item->attributes_count; i++) {
        const struct lr_attribute *one = &item->attributes[i];
        if (lr_xattr_set(lr_chain_fd(&taker->chain), name, one->key, one->value, one->size) == 0)
            continue;
        /* Who may not set owners may not set all attributes either; those of users all the same. */
        if (taker->options->owners || strncmp(one->key, "user.", 5) == 0)
            return lr_taker_fail(taker, "set the attributes of", name, err);
    }
    return 0;
}

/* Everything but content; times last, and owners before modes and attributes: chown(2) takes setuid bits and capabilities
 * away. */
static int dress(struct lr_taker *taker, const struct lr_item *item, const char *name, const struct statx *st,
                 struct lr_error *err)
{
    const struct lr_record *head = &item->head;
    int at = lr_chain_fd(&taker->chain);
    bool link = S_ISLNK(st->stx_mode), owner = false;
    if (taker->options->owners && (st->stx_uid != head->uid || st->stx_gid != head->gid)) {
        if (fchownat(at, name, head->uid, head->gid, AT_SYMLINK_NOFOLLOW) < 0)
            return lr_taker_fail(taker, "set the owner of", name, err);
        owner = true;
    }
    if (!link && ((st->stx_mode & 07777U) != head->mode || owner) && lr_chmodat(at, name, head->mode) < 0)
        return lr_taker_fail(taker, "set the mode of", name, err);
    if (set_attributes(taker, item, name, err) < 0)
        return -1;
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {head->mtime, head->mtime_ns}};
    if (!S_ISDIR(st->stx_mode) && utimensat(at, name, times, AT_SYMLINK_NOFOLLOW) < 0)
        return lr_taker_fail(taker, "set the times of", name, err);
    return 0;
}

int lr_taker_remember(struct lr_taker *taker, const struct lr_item *item, uint64_t ino, struct lr_error *err)
{
    const struct lr_record *head = &item->head;
    bool file = head->kind == LR_RECORD_FILE || head->kind == LR_RECORD_KNOWN;
    bool folder = head->kind == LR_RECORD_FOLDER;
    if (!file && !folder && taker->options->owners && item->attributes_count == 0)
        return 0;
    struct lr_inode *inode = lr_inodes_add(&taker->inodes, ino, err);
    if (!inode)
        return -1;
    inode->uid = head->uid;
    inode->gid = head->gid;
    inode->flags = (item->attributes_count ? LR_INODE_XATTRS : 0) | (folder ? LR_INODE_TIMES : 0);
    if (file)
        memcpy(inode->digest, item->digest, LR_SHA_SIZE);
    if (folder) {
        inode->folder.mtime = head->mtime;
        inode->folder.mtime_ns = head->mtime_ns;
    }
    return 0;
}

int lr_taker_finish(struct lr_taker *taker, const struct lr_item *item, const char *name,
                    struct lr_error *err)
{
    struct statx st;
    if (lr_statx(lr_chain_fd(&taker->chain), name, &st) < 0)
        return lr_taker_fail(taker, "look at", name, err);
    if (dress(taker, item, name, &st, err) < 0)
        return -1;
    return lr_taker_remember(taker, item, st.stx_ino, err);
}

static int take_folder(struct lr_taker *taker, struct lr_item *item, const char *name, struct lr_error *err)
{
    struct statx st;
    int at = lr_chain_fd(&taker->chain);
    if (!*item->path)
        return lr_taker_bare(taker, ".", err) < 0 ? -1 : lr_taker_finish(taker, item, ".", err);
    if (mkdirat(at, name, 0755) == 0)
        return lr_taker_finish(taker, item, name, err);
    if (errno != EEXIST || lr_statx(at, name, &st) < 0)
        return lr_taker_fail(taker, "make the folder", name, err);
    if (S_ISDIR(st.stx_mode))
        return lr_taker_bare(taker, name, err) < 0 ? -1 : lr_taker_finish(taker, item, name, err);
    int earlier = lr_taker_is_earlier(taker, name, err);
    if (earlier < 1)
        return earlier < 0 ? -1
                           : lr_taker_refuse("would take the place of what is no folder", item->path, err);
    if (unlinkat(at, name, 0) < 0 || mkdirat(at, name, 0755) < 0)
        return lr_taker_fail(taker, "make the folder", name, err);
    return lr_taker_finish(taker, item, name, err);
}

/* Make an entry that is neither file nor folder; errno is EEXIST if something is there. */
static int make_other(const struct lr_taker *taker, const struct lr_item *item, const char *name)
{
    const struct lr_record *head = &item->head;
    int at = lr_chain_fd(&taker->chain);
    if (head->kind == LR_RECORD_LINK)
        return symlinkat(item->link, at, name);
    mode_t type = head->kind == LR_RECORD_FIFO ? S_IFIFO : head->kind == LR_RECORD_CHAR ? S_IFCHR : S_IFBLK;
    return mknodat(at, name, type | 0600, type == S_IFIFO ? 0 : makedev(head->major, head->minor));
}

static int take_other(struct lr_taker *taker, struct lr_item *item, const char *name, struct lr_error *err)
{
    if (make_other(taker, item, name) < 0) {
        if (errno != EEXIST)
            return lr_taker_fail(taker, "make", name, err);
        if (lr_taker_clear(taker, name, item->path, err) < 0)
            return -1;
        if (make_other(taker, item, name) < 0)
            return lr_taker_fail(taker, "make", name, err);
    }
    return lr_taker_finish(taker, item, name, err);
}

/* A device node that is not made. */
static int take_absent(struct lr_taker *taker, struct lr_item *item, const char *name, struct lr_error *err)
{
    struct statx st;
    if (item->head.major == 0 && item->head.minor == 0)
        return lr_taker_refuse("is a device node", item->path, err);
    if (lr_statx(lr_chain_fd(&taker->chain), name, &st) == 0 &&
        lr_taker_clear(taker, name, item->path, err) < 0)
        return -1;
    return lr_kept_absent(taker, item, err);
}

/* Open the folder around what a hard link shares; where that lies behind links its real path becomes the item's. */
static int open_target(struct lr_taker *taker, struct lr_item *item, struct lr_error *err)
{
    const char *last = last_name(item->link);
    size_t length = last == item->link ? 0 : (size_t)(last - item->link - 1);
    int root = taker->chain.levels[0].fd, done = 1;
    char *folder = strndup(item->link, length);
    if (!folder)
        return lr_fail(err, "get memory", NULL);
    int from = lr_beneath(root, folder, O_PATH | O_DIRECTORY, 0, false);
    free(folder);
    if (from < 0 && taker->layer > 1) {
        const char *around = last_name(item->path);
        done = lr_taker_find(taker, item->link, length, err);
        if (done == 0 && (done = lr_taker_moved_link(taker, item, last, err)) == 0)
            from = openat(lr_chain_fd(&taker->chain), ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (done >= 0 &&
            lr_taker_go_to(taker, item->path, around == item->path ? 0 : (size_t)(around - item->path - 1),
                           err) < 0)
            done = -1;
    }
    if (from < 0 && done >= 0)
        return lr_taker_refuse("is a hard link to what is not there, or behind a link", item->path, err);
    if (done < 0)
        lr_close(&from);
    return from;
}

/* A further name of what the stream has brought before. */
static int take_hard(struct lr_taker *taker, struct lr_item *item, const char *name, struct lr_error *err)
{
    struct statx st;
    LR_CLEANUP(lr_close) int from = open_target(taker, item, err);
    if (from < 0)
        return -1;
    const char *last = last_name(item->link);
    if (lr_statx(from, last, &st) < 0)
        return lr_taker_refuse("is a hard link to what is not there", item->path, err);
    if (S_ISDIR(st.stx_mode) || (taker->options->strict && !S_ISREG(st.stx_mode)))
        return lr_taker_refuse("is a hard link to what is no file", item->path, err);
    int at = lr_chain_fd(&taker->chain);
    if (linkat(from, last, at, name, 0) < 0) {
        if (errno != EEXIST)
            return lr_taker_fail(taker, "link", name, err);
        if (strcmp(item->link, item->path) == 0)
            return lr_taker_refuse("is a hard link to itself", item->path, err);
        if (lr_taker_clear(taker, name, item->path, err) < 0)
            return -1;
        if (linkat(from, last, at, name, 0) < 0)
            return lr_taker_fail(taker, "link", name, err);
    }
    return lr_kept_group(taker, item, err);
}

static int take_kind(struct lr_taker *taker, struct lr_item *item, const char *name, struct lr_error *err)
{
    switch (item->head.kind) {
    case LR_RECORD_FOLDER:
        return take_folder(taker, item, name, err);
    case LR_RECORD_FILE:
    case LR_RECORD_KNOWN:
        return lr_taker_file(taker, item, name, err);
    case LR_RECORD_HARD:
        return take_hard(taker, item, name, err);
    case LR_RECORD_CHAR:
    case LR_RECORD_BLOCK:
        if (!taker->options->devices)
            return take_absent(taker, item, name, err);
        /* fall through */
    default:
        return take_other(taker, item, name, err);
    }
}

static int take_entry(struct lr_taker *taker, struct lr_item *item, struct lr_error *err)
{
    const char *name = ".";
    if (*item->path)
        name = go_around(taker, item, err);
    else if (lr_taker_go_to(taker, "", 0, err) < 0)
        return -1;
    if (!name || take_kind(taker, item, name, err) < 0)
        return -1;
    return note(taker, item->path, err);
}

int lr_taker_take(struct lr_taker *taker, struct lr_item *item, struct lr_error *err)
{
    switch (item->head.kind) {
    case LR_RECORD_LAYER:
        taker->layer++;
        lr_set_free(&taker->made);
        return 0;
    case LR_RECORD_WHITEOUT:
    case LR_RECORD_OPAQUE:
        return lr_taker_mark(taker, item, err);
    default:
        return take_entry(taker, item, err);
    }
}
