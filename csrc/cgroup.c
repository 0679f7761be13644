/* cgroup.c: see cgroup.h. A group costs 30 us to make, 25 to remove and 5 to open: so it is kept from one run to the next, and goes
 * when the app is removed. */
#include "cgroup.h"

#include "sys.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#define LINK "cgroup"
#define PREFIX "layerrun-"
/* Where the processes of a delegated group go: one that gives its controllers to others may hold none itself. */
#define LEAF PREFIX "launchers"
#define TURNS 16 /* for who forks meanwhile */

static const char *const controllers[] = {"cpu", "io", "memory", "pids"};

/* Our own group in the second version's hierarchy, the line "0::/PATH"; "" for its root. It has two dots where the namespace does not
 * show it. */
static int find_own(char *path, size_t size)
{
    char text[8192], *line;
    LR_FD fd = open("/proc/self/cgroup", O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (got <= 0)
        return -1;
    text[got] = 0;
    line = strncmp(text, "0::/", 4) ? strstr(text, "\n0::/") : text;
    if (!line)
        return -1;
    line += line == text ? 3 : 4;
    size_t length = strcspn(line, "\n");
    if (line[length] != '\n' || length >= size || !strncmp(line, "/..", 3))
        return -1;
    length = length == 1 ? 0 : length;
    memcpy(path, line, length);
    path[length] = 0;
    return 0;
}

/* rmdir(2) takes nothing but an empty folder; only a group without members and groups is one here. */
void lr_cgroup_remove(int app_fd)
{
    char path[PATH_MAX];
    ssize_t length = readlinkat(app_fd, LINK, path, sizeof path - 1);
    const char *base = length > 0 ? (path[length] = 0, strrchr(path, '/')) : NULL;
    if (base && !strncmp(base + 1, PREFIX, sizeof PREFIX - 1))
        rmdir(path);
}

/* At most one is kept for an app: where it was started from last. On a full disk it is not found again, and nothing is lost. */
static int record(int app_fd, const char *path)
{
    char old[PATH_MAX];
    ssize_t length = readlinkat(app_fd, LINK, old, sizeof old - 1);
    if (length > 0 && (size_t)length == strlen(path) && !memcmp(old, path, (size_t)length))
        return 0;
    lr_cgroup_remove(app_fd);
    unlinkat(app_fd, LINK, 0);
    return symlinkat(path, app_fd, LINK);
}

/* ---- files of a group ---- */

static ssize_t get(const char *group, const char *name, char *text, size_t size)
{
    char path[PATH_MAX];
    if ((size_t)snprintf(path, sizeof path, "%s/%s", group, name) >= sizeof path)
        return -1;
    LR_FD fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t got = fd < 0 ? -1 : read(fd, text, size - 1);
    text[got > 0 ? got : 0] = 0;
    return got;
}

static int put(int group, const char *name, const char *text)
{
    LR_FD fd = openat(group, name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t size = (ssize_t)strlen(text);
    return fd < 0 || write(fd, text, (size_t)size) != size ? -1 : 0;
}

static unsigned controllers_of(const char *group, const char *name)
{
    char text[1024], *rest, *word = get(group, name, text, sizeof text) > 0 ? text : NULL;
    unsigned found = 0;
    for (word = word ? strtok_r(word, " \n", &rest) : NULL; word; word = strtok_r(NULL, " \n", &rest))
        for (unsigned i = 0; i < sizeof controllers / sizeof *controllers; i++)
            found |= strcmp(word, controllers[i]) ? 0 : 1U << i;
    return found;
}

static bool is_there(const char *group, const char *name, int mode)
{
    char path[PATH_MAX];
    return (size_t)snprintf(path, sizeof path, "%s/%s", group, name) < sizeof path &&
           !faccessat(AT_FDCWD, path, mode, AT_EACCESS);
}

/* ---- where controllers are to be had ---- */

struct place {
    char path[PATH_MAX - NAME_MAX - 2]; /* the group beneath which ours is made */
    unsigned given; /* controllers that its groups have, or can be given */
    unsigned missing; /* of these, what is still to be given to them */
    bool crowded; /* its processes have to leave for that */
};

/* A group may give its controllers to its groups if it holds no processes itself, or is the very root. Its processes are ours to move where
 * the group was handed over: by systemd (Delegate=, the attribute says so), or as the root of a cgroup namespace. */
static bool is_delegated(const char *path, bool top)
{
    char value[4];
    return top || getxattr(path, "user.delegate", value, sizeof value) == 1 ||
           getxattr(path, "trusted.delegate", value, sizeof value) == 1;
}

/* What a group can give to groups beneath it. own: our processes are in it. */
static void judge(struct place *place, const char *mount, unsigned wanted, bool own)
{
    bool top = !strcmp(place->path, mount);
    place->given = place->missing = 0;
    place->crowded = false;
    if (!is_there(place->path, ".", W_OK) || !is_there(place->path, "cgroup.procs", W_OK))
        return;
    unsigned now = controllers_of(place->path, "cgroup.subtree_control") & wanted;
    unsigned more = controllers_of(place->path, "cgroup.controllers") & wanted & ~now;
    place->given = now;
    if (!more || !is_there(place->path, "cgroup.subtree_control", W_OK))
        return;
    bool root = top && !is_there(place->path, "cgroup.type", F_OK);
    if (own && !root && !is_delegated(place->path, top))
        return;
    place->given |= more;
    place->missing = more;
    place->crowded = own && !root;
}

/* To leave a group is to leave its limits behind; pids.max alone, which systemd gives to every unit, is taken along. */
static bool is_limited(const char *path)
{
    static const char *const files[] = {"memory.max", "memory.high", "memory.swap.max", "cpu.max"};
    char text[64];
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (get(path, files[i], text, sizeof text) > 0 && strncmp(text, "max", 3))
            return true;
    return get(path, "io.max", text, sizeof text) > 0;
}

/* From our own group upwards: the first that has all that is wanted, else the first that has the most of it. pids: the lowest pids.max of
 * groups that are left, LONG_MAX for none. */
static unsigned find_place(struct place *best, const char *mount, unsigned wanted, long *pids)
{
    struct place place;
    char own[PATH_MAX / 2], text[32];
    size_t floor = strlen(mount);
    long lowest = LONG_MAX;
    bool mine = true;
    best->given = 0;
    *pids = LONG_MAX;
    if (find_own(own, sizeof own) || snprintf(place.path, sizeof place.path, "%s%s", mount, own) < 0)
        return 0;
    char *slash = strrchr(place.path, '/');
    if (*own && !strcmp(slash + 1, LEAF)) {
        *slash = 0;
        mine = false;
    }
    for (;; mine = false) {
        judge(&place, mount, wanted, mine);
        if (__builtin_popcount(place.given) > __builtin_popcount(best->given)) {
            *best = place;
            *pids = lowest;
        }
        if (best->given == wanted || strlen(place.path) <= floor || is_limited(place.path))
            return best->given;
        if (get(place.path, "pids.max", text, sizeof text) > 0 && strncmp(text, "max", 3))
            lowest = atol(text) < lowest ? atol(text) : lowest;
        slash = strrchr(place.path, '/');
        *slash = 0;
    }
}

/* Move everybody in a delegated group, ourselves too, into a leaf of it. */
static int clear_out(const char *group)
{
    char path[PATH_MAX], text[4096], *rest;
    if ((size_t)snprintf(path, sizeof path, "%s/" LEAF, group) >= sizeof path)
        return -1;
    if (mkdir(path, 0755) && errno != EEXIST)
        return -1;
    LR_FD leaf = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    for (int turn = 0; leaf >= 0 && turn < TURNS; turn++) {
        if (get(group, "cgroup.procs", text, sizeof text) <= 0)
            return 0;
        for (char *pid = strtok_r(text, "\n", &rest); pid; pid = strtok_r(NULL, "\n", &rest))
            put(leaf, "cgroup.procs", pid);
    }
    return -1;
}

static void enable(const struct place *place)
{
    char word[16];
    LR_FD group = open(place->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (group < 0 || (place->crowded && clear_out(place->path)))
        return;
    for (unsigned i = 0; i < sizeof controllers / sizeof *controllers; i++)
        if (place->missing >> i & 1) {
            snprintf(word, sizeof word, "+%s", controllers[i]);
            put(group, "cgroup.subtree_control", word);
        }
}

static unsigned wanted_by(const struct lr_plan *plan)
{
    unsigned wanted = 0;
    for (size_t i = 0; i < plan->count; i++)
        for (unsigned j = 0; plan->ops[i].kind == LR_OP_LIMIT && j < sizeof controllers / sizeof *controllers;
             j++)
            if (!strncmp(plan->ops[i].arg[0], controllers[j], strlen(controllers[j])) &&
                plan->ops[i].arg[0][strlen(controllers[j])] == '.')
                wanted |= 1U << j;
    return wanted;
}

unsigned lr_cgroup_controllers(const char *mount)
{
    struct place place;
    long pids;
    return find_place(&place, mount, (1U << sizeof controllers / sizeof *controllers) - 1, &pids);
}

/* ---- an app's group ---- */

void lr_cgroup_give_up(struct lr_plan *plan)
{
    for (size_t i = 0; i < plan->count; i++)
        if (plan->ops[i].kind == LR_OP_LIMIT)
            plan->ops[i].flags |= LR_FLAG_UNHELD;
}

int lr_cgroup_enter(int group, pid_t pid)
{
    char text[16];
    snprintf(text, sizeof text, "%d", pid);
    return put(group, "cgroup.procs", text);
}

static void set_limits(struct lr_plan *plan, int group, long pids)
{
    char text[32];
    snprintf(text, sizeof text, "%ld", pids);
    if (pids < LONG_MAX)
        put(group, "pids.max", text);
    for (size_t i = 0; i < plan->count; i++) {
        struct lr_op *op = &plan->ops[i];
        if (op->kind != LR_OP_LIMIT)
            continue;
        bool lower = pids < LONG_MAX && !strcmp(op->arg[0], "pids.max") &&
                     (!strcmp(op->arg[1], "max") || atol(op->arg[1]) >= pids);
        if (!lower && put(group, op->arg[0], op->arg[1]))
            op->flags |= LR_FLAG_UNHELD;
    }
}

static int open_group(const struct lr_plan *plan, const char *parent, int app_fd)
{
    char path[PATH_MAX];
    int length = snprintf(path, sizeof path, "%s/%s", parent, plan->cgroup_name);
    if (length < 0 || (size_t)length >= sizeof path)
        return -1;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0 || errno != ENOENT || mkdir(path, 0755))
        return fd;
    if (record(app_fd, path))
        errno = 0;
    return open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

int lr_cgroup_open(struct lr_plan *plan, int app_fd)
{
    char own[PATH_MAX / 2], parent[PATH_MAX - NAME_MAX - 2];
    struct place place = {.given = 0};
    long pids = LONG_MAX;
    unsigned wanted = plan->limited ? wanted_by(plan) : 0;
    if (plan->limited && !find_place(&place, plan->cgroup_mount, wanted, &pids))
        lr_cgroup_give_up(plan);
    if (place.given) {
        if (place.missing)
            enable(&place);
        int group = open_group(plan, place.path, app_fd);
        if (group >= 0) {
            set_limits(plan, group, pids);
            return group;
        }
        lr_cgroup_give_up(plan);
    }
    int length =
        find_own(own, sizeof own) ? -1 : snprintf(parent, sizeof parent, "%s%s", plan->cgroup_mount, own);
    return length < 0 || (size_t)length >= sizeof parent ? -1 : open_group(plan, parent, app_fd);
}
