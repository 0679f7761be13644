/* options.h: the command line of `layerrun app`, as far as it is sure to mean what click makes of it in Python. Nothing here touches the
 * machine.
 */
#ifndef LR_OPTIONS_H
#define LR_OPTIONS_H

#include <stdbool.h>

#define LR_NAME_SIZE 128 /* NAME@PROFILE and a NUL */

struct lr_options {
    char name[LR_NAME_SIZE]; /* with the profile, however that was given */
    const char *cwd; /* NULL: not asked for */
    const char **env; /* NAME=VALUE or, for the caller's, NAME; NULL-terminated */
    int status_fd; /* 0: not asked for */
    bool detach;
    const char *const *argv; /* NULL: the app's own command */
};

/* words: what stands behind `app`, NULL-terminated. Returns 0, or -1 where Python must look; what stands before
 * the doubtful word is filled in. In any case lr_options_free is due. */
int lr_options_parse(struct lr_options *options, const char *const *words);
void lr_options_free(struct lr_options *options);

#endif
