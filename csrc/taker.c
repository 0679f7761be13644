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

#define ABSENT 65536
/* Bytes of names that are held until the end: a stream that packs well could fill all memory with them. */
#define NAMES (256U << 20)

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
    for (size_t i = 0; i < taker->absent_count; i++)
        free(taker->absent[i].path);
    free(taker->absent);
    for (size_t i = 0; i < taker->groups_count; i++)
        free(taker->groups[i].path);
    free(taker->groups);
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

static int fail(const struct lr_taker *taker, const char *step, const char *name, struct lr_error *err)
{
    return lr_chain_fail(&taker->chain, name, step, err);
}

static int make_folder(struct lr_taker *taker, const char *name, struct lr_error *err)
{
    int at = lr_chain_fd(&taker->chain);
    if (mkdirat(at, name, 0755) < 0)
        return fail(taker, "make the folder", name, err);
    if (lr_chmodat(at, name, 0755) < 0)
        return fail(taker, "set the mode of", name, err);
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
            return fail(taker, "remove", name, err);
    }
    if (make_folder(taker, name, err) < 0)
        return -1;
    done = lr_chain_enter(&taker->chain, name, err);
    return done == 1 ? 0 : done < 0 ? -1 : fail(taker, "open the new folder", name, err);
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

/* What is at a name has to go, for something that is no folder. */
static int clear(struct lr_taker *taker, const char *name, const char *path, struct lr_error *err)
{
    int at = lr_chain_fd(&taker->chain);
    if (unlinkat(at, name, 0) == 0)
        return 0;
    if (errno != EISDIR)
        return fail(taker, "remove", name, err);
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
            return fail(taker, "set the attributes of", name, err);
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
            return fail(taker, "set the owner of", name, err);
        owner = true;
    }
    if (!link && ((st->stx_mode & 07777U) != head->mode || owner) && lr_chmodat(at, name, head->mode) < 0)
        return fail(taker, "set the mode of", name, err);
    if (set_attributes(taker, item, name, err) < 0)
        return -1;
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {head->mtime, head->mtime_ns}};
    if (!S_ISDIR(st->stx_mode) && utimensat(at, name, times, AT_SYMLINK_NOFOLLOW) < 0)
        return fail(taker, "set the times of", name, err);
    return 0;
}

/* What the manifest has to know of an entry. */
static int remember(struct lr_taker *taker, const struct lr_item *item, uint64_t ino, struct lr_error *err)
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

static int finish(struct lr_taker *taker, const struct lr_item *item, const char *name, struct lr_error *err)
{
    struct statx st;
    if (lr_statx(lr_chain_fd(&taker->chain), name, &st) < 0)
        return fail(taker, "look at", name, err);
    if (dress(taker, item, name, &st, err) < 0)
        return -1;
    return remember(taker, item, st.stx_ino, err);
}

static int write_all(int fd, const char *data, size_t size)
{
    while (size) {
        ssize_t put = write(fd, data, size);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return -1;
        data += put;
        size -= (size_t)put;
    }
    return 0;
}

/* A file that no object is there for, under its name in the tree. 1: something is there. */
static int make_file(struct lr_taker *taker, struct lr_item *item, const char *name, struct lr_error *err)
{
    int at = lr_chain_fd(&taker->chain);
    if (*item->temporary) {
        if (renameat2(taker->options->fresh, item->temporary, at, name, RENAME_NOREPLACE) < 0)
            return errno == EEXIST ? 1 : fail(taker, "rename", name, err);
        *item->temporary = '\0';
        return 0;
    }
    LR_CLEANUP(lr_close)
    int fd = openat(at, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                    (item->head.mode & 0777U) | 0600U);
    if (fd < 0)
        return errno == EEXIST ? 1 : fail(taker, "make", name, err);
    if (write_all(fd, item->data, (size_t)item->head.size) < 0)
        return fail(taker, "write", name, err);
    return 0;
}

/* Is it what it should be, as far as that shows? Somebody may have written to an object. */
static bool is_whole(const struct lr_taker *taker, const struct lr_item *item, const struct statx *st)
{
    const struct lr_record *head = &item->head;
    return S_ISREG(st->stx_mode) && st->stx_size == head->size && (st->stx_mode & 07777U) == head->mode &&
           st->stx_mtime.tv_sec == head->mtime && st->stx_mtime.tv_nsec == head->mtime_ns &&
           (!taker->options->owners || (st->stx_uid == head->uid && st->stx_gid == head->gid));
}

/* A name in the tree for an object that is there. 1: done; 0: there is none, or none that is whole. */
static int use_object(struct lr_taker *taker, struct lr_item *item, const char *name, struct lr_error *err)
{
    struct statx st;
    int at = lr_chain_fd(&taker->chain), done = lr_object_link(taker, item, name, err);
    if (done == 0 && errno == EEXIST) {
        if (clear(taker, name, item->path, err) < 0)
            return -1;
        done = lr_object_link(taker, item, name, err);
    }
    if (done != 1)
        return done;
    if (lr_statx(at, name, &st) < 0)
        return fail(taker, "look at", name, err);
    if (!is_whole(taker, item, &st)) {
        if (unlinkat(at, name, 0) < 0)
            return fail(taker, "remove", name, err);
        /* Without the content there is nothing to put in its place. */
        return item->head.kind == LR_RECORD_KNOWN ? 0 : lr_object_drop(taker, item, err);
    }
    return remember(taker, item, st.stx_ino, err) < 0 ? -1 : 1;
}

