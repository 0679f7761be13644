/* shed.h: what a process that only waits need not hold. */
#ifndef LR_SHED_H
#define LR_SHED_H

#define LR_SHED_AFTER 500 /* ms without anything to do: a command that ends at once pays nothing for it */

/* Give back the pages of our own code and constants; what is needed again comes back from the page cache. Never fails. */
void lr_shed(void);

#endif
