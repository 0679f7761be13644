/* plan.c: reading a plan. It is refused whole if anything in it is unknown, missing or too much. */
#include "plan.h"

#include "confine.h"
#include "launch.h"

#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#define OWN (LR_FLAG_NOEXEC | LR_FLAG_NOSUID | LR_FLAG_NODEV)

/* The last argument holds flags where any are allowed. must: exactly once; once: at most. */
static const struct {
    const char *name;
    int args;
    unsigned flags;
    enum { MANY, ONCE, MUST } times;
} table[LR_OP_KINDS] = {
    [LR_OP_USERNS] = {"userns", 1, 0, MUST},
    [LR_OP_UIDMAP] = {"uidmap", 3, 0, MANY},
    [LR_OP_GIDMAP] = {"gidmap", 3, 0, MANY},
    [LR_OP_NAMESPACE] = {"namespace", 1, 0, MANY},
    [LR_OP_HOSTNAME] = {"hostname", 1, 0, ONCE},
    [LR_OP_IDENTITY] = {"identity", 2, 0, MUST},
    [LR_OP_STORE] = {"store", 1, 0, ONCE}, /* the folder in which most lowers lie */
    [LR_OP_VOLUME] = {"volume", 2, 0, ONCE}, /* image or memory; its path, or bytes */
    [LR_OP_DATA] = {"data", 1, 0, MUST}, /* the folder that holds every upper and work folder */
    [LR_OP_OVERLAY] = {"overlay", 4, LR_FLAG_USERXATTR | LR_FLAG_TRY, MANY}, /* target, upper, work */
    [LR_OP_LOWER] = {"lower", 2, LR_FLAG_IDMAP | LR_FLAG_RO | LR_FLAG_APART | LR_FLAG_IMAGE,
                     MANY}, /* belongs to the overlay before it */
    [LR_OP_PLACE] = {"place", 2, 0, MANY}, /* path, dir or file; behind the lowers of an overlay */
    [LR_OP_BIND] = {"bind", 3, OWN | LR_FLAG_DATA | LR_FLAG_RO | LR_FLAG_REC | LR_FLAG_IDMAP | LR_FLAG_TRY,
                    MANY},
    [LR_OP_TMPFS] = {"tmpfs", 3, OWN | LR_FLAG_RO, MANY}, /* target, mode */
    [LR_OP_DIR] = {"dir", 2, 0, MANY}, /* path, mode */
    [LR_OP_FILE] = {"file", 2, 0, MANY}, /* path, mode */
    [LR_OP_SYMLINK] = {"symlink", 2, 0, MANY}, /* text, path */
    [LR_OP_TEXT] = {"text", 3, 0, MANY}, /* path, mode, what is in it */
    [LR_OP_PROC] = {"proc", 1, 0, MANY},
    [LR_OP_DEV] = {"dev", 1, 0, ONCE},
    [LR_OP_DEVICE] = {"device", 3, LR_FLAG_TRY, MANY}, /* source, target; behind dev */
    [LR_OP_MASK] = {"mask", 2, LR_FLAG_TRY, MANY},
    [LR_OP_READONLY] = {"readonly", 2, LR_FLAG_TRY, MANY},
    [LR_OP_CAPS] = {"caps", 1, 0, MUST},
    [LR_OP_OWN] = {"own", 1, 0, MANY},
    [LR_OP_SYSCTL] = {"sysctl", 2, 0, MANY}, /* path below /proc/sys, value */
    [LR_OP_GROUPS] = {"groups", 1, 0, ONCE},
    [LR_OP_AMBIENT] = {"ambient", 1, 0, ONCE},
    [LR_OP_LANDLOCK] = {"landlock", 1, 0, ONCE},
    [LR_OP_NNP] = {"no_new_privs", 0, 0, ONCE}, /* see check_whole */
    [LR_OP_SECCOMP] = {"seccomp", 1, 0, MUST},
    [LR_OP_KEEPENV] = {"keepenv", 1, 0, MANY},
    [LR_OP_ENV] = {"env", 1, 0, MANY},
    [LR_OP_CWD] = {"cwd", 1, 0, ONCE},
    [LR_OP_UMASK] = {"umask", 1, 0, ONCE},
    [LR_OP_CGROUP] = {"cgroup", 2, 0, ONCE}, /* mount, name */
    [LR_OP_LIMIT] = {"limit", 2, 0, MANY}, /* file of the control group, what is written there */
    [LR_OP_RLIMIT] = {"rlimit", 4, 0, MANY}, /* number, soft, hard, the limit for which it stands in or "" */
    [LR_OP_NOTIFY] = {"notify", 0, 0, ONCE},
    [LR_OP_PASTA] = {"pasta", 1, 0, MANY},
    [LR_OP_ARG] = {"arg", 1, 0, MANY},
};