/* A file whose content is at hand, or the store's. */
static int take_file(struct lr_taker *taker, struct lr_item *item, const char *name, struct lr_error *err)
{
    int done = use_object(taker, item, name, err);
    if (done < 0)
        return -1;
    if (done == 1) {
        taker->known++;
        if (*item->temporary && unlinkat(taker->options->fresh, item->temporary, 0) < 0)
            return lr_fail(err, "remove", item->temporary);
        *item->temporary = '\0';
        return 0;
    }
    if (item->head.kind == LR_RECORD_KNOWN)
        return lr_fail_code(err, ENODATA, "find the object of", item->path);
    done = make_file(taker, item, name, err);
    if (done == 1)
        done = clear(taker, name, item->path, err) < 0 ? -1 : make_file(taker, item, name, err);
    if (done == 1)
        return fail(taker, "make", name, err);
    if (done < 0 || finish(taker, item, name, err) < 0)
        return -1;
    taker->fresh++;
    taker->fresh_size += item->head.size;
    return lr_object_make(taker, item, name, err);
}

static int take_folder(struct lr_taker *taker, struct lr_item *item, const char *name, struct lr_error *err)
{
    struct statx st;
    int at = lr_chain_fd(&taker->chain);
    if (!*item->path)
        return lr_taker_bare(taker, ".", err) < 0 ? -1 : finish(taker, item, ".", err);
    if (mkdirat(at, name, 0755) == 0)
        return finish(taker, item, name, err);
    if (errno != EEXIST || lr_statx(at, name, &st) < 0)
        return fail(taker, "make the folder", name, err);
    if (S_ISDIR(st.stx_mode))
        return lr_taker_bare(taker, name, err) < 0 ? -1 : finish(taker, item, name, err);
    int earlier = lr_taker_is_earlier(taker, name, err);
    if (earlier < 1)
        return earlier < 0 ? -1
                           : lr_taker_refuse("would take the place of what is no folder", item->path, err);
    if (unlinkat(at, name, 0) < 0 || mkdirat(at, name, 0755) < 0)
        return fail(taker, "make the folder", name, err);
    return finish(taker, item, name, err);
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
            return fail(taker, "make", name, err);
        if (clear(taker, name, item->path, err) < 0)
            return -1;
        if (make_other(taker, item, name) < 0)
            return fail(taker, "make", name, err);
    }
    return finish(taker, item, name, err);
}

/* Room for names that stay; NULL: too many. */
static char *keep_names(struct lr_taker *taker, const struct lr_item *item, size_t size, struct lr_error *err)
{
    taker->kept += size;
    if (taker->options->strict && taker->kept > NAMES) {
        lr_taker_refuse("is one of too many long names", item->path, err);
        return NULL;
    }
    char *text = malloc(size);
    if (!text)
        lr_fail(err, "get memory", NULL);
    return text;
}

/* A device node that is not made. */
static int take_absent(struct lr_taker *taker, struct lr_item *item, const char *name, struct lr_error *err)
{
    struct statx st;
    if (item->head.major == 0 && item->head.minor == 0)
        return lr_taker_refuse("is a device node", item->path, err);
    if (lr_statx(lr_chain_fd(&taker->chain), name, &st) == 0 && clear(taker, name, item->path, err) < 0)
        return -1;
    if (taker->absent_count == ABSENT)
        return lr_taker_refuse("is one device node too many", item->path, err);
    if (taker->absent_count == taker->absent_size) {
        size_t size = taker->absent_size ? taker->absent_size * 2 : 16;
        struct lr_absent *all = realloc(taker->absent, size * sizeof *all);
        if (!all)
            return lr_fail(err, "get memory", NULL);
        taker->absent = all;
        taker->absent_size = size;
    }
    char *path = keep_names(taker, item, item->head.path + 1, err);
    if (!path)
        return -1;
    memcpy(path, item->path, item->head.path + 1);
    taker->absent[taker->absent_count] =
        (struct lr_absent){item->head, path, taker->absent_count, taker->layer};
    taker->absent_count++;
    return 0;
}

static int note_group(struct lr_taker *taker, const struct lr_item *item, struct lr_error *err)
{
    if (taker->groups_count == taker->groups_size) {
        size_t size = taker->groups_size ? taker->groups_size * 2 : 16;
        struct lr_group *all = realloc(taker->groups, size * sizeof *all);
        if (!all)
            return lr_fail(err, "get memory", NULL);
        taker->groups = all;
        taker->groups_size = size;
    }
    size_t path = item->head.path + 1, link = item->head.link + 1;
    char *text = keep_names(taker, item, path + link, err);
    if (!text)
        return -1;
    memcpy(text, item->path, path);
    memcpy(text + path, item->link, link);
    taker->groups[taker->groups_count++] = (struct lr_group){.path = text, .first = text + path};
    return 0;
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
            return fail(taker, "link", name, err);
        if (strcmp(item->link, item->path) == 0)
            return lr_taker_refuse("is a hard link to itself", item->path, err);
        if (clear(taker, name, item->path, err) < 0)
            return -1;
        if (linkat(from, last, at, name, 0) < 0)
            return fail(taker, "link", name, err);
    }
    return note_group(taker, item, err);
}

static int take_kind(struct lr_taker *taker, struct lr_item *item, const char *name, struct lr_error *err)
{
    switch (item->head.kind) {
    case LR_RECORD_FOLDER:
        return take_folder(taker, item, name, err);
    case LR_RECORD_FILE:
    case LR_RECORD_KNOWN:
        return take_file(taker, item, name, err);
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
