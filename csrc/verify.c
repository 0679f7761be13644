/* verify.c: a tree against its manifest, every byte of it read; see intake.h.
 *
 * Tree and manifest are gone through side by side, in the same order, so neither is ever in memory. One thread looks at
 * entries, others read and hash the content of files.
 */
#include "taking.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORKERS 2
/* Files that are open and wait to be read. */
#define WAITING 32
#define ROOM (256U << 10)
/* Of links: entries that the tree does not have. */
#define ABSENT 65536

struct job {
    int fd;
    uint8_t digest[LR_SHA_SIZE];
    char *path;
};

struct checker {
    FILE *manifest;
    char *line; /* the next one, with its newline; NULL: no more */
    size_t room;
    struct lr_buf expected; /* its path */
    const char *fields[6]; /* kind, mode, uid, gid, value, path; each ends with a blank or the newline */
    const char *rest; /* attributes, and the newline */
    char **absent;
    size_t absent_count;
    struct lr_buf mine, value, path;
    bool owners;
    int out;
    pthread_mutex_t mutex;
    pthread_cond_t more, less;
    struct job jobs[WAITING];
    size_t first, count;
    bool ended, failed;
    struct lr_error err;
};

static int tell(struct checker *checker, const char *what, const char *path, struct lr_error *err)
{
    char *text = NULL;
    int size = asprintf(&text, "%s %s", what, *path ? path : ".");
    ssize_t put = size < 0 ? -1 : write(checker->out, text, (size_t)size + 1);
    free(text);
    return put < 0 ? lr_fail(err, "write what differs", path) : 0;
}

/* What happens in the threads that read. */

static int read_one(struct lr_sha *sha, char *room, const struct job *job, bool *same, struct lr_error *err)
{
    uint8_t digest[LR_SHA_SIZE];
    ssize_t got;
    lr_sha_begin(sha);
    while ((got = read(job->fd, room, ROOM)) != 0) {
        if (got < 0 && errno != EINTR)
            return lr_fail(err, "read", job->path);
        if (got > 0)
            lr_sha_add(sha, room, (size_t)got);
    }
    lr_sha_end(sha, digest);
    *same = memcmp(digest, job->digest, LR_SHA_SIZE) == 0;
    return 0;
}

static bool next_job(struct checker *checker, struct job *job)
{
    pthread_mutex_lock(&checker->mutex);
    while (!checker->count && !checker->ended)
        pthread_cond_wait(&checker->more, &checker->mutex);
    bool any = checker->count > 0;
    if (any) {
        *job = checker->jobs[checker->first];
        checker->first = (checker->first + 1) % WAITING;
        checker->count--;
        pthread_cond_signal(&checker->less);
    }
    pthread_mutex_unlock(&checker->mutex);
    return any;
}

static void *work(void *argument)
{
    struct checker *checker = argument;
    struct lr_sha sha = {0};
    struct lr_error err;
    struct job job;
    char *room = malloc(ROOM);
    int done = room ? lr_sha_open(&sha, &err) : lr_fail(&err, "get memory", NULL);
    while (next_job(checker, &job)) {
        bool same = true;
        if (done == 0)
            done = read_one(&sha, room, &job, &same, &err);
        pthread_mutex_lock(&checker->mutex);
        if (done == 0 && !same)
            done = tell(checker, "changed", job.path, &err);
        if (done < 0 && !checker->failed) {
            checker->failed = true;
            checker->err = err;
        }
        pthread_mutex_unlock(&checker->mutex);
        lr_close(&job.fd);
        free(job.path);
    }
    lr_sha_free(&sha);
    free(room);
    return NULL;
}

/* What happens in the one that looks at entries. */

static int add_job(struct checker *checker, int fd, const char *digest, const char *path,
                   struct lr_error *err)
{
    struct job job = {.fd = fd, .path = strdup(path)};
    if (!job.path || lr_unhex(digest, LR_SHA_SIZE, job.digest) < 0) {
        lr_close(&fd);
        free(job.path);
        return lr_fail_code(err, EBADMSG, "read the manifest", path);
    }
    pthread_mutex_lock(&checker->mutex);
    while (checker->count == WAITING)
        pthread_cond_wait(&checker->less, &checker->mutex);
    checker->jobs[(checker->first + checker->count++) % WAITING] = job;
    bool failed = checker->failed;
    pthread_cond_signal(&checker->more);
    pthread_mutex_unlock(&checker->mutex);
    return failed ? -1 : 0;
}

static int tell_here(struct checker *checker, const char *what, const char *path, struct lr_error *err)
{
    pthread_mutex_lock(&checker->mutex);
    int done = tell(checker, what, path, err);
    pthread_mutex_unlock(&checker->mutex);
    return done;
}

