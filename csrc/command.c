/* command.c: from a forked process to the command: its place, its signals, its descriptors, exec. */
#include "command.h"

#include "control.h"
#include "sys.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

void lr_command_fail(int control, const struct lr_error *error)
{
    struct lr_message message = {.type = LR_MSG_ERROR, .error = *error};
    lr_send(control, &message, NULL);
    _exit(error->code == ENOENT ? 127 : error->code == EACCES ? 126 : 125);
}

static int enter_cwd(const struct lr_command *command, struct lr_error *err)
{
    const char *wanted = command->cwd;
    char where[4096];
    if (wanted && !chdir(wanted)) {
        /* "(unreachable)": a descriptor from outside smuggled in by name, as in CVE-2024-21626. */
        if (syscall(SYS_getcwd, where, sizeof where) > 0 && *where == '/')
            return 0;
        errno = EXDEV;
    }
    if (wanted && command->cwd_must)
        return lr_fail(err, "enter the working folder", wanted);
    const char *place = !chdir(command->place) ? command->place : "/";
    if (wanted)
        dprintf(2, "layerrun: %s cannot be entered inside; starting in %s\n", wanted, place);
    if (*place == '/' && !place[1] && chdir("/"))
        return lr_fail(err, "enter the working folder", "/");
    return 0;
}

/* Like execvpe(3), but it searches the PATH inside, knows no default, and never hands a file to a shell. */
static int execute(char *const argv[], char *const env[], struct lr_error *err)
{
    const char *name = argv[0], *path = NULL;
    char full[4096];
    int denied = 0;
    if (strchr(name, '/')) {
        execve(name, argv, env);
        return lr_fail(
            err, errno == ENOENT && !access(name, F_OK) ? "execute (its interpreter is missing)" : "execute",
            name);
    }
    for (char *const *entry = env; *entry; entry++)
        if (!strncmp(*entry, "PATH=", 5))
            path = *entry + 5;
    for (const char *at = path; at && *name; at += *at == ':') {
        size_t length = strcspn(at, ":");
        if (length + 1 + strlen(name) + 1 < sizeof full && length) {
            memcpy(full, at, length);
            full[length] = '/';
            strcpy(full + length + 1, name);
            execve(full, argv, env);
            if (errno == ENOENT && !access(full, X_OK))
                return lr_fail(err, "execute (its interpreter is missing)", full);
            if (errno == EACCES)
                denied = 1;
            else if (errno != ENOENT && errno != ENOTDIR)
                return lr_fail(err, "execute", full);
        }
        at += length;
        if (!*at)
            break;
    }
    return lr_fail_code(err, denied ? EACCES : ENOENT, "execute", name);
}

/* What the command inherits: the caller's mask, no ignored signal that Python (which ignores these two) put there. A guest descends from
 * the first caller, whose ignored signals are not the guest's. */
static void reset_signals(const struct lr_command *command)
{
    for (int number = 1; command->ignored && number < NSIG; number++)
        signal(number, sigismember(command->ignored, number) == 1 ? SIG_IGN : SIG_DFL);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGXFSZ, SIG_DFL);
    sigprocmask(SIG_SETMASK, command->mask, NULL);
}

void lr_command_run(const struct lr_command *command, int control)
{
    struct lr_error error;
    setpgid(0, 0);
    if (command->terminal >= 0) {
        tcsetpgrp(command->terminal, getpid());
        for (int fd = 0; fd < 3; fd++)
            dup2(command->terminal, fd);
    }
    if (command->has_umask)
        umask(command->umask);
    int failed = enter_cwd(command, &error);
    if (!failed && close_range(3, ~0U, CLOSE_RANGE_CLOEXEC))
        failed = lr_fail(&error, "close the descriptors that do not belong inside", "");
    if (!failed) {
        if (command->limits)
            lr_limits_apply(command->limits);
        if (command->rlimits)
            lr_rlimits_apply(command->rlimits);
        reset_signals(command);
        execute(command->argv, command->env, &error);
    }
    lr_command_fail(control, &error);
}

static bool could_not_be_executed(const struct lr_error *error)
{
    return !strncmp(error->step, "execute", strlen("execute"));
}

bool lr_command_is_at_fault(const struct lr_error *error)
{
    /* Without a path there was no command at all, which is a matter of the app's configuration. */
    return (could_not_be_executed(error) && *error->path) || !strcmp(error->step, "enter the working folder");
}

int lr_command_status(const struct lr_error *error)
{
    static const int shortages[] = {EAGAIN, EMFILE, ENFILE, ENOMEM, ENOSPC, EIO};
    if (!could_not_be_executed(error))
        return 125;
    for (size_t i = 0; i < sizeof shortages / sizeof *shortages; i++)
        if (error->code == shortages[i])
            return 125;
    return error->code == ENOENT ? 127 : 126;
}
