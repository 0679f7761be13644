/* options.c: see options.h; RunVerb in layerrun/cli/common.py is what it must agree with. */
#include "options.h"

#include <stdlib.h>
#include <string.h>

#define MOST 63 /* characters of a name, NAME in layerrun/model.py */

struct parser {
    struct lr_options *options;
    const char *name, *profile;
    size_t variables;
};

static bool is_name(const char *text, size_t length)
{
    return length && length <= MOST && !strchr("._-", *text) &&
           strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789._-") >= length;
}

/* The value of an option: behind "=" in the same word, or the next word. One that could be an option is left to Python. */
static const char *value_of(const char *option, const char *const **words)
{
    const char *word = **words;
    size_t length = strlen(option);
    if (strncmp(word, option, length))
        return NULL;
    if (word[length] == '=' && option[1] == '-')
        return word + length + 1;
    if (word[length])
        /* -eA=b, but not -e=A */
        return option[1] != '-' && word[length] != '=' ? word + length : NULL;
    if (!(*words)[1] || *(*words)[1] == '-')
        return NULL;
    return *++*words;
}

static int number(const char *text)
{
    size_t length = strspn(text, "0123456789");
    return length && length <= 6 && !text[length] && *text != '0' ? atoi(text) : 0;
}

static int take_variable(struct parser *parser, const char *value)
{
    if (!*value || *value == '=' || (!strchr(value, '=') && strchr(value, '*')))
        return -1;
    parser->options->env[parser->variables++] = value;
    return 0;
}

static int take_once(const char **place, const char *value)
{
    if (*place)
        return -1;
    *place = value;
    return 0;
}

static int take_option(struct parser *parser, const char *const **words)
{
    const char *value;
    if (!strcmp(**words, "-d") || !strcmp(**words, "--detach")) {
        parser->options->detach = true;
        return 0;
    }
    if ((value = value_of("-e", words)) || (value = value_of("--env", words)))
        return take_variable(parser, value);
    if ((value = value_of("--cwd", words)))
        return *value == '/' ? take_once(&parser->options->cwd, value) : -1;
    if ((value = value_of("--profile", words)))
        return is_name(value, strlen(value)) ? take_once(&parser->profile, value) : -1;
    if ((value = value_of("--status-fd", words))) {
        if (parser->options->status_fd)
            return -1;
        parser->options->status_fd = number(value);
        return parser->options->status_fd ? 0 : -1;
    }
    return -1;
}

static int put_name(struct parser *parser)
{
    char *to = parser->options->name;
    size_t length = parser->name ? strcspn(parser->name, "@") : 0;
    if (!length || !is_name(parser->name, length))
        return -1;
    if (parser->name[length] && take_once(&parser->profile, parser->name + length + 1))
        return -1;
    memcpy(to, parser->name, length);
    to[length] = 0;
    if (!parser->profile)
        return 0;
    if (!is_name(parser->profile, strlen(parser->profile)))
        return -1;
    to[length] = '@';
    strcpy(to + length + 1, parser->profile);
    return 0;
}

static int parse(struct parser *parser, const char *const *words)
{
    for (; *words; words++) {
        const char *word = *words;
        if (!strcmp(word, "--")) {
            words++;
            if (!*words)
                return -1;
            break;
        }
        if (*word == '-' && word[1]) {
            if (take_option(parser, &words))
                return -1;
        } else if (parser->name)
            break;
        else
            parser->name = word;
    }
    if (*words && !**words)
        return -1;
    parser->options->argv = *words ? words : NULL;
    return put_name(parser);
}

int lr_options_parse(struct lr_options *options, const char *const *words)
{
    struct parser parser = {.options = options};
    size_t count = 0;
    while (words[count])
        count++;
    *options = (struct lr_options){.env = calloc(count + 1, sizeof *options->env)};
    return options->env ? parse(&parser, words) : -1;
}

void lr_options_free(struct lr_options *options)
{
    free(options->env);
    options->env = NULL;
}
