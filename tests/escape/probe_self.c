/* probe_self.c: checks 4 to 9, 20, 22 and 31: who we are, other tables of calls, the terminal, what is left of the launcher. */

#include "probe.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

/* ---- 4 to 7: who we are ---- */

void p4(void)
{
    tell_lines(4, "/proc/self/uid_map");
    tell_lines(4, "/proc/self/gid_map");
    tell_lines(4, "/proc/self/setgroups");
}

void p5(void)
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

void p6(void)
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

void p7(void)
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

void p8(void)
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

void p9(void)
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

/* ---- 20, 22, 31: what is left of the launcher ---- */

void p20(void)
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

void p22(void)
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

void p31(void)
{
    status_line(31, "Groups", "/proc/self/status", "Groups");
    if (value("grouped"))
        try_open(31, "r", value("grouped"), O_RDONLY);
    tell_call(31, "setgroups", syscall(SYS_setgroups, (size_t)1, (gid_t[]){getgid()}));
}
