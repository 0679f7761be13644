/* probe_calls.c: checks 10 to 13 and 16 to 19: calls, and whom we reach. */

#include "probe.h"

#include <dirent.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/keyctl.h>
#include <linux/perf_event.h>
#include <linux/sched.h>
#include <mqueue.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

/* ---- 10 to 13: calls ---- */

void p10(void)
{
    char text[256];
    tell_call(10, "keyctl DESCRIBE",
              syscall(SYS_keyctl, KEYCTL_DESCRIBE, KEY_SPEC_SESSION_KEYRING, text, sizeof text));
    tell_call(10, "keyctl READ",
              syscall(SYS_keyctl, KEYCTL_READ, KEY_SPEC_SESSION_KEYRING, text, sizeof text));
    tell_call(10, "keyctl READ of the user",
              syscall(SYS_keyctl, KEYCTL_READ, KEY_SPEC_USER_KEYRING, text, sizeof text));
    tell_call(10, "add_key",
              syscall(SYS_add_key, "user", "layerrun-probe", "x", 1, KEY_SPEC_PROCESS_KEYRING));
    const char *key = value("key");
    long found = syscall(SYS_request_key, "user", key ? key : "none", NULL, 0);
    tell_call(10, "request_key of a key of outside", found);
    if (value("keyid"))
        tell_call(10, "keyctl READ of a key of outside",
                  syscall(SYS_keyctl, KEYCTL_READ, strtol(value("keyid"), NULL, 10), text, sizeof text));
    tell_call(10, "keyctl JOIN_SESSION_KEYRING", syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL));
}

struct request_of_mount {
    uint32_t size, spare;
    uint64_t id, param, ns;
};

void p11(void)
{
    char bytes[4096];
    struct request_of_mount request = {.size = 24, .id = UINT64_MAX, .param = 1};
    uint64_t ids[8];
    uint64_t attributes[4] = {0};
    int fd = (int)syscall(430, "tmpfs", 0);
    tell_call(11, "fsopen", fd);
    tell_call(11, "fsconfig", syscall(431, fd, 6 /* CMD_CREATE */, NULL, NULL, 0));
    tell_call(11, "fsmount", syscall(432, fd, 0, 0));
    tell_call(11, "fspick", syscall(433, AT_FDCWD, "/", 0));
    int tree = (int)syscall(428, AT_FDCWD, "/", 1 /* OPEN_TREE_CLONE */);
    tell_call(11, "open_tree CLONE", tree);
    tell_call(11, "open_tree", syscall(428, AT_FDCWD, "/", 0));
    tell_call(11, "open_tree_attr", syscall(467, AT_FDCWD, "/", 1, attributes, sizeof attributes));
    tell_call(11, "move_mount", syscall(429, tree, "", AT_FDCWD, "/tmp", 4 /* F_EMPTY_PATH */));
    tell_call(11, "mount_setattr", syscall(442, AT_FDCWD, "/", 0, attributes, sizeof attributes));
    tell_call(11, "statmount", syscall(457, &request, bytes, sizeof bytes, 0));
    tell_call(11, "listmount", syscall(458, &request, ids, 8, 0));
}

static void in_child(int check, const char *what, long (*call)(void))
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        tell_call(check, what, call());
        _exit(0);
    }
    waitpid(pid, NULL, 0);
}

static int flags_now;

static long do_unshare(void)
{
    return syscall(SYS_unshare, flags_now);
}

void p12(void)
{
    static const struct {
        const char *name;
        int flag;
    } spaces[] = {{"NEWUSER", CLONE_NEWUSER},     {"NEWNS", CLONE_NEWNS},    {"NEWPID", CLONE_NEWPID},
                  {"NEWNET", CLONE_NEWNET},       {"NEWIPC", CLONE_NEWIPC},  {"NEWUTS", CLONE_NEWUTS},
                  {"NEWCGROUP", CLONE_NEWCGROUP}, {"NEWTIME", CLONE_NEWTIME}};
    for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++) {
        char what[64];
        snprintf(what, sizeof what, "unshare %s", spaces[i].name);
        flags_now = spaces[i].flag;
        in_child(12, what, do_unshare);
    }
    for (int high = 0; high < 2; high++) {
        unsigned long flags = CLONE_NEWUSER | SIGCHLD | (high ? 1UL << 40 : 0);
        fflush(stdout);
        long pid = syscall(SYS_clone, flags, 0, 0, 0, 0);
        if (pid == 0)
            _exit(0);
        tell_call(12, high ? "clone NEWUSER | 1 << 40" : "clone NEWUSER", pid);
        if (pid > 0)
            waitpid((pid_t)pid, NULL, 0);
    }
    struct clone_args args = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
    fflush(stdout);
    long pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid == 0)
        _exit(0);
    tell_call(12, "clone3 NEWUSER", pid);
    if (pid > 0)
        waitpid((pid_t)pid, NULL, 0);
    tell_call(12, "setns", syscall(SYS_setns, open("/proc/self/ns/user", O_RDONLY | O_CLOEXEC), 0));
}

