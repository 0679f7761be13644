/* environ.c: the environment inside, of a plan, the caller's and one start's own. */
#include "plan.h"

#include <stdlib.h>
#include <string.h>

static bool kept(const struct lr_plan *plan, const char *entry)
{
    size_t name = strcspn(entry, "=");
    if (!entry[name] || !name)
        return false;
    for (size_t i = 0; i < plan->count; i++) {
        if (plan->ops[i].kind != LR_OP_KEEPENV)
            continue;
        const char *pattern = plan->ops[i].arg[0];
        size_t length = strlen(pattern);
        if (length && pattern[length - 1] == '*' ? length - 1 <= name && !memcmp(pattern, entry, length - 1)
                                                 : length == name && !memcmp(pattern, entry, length))
            return true;
    }
    return false;
}

static bool is_same_name(const char *entry, const char *other)
{
    return !strncmp(entry, other, strcspn(entry, "=") + 1);
}

static bool set_by_plan(const struct lr_plan *plan, const char *entry)
{
    for (size_t i = 0; i < plan->count; i++)
        if (plan->ops[i].kind == LR_OP_ENV && is_same_name(entry, plan->ops[i].arg[0]))
            return true;
    return false;
}

static bool set_by(const char *const *words, const char *entry)
{
    while (*words && !is_same_name(entry, *words))
        words++;
    return *words;
}

static bool names_same(const char *entry, const char *other)
{
    size_t length = strcspn(entry, "=");
    return length == strcspn(other, "=") && !memcmp(entry, other, length);
}

/* NAME alone stands for the caller's variable, if there is one; of words for one name the last counts. */
static const char **resolve(const char *const *more, const char *const *environ)
{
    size_t count = 0, n = 0;
    while (more && more[count])
        count++;
    const char **found = calloc(count + 1, sizeof *found);
    for (size_t i = 0; found && i < count; i++) {
        const char *const *at = more + i + 1;
        while (*at && !names_same(more[i], *at))
            at++;
        if (*at)
            continue;
        if (strchr(more[i], '=')) {
            found[n++] = more[i];
            continue;
        }
        for (at = environ; at && *at; at++)
            if (strchr(*at, '=') && names_same(more[i], *at)) {
                found[n++] = *at;
                break;
            }
    }
    return found;
}

static int fill(struct lr_plan *plan, const char *const *environ, const char *const *more,
                struct lr_error *err)
{
    size_t n = 0, callers = 0, mores = 0;
    while (environ && environ[callers])
        callers++;
    while (more[mores])
        mores++;
    plan->env = calloc(callers + plan->count + mores + 1, sizeof *plan->env);
    if (!plan->env)
        return lr_fail(err, "make the environment", "");
    for (size_t i = 0; i < callers; i++)
        if (kept(plan, environ[i]) && !set_by_plan(plan, environ[i]) && !set_by(more, environ[i]))
            plan->env[n++] = (char *)environ[i];
    for (size_t i = 0; i < plan->count; i++)
        if (plan->ops[i].kind == LR_OP_ENV && !set_by(more, plan->ops[i].arg[0]))
            plan->env[n++] = (char *)plan->ops[i].arg[0];
    for (size_t i = 0; i < mores; i++)
        plan->env[n++] = (char *)more[i];
    return 0;
}

/* The environment inside: what the plan keeps of the caller's, then what it sets itself, then what this start sets. */
int lr_plan_environ(struct lr_plan *plan, const char *const *environ, const char *const *more,
                    struct lr_error *err)
{
    const char **words = resolve(more, environ);
    int failed = words ? fill(plan, environ, words, err) : lr_fail(err, "make the environment", "");
    free(words);
    return failed;
}
