/* net.c: a network namespace costs the kernel half a millisecond, more than all the others together, so it is made beside other work:
 * by the child, where that would only wait for the launcher, or by a process apart, where the launcher would only wait for the child.
 */
#include "net.h"

#include "companion.h"
#include "control.h"
#include "sys.h"

#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

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
    return plan->namespaces & CLONE_NEWNET && (plan->userns == LR_USERNS_SELF || plan->pasta);
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

/* Nobody inside has capabilities over it, and no port of it is the machine's. Older kernels have no such setting. */
static void open_ports(void)
{
    LR_FD fd = open("/proc/sys/net/ipv4/ip_unprivileged_port_start", O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, "0", 1) != 1)
        return;
}

/* The maker: it may have to keep the namespace until that has a way out. Whoever waits for it sees the end of talk if something fails. */
static void make(const struct lr_net *net, int talk, int pidfd, int control)
{
    struct lr_message message = {.type = LR_MSG_NET, .count = 1};
    char byte = 0;
    lr_close(&(int){net->talk}); /* the launcher's end: its death must be seen here */
    int fd = make_for(pidfd, &message.error);
    if (fd < 0) {
        message.type = LR_MSG_ERROR;
        message.count = 0;
    } else if (talk >= 0 && (open_ports(), write(talk, &byte, 1) != 1 || read(talk, &byte, 1) != 1))
        _exit(0);
    lr_send(control, &message, &fd);
    _exit(0);
}

int lr_net_spawn(struct lr_net *net, const struct lr_plan *plan, int pidfd, int control, struct lr_error *err)
{
    LR_FD talk = -1;
    *net = LR_NET_NONE;
    if (!lr_net_is_apart(plan))
        return 0;
    if (plan->pasta) {
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
            return lr_fail(err, "open a pair of sockets", "");
        net->talk = pair[0];
        talk = pair[1];
        if (pipe2(net->ready, O_CLOEXEC))
            return lr_fail(err, "open a pipe", "");
    }
    /* As for pid 1, a bare clone: no handler of the calling program runs. Nobody is told its end. */
    net->maker = (pid_t)syscall(SYS_clone, 0, 0, 0, 0, 0);
    if (net->maker == 0)
        make(net, talk, pidfd, control);
    if (net->maker > 0)
        return 0;
    net->maker = 0;
    return lr_fail(err, "start the process that makes the network namespace", "");
}

int lr_net_open(struct lr_net *net, const struct lr_plan *plan, int pidfd, struct lr_error *err)
{
    char byte = 0;
    if (!plan->pasta)
        return 0;
    if (read(net->talk, &byte, 1) != 1) /* it has told pid 1 why */
        return lr_fail_code(err, ECANCELED, "create the network namespace", "");
    net->companion = lr_companion_start(plan, net->maker, net->ready, pidfd, err);
    if (net->companion < 0) {
        net->companion = 0;
        return -1;
    }
    return write(net->talk, &byte, 1) == 1 ? 0
                                           : lr_fail_code(err, ECANCELED, "create the network namespace", "");
}

void lr_net_close(struct lr_net *net)
{
    lr_close(&net->talk);
    lr_close(&net->ready[0]);
    lr_close(&net->ready[1]);
    if (net->maker > 0)
        waitpid(net->maker, NULL, __WALL);
    net->maker = 0;
}

void lr_net_end(struct lr_net *net)
{
    while (net->companion > 0 && waitpid(net->companion, NULL, __WALL) < 0 && errno == EINTR)
        ;
    net->companion = 0;
}
