/* remove.c: removing a tree, whatever is in it. */
#include "intake.h"
#include "tree.h"
#include "walk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452 /* Linux 6.6; one number on every architecture */
#endif

/* How often a folder may turn out not to be empty after all before whoever fills it wins. */
#define PATIENCE 100

struct remover {
    struct lr_chain chain;
    struct lr_frame *frames; /* of each level below the first, at its depth */
    size_t size;
    int patience;
};

/* chattr +i and +a: only root can have set them, and only root can lift them. */
static void lift_flags(int dirfd, const char *name)
{
    struct statx st;
    int flags;
    if (lr_statx(dirfd, name, &st) < 0 || !(S_ISREG(st.stx_mode) || S_ISDIR(st.stx_mode)))
        return;
    LR_CLEANUP(lr_close) int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0 && ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0 && (flags & (FS_IMMUTABLE_FL | FS_APPEND_FL))) {
        flags &= ~(FS_IMMUTABLE_FL | FS_APPEND_FL);
        ioctl(fd, FS_IOC_SETFLAGS, &flags);
    }
}

/* Give the owner of a folder all rights to it, by its (O_PATH) descriptor. */
static int open_up(int fd)
{
    if (syscall(SYS_fchmodat2, fd, "", 0700, AT_EMPTY_PATH) == 0)
        return 0;
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return chmod(path, 0700);
}

/* unlinkat(2) in the current folder: 0, or -1 with errno; ENOENT counts as done. What the owner of the
 * tree may change to make it work is changed, but never in the folder the tree itself lies in. */
static int drop(const struct lr_chain *chain, const char *name, int flags)
{
    int dirfd = lr_chain_fd(chain);
    if (unlinkat(dirfd, name, flags) == 0 || errno == ENOENT)
        return 0;
    int code = errno;
    bool inside = chain->depth > 1;
    if (code == EACCES && inside) {
        open_up(dirfd);
    } else if (code == EPERM) {
        lift_flags(dirfd, name);
        if (inside)
            lift_flags(dirfd, ".");
    } else {
        return -1;
    }
    if (unlinkat(dirfd, name, flags) == 0 || errno == ENOENT)
        return 0;
    return -1;
}

static int enter(struct remover *remover, const char *name, struct lr_error *err)
{
    struct lr_chain *chain = &remover->chain;
    int entered = lr_chain_enter(chain, name, err);
    if (entered < 0 && err->code == EACCES && chain->depth > 1 && open_up(lr_chain_fd(chain)) == 0)
        entered = lr_chain_enter(chain, name, err);
    if (entered == 0 && errno == EXDEV) {
        errno = EBUSY;
        return lr_chain_fail(chain, name, "remove what has something mounted on it,", err);
    }
    if (entered <= 0)
        return entered;
    if (chain->depth > remover->size) {
        size_t size = remover->size ? remover->size * 2 : 16;
        struct lr_frame *frames = realloc(remover->frames, size * sizeof *frames);
        if (!frames)
            return lr_fail(err, "get memory", NULL);
        memset(frames + remover->size, 0, (size - remover->size) * sizeof *frames);
        remover->frames = frames;
        remover->size = size;
    }
    struct lr_frame *frame = &remover->frames[chain->depth - 1];
    frame->next = 0;
    int done = lr_chain_list(chain, &frame->names, err);
    if (done < 0 && err->code == EACCES && open_up(lr_chain_fd(chain)) == 0)
        done = lr_chain_list(chain, &frame->names, err);
    return done < 0 ? -1 : 1;
}

/* The current folder's entries are gone: remove it too. */
static int leave(struct remover *remover, struct lr_error *err)
{
    struct lr_chain *chain = &remover->chain;
    char name[256];
    const char *path = chain->path.data + chain->levels[chain->depth - 1].name;
    strncpy(name, path + (*path == '/'), sizeof name - 1);
    name[255] = '\0';
    lr_names_free(&remover->frames[chain->depth - 1].names);
    if (lr_chain_leave(chain, err) < 0) {
        /* Another remover took the parent as well; what is left above is found from the root. */
        if (err->code != ENOENT || chain->depth == 1)
            return -1;
        remover->frames[chain->depth - 1].next = remover->frames[chain->depth - 1].names.count;
        return 0;
    }
    if (drop(chain, name, AT_REMOVEDIR) == 0)
        return 0;
    if ((errno != ENOTEMPTY && errno != EEXIST) || remover->patience-- == 0)
        return lr_chain_fail(chain, name, "remove", err);
    return enter(remover, name, err) < 0 ? -1 : 0; /* somebody put something in: once more */
}