static const struct {
    const char *name;
    unsigned flag;
} flag_names[] = {
    {"userxattr", LR_FLAG_USERXATTR}, {"ro", LR_FLAG_RO},         {"rec", LR_FLAG_REC},
    {"idmap", LR_FLAG_IDMAP},         {"try", LR_FLAG_TRY},       {"noexec", LR_FLAG_NOEXEC},
    {"data", LR_FLAG_DATA},           {"nosuid", LR_FLAG_NOSUID}, {"nodev", LR_FLAG_NODEV},
    {"apart", LR_FLAG_APART},         {"image", LR_FLAG_IMAGE},
};

int lr_op_fail(struct lr_error *err, const struct lr_op *op, const char *step, const char *path)
{
    lr_fail(err, step, path);
    err->op = op->number;
    return -1;
}

static int refuse(struct lr_error *err, const struct lr_op *op, const char *why)
{
    errno = EINVAL;
    return lr_op_fail(err, op, why, op->arg[0] ? op->arg[0] : "");
}

/* strtoull would take signs, blanks and 0x. */
static int parse_number(const char *text, int base, uint64_t most, uint64_t *value)
{
    const char *digits = base == 16 ? "0123456789abcdef" : base == 10 ? "0123456789" : "01234567";
    if (!*text || text[strspn(text, digits)])
        return -1;
    errno = 0;
    *value = strtoull(text, NULL, base);
    return errno || *value > most ? -1 : 0;
}

static int parse_flags(struct lr_op *op, const char *text)
{
    while (*text) {
        size_t length = strcspn(text, ","), i;
        for (i = 0; i < sizeof flag_names / sizeof *flag_names; i++)
            if (strlen(flag_names[i].name) == length && !memcmp(flag_names[i].name, text, length))
                break;
        if (i == sizeof flag_names / sizeof *flag_names || !(flag_names[i].flag & table[op->kind].flags))
            return -1;
        op->flags |= flag_names[i].flag;
        text += length;
        if (*text == ',' && !*++text)
            return -1;
    }
    return 0;
}

static int parse_userns(struct lr_plan *plan, const struct lr_op *op)
{
    static const char *const names[] = {"none", "self", "helper", "ungrouped", "range"};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(op->arg[0], names[i])) {
            plan->userns = (enum lr_userns)i;
            return 0;
        }
    return -1;
}

static int parse_map(struct lr_plan *plan, const struct lr_op *op)
{
    uint64_t inside, outside, count;
    if (parse_number(op->arg[0], 10, UINT32_MAX - 1, &inside) ||
        parse_number(op->arg[1], 10, UINT32_MAX - 1, &outside) ||
        parse_number(op->arg[2], 10, UINT32_MAX, &count) || !count || inside + count > UINT32_MAX ||
        outside + count > UINT32_MAX)
        return -1;
    if (inside == 0 && op->kind == LR_OP_UIDMAP)
        plan->root_uid = (uid_t)outside;
    if (inside == 0 && op->kind == LR_OP_GIDMAP)
        plan->root_gid = (gid_t)outside;
    /* Host root must never be inside a namespace that root builds: see docs/architecture.md, identity. */
    return plan->userns == LR_USERNS_RANGE && outside == 0 ? -1 : 0;
}

