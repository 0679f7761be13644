/* current.h: the stored plans of a store: finding one, and telling whether it still holds. docs/plan.md, "Stored plans". */
#ifndef LR_CURRENT_H
#define LR_CURRENT_H

#include "stored.h"

struct lr_current {
    char *bytes;
    struct lr_stored stored;
    int file; /* open as long as this is used, so that its inode's number cannot become another's */
    bool keep_cwd; /* the caller's working folder is one to start in */
};

#define LR_CURRENT_NONE ((struct lr_current){.file = -1})

#define LR_LOCK_BUSY -2 /* another has it */
#define LR_LOCK_ENDING -3 /* nobody has it, but whoever had it last is still there */

/* The store's folder, or -1: none, or not one that we may use. */
int lr_current_store(void);

/* Read the plan stored under a name, as lr_current_open does first. Returns 0 or -1. */
int lr_current_read(struct lr_current *current, int store, const char *name);

/* Whether all of what it was made from is as it was. */
bool lr_current_holds(struct lr_current *current, int store, const char *name, const char *cwd);

/* Read the plan stored under a name and compare what it was made from. Returns 0 if all of it is as it was, else -1 (a doubt, not an
 * error). Of an upper nothing is said yet: see lr_current_untouched. cwd: the caller's working folder. */
int lr_current_open(struct lr_current *current, int store, const char *name, const char *cwd);
void lr_current_close(struct lr_current *current);

/* The app's folder, or -1. */
int lr_current_app(const struct lr_current *current, int store);

/* Take the lock of the app whose folder this is, without waiting: a descriptor, -1, LR_LOCK_BUSY or LR_LOCK_ENDING. */
int lr_current_lock(int app);

/* Whether the same file still lies there. Asked under the lock: whoever outdates a plan removes it while holding the lock. */
bool lr_current_is_there(const struct lr_current *current, int store, const char *name);

/* Whether a folder of an upper is as wanted: the number of its entries, a colon, and what identifies it as unchanged. */
bool lr_current_upper_is(const char *path, const char *wanted);

/* Whether the plan says what its empty uppers are like, and they still are. Asked under the lock. */
bool lr_current_untouched(const struct lr_current *current);

#endif