void p13(void)
{
    union bpf_attr map = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};
    tell_call(13, "bpf", syscall(SYS_bpf, BPF_MAP_CREATE, &map, sizeof map));
    struct perf_event_attr event = {.type = PERF_TYPE_SOFTWARE, .size = sizeof event, .exclude_kernel = 1};
    tell_call(13, "perf_event_open", syscall(SYS_perf_event_open, &event, 0, -1, -1, 0));
    tell_call(13, "userfaultfd", syscall(SYS_userfaultfd, O_CLOEXEC | 1 /* user mode only */));
    char ring[256] = {0};
    tell_call(13, "io_uring_setup", syscall(425, 1, ring));
    tell_call(13, "io_uring_enter", syscall(426, -1, 0, 0, 0, NULL, 0));
    tell_call(13, "io_uring_register", syscall(427, -1, 0, NULL, 0));
    tell_call(13, "kexec_load", syscall(SYS_kexec_load, 0, 0, NULL, 0x2 /* nothing for a crash */));
    tell_call(13, "kexec_file_load", syscall(SYS_kexec_file_load, -1, -1, 0, NULL, 0));
    tell_call(13, "init_module", syscall(SYS_init_module, NULL, 0, ""));
    tell_call(13, "finit_module", syscall(SYS_finit_module, -1, "", 0));
    tell_call(13, "delete_module", syscall(SYS_delete_module, "layerrun-probe", O_NONBLOCK));
    struct {
        struct file_handle handle;
        char room[128];
    } file = {.handle.handle_bytes = 128};
    int mount;
    long named = syscall(SYS_name_to_handle_at, AT_FDCWD, "/", &file.handle, &mount, 0);
    int root = open("/", O_RDONLY | O_CLOEXEC);
    if (named < 0)
        file.handle = (struct file_handle){.handle_bytes = 8, .handle_type = 1};
    tell_call(13, "open_by_handle_at", syscall(SYS_open_by_handle_at, root, &file.handle, O_RDONLY));
    char here[8];
    struct iovec local = {here, sizeof here}, remote = {(void *)0x400000, sizeof here};
    tell_call(13, "process_vm_readv of pid 1", syscall(SYS_process_vm_readv, 1, &local, 1, &remote, 1, 0));
    tell_call(13, "process_vm_writev of pid 1", syscall(SYS_process_vm_writev, 1, &local, 1, &remote, 1, 0));
    tell_call(13, "ptrace of pid 1", ptrace(PTRACE_SEIZE, 1, NULL, NULL));
    int one = (int)syscall(SYS_pidfd_open, 1, 0);
    tell_call(13, "pidfd_getfd of pid 1", syscall(438, one, 0, 0));
    tell_call(13, "kcmp with pid 1", syscall(SYS_kcmp, getpid(), 1, 0, 0, 0));
    tell_call(13, "process_madvise of pid 1", syscall(440, one, &remote, 1, MADV_COLD, 0));
    tell_call(13, "reboot", syscall(SYS_reboot, 1, 2, 3, NULL)); /* no magic number: nothing would happen */
    tell_call(13, "swapon", syscall(SYS_swapon, "/layerrun-probe", 0));
    tell_call(13, "acct", syscall(SYS_acct, "/layerrun-probe/none"));
    tell_call(13, "syslog", syscall(SYS_syslog, 10, NULL, 0));
    tell_call(13, "settimeofday", syscall(SYS_settimeofday, NULL, NULL) ?: (errno = EINVAL, -1));
    tell_call(13, "quotactl", syscall(SYS_quotactl, 0x800001 << 8, NULL, 0, NULL));
    tell_call(13, "fanotify_init", syscall(SYS_fanotify_init, 0, O_RDONLY));
#ifdef __x86_64__
    tell_call(13, "iopl", syscall(SYS_iopl, 3));
    tell_call(13, "ioperm", syscall(SYS_ioperm, 0x80, 1, 1));
#endif
    tell_call(13, "a call of the future", syscall(600));
}

void p16(void)
{
    flags_now = CLONE_NEWPID | CLONE_NEWNS;
    in_child(16, "unshare NEWPID | NEWNS", do_unshare);
    flags_now = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS;
    in_child(16, "unshare NEWUSER | NEWPID | NEWNS", do_unshare);
    tell_call(16, "mount a fresh proc", mount("proc", "/tmp", "proc", 0, NULL));
    tell_call(16, "fsopen proc", syscall(430, "proc", 0));
}

