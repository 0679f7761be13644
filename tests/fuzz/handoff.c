/* Fuzzes the reading of a handed start. */
#include "handoff.h"

#include "launch.h"

#include <stdlib.h>
#include <string.h>

static void must(int holds)
{
    if (!holds)
        abort();
}

static void inside(const char *text, const char *bytes, size_t size)
{
    must(text >= bytes && text < bytes + size && memchr(text, 0, size - (size_t)(text - bytes)));
}

static void all_inside(const char **words, const char *bytes, size_t size)
{
    for (; words && *words; words++)
        inside(*words, bytes, size);
}

int LLVMFuzzerTestOneInput(const char *bytes, size_t size);
int LLVMFuzzerTestOneInput(const char *bytes, size_t size)
{
    struct lr_handoff handoff = {.lock_fd = -1};
    struct lr_error error;
    if (!lr_handoff_parse(&handoff, bytes, size)) {
        if (handoff.cwd)
            inside(handoff.cwd, bytes, size);
        inside(handoff.passed, bytes, size);
        inside(handoff.again, bytes, size);
        inside(handoff.after, bytes, size);
        inside(handoff.id, bytes, size);
        inside(handoff.name, bytes, size);
        all_inside(handoff.argv, bytes, size);
        all_inside(handoff.env, bytes, size);
        must(handoff.lock_fd == -1 || handoff.lock_fd > 2);
        must(handoff.app_fd == -1 || handoff.app_fd > 2);
        must(handoff.status_fd == -1 || handoff.status_fd > 0);
        must(handoff.net_fd == -1 || handoff.net_fd > 2);
        must(handoff.keep_count <= LR_KEEP_MOST);
        for (size_t i = 0; i < handoff.keep_count; i++)
            must(handoff.keep[i] > 2);
        must(handoff.plan + handoff.plan_size == bytes + size);
        lr_plan_check(handoff.plan, handoff.plan_size, &error);
    }
    lr_handoff_free(&handoff);
    return 0;
}
