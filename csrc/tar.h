/* tar.h: tar archives, read from a descriptor and written as a stream of records (stream.h).
 *
 * Every archive is hostile input, and whoever reads one is in a jail; what can be told from the archive alone is refused
 * here, what depends on the tree that comes of it by who takes the stream in. Known: ustar and what was before it, pax
 * with global headers, GNU's long names, numbers in base 256, sparse files of all four forms, extended attributes as
 * star and libarchive write them.
 */
#ifndef LR_TAR_H
#define LR_TAR_H

#include "lr.h"

/* cffi:begin */

struct lr_tar_limits {
    uint64_t size; /* bytes of files, holes counted */
    uint64_t entries;
    uint64_t header; /* bytes of headers for one entry */
    uint32_t depth; /* of folders */
    uint32_t ids; /* owners are below it */
    /* `in` is a file, and who takes the stream in reads contents there: they are told by their places */
    uint32_t direct;
    uint32_t
        layer; /* is it a layer of an image? Then .wh. names are whiteouts, and a slash before a path means nothing */
};

/* What was found; further archives add to it, and the limits are of all together. */
struct lr_tar_found {
    uint64_t entries;
    uint64_t size;
    uint64_t xattrs; /* left out */
};

/* Reads an archive from `in` to its end, and writes its records to `out`, but for the last (LR_RECORD_END).
 * EBADMSG: it is refused; then `step` is said of the entry `path`, or of the whole archive if that is "". EPIPE: nobody
 * reads the records any more. */
int lr_tar(int in, int out, const struct lr_tar_limits *limits, struct lr_tar_found *found,
           struct lr_error *err);

/* cffi:end */

#endif
