/* Fuzzes the reading of a command line: words that end with a NUL. */
#include "options.h"

#include <stdlib.h>
#include <string.h>

static void must(int holds)
{
    if (!holds)
        abort();
}

int LLVMFuzzerTestOneInput(const char *bytes, size_t size);
int LLVMFuzzerTestOneInput(const char *bytes, size_t size)
{
    /* Copies, so that a step beyond the end of one is seen. */
    char *words[64] = {0};
    size_t count = 0;
    for (size_t at = 0; at < size && count < 63;) {
        size_t length = strnlen(bytes + at, size - at);
        words[count] = strndup(bytes + at, length);
        must(words[count++] != NULL);
        at += length + 1;
    }
    struct lr_options options;
    if (!lr_options_parse(&options, (const char *const *)words)) {
        must(strlen(options.name) < LR_NAME_SIZE && *options.name);
        must(!options.cwd || *options.cwd == '/');
        must(options.status_fd >= 0);
        must(!options.argv || (*options.argv && **options.argv));
        for (const char **word = options.env; *word; word++)
            must(**word && **word != '=' && (strchr(*word, '=') || !strchr(*word, '*')));
    }
    lr_options_free(&options);
    while (count)
        free(words[--count]);
    return 0;
}
