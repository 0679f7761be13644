/* spare.h: `layerrun try` without Python, as long as nothing changes. docs/architecture.md, "Throwaways and apps". */
#ifndef LR_SPARE_H
#define LR_SPARE_H

/* Run a command in a spare throwaway; words: what stands behind `try`. Returns the command's exit status if it has changed nothing;
 * -1 if Python must go on: to decide, with nothing done, or, with LAYERRUN_ENDED set, to look at what was changed. */
int lr_spare_try(const char *const *words);

#endif
