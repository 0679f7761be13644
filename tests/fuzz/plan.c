/* Fuzzes the reading of a plan. What is accepted is looked at again: strings within the bytes, the limits that the launcher trusts. */
#include "plan.h"
#include "launch.h"

#include <stdlib.h>
#include <string.h>

static void must(int holds)
{
    if (!holds)
        abort();
}

/* A string that begins in the bytes ends in them, too. */
static void inside(const char *text, const char *bytes, size_t size)
{
    must(text >= bytes && text < bytes + size && memchr(text, 0, size - (size_t)(text - bytes)));
}

int LLVMFuzzerTestOneInput(const char *bytes, size_t size);
int LLVMFuzzerTestOneInput(const char *bytes, size_t size)
{
    static const char *const environ[] = {"PATH=/bin", "LC_ALL=C", "TERM", "=x", "", "HOME=", "A=B=C", NULL};
    static const char *const more[] = {"A=1", "NEW=", "A=2", NULL};
    struct lr_plan plan;
    struct lr_error error;
    memset(&error, 'x', sizeof error);
    int failed = lr_plan_parse(&plan, bytes, size, &error);
    must((lr_plan_check(bytes, size, &error) != 0) == (failed != 0));
    if (failed) {
        must(error.code != 0 && memchr(error.step, 0, sizeof error.step) &&
             memchr(error.path, 0, sizeof error.path));
        lr_plan_free(&plan);
        return 0;
    }
    must(plan.count && plan.count <= LR_PLAN_MAX_OPS && plan.ops[0].kind == LR_OP_USERNS);
    must((plan.no_new_privs || plan.userns == LR_USERNS_HELPER || plan.userns == LR_USERNS_RANGE) &&
         plan.filter && *plan.cwd == '/');
    size_t words = 0;
    for (size_t i = 0; i < plan.count; i++) {
        const struct lr_op *op = &plan.ops[i];
        must(op->number == (int)i && op->fd == -1 && op->kind >= 0 && op->kind < LR_OP_KINDS);
        for (int j = 0; j < LR_PLAN_MAX_ARGS && op->arg[j]; j++)
            inside(op->arg[j], bytes, size);
        words += op->kind == LR_OP_ARG;
    }
    for (size_t i = 0; i < words; i++)
        inside(plan.argv[i], bytes, size);
    must(!plan.argv[words]);
    must(!lr_plan_environ(&plan, environ, more, &error));
    for (char **entry = plan.env; *entry; entry++)
        must(**entry && **entry != '=' && strchr(*entry, '=') && strcmp(*entry, "A=1"));
    lr_plan_free(&plan);
    return 0;
}
