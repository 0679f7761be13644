/* floor.c: the least work that starts a command over an overlay; what layerrun's start is measured against.
 *
 * usage: floor FLAGS LOWER UPPER WORK MOUNTPOINT COMMAND [ARG...]
 *   FLAGS: "n" for a network namespace with its loopback up, "u" for a user namespace of one id, "-" for neither.
 * It makes the namespaces (mount, pid, ipc, uts) in one clone3, mounts the overlay, /dev, /proc and /tmp, pivots,
 * and leaves a pid 1 that waits. It is no sandbox: there is no seccomp, no dropped capability, no id map, no lock,
 * no forwarding of signals, no joining. Built by launch.py.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void die(const char *what)
{
    perror(what);
    _exit(125);
}

static void put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        die(path);
    close(fd);
}

static void bind_device(const char *name)
{
    char from[64], to[64];
    snprintf(from, sizeof from, "/dev/%s", name);
    snprintf(to, sizeof to, "dev/%s", name);
    int fd = open(to, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
    if (fd >= 0)
        close(fd);
    if (mount(from, to, NULL, MS_BIND, NULL))
        die(to);
}

static int wait_for(pid_t child)
{
    int status = 0;
    for (pid_t got; (got = wait(&status)) > 0 || errno == EINTR;)
        if (got == child)
            break;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(int argc, char **argv)
{
    if (argc < 7) {
        fprintf(stderr, "usage: floor FLAGS LOWER UPPER WORK MOUNTPOINT COMMAND...\n");
        return 2;
    }
    int user = strchr(argv[1], 'u') != NULL, net = strchr(argv[1], 'n') != NULL;
    char text[8192];
    uid_t uid = getuid();
    gid_t gid = getgid();
    struct clone_args args = {
        .flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | (net ? CLONE_NEWNET : 0) |
                 (user ? CLONE_NEWUSER : 0),
        .exit_signal = SIGCHLD,
    };
    pid_t init = syscall(SYS_clone3, &args, sizeof args);
    if (init < 0)
        die("clone3");
    if (init > 0)
        return wait_for(init);

    if (user) {
        snprintf(text, sizeof text, "0 %d 1", uid);
        put("/proc/self/setgroups", "deny");
        put("/proc/self/uid_map", text);
        snprintf(text, sizeof text, "0 %d 1", gid);
        put("/proc/self/gid_map", text);
    }
    if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL))
        die("slave");
    snprintf(text, sizeof text, "lowerdir=%s,upperdir=%s,workdir=%s%s", argv[2], argv[3], argv[4],
             user ? ",userxattr" : "");
    if (mount("overlay", argv[5], "overlay", 0, text))
        die("overlay");
    if (chdir(argv[5]))
        die(argv[5]);
    if (mount("tmpfs", "dev", "tmpfs", MS_NOSUID, "mode=755"))
        die("dev");
    const char *devices[] = {"null", "zero", "full", "random", "urandom", "tty"};
    for (unsigned i = 0; i < sizeof devices / sizeof *devices; i++)
        bind_device(devices[i]);
    mkdir("dev/pts", 0755);
    mkdir("dev/shm", 01777);
    if (mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620"))
        die("devpts");
    if (symlink("pts/ptmx", "dev/ptmx") || symlink("/proc/self/fd", "dev/fd"))
        die("symlink");
    if (mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL))
        die("proc");
    if (mount("tmpfs", "tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777"))
        die("tmp");
    if (net) {
        int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP};
        if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &lo))
            die("loopback");
        close(fd);
    }
    if (syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || chdir("/"))
        die("pivot_root");
    pid_t child = fork();
    if (child < 0)
        die("fork");
    if (child == 0) {
        execvp(argv[6], argv + 6);
        die(argv[6]);
    }
    _exit(wait_for(child));
}
