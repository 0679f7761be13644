/* main.c: the front door, bin/layerrun. It runs an app whose plan is current, and hands everything else, and anything it is not
 * sure of, to Python unchanged: one behaviour, two speeds. LAYERRUN_FRONT_DOOR=0 hands over everything; with
 * LAYERRUN_FRONT_DOOR=alone it hands over nothing, and says so on --status-fd. What Python has worked out it
 * hands back to be run, so that no Python stays behind an app.
 */
#include "command.h"
#include "door.h"
#include "handed.h"
#include "spare.h"
#include "status.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

/* A descriptor below 3 that is closed would be taken by the next file that is opened, and be written to as stderr. */
static void reopen_standard(void)
{
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", O_RDWR) < 0)
            _exit(125);
}

/* The Python beside us is the one we were installed for. -I: the caller's environment and working folder decide nothing. */
static int hand_over(int argc, char **argv)
{
    char python[4096];
    ssize_t length = readlink("/proc/self/exe", python, sizeof python - sizeof "/python3");
    char *slash = length > 0 ? (python[length] = 0, strrchr(python, '/')) : NULL;
    char **words = calloc((size_t)argc + 4, sizeof *words);
    if (!slash || !words) {
        fprintf(stderr, "layerrun: cannot find out where it is installed: is /proc mounted?\n");
        return 125;
    }
    strcpy(slash, "/python3");
    words[0] = python;
    words[1] = "-I";
    words[2] = "-m";
    words[3] = "layerrun";
    for (int i = 1; i < argc; i++)
        words[i + 3] = argv[i];
    execv(python, words);
    fprintf(stderr, "layerrun: cannot run %s: %s\n  try: install layerrun again\n", python, strerror(errno));
    return 125;
}

/* The descriptor that is told how it goes is not for what we execute, but for the Python that goes on in our place. */
static int hold(int fd, int flags)
{
    return fd < 3 ? 0 : fcntl(fd, F_SETFD, flags);
}

static int try_app(const struct lr_options *options, struct lr_error *why)
{
    if (hold(options->status_fd, FD_CLOEXEC))
        return -1;
    int status = lr_door_run(options, why);
    if (status < 0)
        hold(options->status_fd, 0);
    return status;
}

/* Where Python must not be asked. */
static int end_alone(int status_fd, const struct lr_error *why)
{
    if (why->code)
        lr_status_failed(status_fd, why);
    else
        lr_status_unsure(status_fd);
    return why->code ? lr_command_status(why) : 125;
}

/* As the command did: whoever started us by a program sees the difference from a status of 128 and more. */
static void die_by(int number)
{
    sigset_t set;
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* the core, if there is one, is the command's */
    signal(number, SIG_DFL);
    sigemptyset(&set);
    sigaddset(&set, number);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    raise(number);
}

int main(int argc, char **argv)
{
    const char *const *words = (const char *const *)argv + (argc > 2 ? 2 : argc);
    const char *wanted = getenv("LAYERRUN_FRONT_DOOR");
    bool is_off = wanted && !strcmp(wanted, "0"), is_alone = wanted && !strcmp(wanted, "alone");
    struct lr_options options = {0};
    struct lr_error why = {0};
    reopen_standard();
    bool passed = lr_handed_is_passed();
    int status = lr_handed_run(is_alone, &options.status_fd, &why);
    if (status == -1 && is_alone)
        status = end_alone(options.status_fd, &why);
    if (status == LR_HANDED_NONE) {
        if (!is_off && argc > 2 && !strcmp(argv[1], "app") && !lr_options_parse(&options, words))
            status = try_app(&options, &why);
        else if (!is_off && !is_alone && argc > 2 && !strcmp(argv[1], "try"))
            status = lr_spare_try(words);
        if (status < 0 && is_alone)
            status = end_alone(options.status_fd, &why);
        if (status < 0 && passed)
            lr_handed_pass();
    }
    lr_options_free(&options);
    if (status >> 8 > 0 && is_alone)
        die_by(status >> 8);
    return status >= 0 ? status & 0xff : hand_over(argc, argv);
}
