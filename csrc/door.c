/* door.c: running a stored plan. It reads no catalog: whoever changes what a plan was made from removes the plan first, under the
 * app's lock, and what lies outside the catalog (the host's mounts, a few files) is compared with what the plan was made from.
 * Whatever is not as it should be is a doubt, not an error: Python, which knows everything, takes over and says what is wrong.
 */
#include "door.h"

#include "launch.h"
#include "sys.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#define MOST (1 << 20) /* bytes of a stored plan */

extern char **environ;

struct stored {
    char *bytes; /* the whole file */
    size_t size;
    ino_t inode;
    const char *at, *end; /* what is still to be read; at last the plan */
};

/* FNV-1a, 64 bits. It guards against a torn write and a changed machine, not against an enemy: the store is ours alone. */
static uint64_t fnv(uint64_t hash, const char *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ (unsigned char)bytes[i]) * 0x100000001b3ULL;
    return hash;
}

#define FNV_START 0xcbf29ce484222325ULL

static const char *word(struct stored *stored)
{
    const char *text = stored->at;
    const char *nul = text < stored->end ? memchr(text, 0, (size_t)(stored->end - text)) : NULL;
    if (!nul)
        return NULL;
    stored->at = nul + 1;
    return text;
}

static bool equals(const char *text, const char *wanted)
{
    return text && !strcmp(text, wanted);
}

/* The store's folder, if it is one that we may use: see docs/store.md. */
static int open_store(void)
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
    return lr_steal(&fd);
}

static int read_stored(int store, const char *name, struct stored *stored)
{
    char path[96];
    struct stat info;
    snprintf(path, sizeof path, "plans/%s", name);
    LR_FD fd = lr_openat2(store, path, O_RDONLY | O_NOFOLLOW, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS);
    if (fd < 0 || fstat(fd, &info) || !S_ISREG(info.st_mode) || info.st_uid != geteuid() ||
        info.st_mode & 077 || info.st_size < 32 || info.st_size > MOST)
        return -1;
    stored->bytes = malloc((size_t)info.st_size);
    stored->size = (size_t)info.st_size;
    stored->inode = info.st_ino;
    if (!stored->bytes || read(fd, stored->bytes, stored->size) != (ssize_t)stored->size)
        return -1;
    /* The last word is the sum of everything before it. */
    char sum[18];
    size_t covered = stored->size - (sizeof sum - 1);
    snprintf(sum, sizeof sum, "%016llx", (unsigned long long)fnv(FNV_START, stored->bytes, covered));
    if (stored->bytes[stored->size - 1] || memcmp(stored->bytes + covered, sum, sizeof sum - 1))
        return -1;
    stored->at = stored->bytes;
    stored->end = stored->bytes + covered;
    return 0;
}

static bool mounts_are(const char *wanted)
{
    char buffer[16384], hash[17];
    uint64_t value = FNV_START;
    ssize_t got;
    LR_FD fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || !wanted)
        return false;
    while ((got = read(fd, buffer, sizeof buffer)) > 0)
        value = fnv(value, buffer, (size_t)got);
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)value);
    return got == 0 && equals(hash, wanted);
}

/* A file as it was: device, inode, time of modification, mode and size; "-" for one that was not there. */
static bool file_is(const char *path, const char *wanted)
{
    char seen[128] = "-";
    struct stat info;
    if (!path || !wanted)
        return false;
    if (!lstat(path, &info))
        snprintf(seen, sizeof seen, "%llu:%llu:%lld.%09ld:%o:%lld", (unsigned long long)info.st_dev,
                 (unsigned long long)info.st_ino, (long long)info.st_mtim.tv_sec, info.st_mtim.tv_nsec,
                 info.st_mode, (long long)info.st_size);
    return equals(seen, wanted);
}

static bool beneath(const char *path, const char *top)
{
    size_t length = strlen(top);
    return !strncmp(path, top, length) &&
           (path[length] == '/' || !path[length] || (length && top[length - 1] == '/'));
}

