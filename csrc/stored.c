/* stored.c: reading a stored plan. Like a plan it is refused whole if anything in it is unknown. */
#include "stored.h"

#include <stdio.h>
#include <string.h>

static const char *const kinds[LR_CONDITION_KINDS] = {
    [LR_CONDITION_SUM] = "sum",   [LR_CONDITION_FILE] = "file",   [LR_CONDITION_NAMES] = "names",
    [LR_CONDITION_MODE] = "mode", [LR_CONDITION_REAL] = "real",   [LR_CONDITION_ENV] = "env",
    [LR_CONDITION_CWD] = "cwd",   [LR_CONDITION_UPPER] = "upper",
};

uint64_t lr_sum(uint64_t hash, const char *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ (unsigned char)bytes[i]) * 0x100000001b3ULL;
    return hash;
}

void lr_sum_text(char text[LR_SUM_SIZE], uint64_t hash)
{
    snprintf(text, LR_SUM_SIZE, "%016llx", (unsigned long long)hash);
}

bool lr_stored_is_whole(const char *bytes, size_t size)
{
    char sum[LR_SUM_SIZE];
    if (size < sizeof sum)
        return false;
    lr_sum_text(sum, lr_sum(LR_SUM_START, bytes, size - sizeof sum));
    return !memcmp(bytes + size - sizeof sum, sum, sizeof sum);
}

static const char *word(const char **at, const char *end)
{
    const char *text = *at;
    const char *nul = text < end ? memchr(text, 0, (size_t)(end - text)) : NULL;
    if (!nul)
        return NULL;
    *at = nul + 1;
    return text;
}

static bool next_is(const char **at, const char *end, const char *wanted)
{
    const char *text = word(at, end);
    return text && !strcmp(text, wanted);
}

static int kind_of(const char *key)
{
    int kind = 0;
    while (kind < LR_CONDITION_KINDS && strcmp(key, kinds[kind]))
        kind++;
    return kind;
}

int lr_stored_parse(struct lr_stored *stored, const char *bytes, size_t size)
{
    const char *at = bytes, *end = bytes + size, *key;
    if (!next_is(&at, end, "layerrun-stored") || !next_is(&at, end, "1") || !(stored->who = word(&at, end)) ||
        !(stored->store = word(&at, end)) || !(stored->store_path = word(&at, end)) ||
        !(stored->app = word(&at, end)) || !(stored->name = word(&at, end)))
        return -1;
    for (stored->conditions = at;;) {
        stored->conditions_end = at;
        if (!(key = word(&at, end)))
            return -1;
        if (!strcmp(key, "plan"))
            break;
        if (kind_of(key) == LR_CONDITION_KINDS || !word(&at, end) || !word(&at, end))
            return -1;
    }
    stored->plan = at;
    stored->plan_size = (size_t)(end - at);
    return 0;
}

bool lr_stored_next(const struct lr_stored *stored, const char **at, struct lr_condition *condition)
{
    const char *key = word(at, stored->conditions_end);
    if (!key)
        return false;
    condition->kind = (enum lr_condition_kind)kind_of(key);
    condition->subject = word(at, stored->conditions_end);
    condition->wanted = word(at, stored->conditions_end);
    return true;
}
