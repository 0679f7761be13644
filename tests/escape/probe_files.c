/* probe_files.c: checks 1 to 3, 14 and 15: files of the kernel, devices, mounts that are seen. */

#include "probe.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

/* ---- 1 to 3: files of the kernel ---- */

void p1(void)
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

void p2(void)
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

void p3(void)
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

/* ---- 14 to 16: devices and mounts ---- */

void p14(void)
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

void p15(void)
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