static int parse_single(struct lr_plan *plan, const struct lr_op *op)
{
    uint64_t a, b;
    switch (op->kind) {
    case LR_OP_USERNS:
        return parse_userns(plan, op);
    case LR_OP_UIDMAP:
    case LR_OP_GIDMAP:
        return parse_map(plan, op);
    case LR_OP_NAMESPACE:
        if (!strcmp(op->arg[0], "net"))
            plan->namespaces |= CLONE_NEWNET;
        else if (!strcmp(op->arg[0], "net-given"))
            plan->net_given = true;
        else if (!strcmp(op->arg[0], "cgroup"))
            plan->namespaces |= CLONE_NEWCGROUP;
        else
            return -1;
        return 0;
    case LR_OP_HOSTNAME:
        plan->hostname = op->arg[0];
        return 0;
    case LR_OP_IDENTITY:
        if (parse_number(op->arg[0], 10, UINT32_MAX - 1, &a) ||
            parse_number(op->arg[1], 10, UINT32_MAX - 1, &b))
            return -1;
        plan->uid = (uid_t)a;
        plan->gid = (gid_t)b;
        return 0;
    case LR_OP_CAPS:
        return parse_number(op->arg[0], 16, UINT64_MAX, &plan->caps);
    case LR_OP_AMBIENT:
        return parse_number(op->arg[0], 16, UINT64_MAX, &plan->ambient);
    case LR_OP_GROUPS:
        plan->groups = op->arg[0];
        return *plan->groups && !plan->groups[strspn(plan->groups, "0123456789,")] ? 0 : -1;
    case LR_OP_LANDLOCK:
        return lr_landlock_parse(plan, op->arg[0]);
    case LR_OP_SYSCTL: /* without a user namespace these would be the machine's */
        return plan->userns && *op->arg[0] && !strstr(op->arg[0], "..") ? 0 : -1;
    case LR_OP_NNP:
        plan->no_new_privs = true;
        return 0;
    case LR_OP_SECCOMP:
        return lr_seccomp_parse(plan, op->arg[0]);
    case LR_OP_CWD:
        plan->cwd = op->arg[0];
        return *plan->cwd == '/' ? 0 : -1;
    case LR_OP_UMASK:
        if (parse_number(op->arg[0], 8, 0777, &a))
            return -1;
        plan->umask = (mode_t)a;
        plan->has_umask = true;
        return 0;
    case LR_OP_TMPFS:
    case LR_OP_DIR:
    case LR_OP_FILE:
    case LR_OP_TEXT:
        return *op->arg[0] == '/' ? parse_number(op->arg[1], 8, 07777, &a) : -1;
    case LR_OP_PLACE:
        if (strcmp(op->arg[1], "dir") && strcmp(op->arg[1], "file"))
            return -1;
        return *op->arg[0] == '/' && op->arg[0][1] ? 0 : -1;
    case LR_OP_STORE:
    case LR_OP_DATA:
    case LR_OP_OVERLAY:
    case LR_OP_LOWER:
    case LR_OP_PROC:
    case LR_OP_DEV:
    case LR_OP_MASK:
    case LR_OP_READONLY:
    case LR_OP_OWN:
        return *op->arg[0] == '/' ? 0 : -1;
    case LR_OP_BIND:
    case LR_OP_DEVICE:
    case LR_OP_SYMLINK:
        return *op->arg[1] == '/' ? 0 : -1;
    case LR_OP_CGROUP:
        plan->cgroup_mount = op->arg[0];
        plan->cgroup_name = op->arg[1];
        return *op->arg[0] == '/' && *op->arg[1] && !strchr(op->arg[1], '/') && *op->arg[1] != '.' ? 0 : -1;
    case LR_OP_VOLUME:
        plan->volume = op->arg[1];
        plan->volume_in_memory = !strcmp(op->arg[0], "memory");
        return plan->volume_in_memory ? parse_number(op->arg[1], 10, INT64_MAX, &a)
               : strcmp(op->arg[0], "image") || *op->arg[1] != '/' ? -1
                                                                   : 0;
    case LR_OP_LIMIT:
        plan->limited = true;
        return *op->arg[0] && !strchr(op->arg[0], '/') && *op->arg[0] != '.' && *op->arg[1] ? 0 : -1;
    case LR_OP_RLIMIT:
        if (parse_number(op->arg[0], 10, RLIM_NLIMITS - 1, &a) ||
            parse_number(op->arg[1], 10, UINT64_MAX, &a) || parse_number(op->arg[2], 10, UINT64_MAX, &b))
            return -1;
        return a <= b ? 0 : -1;
    case LR_OP_NOTIFY:
        plan->notify = true;
        return 0;
    case LR_OP_ENV:
        return *op->arg[0] != '=' && strchr(op->arg[0], '=') ? 0 : -1;
    case LR_OP_PASTA:
        plan->pasta = true;
        return 0;
    case LR_OP_KEEPENV:
    case LR_OP_ARG:
    case LR_OP_KINDS:
        break;
    }
    return 0;
}

