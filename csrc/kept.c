/* kept.c: what is known of entries that the tree does not show: further names, and device nodes that are not made; see
 * taking.h. */
#include "taking.h"

#include <stdlib.h>
#include <string.h>

#define ABSENT 65536
/* Bytes of names that are held until the end: a stream that packs well could fill all memory with them. */
#define NAMES (256U << 20)

/* An array with room for one more than `count`; NULL: there is no memory. */
static void *grown(void *all, size_t count, size_t *room, size_t each, struct lr_error *err)
{
    if (count < *room)
        return all;
    size_t more = *room ? *room * 2 : 16;
    void *moved = realloc(all, more * each);
    if (moved)
        *room = more;
    else
        lr_fail(err, "get memory", NULL);
    return moved;
}

/* Room for names that stay; NULL: too many. */
static char *keep_names(struct lr_taker *taker, const struct lr_item *item, size_t size, struct lr_error *err)
{
    taker->kept += size;
    if (taker->options->strict && taker->kept > NAMES) {
        lr_taker_refuse("is one of too many long names", item->path, err);
        return NULL;
    }
    char *text = malloc(size);
    if (!text)
        lr_fail(err, "get memory", NULL);
    return text;
}

int lr_kept_absent(struct lr_taker *taker, const struct lr_item *item, struct lr_error *err)
{
    if (taker->absent_count == ABSENT)
        return lr_taker_refuse("is one device node too many", item->path, err);
    struct lr_absent *all = grown(taker->absent, taker->absent_count, &taker->absent_size, sizeof *all, err);
    if (!all)
        return -1;
    taker->absent = all;
    char *path = keep_names(taker, item, item->head.path + 1, err);
    if (!path)
        return -1;
    memcpy(path, item->path, item->head.path + 1);
    taker->absent[taker->absent_count] =
        (struct lr_absent){item->head, path, taker->absent_count, taker->layer};
    taker->absent_count++;
    return 0;
}

int lr_kept_group(struct lr_taker *taker, const struct lr_item *item, struct lr_error *err)
{
    struct lr_group *all = grown(taker->groups, taker->groups_count, &taker->groups_size, sizeof *all, err);
    if (!all)
        return -1;
    taker->groups = all;
    size_t path = item->head.path + 1, link = item->head.link + 1;
    char *text = keep_names(taker, item, path + link, err);
    if (!text)
        return -1;
    memcpy(text, item->path, path);
    memcpy(text + path, item->link, link);
    taker->groups[taker->groups_count++] = (struct lr_group){.path = text, .first = text + path};
    return 0;
}

void lr_kept_free(struct lr_taker *taker)
{
    for (size_t i = 0; i < taker->absent_count; i++)
        free(taker->absent[i].path);
    free(taker->absent);
    for (size_t i = 0; i < taker->groups_count; i++)
        free(taker->groups[i].path);
    free(taker->groups);
}
