/* taking.h: what the parts of the intake share. Private to csrc/. */
#ifndef LR_TAKING_H
#define LR_TAKING_H

#include "intake.h"
#include "sha.h"
#include "stream.h"
#include "walk.h"

/* Files up to that are held in memory until it is known whether the store has them. */
#define LR_HELD (4U << 20)
/* Zeros as long as that, and not in the midst of two, are a hole. */
#define LR_PIECE ((size_t)64 << 10)
/* The name of an object: digest of the content, a dash, 16 digits of a digest of the rest. */
#define LR_OBJECT 82
/* Parts of a path where nobody vouches for it: 128 folders one in the other, and what is in the last. */
#define LR_PARTS 129

/* The bytes of a stream. */
struct lr_feed {
    int fd, cancel;
    void (*waits)(void *argument); /* called when nothing comes for the moment; NULL: not */
    void *argument;
    char *room;
    size_t at, used;
};

int lr_feed_open(struct lr_feed *feed, int fd, int cancel, struct lr_error *err);
/* Exactly `size` bytes; an end before that is EBADMSG. */
int lr_feed_take(struct lr_feed *feed, void *to, size_t size, struct lr_error *err);
/* Some bytes, at most `most`, valid until the next call; how many. */
ssize_t lr_feed_some(struct lr_feed *feed, const char **data, size_t most, struct lr_error *err);
/* ECANCELED: nobody waits for it any more. */
int lr_feed_check(const struct lr_feed *feed, struct lr_error *err);
void lr_feed_close(struct lr_feed *feed);

struct lr_attribute {
    const char *key; /* ends with a NUL */
    const char *value;
    uint32_t size;
};

/* A record with all that belongs to it. */
struct lr_item {
    struct lr_item *next;
    struct lr_record head;
    struct lr_buf names; /* path and link, each with a NUL, and the attributes */
    const char *path, *link;
    struct lr_attribute *attributes; /* sorted by key */
    size_t attributes_count;
    uint8_t digest[LR_SHA_SIZE]; /* of a file */
    char object[LR_OBJECT];
    char *data; /* the content of a file that is held */
    char temporary[24]; /* else the name in `fresh` of the file with it; "": none */
    bool raw; /* its content lies in the archive and was not read yet */
    bool piece; /* no record: `head.size` bytes of data for the file `temporary`, from `head.at` on */
};

/* What reads contents; each thread has its own. */
struct lr_content {
    const struct lr_intake_options *options;
    struct lr_feed *feed;
    struct lr_sha sha, meta;
    uint64_t temporaries;
    size_t unchecked; /* bytes read since it was looked whether to go on */
    char mark; /* in the names of temporary files: whose they are */
    /* Somebody else writes a piece, before what comes after it, and frees it; NULL: nobody. */
    int (*passes)(void *argument, struct lr_item *piece, struct lr_error *err);
    void *argument;
};

int lr_content_open(struct lr_content *content, const struct lr_intake_options *options, struct lr_feed *feed,
                    char mark, struct lr_error *err);
/* Read the content of a file, give it its digest and its object's name. */
int lr_content_take(struct lr_content *content, struct lr_item *item, struct lr_error *err);
/* Write what another thread has read of a file. */
int lr_content_piece(const struct lr_content *content, const struct lr_item *piece, struct lr_error *err);
/* Write what is held of a file. */
int lr_content_spill(struct lr_content *content, struct lr_item *item, struct lr_error *err);
void lr_content_close(struct lr_content *content);

/* Reads and checks records. */
struct lr_reader {
    const struct lr_intake_options *options;
    struct lr_feed feed;
    struct lr_content content;
    uint64_t entries, size;
    bool own; /* what is read is the store's */
};

int lr_reader_open(struct lr_reader *reader, const struct lr_intake_options *options, struct lr_error *err);
/* A file whose content lies in the archive comes raw. */
struct lr_item *lr_reader_next(struct lr_reader *reader, struct lr_error *err);
void lr_reader_close(struct lr_reader *reader);
void lr_item_free(struct lr_item *item);
/* The name of the object that holds this content with these attributes. */
void lr_object_name(struct lr_sha *sha, const char *scheme, struct lr_item *item);