/* Take the next NUL-terminated string off the buffer; NULL where there is none. */
static const char *take(const char **at, const char *end)
{
    const char *text = *at;
    const char *nul = text < end ? memchr(text, 0, (size_t)(end - text)) : NULL;
    if (!nul)
        return NULL;
    *at = nul + 1;
    return text;
}

static int parse_op(struct lr_plan *plan, struct lr_op *op, const char *name, const char **at,
                    const char *end, struct lr_error *err)
{
    int kind = 0;
    while (kind < LR_OP_KINDS && strcmp(table[kind].name, name))
        kind++;
    if (kind == LR_OP_KINDS) {
        op->arg[0] = name;
        return refuse(err, op, "read the plan: unknown operation");
    }
    op->kind = (enum lr_op_kind)kind;
    for (int i = 0; i < table[kind].args; i++)
        if (!(op->arg[i] = take(at, end)))
            return refuse(err, op, "read the plan: it is cut off");
    if (table[kind].flags && parse_flags(op, op->arg[table[kind].args - 1]))
        return refuse(err, op, "read the plan: unknown flag");
    if (kind != LR_OP_USERNS && op->number == 0)
        return refuse(err, op, "read the plan: it must begin with userns");
    if (parse_single(plan, op))
        return refuse(err, op, "read the plan: bad argument");
    return 0;
}

static int check_times(const struct lr_plan *plan, struct lr_error *err)
{
    const struct lr_op *seen[LR_OP_KINDS] = {NULL};
    for (size_t i = 0; i < plan->count; i++) {
        const struct lr_op *op = &plan->ops[i];
        if (seen[op->kind] && table[op->kind].times != MANY)
            return refuse(err, op, "read the plan: given twice");
        seen[op->kind] = op;
    }
    for (int kind = 0; kind < LR_OP_KINDS; kind++)
        if (!seen[kind] && table[kind].times == MUST)
            return lr_fail_code(err, EINVAL, "read the plan: it lacks", table[kind].name);
    return 0;
}

/* A device lies in the /dev of its plan, which stands before it. */
static bool is_in_dev(const struct lr_op *dev, const struct lr_op *op)
{
    size_t length = dev ? strlen(dev->arg[0]) : 0;
    return dev && !strncmp(op->arg[1], dev->arg[0], length) && op->arg[1][length] == '/' &&
           op->arg[1][length + 1];
}

/* What only shows when all operations are known. */
static int check_whole(struct lr_plan *plan, struct lr_error *err)
{
    const struct lr_op *overlay = NULL, *first_mount = NULL, *data = NULL, *dev = NULL, none = {.number = -1};
    if (check_times(plan, err))
        return -1;
    /* Elsewhere a setuid program would give ids that are not the sandbox's. */
    if (!plan->no_new_privs && plan->userns != LR_USERNS_RANGE && plan->userns != LR_USERNS_HELPER)
        return lr_fail_code(err, EINVAL, "read the plan: it lacks", "no_new_privs");
    if (plan->ambient & ~plan->caps)
        return refuse(err, &none, "read the plan: what is ambient goes beyond what remains");
    if (plan->net_given && plan->namespaces & CLONE_NEWNET)
        return lr_fail_code(err, EINVAL, "read the plan: it has two networks", "");
    if (plan->pasta && !(plan->namespaces & CLONE_NEWNET && plan->userns))
        return lr_fail_code(err, EINVAL, "read the plan: pasta without namespaces of its own", "");
    size_t lowers = 0;
    for (size_t i = 0; i < plan->count; i++) {
        const struct lr_op *op = &plan->ops[i];
        if (op->kind == LR_OP_LOWER) {
            if (!overlay || &plan->ops[i - 1 - lowers] != overlay)
                return refuse(err, op, "read the plan: a lower without its overlay");
            lowers++;
            continue;
        }
        if (op->kind == LR_OP_PLACE) {
            if (!overlay || !lowers)
                return refuse(err, op, "read the plan: a mount point without its overlay");
            continue;
        }
        if (overlay && !lowers)
            return refuse(err, overlay, "read the plan: an overlay without a lower");
        data = op->kind == LR_OP_DATA ? op : data;
        dev = op->kind == LR_OP_DEV ? op : dev;
        if (op->kind == LR_OP_DEVICE && !is_in_dev(dev, op))
            return refuse(err, op, "read the plan: a device outside its /dev");
        if (op->kind == LR_OP_OVERLAY && !data)
            return refuse(err, op, "read the plan: an overlay before the data folder");
        overlay = op->kind == LR_OP_OVERLAY ? op : NULL;
        lowers = 0;
        if (!first_mount && (op->kind == LR_OP_OVERLAY || op->kind == LR_OP_BIND || op->kind == LR_OP_TMPFS))
            first_mount = op;
    }
    if (overlay && !lowers)
        return refuse(err, overlay, "read the plan: an overlay without a lower");
    if (!first_mount || first_mount->kind != LR_OP_OVERLAY || strcmp(first_mount->arg[0], "/"))
        return refuse(err, first_mount ? first_mount : &none,
                      "read the plan: the first mount must be the overlay on /");
    return 0;
}

