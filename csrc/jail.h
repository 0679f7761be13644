/* jail.h: what a helper that works on hostile input is shut into: one folder, and nothing else of the machine. */
#ifndef LR_JAIL_H
#define LR_JAIL_H

#include "lr.h"

/* cffi:begin */

/* A detached copy of the mount at a folder, without setuid, devices and execution, whose root is the folder: no ".."
 * leads out of it. userns: a user namespace by whose ids it is mapped, -1 for none. Returns a descriptor. */
int lr_jail_mount(const char *path, int userns, struct lr_error *err);

/* In a mount namespace of our own: change to an empty, read-only root. What is open stays open. */
int lr_jail_enter(struct lr_error *err);

/* Landlock, landlock(7): nothing beneath the folder (-1: none) may be executed, nothing outside it opened, no TCP, no abstract
 * sockets or signals to outside, as far as this kernel knows these. After no_new_privs. Returns the ABI, 0 for none. */
int lr_jail_landlock(int folder, struct lr_error *err);

/* Last: the filter of system calls that the preset strict has. After no_new_privs. */
int lr_jail_filter(struct lr_error *err);

/* cffi:end */

#endif
