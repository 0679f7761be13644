/* intake.h: taking trees into the store, and looking whether they are still what was taken in; docs/store.md. */
#ifndef LR_INTAKE_H
#define LR_INTAKE_H

#include "lr.h"

/* cffi:begin */

/* A stream that is taken in. Of descriptors, -1 is none. */
struct lr_intake_options {
    int stream; /* of stream.h, O_NONBLOCK */
    int cancel; /* once it can be read, the intake ends with ECANCELED */
    int progress; /* a pipe that gets pairs of u64, entries and bytes; what does not fit is left out */
    int tree; /* the empty folder that becomes the tree */
    int objects; /* the store's objects */
    int fresh; /* a folder of the ticket for objects that are new */
    int records; /* the store's records of layers */
    int layers; /* a folder of the ticket for new ones */
    int manifest, links; /* empty files */
    int archive; /* the file in which the stream may say that contents lie */
    /* The layers in their order, a line each: 'r' (replayed: the store's record is read), 'w' (its record is written) or '-',
     * then the name; no other may come. */
    const char *plan;
    const char *scheme; /* what owners on disk mean: part of an object's name */
    int owners; /* set them; else all is the caller's, and they stand in the manifest alone */
    int devices; /* make device nodes; else they stand in the manifest alone */
    int strict; /* nobody vouches for the stream: see docs/store.md, archives */
    int known; /* files may be known ones, whose content the store has */
    int marks; /* what a whiteout becomes: 0: it takes away; else overlayfs's own, 1 trusted.*, 2 user.* */
    uint32_t ids; /* owners are below that; 0: any */
    uint64_t entries, size; /* limits */
};

struct lr_intake_result {
    char digest[72]; /* of the manifest: sha256:... */
    uint64_t entries; /* in the tree, the root too */
    uint64_t size; /* bytes of files, those of hard links once */
    uint64_t fresh, fresh_size; /* new objects */
    uint64_t known; /* files that an object was there for */
};

/* Fails with EBADMSG where the stream is not as it must be: `step` is then said of `path`. ENODATA: an object that the stream
 * counts on is gone. */
int lr_intake(const struct lr_intake_options *options, struct lr_intake_result *result, struct lr_error *err);

/* Write the tree beneath `tree` to `out` as a stream; the error's path is in the tree. EPIPE: nobody reads it any more. */
int lr_emit_tree(int tree, int out, struct lr_error *err);

/* Move the objects in `fresh`, which are durable by now, to where all look for them. */
int lr_objects_keep(int fresh, int objects, struct lr_error *err);

/* Read the whole of a tree and tell, in `out`, what is not as its manifest says: "changed", "missing" or "added", a blank, the
 * path ("." is the root), a NUL. links: -1 if there is none. owners: those on disk are the manifest's; else all is 0:0.
 * EBADMSG: the manifest is none. */
int lr_verify(int tree, int manifest, int links, int owners, int out, struct lr_error *err);

/* Make the files of a tree that nobody uses yet names of objects: of those that are there, or new ones in `fresh`. Files that
 * have several names, or marks of overlayfs's own, stay as they are. Times of folders stay. */
int lr_share(int tree, int objects, int fresh, const char *scheme, struct lr_error *err);

struct lr_swept {
    uint64_t count, bytes; /* of disk */
};

/* Remove the objects that no tree has a name for; dry: only count them. It may run beside everything else. */
int lr_objects_sweep(int objects, int dry, struct lr_swept *swept, struct lr_error *err);

/* What trees take and share. */
struct lr_tree_use {
    uint64_t all; /* bytes of disk */
    uint64_t own; /* what of it goes with the tree */
    uint64_t total; /* of all trees so far, what they share counted once */
};

struct lr_shares;
struct lr_shares *lr_shares_open(int objects, struct lr_error *err);
/* Trees that go together count as one. */
int lr_shares_add(struct lr_shares *shares, const int *trees, size_t count, struct lr_tree_use *use,
                  struct lr_error *err);
void lr_shares_close(struct lr_shares *shares);

/* cffi:end */

#endif
