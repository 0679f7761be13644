/* probe.c: everything that somebody inside may try, in one run. A JSON line an attempt: the check's number, what was tried, and what came
 * of it: the name of an errno, OK if it was let through, or what was found. It judges nothing. Linked statically, so that it runs in
 * any base.
 *
 *     probe all KEY=VALUE…       every attempt; the keys name what was put up outside for it
 *     probe GROUP… KEY=VALUE…    some of them: p followed by the check's number
 *     probe status LABEL         the Seccomp line of whoever executes it
 *     probe ids LABEL            who it became by its execution
 *     probe flip ONE OTHER       exchanges two names for ever
 */

#include "probe.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

static int words_count;
static char **words;
char self[4096];

const char *value(const char *key)
{
    size_t length = strlen(key);
    for (int i = 0; i < words_count; i++)
        if (!strncmp(words[i], key, length) && words[i][length] == '=')
            return words[i] + length + 1;
    return NULL;
}

static void put_text(const char *text)
{
    putchar('"');
    for (const unsigned char *at = (const unsigned char *)text; *at; at++)
        if (*at < 32 || *at > 126 || *at == '"' || *at == '\\')
            printf("\\u%04x", *at);
        else
            putchar(*at);
    putchar('"');
}

void tell(int check, const char *what, const char *format, ...)
{
    char got[8192];
    va_list list;
    va_start(list, format);
    vsnprintf(got, sizeof got, format, list);
    va_end(list);
    printf("{\"check\": %d, \"what\": ", check);
    put_text(what);
    printf(", \"got\": ");
    put_text(got);
    printf("}\n");
    fflush(stdout);
}

const char *name_of(long result)
{
    static char number[32];
    if (result >= 0)
        return "OK";
    const char *name = strerrorname_np(errno);
    snprintf(number, sizeof number, "errno %d", errno);
    return name ? name : number;
}

void tell_call(int check, const char *what, long result)
{
    tell(check, what, "%s", name_of(result));
}

void try_open(int check, const char *how, const char *path, int flags)
{
    char what[4200];
    snprintf(what, sizeof what, "open %s %s", how, path);
    int fd = open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    struct stat info;
    if (fd >= 0 && !fstat(fd, &info) && S_ISCHR(info.st_mode) && info.st_rdev == makedev(1, 3))
        tell(check, what, "masked");
    else
        tell_call(check, what, fd);
    if (fd >= 0)
        close(fd);
}

ssize_t slurp(const char *path, char *text, size_t size)
{
    size_t used = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -1;
    for (ssize_t got; used < size - 1 && (got = read(fd, text + used, size - 1 - used)) > 0;)
        used += (size_t)got;
    text[used] = 0;
    close(fd);
    return (ssize_t)used;
}

void tell_lines(int check, const char *path)
{
    char text[4096] = "";
    slurp(path, text, sizeof text);
    for (char *at = text; *at; at++)
        if (*at == '\n')
            *at = at[1] ? ',' : 0;
    tell(check, path, "%s", text);
}

void status_line(int check, const char *what, const char *path, const char *key)
{
    static __thread char text[8192];
    size_t length = strlen(key);
    if (slurp(path, text, sizeof text) < 0) {
        tell_call(check, what, -1);
        return;
    }
    for (char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        if (!strncmp(line, key, length) && line[length] == ':') {
            char *from = line + length + 1 + strspn(line + length + 1, " \t");
            tell(check, what, "%.*s", (int)strcspn(from, "\n"), from);
            return;
        }
    tell(check, what, "missing");
}

void tell_ids(const char *label)
{
    uid_t r, e, s;
    gid_t rg, eg, sg;
    char what[64], caps[128] = "";
    getresuid(&r, &e, &s);
    getresgid(&rg, &eg, &sg);
    static char text[8192];
    slurp("/proc/self/status", text, sizeof text);
    char *line = strstr(text, "CapEff:");
    if (line)
        sscanf(line, "CapEff: %127s", caps);
    snprintf(what, sizeof what, "ids of %s", label);
    tell(6, what, "%u %u %u/%u %u %u/%s", r, e, s, rg, eg, sg, caps);
}

/* ---- */

static const struct {
    const char *name;
    void (*run)(void);
    bool last; /* it kills whatever it reaches */
} groups[] = {{"p20", p20, false}, {"p1", p1, false},   {"p2", p2, false},   {"p3", p3, false},
              {"p4", p4, false},   {"p5", p5, false},   {"p6", p6, false},   {"p7", p7, false},
              {"p8", p8, false},   {"p9", p9, false},   {"p10", p10, false}, {"p11", p11, false},
              {"p12", p12, false}, {"p13", p13, false}, {"p14", p14, false}, {"p15", p15, false},
              {"p16", p16, false}, {"p18", p18, false}, {"p19", p19, false}, {"p22", p22, false},
              {"p31", p31, false}, {"p17", p17, true}};

static bool is_wanted(const char *name)
{
    for (int i = 0; i < words_count; i++)
        if (!strcmp(words[i], name) || (!strcmp(words[i], "all") && strcmp(name, "p9")))
            return true;
    return false;
}

int main(int argc, char **argv)
{
    words = argv + 1;
    words_count = argc - 1;
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    self[length > 0 ? length : 0] = 0;
    if (argc == 3 && !strcmp(argv[1], "status")) {
        status_line(7, argv[2], "/proc/self/status", "Seccomp");
        return 0;
    }
    if (argc == 4 && !strcmp(argv[1], "flip"))
        for (;;)
            if (renameat2(AT_FDCWD, argv[2], AT_FDCWD, argv[3], RENAME_EXCHANGE))
                return 1;
    if (argc == 3 && !strcmp(argv[1], "ids")) {
        tell_ids(argv[2]);
        return 0;
    }
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
        if (is_wanted(groups[i].name))
            groups[i].run();
    tell(0, "the end", "reached");
    return 0;
}