/* A copied store holds plans that lead into the original: the head names the folder it was made in. */
static bool store_is(int store, const char *wanted)
{
    char seen[64];
    struct stat info;
    if (!wanted || fstat(store, &info))
        return false;
    snprintf(seen, sizeof seen, "%llu:%llu", (unsigned long long)info.st_dev,
             (unsigned long long)info.st_ino);
    return equals(seen, wanted);
}

/* Read the head: everything that decides whether the plan holds now. Leaves stored->at at the plan. */
static bool is_current(struct stored *stored, int store, const char **app, bool *keep_cwd, const char *cwd)
{
    char own[16];
    const char *key;
    *keep_cwd = false;
    snprintf(own, sizeof own, "%u", geteuid());
    if (!equals(word(stored), "layerrun-stored") || !equals(word(stored), "1") ||
        !equals(word(stored), own) || !store_is(store, word(stored)))
        return false;
    if (!(*app = word(stored)))
        return false;
    while ((key = word(stored)) && strcmp(key, "plan")) {
        if (!strcmp(key, "mounts")) {
            if (!mounts_are(word(stored)))
                return false;
        } else if (!strcmp(key, "file")) {
            const char *path = word(stored);
            if (!file_is(path, word(stored)))
                return false;
        } else if (!strcmp(key, "cwd")) {
            const char *top = word(stored);
            if (top && cwd && beneath(cwd, top))
                *keep_cwd = true;
        } else {
            return false;
        }
    }
    return key != NULL;
}

static int open_app(int store, const char *path)
{
    return lr_openat2(store, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS);
}

#define BUSY -2

/* The lock, if nobody has it and whoever had it last is gone for good (its mounts may outlive its lock by a moment). */
static int take_lock(int app)
{
    char line[128];
    LR_FD fd = openat(app, "lock", O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -1;
    if (flock(fd, LOCK_EX | LOCK_NB))
        return errno == EWOULDBLOCK ? BUSY : -1;
    ssize_t size = pread(fd, line, sizeof line - 1, 0);
    line[size > 0 ? size : 0] = 0;
    long pid = strtol(line, NULL, 10);
    if (size < 0 || (pid > 0 && (!kill((pid_t)pid, 0) || errno != ESRCH)))
        return -1;
    return lr_steal(&fd);
}

/* The plan must still be there under the lock: whoever outdates it removes it while holding the lock. */
static bool still_there(int store, const char *name, const struct stored *stored)
{
    char path[96];
    struct stat info;
    snprintf(path, sizeof path, "plans/%s", name);
    return !fstatat(store, path, &info, AT_SYMLINK_NOFOLLOW) && info.st_ino == stored->inode;
}

int lr_door_run(const char *name, const char *const *argv)
{
    struct stored stored = {0};
    struct lr_result result;
    struct lr_error error;
    char here[4096];
    const char *app_path, *cwd = getcwd(here, sizeof here);
    bool keep_cwd;
    int status = -1;
    LR_FD store = open_store();
    LR_FD lock = -1;
    LR_FD app = -1;
    if (store < 0 || read_stored(store, name, &stored) ||
        !is_current(&stored, store, &app_path, &keep_cwd, cwd))
        goto out;
    app = open_app(store, app_path);
    lock = app < 0 ? -1 : take_lock(app);
    if (app < 0 || lock == -1 || !still_there(store, name, &stored))
        goto out;
    struct lr_launch launch = {
        .plan = stored.at,
        .plan_size = (size_t)(stored.end - stored.at),
        .argv = argv,
        .environ = (const char *const *)environ,
        .cwd = keep_cwd ? cwd : NULL,
        .lock_fd = lock,
        .app_fd = app,
        .stay = 1,
        .own_tty = isatty(0) && isatty(1) && isatty(2),
    };
    if (!(lock == BUSY ? lr_join(&launch, &result, &error) : lr_run(&launch, &result, &error))) {
        status = result.status;
    } else if (result.started) { /* it ran, and must not run again */
        fprintf(stderr, "layerrun: %s: %s\n", error.step, strerror(error.code));
        status = 125;
    }
out:
    free(stored.bytes);
    return status;
}
