/* mounts.h: a plan's mounts, first prepared as detached mounts, then attached.
 *
 * Preparing needs the rights over the sources: as root it is done outside, by the launcher; without root inside,
 * by the child in its own user namespace. Attaching is always the child's.
 */
#ifndef LR_MOUNTS_H
#define LR_MOUNTS_H

#include "plan.h"

/* The host's device nodes that every sandbox gets, in this order, by descriptor. */
#define LR_DEVICES 6
extern const char *const lr_device_names[LR_DEVICES];

struct lr_mounts {
    int userns; /* the user namespace that maps what has the flag idmap; -1 where mounts are built inside it */
    const char *
        store_path; /* lowers beneath it are reached through one mount: making and ending one for each costs */
    int store;
    int data; /* the app's data folder: upper and work must lie on one and the same mount */
    int devices[LR_DEVICES];
    int shm; /* for /dev/shm */
    int root; /* the new root, once attached */
    int net; /* a network namespace that was made apart; -1 */
    int listening; /* the app's socket, which comes with the mounts; -1 */
    int ptmx; /* the master of the command's own terminal; -1 */
};

int lr_mounts_prepare(struct lr_plan *plan, struct lr_mounts *mounts, struct lr_error *err);
int lr_mounts_attach(struct lr_plan *plan, struct lr_mounts *mounts, int own_tty, struct lr_error *err);
/* Make every overlay of the plan and the mount of the data folder; with the credentials of who is to own what they make. */
int lr_overlays_prepare(struct lr_plan *plan, struct lr_mounts *mounts, struct lr_error *err);

/* A detached copy of the mount at source, with the attributes in flags; with LR_FLAG_IDMAP and a userns mapped by it. */
int lr_clone_mount(const char *source, unsigned flags, int userns, struct lr_error *err,
                   const struct lr_op *op);
/* A detached new mount; options end with a NULL key. */
int lr_new_mount(const char *type, const char *const options[][2], unsigned flags, struct lr_error *err,
                 const struct lr_op *op);
/* Fail with what the kernel says through the descriptor of a file-system context. */
int lr_context_fail(int fs, struct lr_error *err, const struct lr_op *op, const char *step);

void lr_mounts_close(struct lr_plan *plan, struct lr_mounts *mounts);

#endif