/* The bytes that were escaped. */
static int unescape(struct lr_buf *out, const char *text, size_t size, struct lr_error *err)
{
    out->used = 0;
    for (size_t i = 0; i < size; i++) {
        uint8_t byte = (uint8_t)text[i];
        if (byte == '\\') {
            if (i + 3 >= size || text[i + 1] != 'x' || lr_unhex(text + i + 2, 1, &byte) < 0 || !byte)
                return lr_fail_code(err, EBADMSG, "read the manifest", "");
            i += 3;
        }
        if (lr_buf_add(out, &byte, 1, err) < 0)
            return -1;
    }
    return lr_buf_add(out, "", 1, err);
}

/* Read the next line and take it apart. */
static int advance(struct checker *checker, struct lr_error *err)
{
    ssize_t size = getline(&checker->line, &checker->room, checker->manifest);
    if (size < 0) {
        if (ferror(checker->manifest))
            return lr_fail(err, "read the manifest", NULL);
        free(checker->line);
        checker->line = NULL;
        return 0;
    }
    const char *at = checker->line;
    for (size_t i = 0; i < 6; i++) {
        checker->fields[i] = at;
        at += strcspn(at, " \n");
        if (!*at || (i < 5 && *at == '\n'))
            return lr_fail_code(err, EBADMSG, "read the manifest", "");
        at += i < 5;
    }
    checker->rest = at;
    return unescape(&checker->expected, checker->fields[5], (size_t)(at - checker->fields[5]), err);
}

static bool is_absent(const struct checker *checker)
{
    const char *path = checker->expected.data;
    size_t low = 0, high = checker->absent_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = lr_in_order(checker->absent[middle], path);
        if (order == 0)
            return true;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}

/* Lines that stand before `path` are of entries that are missing; NULL: all are. */
static int pass_missing(struct checker *checker, const char *path, struct lr_error *err)
{
    while (checker->line && (!path || lr_in_order(checker->expected.data, path) < 0)) {
        if (!is_absent(checker) && tell_here(checker, "missing", checker->expected.data, err) < 0)
            return -1;
        if (advance(checker, err) < 0)
            return -1;
    }
    return 0;
}

/* What a line says before the value, and behind the path. */
static int same_frame(struct checker *checker, int dirfd, const char *name, const struct statx *st,
                      struct lr_error *err)
{
    struct lr_buf *mine = &checker->mine;
    const char *const *fields = checker->fields;
    mine->used = 0;
    if (lr_line_begin(mine, lr_line_kind(st->stx_mode), st->stx_mode, st->stx_uid, st->stx_gid, err) < 0)
        return -1;
    size_t size = checker->owners ? (size_t)(fields[4] - checker->line) : (size_t)(fields[2] - checker->line);
    if (mine->used < size || (checker->owners && mine->used != size) ||
        memcmp(mine->data, checker->line, size) != 0)
        return 0;
    if (!checker->owners && (st->stx_uid != 0 || st->stx_gid != 0))
        return 0;
    mine->used = 0;
    if (lr_line_attributes(mine, &checker->value, dirfd, name, err) < 0 || lr_buf_add(mine, "\n", 1, err) < 0)
        return -1;
    return strlen(checker->rest) == mine->used && memcmp(checker->rest, mine->data, mine->used) == 0;
}

/* The value of what is no file. */
static int same_value(struct checker *checker, int dirfd, const char *name, const struct statx *st,
                      struct lr_error *err)
{
    char text[4097];
    ssize_t size = 1;
    struct lr_buf *mine = &checker->mine;
    mine->used = 0;
    *text = '-';
    if (S_ISLNK(st->stx_mode))
        size = readlinkat(dirfd, name, text, sizeof text);
    else if (S_ISCHR(st->stx_mode) || S_ISBLK(st->stx_mode))
        size = snprintf(text, sizeof text, "%u:%u", st->stx_rdev_major, st->stx_rdev_minor);
    if (size < 0)
        return lr_fail(err, "read the link", name);
    if (lr_escape(mine, text, (size_t)size, err) < 0)
        return -1;
    size_t length = (size_t)(checker->fields[5] - checker->fields[4]) - 1;
    return mine->used == length && memcmp(mine->data, checker->fields[4], length) == 0;
}

static int check_entry(struct checker *checker, int dirfd, const char *name, const char *path,
                       const struct statx *st, struct lr_error *err)
{
    if (pass_missing(checker, path, err) < 0)
        return -1;
    if (!checker->line || strcmp(checker->expected.data, path) != 0)
        return tell_here(checker, "added", path, err);
    int same = same_frame(checker, dirfd, name, st, err);
    if (same > 0 && S_ISREG(st->stx_mode)) {
        if ((size_t)(checker->fields[5] - checker->fields[4]) != 2 * LR_SHA_SIZE + 1)
            return lr_fail_code(err, EBADMSG, "read the manifest", path);
        int fd = lr_open_seen(dirfd, name, st);
        if (fd < 0)
            return lr_fail(err, "read", path);
        same = add_job(checker, fd, checker->fields[4], path, err) < 0 ? -1 : 1;
    } else if (same > 0) {
        same = same_value(checker, dirfd, name, st, err);
    }
    if (same < 0 || (same == 0 && tell_here(checker, "changed", path, err) < 0))
        return -1;
    return advance(checker, err);
}

