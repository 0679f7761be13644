/* Fuzzes the reading of a stored plan; the bytes are what stands before the sum, which no fuzzer would hit on. */
#include "stored.h"

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

static void check_sum(const char *bytes, size_t size)
{
    char *whole = malloc(size + LR_SUM_SIZE);
    if (!whole)
        return;
    if (size)
        memcpy(whole, bytes, size);
    lr_sum_text(whole + size, lr_sum(LR_SUM_START, bytes, size));
    must(lr_stored_is_whole(whole, size + LR_SUM_SIZE));
    must(!lr_stored_is_whole(whole, size + LR_SUM_SIZE - 1));
    whole[size ? size / 2 : 0] ^= 1;
    must(!lr_stored_is_whole(whole, size + LR_SUM_SIZE));
    free(whole);
}

int LLVMFuzzerTestOneInput(const char *bytes, size_t size);
int LLVMFuzzerTestOneInput(const char *bytes, size_t size)
{
    struct lr_stored stored;
    struct lr_condition is;
    struct lr_error error;
    (void)lr_stored_is_whole(bytes, size);
    check_sum(bytes, size);
    if (lr_stored_parse(&stored, bytes, size))
        return 0;
    inside(stored.who, bytes, size);
    inside(stored.store, bytes, size);
    inside(stored.store_path, bytes, size);
    inside(stored.app, bytes, size);
    inside(stored.name, bytes, size);
    for (const char *at = stored.conditions; lr_stored_next(&stored, &at, &is);) {
        must(is.kind >= 0 && is.kind < LR_CONDITION_KINDS);
        inside(is.subject, bytes, size);
        inside(is.wanted, bytes, size);
        must(at <= stored.conditions_end);
    }
    must(stored.plan >= stored.conditions_end && stored.plan + stored.plan_size == bytes + size);
    lr_plan_check(stored.plan, stored.plan_size, &error);
    return 0;
}
