/* probe.c: everything that somebody inside may try, in one run. A JSON line an attempt: the check's number, what was tried, and what came
 * of it: the name of an errno, OK if it was let through, or what was found. It judges nothing. Linked statically, so that it runs in
 * any base.
 *
 *     probe all KEY=VALUE…       every attempt; the keys name what was put up outside for it
 *     probe GROUP… KEY=VALUE…    some of them: p followed by the check's number
 *     probe status LABEL         the Seccomp line of whoever executes it
 *     probe ids LABEL            who it became by its execution
 *     probe flip ONE OTHER       exchanges two names for ever
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/keyctl.h>
#include <linux/perf_event.h>
#include <linux/sched.h>
#include <mqueue.h>
#include <net/if.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static int words_count;
static char **words;
static char self[4096];

static const char *value(const char *key)
{
    size_t length = strlen(key);
    for (int i = 0; i < words_count; i++)
        if (!strncmp(words[i], key, length) && words[i][length] == '=')
            return words[i] + length + 1;
    return NULL;
}

static void put_text(const char *text)
{
    putchar('"');
    for (const unsigned char *at = (const unsigned char *)text; *at; at++)
        if (*at < 32 || *at > 126 || *at == '"' || *at == '\\')
            printf("\\u%04x", *at);
        else
            putchar(*at);
    putchar('"');
}

__attribute__((format(printf, 3, 4))) static void tell(int check, const char *what, const char *format, ...)
{
    char got[8192];
    va_list list;
    va_start(list, format);
    vsnprintf(got, sizeof got, format, list);
    va_end(list);
    printf("{\"check\": %d, \"what\": ", check);
    put_text(what);
    printf(", \"got\": ");
    put_text(got);
    printf("}\n");
    fflush(stdout);
}

/* The result of a system call: its errno by name if it is negative. */
static const char *name_of(long result)
{
    static char number[32];
    if (result >= 0)
        return "OK";
    const char *name = strerrorname_np(errno);
    snprintf(number, sizeof number, "errno %d", errno);
    return name ? name : number;
}

static void tell_call(int check, const char *what, long result)
{
    tell(check, what, "%s", name_of(result));
}

static void try_open(int check, const char *how, const char *path, int flags)
{
    char what[4200];
    snprintf(what, sizeof what, "open %s %s", how, path);
    int fd = open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    struct stat info;
    if (fd >= 0 && !fstat(fd, &info) && S_ISCHR(info.st_mode) && info.st_rdev == makedev(1, 3))
        tell(check, what, "masked");
    else
        tell_call(check, what, fd);
    if (fd >= 0)
        close(fd);
}

static ssize_t slurp(const char *path, char *text, size_t size)
{
    size_t used = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -1;
    for (ssize_t got; used < size - 1 && (got = read(fd, text + used, size - 1 - used)) > 0;)
        used += (size_t)got;
    text[used] = 0;
    close(fd);
    return (ssize_t)used;
}

/* ---- 1 to 3: files of the kernel ---- */

static void p1(void)
{
    static const char *const paths[] = {"core_pattern",
                                        "modprobe",
                                        "hostname",
                                        "domainname",
                                        "randomize_va_space",
                                        "../vm/drop_caches",
                                        "../vm/overcommit_memory",
                                        "../fs/binfmt_misc/register",
                                        "../fs/protected_symlinks",
                                        "../user/max_user_namespaces",
                                        "../net/ipv4/ip_forward",
                                        "../net/core/somaxconn"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        char path[128];
        if (strncmp(paths[i], "../", 3))
            snprintf(path, sizeof path, "/proc/sys/kernel/%s", paths[i]);
        else
            snprintf(path, sizeof path, "/proc/sys/%s", paths[i] + 3);
        try_open(1, "w", path, O_WRONLY);
    }
}

