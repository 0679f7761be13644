/* current.c: finding out whether a stored plan still holds. It reads no catalog: whoever changes what a plan was made from removes the
 * plan first, under the app's lock, and what lies outside the catalog (the host's mounts, a few files) is compared with what the plan
 * was made from.
 */
#include "current.h"

#include "sys.h"

#include <dirent.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#define MOST (1 << 20) /* bytes of a stored plan */
#define PATIENCE 2 /* ms */
#define GROUPS 256 /* who is in more is served by Python */

static bool equals(const char *text, const char *wanted)
{
    return !strcmp(text, wanted);
}

/* The store's folder, if it is one that we may use: see docs/store.md. */
int lr_current_store(void)
{
    char path[4096];
    const char *named = getenv("LAYERRUN_STORE"), *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    int length;
    if (named && *named)
        length = snprintf(path, sizeof path, "%s", named);
    else if (geteuid() == 0)
        length = snprintf(path, sizeof path, "/var/lib/layerrun");
    else if (data && *data == '/')
        length = snprintf(path, sizeof path, "%s/layerrun", data);
    else if (home && *home == '/')
        length = snprintf(path, sizeof path, "%s/.local/share/layerrun", home);
    else
        return -1;
    if (length < 0 || (size_t)length >= sizeof path)
        return -1;
    LR_FD fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct stat info;
    if (fd < 0 || fstat(fd, &info) || info.st_uid != geteuid() || (info.st_mode & 0777) != 0700)
        return -1;
    /* A commit is under way, or was cut short: then Python must finish it or take it back first. */
    if (!fstatat(fd, "unfinished", &info, AT_SYMLINK_NOFOLLOW))
        return -1;
    return lr_steal(&fd);
}

/* O_NONBLOCK: a fifo must not hold us up. */
static int open_stored(int store, const char *name)
{
    char path[160];
    snprintf(path, sizeof path, "plans/%s", name);
    return lr_openat2(store, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK,
                      RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV);
}

static int read_stored(struct lr_current *current)
{
    struct stat info;
    int file = current->file;
    if (file < 0 || fstat(file, &info) || !S_ISREG(info.st_mode) || info.st_uid != geteuid() ||
        info.st_mode & 077 || info.st_size < LR_SUM_SIZE || info.st_size > MOST)
        return -1;
    size_t size = (size_t)info.st_size;
    current->bytes = malloc(size);
    if (!current->bytes || read(file, current->bytes, size) != (ssize_t)size ||
        !lr_stored_is_whole(current->bytes, size))
        return -1;
    return lr_stored_parse(&current->stored, current->bytes, size - LR_SUM_SIZE);
}

/* Ids and groups decide what can be read, mapped and shown. */
static bool caller_is(const char *wanted)
{
    char seen[64 + GROUPS * 11];
    gid_t groups[GROUPS];
    int count = getgroups(GROUPS, groups);
    if (count < 0)
        return false;
    int length = snprintf(seen, sizeof seen, "%u:%u:%u:%u:", geteuid(), getegid(), getuid(), getgid());
    for (int i = 0; i < count; i++)
        length += snprintf(seen + length, sizeof seen - (size_t)length, i ? ",%u" : "%u", groups[i]);
    return equals(seen, wanted);
}

/* A copied or moved store holds plans that lead elsewhere: the head names the folder it was made in. */
static bool store_is(int store, const struct lr_stored *stored)
{
    char seen[64], link[32], path[PATH_MAX];
    struct stat info;
    if (fstat(store, &info))
        return false;
    snprintf(seen, sizeof seen, "%llu:%llu", (unsigned long long)info.st_dev,
             (unsigned long long)info.st_ino);
    snprintf(link, sizeof link, "/proc/self/fd/%d", store);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length > 0 ? length : 0] = 0;
    return equals(seen, stored->store) && equals(path, stored->store_path);
}

