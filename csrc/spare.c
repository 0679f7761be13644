/* spare.c: a spare is a throwaway that Python has made ready, with a stored plan. A command that changes nothing leaves it as it was,
 * so that the next one can have it. If it was changed, it is what `try` shows and keeps: Python makes it a throwaway with a name,
 * while we hold its lock for it.
 */
#include "spare.h"

#include "current.h"
#include "handed.h"
#include "launch.h"
#include "sys.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SPARES 4 /* as in layerrun/store/spares.py: as many tries at once need no Python */
#define TURNS 15 /* for one that is just ending: as often as that, a moment apart; Python takes far longer */
#define MOMENT 2000000 /* ns */
#define BASE 64 /* bytes of the name of a base, see NAME in layerrun/model.py */

extern char **environ;

struct try {
    const char *base, *cwd;
    const char **env; /* NULL-terminated */
    const char *const *argv;
};

static bool is_one_of(const char *word, const char *one, const char *other)
{
    return !strcmp(word, one) || !strcmp(word, other);
}

static bool is_variable(const char *word)
{
    const char *equals = strchr(word, '=');
    return equals ? equals > word : *word && *word != '-' && !strchr(word, '*');
}

/* How many of the words say what is to be done with changes without asking, which is for Python to do. */
static int answer(const char *const *words)
{
    if (is_one_of(words[0], "-y", "--yes") || is_one_of(words[0], "-n", "--keep"))
        return 1;
    if (strcmp(words[0], "--on-exit") || !words[1])
        return 0;
    return is_one_of(words[1], "commit", "keep") || !strcmp(words[1], "discard") ? 2 : 0;
}

/* Only what cannot be meant otherwise. */
static int parse(struct try *try, const char *const *words)
{
    size_t count = 0, sets = 0;
    bool asked = false;
    while (words[count])
        count++;
    *try = (struct try){.base = "host", .env = calloc(count + 1, sizeof *try->env)};
    if (!try->env)
        return -1;
    for (; *words && **words == '-' && strcmp(*words, "--"); words++) {
        int taken = answer(words);
        if (taken) {
            if (asked)
                return -1;
            asked = true;
            words += taken - 1;
        } else if (!strcmp(*words, "--base") && words[1])
            try->base = *++words;
        else if (!strcmp(*words, "--cwd") && words[1] && *words[1] == '/')
            try->cwd = *++words;
        else if (is_one_of(*words, "-e", "--env") && words[1] && is_variable(words[1]))
            try->env[sets++] = *++words;
        else
            return -1;
    }
    if (*words && !strcmp(*words, "--"))
        words++;
    try->argv = words;
    return *words && **words && *try->base && strlen(try->base) < BASE && !strchr(try->base, '/') ? 0 : -1;
}

/* Leave the lock to Python, and tell it how the command has ended and in what. */
static int pass_on(const struct lr_current *current, int *lock, int status)
{
    const char *id = strrchr(current->stored.app, '/');
    if (lr_handed_end("spare", id ? id + 1 : "", status, *lock)) {
        fprintf(stderr, "layerrun: cannot say what was changed: %s\n  try: layerrun list\n", strerror(errno));
        return status;
    }
    lr_steal(lock);
    return -1;
}

static int run(const struct try *try, const struct lr_current *current, int *lock, const char *cwd, bool *ran)
{
    struct lr_error error;
    struct lr_result result;
    struct lr_launch launch = {
        .plan = current->stored.plan,
        .plan_size = current->stored.plan_size,
        .argv = try->argv,
        .environ = (const char *const *)environ,
        .env = try->env,
        .cwd = try->cwd            ? try->cwd
               : current->keep_cwd ? cwd
                                   : NULL,
        .cwd_must = try->cwd != NULL,
        .lock_fd = *lock,
        .app_fd = -1,
        .leave = 1, /* if nobody is left to write, the upper can be looked at */
        .own_tty = isatty(0) && isatty(1) && isatty(2),
    };
    *ran = true;
    if (lr_run(&launch, &result, &error)) {
        if (!result.started)
            return -1;
        fprintf(stderr, "layerrun: %s: %s\n", error.step, strerror(error.code));
        result.status = 125;
    }
    if (lr_current_untouched(current))
        return result.status;
    return pass_on(current, lock, result.status);
}

/* Run in one spare, if it is there, free and as it was made. */
static int run_in(const struct try *try, int store, const char *name, const char *cwd, bool *ran, bool *busy)
{
    struct lr_current current;
    LR_FD app = -1;
    LR_FD lock = -1;
    int status = -1;
    if (!lr_current_open(&current, store, name, cwd)) {
        app = lr_current_app(&current, store);
        lock = app < 0 ? -1 : lr_current_lock(app);
        *busy |= lock == LR_LOCK_BUSY || lock == LR_LOCK_ENDING;
        if (lock >= 0 && lr_current_is_there(&current, store, name) && lr_current_untouched(&current))
            status = run(try, &current, &lock, cwd, ran);
    }
    lr_current_close(&current);
    return status;
}

int lr_spare_try(const char *const *words)
{
    struct try try = {0};
    char cwd[PATH_MAX], name[BASE + 16];
    int status = -1;
    bool ran = false, busy = true;
    LR_FD store = lr_current_store();
    if (store >= 0 && !parse(&try, words) && getcwd(cwd, sizeof cwd))
        for (int turn = 0; turn < TURNS && busy && !ran; turn++) {
            if (turn)
                nanosleep(&(struct timespec){.tv_nsec = MOMENT}, NULL);
            busy = false;
            for (int i = 0; i < SPARES && !ran; i++) {
                snprintf(name, sizeof name, ".try@%s.%d", try.base, i);
                status = run_in(&try, store, name, cwd, &ran, &busy);
            }
        }
    free(try.env);
    if (status < 0 && ran)
        lr_handed_pass();
    return status;
}
