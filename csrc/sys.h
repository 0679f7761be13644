/* sys.h: system calls as the kernel names them, and descriptors with one owner each. */
#ifndef LR_SYS_H
#define LR_SYS_H

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

static inline void lr_close(int *fd)
{
    if (*fd >= 0) {
        int saved = errno;
        close(*fd);
        errno = saved;
    }
    *fd = -1;
}

/* A descriptor that is closed when its scope ends; lr_steal hands it on. */
#define LR_FD __attribute__((cleanup(lr_close))) int

static inline int lr_steal(int *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}

/* openat2(2): glibc has no wrapper in the versions we build with. */
static inline int lr_openat2(int dirfd, const char *path, uint64_t flags, uint64_t resolve)
{
    struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = resolve};
    return (int)syscall(SYS_openat2, dirfd, path, &how, sizeof how);
}

static inline int lr_pivot_root(const char *new_root, const char *put_old)
{
    return (int)syscall(SYS_pivot_root, new_root, put_old);
}

static inline long lr_clone3(struct clone_args *args)
{
    return syscall(SYS_clone3, args, sizeof *args);
}

#endif