/* records.c: what a layer consists of, as it comes in. fd: -1 while none is recorded. */
struct lr_recorder {
    int fd;
    struct lr_buf out;
};

int lr_recorder_begin(struct lr_recorder *recorder, const struct lr_intake_options *options,
                      const char *layer, struct lr_error *err);
int lr_recorder_add(struct lr_recorder *recorder, const struct lr_item *item, struct lr_error *err);
int lr_recorder_end(struct lr_recorder *recorder, struct lr_error *err);
void lr_recorder_close(struct lr_recorder *recorder);
/* The record of a layer that the store has; -1: none. */
int lr_record_open(const struct lr_intake_options *options, const char *layer);

/* What is known of an inode of the tree, so that the manifest is written without reading. */
struct lr_inode {
    uint64_t ino;
    uint32_t number; /* the later one of two holds */
    uint32_t flags;
    uint32_t uid, gid; /* as the source has them */
    union {
        uint8_t digest[LR_SHA_SIZE]; /* of a file */
        struct {
            int64_t mtime;
            uint32_t mtime_ns;
        } folder;
    };
};

enum { LR_INODE_XATTRS = 1, LR_INODE_COUNTED = 2, LR_INODE_TIMES = 4 };

struct lr_inodes {
    struct lr_inode *all;
    size_t count, size;
};

struct lr_inode *lr_inodes_add(struct lr_inodes *inodes, uint64_t ino, struct lr_error *err);
void lr_inodes_sort(struct lr_inodes *inodes); /* and only the last of each stays */
struct lr_inode *lr_inodes_find(struct lr_inodes *inodes, uint64_t ino); /* once sorted */

/* Paths, by a hash: who makes two of the same only spoils their own tree. */
struct lr_set {
    uint64_t *all;
    size_t count, size;
    uint64_t seed;
};

int lr_set_add(struct lr_set *set, const char *path, size_t length, struct lr_error *err);
bool lr_set_has(const struct lr_set *set, const char *path, size_t length);
void lr_set_free(struct lr_set *set); /* it is empty then, and may be used again */

/* A device node that is not made: it stands in the manifest alone. */
struct lr_absent {
    struct lr_record head;
    char *path;
    uint64_t number, layer;
};

/* A further name of a file. */
struct lr_group {
    char *path, *first;
    uint64_t size; /* these two: once all have come */
    bool holds;
};

/* The tree as it grows. */
struct lr_taker {
    const struct lr_intake_options *options;
    struct lr_chain chain;
    struct lr_inodes inodes;
    struct lr_absent *absent;
    size_t absent_count, absent_size;
    struct lr_group *groups;
    size_t groups_count, groups_size;
    bool stored[256]; /* the store's folders of objects that are there */
    struct lr_set added; /* objects of the ticket */
    struct lr_set made; /* paths of this layer and the folders around them, if it is not the first */
    uint64_t layer; /* counts from 1; 0: none has begun */
    uint64_t fresh, fresh_size, known;
    size_t kept; /* bytes of names in groups and absent */
    struct lr_buf real[2]; /* path and link of an item where they lie behind links */
    uint32_t uid, gid; /* what a new file belongs to */
};

int lr_taker_open(struct lr_taker *taker, const struct lr_intake_options *options, struct lr_error *err);
int lr_taker_take(struct lr_taker *taker, struct lr_item *item, struct lr_error *err);
void lr_taker_close(struct lr_taker *taker);
/* Go to the folder that is the first `length` bytes of a path; what is not there of it is made. 1: it lies behind a link of an
 * earlier layer, and the chain knows its real path. */
int lr_taker_go_to(struct lr_taker *taker, const char *path, size_t length, struct lr_error *err);
int lr_taker_refuse(const char *why, const char *path, struct lr_error *err); /* EBADMSG */
/* A call failed for this name where the chain stands; -1. */
int lr_taker_fail(const struct lr_taker *taker, const char *step, const char *name, struct lr_error *err);
/* What is at a name has to go, for something that is no folder. */
int lr_taker_clear(struct lr_taker *taker, const char *name, const char *path, struct lr_error *err);
/* A new entry gets all but its content, and is remembered. */
int lr_taker_finish(struct lr_taker *taker, const struct lr_item *item, const char *name,
                    struct lr_error *err);
