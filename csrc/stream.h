/* stream.h: the stream of records in which trees come into the store, whatever they come from.
 *
 * Who makes a stream has read something hostile (an archive, an image) and may have been taken over by it; who takes
 * one in (intake.c) believes nothing of it. So it is as plain as can be. A record is a head of 64 bytes, little-endian,
 * then path, link and xattrs, whose lengths stand in the head, and then, of a file, its content. layerrun/images/stream.py
 * is the same in Python.
 *
 *   path    from the root, no slash before or behind it, no empty, "." or ".." part; "" is the root itself
 *   link    the target of a link; the path of the entry that a hard link shares; the object of a known file
 *   xattrs  u16 length of key, u32 length of value, key, value; one after the other
 *   content chunks: u64 offset, u32 length, bytes; offsets grow, what is left out is a hole; a chunk of length 0 ends it;
 *           none if the head says where in the archive it lies
 */
#ifndef LR_STREAM_H
#define LR_STREAM_H

#include <stdint.h>

enum lr_record_kind {
    LR_RECORD_FOLDER = 'd',
    LR_RECORD_FILE = 'f',
    LR_RECORD_KNOWN =
        'k', /* a file whose content and attributes are those of an object of the store; no content follows */
    LR_RECORD_LINK = 'l',
    LR_RECORD_HARD = 'h',
    LR_RECORD_FIFO = 'p',
    LR_RECORD_CHAR = 'c',
    LR_RECORD_BLOCK = 'b',
    LR_RECORD_WHITEOUT = 'w', /* what earlier layers have at this path is gone */
    LR_RECORD_OPAQUE = 'o', /* what earlier layers have beneath this path is gone */
    LR_RECORD_LAYER = 'n', /* a layer begins; link: its name. Without any there is one layer without a name */
    LR_RECORD_END = 'e', /* without it the stream was cut short */
};

struct lr_record {
    uint8_t kind;
    uint8_t zero[3];
    uint32_t mode; /* permission bits, setuid, setgid, sticky */
    uint32_t uid;
    uint32_t gid;
    uint32_t major; /* of a device */
    uint32_t minor;
    int64_t mtime; /* seconds since the epoch */
    uint32_t mtime_ns;
    uint32_t path; /* lengths in bytes */
    uint32_t link;
    uint32_t xattrs;
    uint64_t size; /* of a file */
    /* Of a file: 1 + where its content lies in the archive, which who takes the stream in has too; 0: chunks follow. */
    uint64_t at;
};

#endif
