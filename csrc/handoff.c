/* handoff.c: reading a handed start. It is refused whole if anything in it is not as it should be. */
#include "handoff.h"

#include <stdlib.h>
#include <string.h>

#define VERSION "1"

struct reader {
    const char *at, *end;
    bool bad;
};

static const char *word(struct reader *reader)
{
    const char *text = reader->at;
    const char *nul = text < reader->end ? memchr(text, 0, (size_t)(reader->end - text)) : NULL;
    if (!nul) {
        reader->bad = true;
        return "";
    }
    reader->at = nul + 1;
    return text;
}

static void must_be(struct reader *reader, const char *wanted)
{
    reader->bad |= strcmp(word(reader), wanted) != 0;
}

static const char *word_or_null(struct reader *reader)
{
    const char *text = word(reader);
    return *text ? text : NULL;
}

static bool flag(struct reader *reader)
{
    const char *text = word(reader);
    reader->bad |= (*text != '0' && *text != '1') || text[1];
    return *text == '1';
}

/* Decimal digits, few enough not to overflow. */
static int number(struct reader *reader)
{
    const char *text = word(reader);
    size_t length = strspn(text, "0123456789");
    reader->bad |= !length || length > 8 || text[length];
    return reader->bad ? 0 : atoi(text);
}

/* A descriptor, at least so high; "-" for none. */
static int descriptor(struct reader *reader, int least)
{
    if (reader->at + 1 < reader->end && reader->at[0] == '-' && !reader->at[1])
        return word(reader), -1;
    int fd = number(reader);
    reader->bad |= fd < least;
    return fd;
}

static const char **words(struct reader *reader)
{
    size_t count = (size_t)number(reader);
    if (reader->bad || !count)
        return NULL;
    if (count > (size_t)(reader->end - reader->at)) { /* each has at least its NUL */
        reader->bad = true;
        return NULL;
    }
    const char **found = calloc(count + 1, sizeof *found);
    reader->bad |= !found;
    for (size_t i = 0; found && i < count; i++)
        found[i] = word(reader);
    return found;
}

static void descriptors(struct reader *reader, struct lr_handoff *handoff)
{
    int count = number(reader);
    reader->bad |= count > LR_KEEP_MOST;
    for (int i = 0; i < count && !reader->bad; i++) {
        handoff->keep[i] = descriptor(reader, 3);
        reader->bad |= handoff->keep[i] < 0;
        handoff->keep_count += !reader->bad;
    }
}

int lr_handoff_parse(struct lr_handoff *handoff, const char *bytes, size_t size)
{
    struct reader reader = {.at = bytes, .end = bytes + size};
    must_be(&reader, "layerrun-start");
    must_be(&reader, VERSION);
    handoff->join = flag(&reader);
    handoff->cwd = word_or_null(&reader);
    handoff->cwd_must = flag(&reader);
    handoff->stay = flag(&reader);
    handoff->own_tty = flag(&reader);
    handoff->detach = flag(&reader);
    handoff->lock_fd = descriptor(&reader, 3);
    handoff->app_fd = descriptor(&reader, 3);
    handoff->status_fd = descriptor(&reader, 1);
    handoff->net_fd = descriptor(&reader, 3);
    descriptors(&reader, handoff);
    handoff->passed = word(&reader);
    handoff->again = word(&reader);
    handoff->after = word(&reader);
    handoff->id = word(&reader);
    handoff->name = word(&reader);
    handoff->argv = words(&reader);
    handoff->env = words(&reader);
    handoff->uppers = words(&reader);
    for (size_t i = 0; handoff->uppers && handoff->uppers[i]; i += 2)
        if (!handoff->uppers[i + 1]) {
            reader.bad = true;
            break;
        }
    must_be(&reader, "plan");
    handoff->plan = reader.at;
    handoff->plan_size = (size_t)(reader.end - reader.at);
    reader.bad |= *handoff->after && handoff->lock_fd < 0;
    return reader.bad ? -1 : 0;
}

void lr_handoff_free(struct lr_handoff *handoff)
{
    free(handoff->argv);
    free(handoff->env);
    free(handoff->uppers);
    handoff->argv = handoff->env = handoff->uppers = NULL;
}
