/* main.c: the front door, bin/layerrun. It runs an app whose plan is current, and hands everything else, and anything it is not
 * sure of, to Python unchanged: one behaviour, two speeds. LAYERRUN_FRONT_DOOR=0 hands over everything. What Python has worked out it
 * hands back to be run, so that no Python stays behind an app.
 */
#include "door.h"
#include "handed.h"
#include "spare.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* As NAME in layerrun/model.py. */
static bool is_name(const char *name)
{
    size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789._-");
    return length && length <= 63 && !name[length] && !strchr("._-", *name);
}

static bool is_wanted(void)
{
    const char *wanted = getenv("LAYERRUN_FRONT_DOOR");
    return !wanted || strcmp(wanted, "0");
}

static bool is_app(int argc, char **argv)
{
    if (argc < 3 || strcmp(argv[1], "app") || !is_name(argv[2]))
        return false;
    return argc == 3 || (argc > 4 && !strcmp(argv[3], "--") && *argv[4]);
}

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

int main(int argc, char **argv)
{
    reopen_standard();
    bool passed = lr_handed_is_passed();
    int status = lr_handed_run();
    if (status == LR_HANDED_NONE) {
        if (is_wanted() && is_app(argc, argv))
            status = lr_door_run(argv[2], argc > 4 ? (const char *const *)argv + 4 : NULL);
        else if (is_wanted() && argc > 2 && !strcmp(argv[1], "try"))
            status = lr_spare_try((const char *const *)argv + 2);
        if (status < 0 && passed)
            lr_handed_pass();
    }
    return status >= 0 ? status : hand_over(argc, argv);
}
