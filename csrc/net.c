/* net.c: a network namespace costs the kernel half a millisecond, more than all the others together, so it is made beside other work:
 * by the child, where that would only wait for the launcher, or by a process apart, where the launcher would only wait for the child.
 */
#include "net.h"

#include "control.h"
#include "sys.h"

#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static int loopback_up(struct lr_error *err)
{
    LR_FD fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    return fd < 0 || ioctl(fd, SIOCSIFFLAGS, &lo) ? lr_fail(err, "bring the loopback up", "lo") : 0;
}

int lr_net_make(struct lr_error *err)
{
    return unshare(CLONE_NEWNET) ? lr_fail(err, "create the network namespace", "") : loopback_up(err);
}

bool lr_net_is_apart(const struct lr_plan *plan)
{
    return plan->namespaces & CLONE_NEWNET && plan->userns == LR_USERNS_SELF;
}

/* It belongs to the user namespace of whoever makes it: setns(2) first. */
static int make_for(int pidfd, struct lr_error *err)
{
    if (setns(pidfd, CLONE_NEWUSER))
        return lr_fail(err, "enter the user namespace", "");
    if (lr_net_make(err))
        return -1;
    int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    return fd < 0 ? lr_fail(err, "open the network namespace", "/proc/thread-self/ns/net") : fd;
}

pid_t lr_net_spawn(int pidfd, int control, struct lr_error *err)
{
    /* As for pid 1, a bare clone: no handler of the calling program runs. Nobody is told its end. */
    pid_t pid = (pid_t)syscall(SYS_clone, 0, 0, 0, 0, 0);
    if (pid < 0)
        lr_fail(err, "start the process that makes the network namespace", "");
    if (pid)
        return pid;
    struct lr_message message = {.type = LR_MSG_NET, .count = 1};
    int fd = make_for(pidfd, &message.error);
    if (fd < 0) {
        message.type = LR_MSG_ERROR;
        message.count = 0;
    }
    lr_send(control, &message, &fd);
    _exit(0);
}
