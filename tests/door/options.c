/* Reads command lines of `layerrun app`, each a line of words that end with US (0x1f), and says what the front door makes of them. */
#include "options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void say(const char *text)
{
    printf("%s%c", text ? text : "", text ? 0x1f : 0x1e);
}

int main(void)
{
    char *line = NULL;
    size_t size = 0;
    ssize_t length;
    while ((length = getline(&line, &size, stdin)) > 0) {
        const char *words[256];
        size_t count = 0;
        char *at = line;
        for (char *end; count < 255 && (end = strchr(at, 0x1f)); at = end + 1) {
            *end = 0;
            words[count++] = at;
        }
        words[count] = NULL;
        struct lr_options options;
        if (lr_options_parse(&options, words))
            printf("unsure\n");
        else {
            say(options.name);
            say(options.cwd);
            printf("%d%c%d%c", options.status_fd, 0x1f, options.detach, 0x1f);
            for (const char **word = options.env; *word; word++)
                say(*word);
            say(NULL);
            for (const char *const *word = options.argv; word && *word; word++)
                say(*word);
            printf("%s\n", options.argv ? "" : "own");
        }
        lr_options_free(&options);
    }
    free(line);
    return 0;
}