/* What the manifest has to know of an entry. */
int lr_taker_remember(struct lr_taker *taker, const struct lr_item *item, uint64_t ino, struct lr_error *err);

/* files.c: a file whose content is at hand, or the store's. */
int lr_taker_file(struct lr_taker *taker, struct lr_item *item, const char *name, struct lr_error *err);

/* kept.c: a device node that is not made; a further name of a file. */
int lr_kept_absent(struct lr_taker *taker, const struct lr_item *item, struct lr_error *err);
int lr_kept_group(struct lr_taker *taker, const struct lr_item *item, struct lr_error *err);
void lr_kept_free(struct lr_taker *taker);

/* through.c: go into the folder that a link leads to, which an earlier layer has brought; `path` is that of the entry. */
int lr_taker_follow(struct lr_taker *taker, const char *name, const char *path, struct lr_error *err);
/* Go to a folder, through links of earlier layers too. 1: there is none; the chain stands somewhere. */
int lr_taker_find(struct lr_taker *taker, const char *path, size_t length, struct lr_error *err);
/* The item's path (or that of the file that it links to) is `name` in the folder where the chain stands; "" is the folder. */
int lr_taker_moved(struct lr_taker *taker, struct lr_item *item, const char *name, struct lr_error *err);
int lr_taker_moved_link(struct lr_taker *taker, struct lr_item *item, const char *name, struct lr_error *err);
/* Is what has this name where the chain stands of an earlier layer? 1, 0 or -1. */
int lr_taker_is_earlier(const struct lr_taker *taker, const char *name, struct lr_error *err);

/* objects.c: which folders of objects the store has. */
int lr_objects_look(struct lr_taker *taker, struct lr_error *err);
/* A file of the tree by an object; 1: done, 0: errno is ENOENT or EMLINK: it is to be made, EEXIST: something is
 * there, -1. */
int lr_object_link(const struct lr_taker *taker, const struct lr_item *item, const char *name,
                   struct lr_error *err);
/* Does the store seem to have it? Any thread may ask. */
bool lr_object_is_stored(const struct lr_taker *taker, const struct lr_item *item);
/* The path of an object beneath a folder of objects: AB/REST. */
void lr_object_place(const char *object, char path[LR_OBJECT + 1]);
/* A file gets the name of an object in the ticket; errno. */
int lr_object_add(int at, const char *name, int fresh, const char *object);
/* A file of the tree becomes an object of the ticket. */
int lr_object_make(struct lr_taker *taker, const struct lr_item *item, const char *name,
                   struct lr_error *err);
/* An object that is not what it should be goes. */
int lr_object_drop(const struct lr_taker *taker, const struct lr_item *item, struct lr_error *err);

/* marks.c: whiteouts and opaque folders; and a folder that is there loses its attributes. */
int lr_taker_bare(const struct lr_taker *taker, const char *name, struct lr_error *err);
int lr_taker_mark(struct lr_taker *taker, struct lr_item *item, struct lr_error *err);
/* Device nodes that earlier layers have beneath a path, and at it. */
void lr_taker_forget(struct lr_taker *taker, const char *path, bool itself);

/* lines.c: parts of lines; how two paths follow each other: folder by folder, what is in one behind it. */
int lr_in_order(const char *a, const char *b);
int lr_escape(struct lr_buf *out, const char *data, size_t size, struct lr_error *err);
char lr_line_kind(unsigned mode);
int lr_line_begin(struct lr_buf *out, char kind, unsigned mode, unsigned uid, unsigned gid,
                  struct lr_error *err);
int lr_line_attributes(struct lr_buf *out, struct lr_buf *value, int dirfd, const char *name,
                       struct lr_error *err);

/* manifest.c: a whole manifest, and `links` beside it. */
int lr_manifest_write(struct lr_taker *taker, struct lr_intake_result *result, struct lr_error *err);

#endif