static bool sum_is(const char *path, const char *wanted)
{
    char buffer[16384], text[LR_SUM_SIZE];
    uint64_t sum = LR_SUM_START;
    ssize_t got;
    LR_FD fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return false;
    while ((got = read(fd, buffer, sizeof buffer)) > 0)
        sum = lr_sum(sum, buffer, (size_t)got);
    lr_sum_text(text, sum);
    return got == 0 && equals(text, wanted);
}

/* Times of change, not of modification: they see a new mode or owner too, and nobody can set them. */
static bool file_is(const char *path, const char *wanted)
{
    char seen[128] = "-";
    struct stat info;
    if (!lstat(path, &info))
        snprintf(seen, sizeof seen, "%llu:%llu:%lld.%09ld:%o:%lld", (unsigned long long)info.st_dev,
                 (unsigned long long)info.st_ino, (long long)info.st_ctim.tv_sec, info.st_ctim.tv_nsec,
                 info.st_mode, (long long)info.st_size);
    return equals(seen, wanted);
}

static char type_of(int folder, const struct dirent *entry)
{
    struct stat info;
    if (entry->d_type != DT_UNKNOWN)
        return entry->d_type == DT_DIR   ? 'd'
               : entry->d_type == DT_LNK ? 'l'
               : entry->d_type == DT_REG ? 'f'
                                         : 'o';
    if (fstatat(folder, entry->d_name, &info, AT_SYMLINK_NOFOLLOW))
        return '-';
    return S_ISDIR(info.st_mode) ? 'd' : S_ISLNK(info.st_mode) ? 'l' : S_ISREG(info.st_mode) ? 'f' : 'o';
}

/* Added up, since folders are read in any order. Not their times: what is written into a home all day changes these. */
static bool names_are(const char *path, const char *wanted)
{
    char text[LR_SUM_SIZE], target[PATH_MAX];
    uint64_t sum = 0;
    DIR *folder = opendir(path);
    if (!folder)
        return equals("-", wanted);
    for (const struct dirent *entry; (entry = readdir(folder));) {
        if (equals(entry->d_name, ".") || equals(entry->d_name, ".."))
            continue;
        char type = type_of(dirfd(folder), entry);
        uint64_t one = lr_sum(LR_SUM_START, entry->d_name, strlen(entry->d_name) + 1);
        ssize_t length = type == 'l' ? readlinkat(dirfd(folder), entry->d_name, target, sizeof target) : 0;
        one = lr_sum(one, &type, 1);
        sum += lr_sum(one, target, length > 0 ? (size_t)length : 0);
    }
    closedir(folder);
    lr_sum_text(text, sum);
    return equals(text, wanted);
}

static bool mode_is(const char *path, const char *wanted)
{
    char seen[64] = "-";
    struct stat info;
    if (!lstat(path, &info))
        snprintf(seen, sizeof seen, "%o:%u:%u", info.st_mode, info.st_uid, info.st_gid);
    return equals(seen, wanted);
}

static bool leads_to(const char *path, const char *wanted)
{
    char seen[PATH_MAX];
    return equals(realpath(path, seen) ? seen : "-", wanted);
}

static bool variable_is(const char *name, const char *wanted)
{
    const char *value = getenv(name);
    return value ? *wanted == '=' && equals(value, wanted + 1) : equals("-", wanted);
}

static bool beneath(const char *path, const char *top)
{
    size_t length = strlen(top);
    return !strncmp(path, top, length) &&
           (path[length] == '/' || !path[length] || (length && top[length - 1] == '/'));
}