/* ---- 17 to 19: whom we reach ---- */

void p17(void)
{
    char path[64], text[256], inside[64] = "";
    int others = 0;
    DIR *proc = opendir("/proc");
    for (struct dirent *entry; proc && (entry = readdir(proc));) {
        pid_t pid = (pid_t)atoi(entry->d_name);
        if (pid > 1 && pid != getpid())
            others++;
    }
    if (proc)
        closedir(proc);
    tell(17, "processes beside pid 1 and us", "%d", others);
    tell(17, "our parent", "%d", getppid());
    pid_t outside = value("pid") ? (pid_t)atoi(value("pid")) : 0;
    if (outside) {
        tell_call(17, "kill a process of outside", kill(outside, 0));
        snprintf(path, sizeof path, "/proc/%d", outside);
        tell_call(17, "open its /proc", open(path, O_RDONLY | O_CLOEXEC));
        tell_call(17, "ptrace it", ptrace(PTRACE_SEIZE, outside, NULL, NULL));
        tell_call(17, "pidfd_open it", syscall(SYS_pidfd_open, outside, 0));
    }
    for (int fd = 1; fd < 4; fd++) {
        static const char *const links[] = {"", "exe", "root", "cwd"};
        snprintf(path, sizeof path, "/proc/1/%s", links[fd]);
        tell_call(17, path, readlink(path, text, sizeof text));
    }
    const char *outer = value("pidns");
    ssize_t size = readlink("/proc/self/ns/pid", inside, sizeof inside - 1);
    inside[size > 0 ? size : 0] = 0;
    if (!outer || size <= 0 || !strcmp(outer, inside))
        tell(17, "a namespace of its own", "no: nobody is killed");
    else {
        tell(17, "a namespace of its own", "yes");
        tell_call(17, "kill(1, SIGKILL)", kill(1, SIGKILL));
        kill(-1, SIGKILL);
        tell_call(17, "kill(-1, SIGKILL) leaves", kill(-1, 0));
    }
}

static long reach(int family, const void *address, socklen_t size)
{
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    long result = connect(fd, address, size);
    int code = errno;
    close(fd);
    errno = code;
    return result;
}

static void try_abstract(const char *what, const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(name);
    memcpy(address.sun_path + 1, name, length);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length);
    tell_call(18, what, reach(AF_UNIX, &address, size));
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    char other[128];
    snprintf(other, sizeof other, "%s, by a datagram", what);
    address.sun_path[1 + length] = 'd';
    tell_call(18, other, sendto(fd, "x", 1, MSG_DONTWAIT, (struct sockaddr *)&address, size + 1));
    close(fd);
}

void p18(void)
{
    if (value("port")) {
        struct sockaddr_in address = {.sin_family = AF_INET,
                                      .sin_port = htons((uint16_t)atoi(value("port")))};
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        tell_call(18, "connect to a port of the machine's loopback",
                  reach(AF_INET, &address, sizeof address));
    }
    if (value("abstract"))
        try_abstract("connect to an abstract socket of outside", value("abstract"));
    for (int i = 0; i < 2; i++) {
        const char *path = value(i ? "socket2" : "socket");
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        if (!path || strlen(path) >= sizeof address.sun_path)
            continue;
        strcpy(address.sun_path, path);
        tell_call(18,
                  i ? "connect to a socket in /tmp of outside" : "connect to a socket of outside by its path",
                  reach(AF_UNIX, &address, sizeof address));
    }
    struct if_nameindex *all = if_nameindex();
    char names[1024] = "";
    for (struct if_nameindex *one = all; one && one->if_name; one++)
        if (strlen(names) + strlen(one->if_name) + 2 < sizeof names)
            strcat(strcat(names, *names ? " " : ""), one->if_name);
    tell(18, "network devices", "%s", all ? names : name_of(-1));
    tell_call(18, "a raw socket", socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP));
    tell_call(18, "a packet socket", socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
    tell_call(18, "AF_VSOCK", socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0));
    tell_call(18, "AF_ALG", socket(AF_ALG, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
}

void p19(void)
{
    if (value("shm"))
        tell_call(19, "shmget", shmget((key_t)strtol(value("shm"), NULL, 10), 0, 0));
    if (value("name")) {
        char path[256];
        snprintf(path, sizeof path, "/%s", value("name"));
        tell_call(19, "shm_open", shm_open(path, O_RDONLY, 0));
        tell_call(19, "mq_open", mq_open(path, O_RDONLY));
        snprintf(path, sizeof path, "/dev/mqueue/%s", value("name"));
        tell_call(19, "open in /dev/mqueue", open(path, O_RDONLY | O_CLOEXEC));
    }
}