static void p2(void)
{
    static const char *const paths[] = {
        "/proc/sysrq-trigger", "/proc/kcore",       "/proc/kmsg",   "/proc/timer_list",
        "/proc/kpagecount",    "/proc/kpageflags",  "/proc/mtrr",   "/proc/kpagecgroup",
        "/proc/bus/pci",       "/proc/sched_debug", "/proc/scsi",   "/proc/irq/default_smp_affinity",
        "/dev/kmsg",           "/dev/mem",          "/dev/port",    "/proc/keys",
        "/proc/kallsyms",      "/proc/acpi/wakeup", "/proc/asound", "/proc/fs/ext4",
        "/proc/1/mem",         "/proc/1/environ",   "/proc/1/maps", "/proc/latency_stats"};
    static char text[1 << 16];
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        struct stat info;
        if (i < 15 && strncmp(paths[i], "/proc/bus", 9) && strncmp(paths[i], "/proc/irq", 9))
            try_open(2, "r", paths[i], O_RDONLY);
        /* Nothing can be written to kallsyms; real root may open it all the same. */
        if (strcmp(paths[i], "/proc/kallsyms") && (stat(paths[i], &info) || !S_ISDIR(info.st_mode)))
            try_open(2, "w", paths[i], O_WRONLY);
    }
    for (int i = 20; i < 23; i++)
        try_open(2, "r", paths[i], O_RDONLY);
    ssize_t size = slurp("/proc/keys", text, sizeof text);
    const char *key = value("key");
    if (size < 0)
        tell_call(2, "read /proc/keys", -1);
    else
        tell(2, "read /proc/keys", "%s",
             !size                      ? "nothing"
             : key && strstr(text, key) ? "a key of outside"
                                        : "keys");
    size = slurp("/proc/kallsyms", text, sizeof text);
    bool addresses = false;
    for (char *line = size > 0 ? text : NULL; line && *line;
         line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        addresses |= strspn(line, "0") < 16 && strspn(line, "0123456789abcdef") >= 16;
    if (size < 0)
        tell_call(2, "read /proc/kallsyms", -1);
    else
        tell(2, "read /proc/kallsyms", "%s", addresses ? "addresses" : "no address");
}

static void walk(const char *path, int depth)
{
    DIR *folder = depth > 12 ? NULL : opendir(path);
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        char below[4096];
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        if (snprintf(below, sizeof below, "%s/%s", path, entry->d_name) >= (int)sizeof below)
            continue;
        if (!strcmp(entry->d_name, "release_agent") || !strcmp(entry->d_name, "cgroup.procs") ||
            !strcmp(entry->d_name, "uevent_helper") || !strcmp(entry->d_name, "uevent"))
            try_open(3, "w", below, O_WRONLY);
        if (entry->d_type == DT_DIR)
            walk(below, depth + 1);
    }
    if (folder)
        closedir(folder);
}