/* Whether everything that the plan was made from is as it was then. */
bool lr_current_holds(struct lr_current *current, int store, const char *name, const char *cwd)
{
    const struct lr_stored *stored = &current->stored;
    const char *at = stored->conditions;
    struct lr_condition is;
    if (!caller_is(stored->who) || !store_is(store, stored) || !equals(stored->name, name))
        return false;
    while (lr_stored_next(stored, &at, &is)) {
        bool holds = true;
        switch (is.kind) {
        case LR_CONDITION_SUM:
            holds = sum_is(is.subject, is.wanted);
            break;
        case LR_CONDITION_FILE:
            holds = file_is(is.subject, is.wanted);
            break;
        case LR_CONDITION_NAMES:
            holds = names_are(is.subject, is.wanted);
            break;
        case LR_CONDITION_MODE:
            holds = mode_is(is.subject, is.wanted);
            break;
        case LR_CONDITION_REAL:
            holds = leads_to(is.subject, is.wanted);
            break;
        case LR_CONDITION_ENV:
            holds = variable_is(is.subject, is.wanted);
            break;
        case LR_CONDITION_CWD:
            current->keep_cwd |= beneath(cwd, is.subject);
            break;
        case LR_CONDITION_UPPER: /* compared under the lock */
            break;
        case LR_CONDITION_KINDS:
            holds = false;
        }
        if (!holds)
            return false;
    }
    return true;
}

int lr_current_read(struct lr_current *current, int store, const char *name)
{
    *current = LR_CURRENT_NONE;
    current->file = open_stored(store, name);
    return read_stored(current);
}

int lr_current_open(struct lr_current *current, int store, const char *name, const char *cwd)
{
    return lr_current_read(current, store, name) || !lr_current_holds(current, store, name, cwd) ? -1 : 0;
}

void lr_current_close(struct lr_current *current)
{
    free(current->bytes);
    lr_close(&current->file);
    current->bytes = NULL;
}

int lr_current_app(const struct lr_current *current, int store)
{
    return lr_openat2(store, current->stored.app, O_RDONLY | O_DIRECTORY | O_NOFOLLOW,
                      RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV);
}

/* Whether a process runs, and goes on doing so for a moment: most that still run are about to end. One that is dead does not, even if
 * its parent never looks at it. */
static bool is_there(pid_t pid)
{
    LR_FD fd = (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd ended = {.fd = fd, .events = POLLIN};
    return fd < 0 ? errno != ESRCH : poll(&ended, 1, PATIENCE) == 0;
}

/* The lock, if nobody has it and whoever had it last is gone for good (its mounts may outlive its lock by a moment). */
int lr_current_lock(int app)
{
    char line[128], what[8];
    int pid;
    LR_FD fd = openat(app, "lock", O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -1;
    if (flock(fd, LOCK_EX | LOCK_NB))
        return errno == EWOULDBLOCK ? LR_LOCK_BUSY : -1;
    ssize_t size = pread(fd, line, sizeof line - 1, 0);
    line[size > 0 ? size : 0] = 0;
    /* Only of a sandbox's pid 1 does anything outlive the lock. */
    if (size < 0 || (sscanf(line, "%d %*s %*s %7[^\n]", &pid, what) == 2 && equals(what, "run") && pid > 0 &&
                     is_there(pid)))
        return LR_LOCK_ENDING;
    return lr_steal(&fd);
}

bool lr_current_is_there(const struct lr_current *current, int store, const char *name)
{
    char path[160];
    struct stat ours, there;
    snprintf(path, sizeof path, "plans/%s", name);
    return !fstat(current->file, &ours) && !fstatat(store, path, &there, AT_SYMLINK_NOFOLLOW) &&
           ours.st_dev == there.st_dev && ours.st_ino == there.st_ino;
}

/* A folder as it was: nothing done to it, which its time of change would tell, and no entry more or less. */
bool lr_current_upper_is(const char *path, const char *wanted)
{
    char *rest;
    long entries = -2; /* . and .. */
    long expected = strtol(wanted, &rest, 10);
    if (*rest != ':' || !file_is(path, rest + 1))
        return false;
    DIR *folder = opendir(path);
    while (folder && readdir(folder))
        entries++;
    if (folder)
        closedir(folder);
    return entries == expected;
}

bool lr_current_untouched(const struct lr_current *current)
{
    const char *at = current->stored.conditions;
    struct lr_condition is;
    bool any = false;
    while (lr_stored_next(&current->stored, &at, &is)) {
        if (is.kind != LR_CONDITION_UPPER)
            continue;
        if (!lr_current_upper_is(is.subject, is.wanted))
            return false;
        any = true;
    }
    return any;
}
