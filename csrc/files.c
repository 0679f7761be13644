/* files.c: the files of a tree that is taken in: names of objects that are there, or new ones; see taking.h. */
#include "taking.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

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
            return errno == EEXIST ? 1 : lr_taker_fail(taker, "rename", name, err);
        *item->temporary = '\0';
        return 0;
    }
    LR_CLEANUP(lr_close)
    int fd = openat(at, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                    (item->head.mode & 0777U) | 0600U);
    if (fd < 0)
        return errno == EEXIST ? 1 : lr_taker_fail(taker, "make", name, err);
    if (write_all(fd, item->data, (size_t)item->head.size) < 0)
        return lr_taker_fail(taker, "write", name, err);
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
        if (lr_taker_clear(taker, name, item->path, err) < 0)
            return -1;
        done = lr_object_link(taker, item, name, err);
    }
    if (done != 1)
        return done;
    if (lr_statx(at, name, &st) < 0)
        return lr_taker_fail(taker, "look at", name, err);
    if (!is_whole(taker, item, &st)) {
        if (unlinkat(at, name, 0) < 0)
            return lr_taker_fail(taker, "remove", name, err);
        /* Without the content there is nothing to put in its place. */
        return item->head.kind == LR_RECORD_KNOWN ? 0 : lr_object_drop(taker, item, err);
    }
    return lr_taker_remember(taker, item, st.stx_ino, err) < 0 ? -1 : 1;
}

/* A file whose content is at hand, or the store's. */
int lr_taker_file(struct lr_taker *taker, struct lr_item *item, const char *name, struct lr_error *err)
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
        done = lr_taker_clear(taker, name, item->path, err) < 0 ? -1 : make_file(taker, item, name, err);
    if (done == 1)
        return lr_taker_fail(taker, "make", name, err);
    if (done < 0 || lr_taker_finish(taker, item, name, err) < 0)
        return -1;
    taker->fresh++;
    taker->fresh_size += item->head.size;
    return lr_object_make(taker, item, name, err);
}