static void p3(void)
{
    static const char *const paths[] = {
        "/sys/kernel/mm/ksm/run",      "/sys/kernel/mm/transparent_hugepage/enabled",
        "/sys/kernel/uevent_helper",   "/sys/power/state",
        "/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/release_agent",
        "/sys/kernel/profiling"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        try_open(3, "w", paths[i], O_WRONLY);
    DIR *sys = opendir("/sys");
    int count = 0;
    for (struct dirent *entry; sys && (entry = readdir(sys));)
        count += entry->d_name[0] != '.';
    tell(3, "entries of /sys", "%d", count);
    if (sys)
        closedir(sys);
    walk("/sys", 0);
    static char text[1 << 17];
    slurp("/proc/self/mountinfo", text, sizeof text);
    static const char *const types[] = {"cgroup",  "cgroup2", "sysfs", "securityfs",
                                        "debugfs", "tracefs", "bpf",   "configfs"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        char pattern[32], what[64];
        snprintf(pattern, sizeof pattern, " - %s ", types[i]);
        snprintf(what, sizeof what, "a mount of type %s", types[i]);
        tell(3, what, "%s", strstr(text, pattern) ? "there" : "none");
    }
    slurp("/proc/self/cgroup", text, sizeof text);
    bool own = true;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
        own &= strrchr(line, ':') && !strcmp(strrchr(line, ':'), ":/");
    tell(3, "/proc/self/cgroup", "%s", own ? "/" : "a path of outside");
}

/* ---- 4 to 7: who we are ---- */

static void tell_lines(int check, const char *path)
{
    char text[4096] = "";
    slurp(path, text, sizeof text);
    for (char *at = text; *at; at++)
        if (*at == '\n')
            *at = at[1] ? ',' : 0;
    tell(check, path, "%s", text);
}

static void status_line(int check, const char *what, const char *path, const char *key)
{
    static __thread char text[8192];
    size_t length = strlen(key);
    if (slurp(path, text, sizeof text) < 0) {
        tell_call(check, what, -1);
        return;
    }
    for (char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        if (!strncmp(line, key, length) && line[length] == ':') {
            char *from = line + length + 1 + strspn(line + length + 1, " \t");
            tell(check, what, "%.*s", (int)strcspn(from, "\n"), from);
            return;
        }
    tell(check, what, "missing");
}

static void p4(void)
{
    tell_lines(4, "/proc/self/uid_map");
    tell_lines(4, "/proc/self/gid_map");
    tell_lines(4, "/proc/self/setgroups");
}

static void p5(void)
{
    static const char *const keys[] = {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"};
    for (int i = 0; i < 5; i++) {
        char what[64];
        status_line(5, keys[i], "/proc/self/status", keys[i]);
        snprintf(what, sizeof what, "pid 1 %s", keys[i]);
        status_line(5, what, "/proc/1/status", keys[i]);
    }
}

/* In a process of its own: fork, execute, wait. */
static void execute(int check, const char *what, const char *program, const char *verb, const char *label)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        execl(program, "probe", verb, label, NULL);
        tell_call(check, what, -1);
        _exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    if (WIFSIGNALED(status))
        tell(check, what, "killed by %s", sigabbrev_np(WTERMSIG(status)));
    else if (WEXITSTATUS(status))
        tell(check, what, "status %d", WEXITSTATUS(status));
}

static void tell_ids(const char *label)
{
    uid_t r, e, s;
    gid_t rg, eg, sg;
    char what[64], caps[128] = "";
    getresuid(&r, &e, &s);
    getresgid(&rg, &eg, &sg);
    static char text[8192];
    slurp("/proc/self/status", text, sizeof text);
    char *line = strstr(text, "CapEff:");
    if (line)
        sscanf(line, "CapEff: %127s", caps);
    snprintf(what, sizeof what, "ids of %s", label);
    tell(6, what, "%u %u %u/%u %u %u/%s", r, e, s, rg, eg, sg, caps);
}

static void p6(void)
{
    status_line(6, "NoNewPrivs", "/proc/self/status", "NoNewPrivs");
    status_line(6, "NoNewPrivs of pid 1", "/proc/1/status", "NoNewPrivs");
    tell_ids("ourselves");
    if (value("setuid"))
        execute(6, "execute a setuid program", value("setuid"), "ids", "a setuid program");
    if (value("capable"))
        execute(6, "execute a program with file capabilities", value("capable"), "ids",
                "a program with file capabilities");
}

static void *in_thread(void *nothing)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/status", (int)syscall(SYS_gettid));
    status_line(7, "in a thread", path, "Seccomp");
    return nothing;
}

static void p7(void)
{
    status_line(7, "in the command", "/proc/self/status", "Seccomp");
    status_line(7, "in pid 1", "/proc/1/status", "Seccomp");
    fflush(stdout);
    if (fork() == 0) {
        status_line(7, "after fork", "/proc/self/status", "Seccomp");
        _exit(0);
    }
    wait(NULL);
    pthread_t thread;
    if (pthread_create(&thread, NULL, in_thread, NULL))
        tell(7, "in a thread", "no thread");
    else
        pthread_join(thread, NULL);
    execute(7, "after exec", self, "status", "after exec");
}

/* ---- 8: other tables of system calls ---- */

static void p8(void)
{
#ifdef __x86_64__
    static const int numbers[] = {21, 20, 288, 310}; /* mount, getpid, keyctl, unshare */
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        long result;
        char what[64];
        __asm__ volatile("int $0x80"
                         : "=a"(result)
                         : "a"(numbers[i]), "b"(0), "c"(0), "d"(0)
                         : "memory", "r8", "r9", "r10", "r11");
        snprintf(what, sizeof what, "int 0x80, call %d", numbers[i]);
        errno = (int)-result;
        tell_call(8, what, result < 0 ? -1 : 0);
    }
    static const int x32[] = {165, 39,  250,
                              272, 520, 545}; /* mount, getpid, keyctl, unshare, execve, execveat */
    for (size_t i = 0; i < sizeof x32 / sizeof *x32; i++) {
        char what[64];
        snprintf(what, sizeof what, "x32 call %d", x32[i]);
        tell_call(8, what, syscall(0x40000000L | x32[i], 0, 0, 0, 0, 0, 0));
    }
#endif
    if (value("i386"))
        execute(8, "an i386 program", value("i386"), "x", "x");
}

/* ---- 9: the terminal ---- */

