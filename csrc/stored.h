/* stored.h: reading a stored plan: what it was made from, then the plan. The format is prose in docs/plan.md, "Stored plans".
 * Nothing here touches the machine, so that the fuzzer can have all of it.
 */
#ifndef LR_STORED_H
#define LR_STORED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A stored plan. Every string points into the caller's buffer. */
struct lr_stored {
    const char *who; /* whom it was made for */
    const char *store, *store_path; /* the store's folder, by device and inode and by path */
    const char *app; /* the app's folder, relative to the store */
    const char *name; /* the app's: a copy under another name is not that app's */
    const char *conditions, *conditions_end;
    const char *plan;
    size_t plan_size;
};

enum lr_condition_kind {
    LR_CONDITION_SUM, /* path, sum of the content */
    LR_CONDITION_FILE, /* path, what identifies it as unchanged */
    LR_CONDITION_NAMES, /* path of a folder, sum of its entries: names, types, where links lead */
    LR_CONDITION_MODE, /* path, what decides who may do what with it */
    LR_CONDITION_REAL, /* path, where it leads; "-" where it leads nowhere */
    LR_CONDITION_ENV, /* name, "=" and the value; "-" where it is not set */
    LR_CONDITION_CWD, /* path, "keep": the caller's working folder is kept if it lies there */
    LR_CONDITION_UPPER, /* path, the number of its entries, ":", and as FILE: nobody has written anything into it */
    LR_CONDITION_KINDS
};

struct lr_condition {
    enum lr_condition_kind kind;
    const char *subject, *wanted;
};

#define LR_SUM_START 0xcbf29ce484222325ULL
#define LR_SUM_SIZE 17 /* hexadecimal digits and a NUL */

/* FNV-1a, 64 bits, continued from hash. It guards against a torn write and a changed machine, not against an enemy: the store is
 * ours alone. */
uint64_t lr_sum(uint64_t hash, const char *bytes, size_t size);
void lr_sum_text(char text[LR_SUM_SIZE], uint64_t hash);

/* Whether the last word of the bytes is the sum of all before it. */
bool lr_stored_is_whole(const char *bytes, size_t size);

/* Take apart what stands before the sum. Returns 0, or -1 if it is not a stored plan of this version. */
int lr_stored_parse(struct lr_stored *stored, const char *bytes, size_t size);

/* The condition at *at, which begins as stored->conditions; false after the last. */
bool lr_stored_next(const struct lr_stored *stored, const char **at, struct lr_condition *condition);

#endif
