/* make.h: folders, files, links and short texts that a plan wants in a tmpfs it has just made. */
#ifndef LR_MAKE_H
#define LR_MAKE_H

#include "plan.h"

/* root: the new root, which no link leads out of. What is there already is left alone; a text must be new. */
int lr_make(int root, const struct lr_op *op, struct lr_error *err);

#endif