static void p9(void)
{
    static const struct {
        const char *name;
        unsigned long request;
    } requests[] = {{"TIOCSTI", TIOCSTI},
                    {"TIOCSTI | 1 << 32", TIOCSTI | 1UL << 32},
                    {"TIOCSTI | 1 << 63", TIOCSTI | 1UL << 63},
                    {"TIOCLINUX", TIOCLINUX},
                    {"TIOCLINUX | 1 << 32", TIOCLINUX | 1UL << 32}};
    int tty = open("/dev/tty", O_RDWR | O_CLOEXEC);
    tell_call(9, "open /dev/tty", tty);
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++)
        for (int which = 0; which < 2; which++) {
            char what[64], byte[2] = {requests[i].request & 0xffff ? 'Z' : 0, 0};
            if (which && tty < 0)
                continue;
            if ((uint32_t)requests[i].request == TIOCLINUX)
                byte[0] = 3; /* paste */
            snprintf(what, sizeof what, "%s on %s", requests[i].name, which ? "/dev/tty" : "fd 0");
            tell_call(9, what, syscall(SYS_ioctl, which ? tty : 0, requests[i].request, byte));
        }
}

/* ---- 10 to 13: calls ---- */

static void p10(void)
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

static void p11(void)
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

static void p12(void)
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

static void p13(void)
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

/* ---- 14 to 16: devices and mounts ---- */

static void p14(void)
{
    static const char *const places[] = {"/tmp", "/dev", "/dev/shm", "/var/tmp", "/run", "."};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        static const struct {
            const char *name;
            mode_t mode;
            unsigned major, minor;
        } nodes[] = {{"c 1:3", S_IFCHR, 1, 3},
                     {"c 1:1", S_IFCHR, 1, 1},
                     {"b 8:0", S_IFBLK, 8, 0},
                     {"b 259:0", S_IFBLK, 259, 0}};
        for (size_t j = 0; j < sizeof nodes / sizeof *nodes; j++) {
            char path[128], what[64];
            snprintf(path, sizeof path, "%s/.layerrun-probe-node", places[i]);
            snprintf(what, sizeof what, "mknod %s in %s", nodes[j].name, places[i]);
            unlink(path);
            int made = mknod(path, nodes[j].mode | 0666, makedev(nodes[j].major, nodes[j].minor));
            if (made == 0)
                tell(14, what, "made; opened: %s", name_of(open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC)));
            else
                tell_call(14, what, made);
            unlink(path);
        }
    }
    if (value("char"))
        tell_call(14, "open a planted c 1:3", open(value("char"), O_RDONLY | O_CLOEXEC));
    if (value("block"))
        tell_call(14, "open a planted b 7:0", open(value("block"), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
}

static void unescape(char *path)
{
    char *to = path;
    for (char *from = path; *from; from++)
        if (*from == '\\' && from[1] && from[2] && from[3]) {
            *to++ = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
            from += 3;
        } else
            *to++ = *from;
    *to = 0;
}

static void p15(void)
{
    static char text[1 << 17];
    static const char *const hidden[] = {"/proc/sys", "/proc/kcore", "/proc/keys",
                                         "/proc",     "/dev/null",   "/sys"};
    char what[4300];
    slurp("/proc/self/mountinfo", text, sizeof text);
    tell_call(15, "mount, remount / with write", mount("none", "/", NULL, MS_REMOUNT, NULL));
    tell_call(15, "mount, remount / by bind", mount("none", "/", NULL, MS_REMOUNT | MS_BIND, NULL));
    for (size_t i = 0; i < sizeof hidden / sizeof *hidden; i++) {
        snprintf(what, sizeof what, "mount, remount %s with write", hidden[i]);
        tell_call(15, what, mount("none", hidden[i], NULL, MS_REMOUNT | MS_BIND, NULL));
        snprintf(what, sizeof what, "mount over %s", hidden[i]);
        tell_call(15, what, mount("/tmp", hidden[i], NULL, MS_BIND, NULL));
        snprintf(what, sizeof what, "move %s", hidden[i]);
        tell_call(15, what, mount(hidden[i], "/tmp", NULL, MS_MOVE, NULL));
    }
    tell_call(15, "make / shared", mount("none", "/", NULL, MS_SHARED | MS_REC, NULL));
    tell_call(15, "pivot_root", syscall(SYS_pivot_root, "/", "/tmp"));
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        char target[4096];
        if (sscanf(line, "%*s %*s %*s %*s %4095s", target) != 1)
            continue;
        unescape(target);
        for (int lazy = 0; lazy < 2; lazy++) {
            snprintf(what, sizeof what, "umount%s %s", lazy ? " -l" : "", target);
            tell_call(15, what, umount2(target, lazy ? MNT_DETACH : 0));
        }
    }
}