static int one(struct remover *remover, struct lr_frame *frame, struct lr_error *err)
{
    struct lr_chain *chain = &remover->chain;
    unsigned char type = lr_names_type(&frame->names, frame->next);
    const char *name = lr_names_get(&frame->names, frame->next++);
    if (type != DT_DIR) {
        if (drop(chain, name, 0) == 0)
            return 0;
        if (errno != EISDIR)
            return lr_chain_fail(chain, name, "remove", err);
    }
    int entered = enter(remover, name, err);
    if (entered != 0)
        return entered < 0 ? -1 : 0;
    /* Gone, or no folder (any more). */
    if (drop(chain, name, 0) < 0)
        return lr_chain_fail(chain, name, "remove", err);
    return 0;
}

static int run(struct remover *remover, const char *name, struct lr_error *err)
{
    int entered = enter(remover, name, err);
    if (entered <= 0)
        return entered;
    while (remover->chain.depth > 1) {
        struct lr_frame *frame = &remover->frames[remover->chain.depth - 1];
        int done = frame->next < frame->names.count ? one(remover, frame, err) : leave(remover, err);
        if (done < 0)
            return -1;
    }
    return 0;
}

int lr_remove(int dirfd, const char *name, struct lr_error *err)
{
    if (!*name || strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return lr_fail_code(err, EINVAL, "remove", name);
    struct remover remover = {.patience = PATIENCE};
    int done = lr_chain_open(&remover.chain, dirfd, LR_KEEP, false, err);
    if (done == 0 && drop(&remover.chain, name, 0) < 0)
        done = errno == EISDIR ? run(&remover, name, err) : lr_fail(err, "remove", name);
    for (size_t i = 0; i < remover.size; i++)
        lr_names_free(&remover.frames[i].names);
    free(remover.frames);
    lr_chain_close(&remover.chain);
    return done;
}

/* In the child, before anybody goes on: nothing of the caller's stays open, least of all a lock. Returns a descriptor
 * for dirfd, or ends. */
static int detach(int dirfd)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int kept = fcntl(dirfd, F_DUPFD_CLOEXEC, 3);
    if (kept < 0)
        _exit(errno);
    for (int fd = 0; fd < 3 && null >= 0; fd++)
        if (fd != null)
            dup2(null, fd);
    if (kept > 3)
        syscall(SYS_close_range, 3, kept - 1, 0);
    syscall(SYS_close_range, kept + 1, ~0U, 0);
    return kept;
}

/* In the second child, for which nobody waits. */
static _Noreturn void sweep(int dirfd, const char *name)
{
    struct lr_error err;
    prctl(PR_SET_NAME, "layerrun-sweep");
    setpriority(PRIO_PROCESS, 0, 10);
    if (chdir("/") < 0)
        _exit(1);
    int done = lr_remove(dirfd, name, &err);
    if (done == 0 && strstr(name, LR_LINKED)) {
        struct lr_swept swept;
        int objects = openat(dirfd, "../objects", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        done = objects < 0 ? -1 : lr_objects_sweep(objects, 0, &swept, &err);
    }
    _exit(done < 0 ? 1 : 0);
}

int lr_remove_background(int dirfd, const char *name, struct lr_error *err)
{
    pid_t child = fork();
    if (child < 0)
        return lr_fail(err, "start the remover of", name);
    if (child == 0) {
        signal(SIGHUP, SIG_IGN);
        setsid();
        dirfd = detach(dirfd);
        pid_t sweeper = fork();
        if (sweeper == 0)
            sweep(dirfd, name);
        _exit(sweeper < 0 ? errno : 0);
    }
    int status = 0;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return 0; /* ECHILD: the caller ignores SIGCHLD; the remover runs all the same */
    if (WIFEXITED(status) && WEXITSTATUS(status) != 0)
        return lr_fail_code(err, WEXITSTATUS(status), "start the remover of", name);
    return 0;
}
