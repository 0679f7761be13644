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
    while (words && *words && !is_same_name(entry, *words))
        words++;
    return words && *words;
}

/* The environment inside: what the plan keeps of the caller's, then what it sets itself, then what this start sets. */
int lr_plan_environ(struct lr_plan *plan, const char *const *environ, const char *const *more,
                    struct lr_error *err)
{
    size_t n = 0, callers = 0, mores = 0;
    while (environ && environ[callers])
        callers++;
    while (more && more[mores])
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
        if (!set_by(more + i + 1, more[i]))
            plan->env[n++] = (char *)more[i];
    return 0;
}