static void p16(void)
{
    flags_now = CLONE_NEWPID | CLONE_NEWNS;
    in_child(16, "unshare NEWPID | NEWNS", do_unshare);
    flags_now = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS;
    in_child(16, "unshare NEWUSER | NEWPID | NEWNS", do_unshare);
    tell_call(16, "mount a fresh proc", mount("proc", "/tmp", "proc", 0, NULL));
    tell_call(16, "fsopen proc", syscall(430, "proc", 0));
}

/* ---- 17 to 19: whom we reach ---- */

static void p17(void)
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

static void p18(void)
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

static void p19(void)
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

/* ---- 20, 22, 31: what is left of the launcher ---- */

static void p20(void)
{
    char list[8192] = "";
    DIR *folder = opendir("/proc/self/fd");
    for (struct dirent *entry; folder && (entry = readdir(folder));)
        if (entry->d_name[0] != '.' && atoi(entry->d_name) != dirfd(folder) && strlen(list) < 8000)
            strcat(strcat(list, *list ? " " : ""), entry->d_name);
    if (folder)
        closedir(folder);
    tell(20, "our descriptors", "%s", list);
    folder = opendir("/proc/1/fd");
    tell_call(20, "open /proc/1/fd", folder ? 0 : -1);
    for (int fd = 0; fd < 12; fd++) {
        char path[32], what[64];
        snprintf(path, sizeof path, "/proc/1/fd/%d", fd);
        snprintf(what, sizeof what, "open %s", path);
        int opened = open(path, O_PATH | O_CLOEXEC);
        if (opened >= 0 || (errno != EACCES && errno != EPERM))
            tell_call(20, what, opened);
    }
}

static void p22(void)
{
    static const char *const paths[] = {"/proc/1/exe", "/proc/1/map_files", "/proc/1/root", "/proc/1/cwd",
                                        "/proc/1/ns/mnt"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        try_open(22, "r", paths[i], O_RDONLY);
        if (i == 0)
            try_open(22, "w", paths[i], O_WRONLY);
        if (i != 1) /* a folder whose entries are what counts */
            try_open(22, "p", paths[i], O_PATH);
    }
}

static void p31(void)
{
    status_line(31, "Groups", "/proc/self/status", "Groups");
    if (value("grouped"))
        try_open(31, "r", value("grouped"), O_RDONLY);
    tell_call(31, "setgroups", syscall(SYS_setgroups, (size_t)1, (gid_t[]){getgid()}));
}

/* ---- */

static const struct {
    const char *name;
    void (*run)(void);
    bool last; /* it kills whatever it reaches */
} groups[] = {{"p20", p20, false}, {"p1", p1, false},   {"p2", p2, false},   {"p3", p3, false},
              {"p4", p4, false},   {"p5", p5, false},   {"p6", p6, false},   {"p7", p7, false},
              {"p8", p8, false},   {"p9", p9, false},   {"p10", p10, false}, {"p11", p11, false},
              {"p12", p12, false}, {"p13", p13, false}, {"p14", p14, false}, {"p15", p15, false},
              {"p16", p16, false}, {"p18", p18, false}, {"p19", p19, false}, {"p22", p22, false},
              {"p31", p31, false}, {"p17", p17, true}};

static bool is_wanted(const char *name)
{
    for (int i = 0; i < words_count; i++)
        if (!strcmp(words[i], name) || (!strcmp(words[i], "all") && strcmp(name, "p9")))
            return true;
    return false;
}

int main(int argc, char **argv)
{
    words = argv + 1;
    words_count = argc - 1;
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    self[length > 0 ? length : 0] = 0;
    if (argc == 3 && !strcmp(argv[1], "status")) {
        status_line(7, argv[2], "/proc/self/status", "Seccomp");
        return 0;
    }
    if (argc == 4 && !strcmp(argv[1], "flip"))
        for (;;)
            if (renameat2(AT_FDCWD, argv[2], AT_FDCWD, argv[3], RENAME_EXCHANGE))
                return 1;
    if (argc == 3 && !strcmp(argv[1], "ids")) {
        tell_ids(argv[2]);
        return 0;
    }
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
        if (is_wanted(groups[i].name))
            groups[i].run();
    tell(0, "the end", "reached");
    return 0;
}