static int check_tree(struct checker *checker, int tree, struct lr_error *err)
{
    struct lr_walk walk = {0};
    struct lr_entry entry;
    struct statx root;
    struct lr_buf *path = &checker->path;
    int event = 0;
    if (lr_statx(tree, "", &root) < 0)
        return lr_fail(err, "look at the tree", NULL);
    if (check_entry(checker, tree, ".", ".", &root, err) < 0)
        return -1;
    int done = lr_walk_open(&walk, tree, true, err);
    while (done == 0 && (event = lr_walk_next(&walk, &entry, err)) > 0) {
        const struct lr_buf *folder = &walk.chain.path;
        if (event == LR_LEAVE)
            continue;
        path->used = 0;
        if (lr_buf_add(path, folder->data, folder->used - 1, err) < 0 ||
            (path->used && lr_buf_add(path, "/", 1, err) < 0) ||
            lr_buf_add(path, entry.name, strlen(entry.name) + 1, err) < 0 ||
            check_entry(checker, lr_chain_fd(&walk.chain), entry.name, path->data, &entry.st, err) < 0 ||
            (S_ISDIR(entry.st.stx_mode) && lr_walk_enter(&walk, &entry, err) < 0))
            done = -1;
    }
    lr_walk_close(&walk);
    return done < 0 || event < 0 ? -1 : pass_missing(checker, NULL, err);
}

/* The paths of the lines "a TIME PATH", which are in order. */
static int read_absent(struct checker *checker, int links, struct lr_error *err)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t size;
    int fd = links < 0 ? -1 : fcntl(links, F_DUPFD_CLOEXEC, 3), done = 0;
    FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
    if (!file)
        return 0;
    checker->absent = calloc(ABSENT, sizeof *checker->absent);
    if (!checker->absent)
        done = lr_fail(err, "get memory", NULL);
    while (done == 0 && checker->absent_count < ABSENT && (size = getline(&line, &room, file)) > 0) {
        char *path = line[0] == 'a' ? strrchr(line, ' ') : NULL;
        if (!path)
            continue;
        path++;
        done = unescape(&checker->value, path, (size_t)(line + size - path) - (line[size - 1] == '\n'), err);
        if (done == 0 && !(checker->absent[checker->absent_count++] = strdup(checker->value.data)))
            done = lr_fail(err, "get memory", NULL);
    }
    free(line);
    fclose(file);
    return done;
}

static int begin(struct checker *checker, int manifest, int links, struct lr_error *err)
{
    int fd = fcntl(manifest, F_DUPFD_CLOEXEC, 3);
    checker->manifest = fd < 0 ? NULL : fdopen(fd, "r");
    if (!checker->manifest) {
        lr_close(&fd);
        return lr_fail(err, "read the manifest", NULL);
    }
    if (getline(&checker->line, &checker->room, checker->manifest) < 0 ||
        strcmp(checker->line, "layerrun-manifest 1\n") != 0)
        return lr_fail_code(err, EBADMSG, "read the manifest", "");
    return read_absent(checker, links, err) < 0 ? -1 : advance(checker, err);
}

static int run(struct checker *checker, int tree, struct lr_error *err)
{
    pthread_t threads[WORKERS];
    size_t running = 0;
    int done = 0;
    while (done == 0 && running < WORKERS)
        done = pthread_create(&threads[running], NULL, work, checker) ? -1 : (running++, 0);
    done = running ? check_tree(checker, tree, err) : lr_fail_code(err, EAGAIN, "start a thread", "");
    pthread_mutex_lock(&checker->mutex);
    checker->ended = true;
    pthread_cond_broadcast(&checker->more);
    pthread_mutex_unlock(&checker->mutex);
    while (running)
        pthread_join(threads[--running], NULL);
    if (checker->failed)
        *err = checker->err;
    return checker->failed ? -1 : done;
}

int lr_verify(int tree, int manifest, int links, int owners, int out, struct lr_error *err)
{
    struct checker *checker = calloc(1, sizeof *checker);
    if (!checker)
        return lr_fail(err, "get memory", NULL);
    checker->owners = owners;
    checker->out = out;
    pthread_mutex_init(&checker->mutex, NULL);
    pthread_cond_init(&checker->more, NULL);
    pthread_cond_init(&checker->less, NULL);
    int done = begin(checker, manifest, links, err);
    if (done == 0)
        done = run(checker, tree, err);
    if (checker->manifest)
        fclose(checker->manifest);
    for (size_t i = 0; i < checker->absent_count; i++)
        free(checker->absent[i]);
    free(checker->absent);
    free(checker->line);
    lr_buf_free(&checker->expected);
    lr_buf_free(&checker->mine);
    lr_buf_free(&checker->value);
    lr_buf_free(&checker->path);
    free(checker);
    return done;
}