static bool is_held(const struct lr_plan *plan, const char *key)
{
    for (size_t i = 0; i < plan->count; i++)
        if (plan->ops[i].kind == LR_OP_LIMIT && !strcmp(plan->ops[i].arg[0], key))
            return !(plan->ops[i].flags & LR_FLAG_UNHELD);
    return false;
}

void lr_plan_rlimits(const struct lr_plan *plan, struct lr_rlimits *rlimits)
{
    rlimits->set = 0;
    for (size_t i = 0; i < plan->count; i++) {
        const struct lr_op *op = &plan->ops[i];
        if (op->kind != LR_OP_RLIMIT || (*op->arg[3] && is_held(plan, op->arg[3])))
            continue;
        unsigned number = (unsigned)strtoul(op->arg[0], NULL, 10);
        struct rlimit wanted = {strtoull(op->arg[1], NULL, 10), strtoull(op->arg[2], NULL, 10)};
        struct rlimit *limit = &rlimits->limit[number];
        /* One that was asked for may be less than the one that stands in. */
        if (!(rlimits->set >> number & 1) || wanted.rlim_max < limit->rlim_max)
            *limit = wanted;
        rlimits->set |= 1U << number;
    }
}

static int collect_argv(struct lr_plan *plan, struct lr_error *err)
{
    size_t n = 0;
    plan->argv = calloc(plan->count + 1, sizeof *plan->argv);
    if (!plan->argv)
        return lr_fail(err, "read the plan", "");
    for (size_t i = 0; i < plan->count; i++)
        if (plan->ops[i].kind == LR_OP_ARG)
            plan->argv[n++] = (char *)plan->ops[i].arg[0];
    return 0;
}

int lr_plan_parse(struct lr_plan *plan, const char *bytes, size_t size, struct lr_error *err)
{
    const char *at = bytes, *end = bytes + size, *word;
    size_t room = 64;
    *plan = (struct lr_plan){.cwd = "/"};
    if (!(word = take(&at, end)) || strcmp(word, "layerrun-plan"))
        return lr_fail_code(err, EINVAL, "read the plan: it is not a plan", "");
    if (!(word = take(&at, end)) || strcmp(word, LR_PLAN_VERSION))
        return lr_fail_code(err, EPROTONOSUPPORT, "read the plan: it is of another version",
                            word ? word : "");
    if (!(plan->ops = calloc(room, sizeof *plan->ops)))
        return lr_fail(err, "read the plan", "");
    while ((word = take(&at, end)) && strcmp(word, "end")) {
        if (plan->count == LR_PLAN_MAX_OPS)
            return lr_fail_code(err, E2BIG, "read the plan: it has too many operations", "");
        if (plan->count == room) {
            struct lr_op *more = reallocarray(plan->ops, room * 2, sizeof *plan->ops);
            if (!more)
                return lr_fail(err, "read the plan", "");
            plan->ops = more;
            room *= 2;
        }
        struct lr_op *op = &plan->ops[plan->count];
        *op = (struct lr_op){.number = (int)plan->count, .fd = -1};
        plan->count++;
        if (parse_op(plan, op, word, &at, end, err))
            return -1;
    }
    if (!word || at != end)
        return lr_fail_code(
            err, EINVAL, word ? "read the plan: something follows its end" : "read the plan: it is cut off",
            "");
    return check_whole(plan, err) ? -1 : collect_argv(plan, err);
}

void lr_plan_free(struct lr_plan *plan)
{
    free(plan->ops);
    free(plan->env);
    free(plan->argv);
    free(plan->own_filter);
    *plan = (struct lr_plan){0};
}

int lr_plan_check(const char *bytes, size_t size, struct lr_error *err)
{
    struct lr_plan plan;
    int result = lr_plan_parse(&plan, bytes, size, err);
    lr_plan_free(&plan);
    return result;
}
