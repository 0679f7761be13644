/* plan.h: a parsed plan. Every string points into the caller's buffer. */
#ifndef LR_PLAN_H
#define LR_PLAN_H

#include "lr.h"
#include "rlimits.h"

#include <stdbool.h>
#include <sys/types.h>

#define LR_PLAN_VERSION "1"
#define LR_PLAN_MAX_OPS 8192
#define LR_PLAN_MAX_ARGS 4

enum lr_op_kind {
    LR_OP_USERNS,
    LR_OP_UIDMAP,
    LR_OP_GIDMAP,
    LR_OP_NAMESPACE,
    LR_OP_HOSTNAME,
    LR_OP_IDENTITY,
    LR_OP_STORE,
    LR_OP_VOLUME,
    LR_OP_DATA,
    LR_OP_OVERLAY,
    LR_OP_LOWER,
    LR_OP_PLACE,
    LR_OP_BIND,
    LR_OP_TMPFS,
    LR_OP_DIR,
    LR_OP_FILE,
    LR_OP_SYMLINK,
    LR_OP_TEXT,
    LR_OP_PROC,
    LR_OP_DEV,
    LR_OP_DEVICE,
    LR_OP_MASK,
    LR_OP_READONLY,
    LR_OP_OWN,
    LR_OP_SYSCTL,
    LR_OP_GROUPS,
    LR_OP_AMBIENT,
    LR_OP_LANDLOCK,
    LR_OP_CAPS,
    LR_OP_NNP,
    LR_OP_SECCOMP,
    LR_OP_KEEPENV,
    LR_OP_ENV,
    LR_OP_CWD,
    LR_OP_UMASK,
    LR_OP_CGROUP,
    LR_OP_LIMIT,
    LR_OP_RLIMIT,
    LR_OP_NOTIFY,
    LR_OP_PASTA,
    LR_OP_ARG,
    LR_OP_KINDS,
};

/* Flags of overlay, bind, tmpfs and mask, written as comma-separated words. */
enum lr_flag {
    LR_FLAG_USERXATTR = 1 << 0, /* overlay: user.overlay.* instead of trusted.overlay.* */
    LR_FLAG_RO = 1 << 1, /* read-only */
    LR_FLAG_REC = 1 << 2, /* bind: with the mounts beneath it */
    LR_FLAG_IDMAP = 1 << 3, /* bind, lower: mapped by the sandbox's user namespace */
    LR_FLAG_TRY = 1 << 4, /* a missing source or target is passed over */
    LR_FLAG_NOEXEC = 1 << 5,
    LR_FLAG_NOSUID = 1 << 6,
    LR_FLAG_NODEV = 1 << 7,
    LR_FLAG_APART = 1
        << 10, /* lower: shown through a read-only overlay of its own, for others lie within it */
    LR_FLAG_IMAGE = 1 << 11, /* lower: a file that holds a file system, which is mounted */
    LR_FLAG_DATA = 1 << 9, /* bind: the source is relative to the data folder */
    LR_FLAG_UNHELD = 1 << 8, /* limit: the control group does not hold it; never written */
};

enum lr_userns {
    LR_USERNS_NONE, /* stay in the caller's */
    LR_USERNS_SELF, /* one id, written by the child itself */
    LR_USERNS_HELPER, /* newuidmap and newgidmap write the maps */
    LR_USERNS_UNGROUPED, /* the same one id; newgidmap writes the map of groups, so that others can be dropped */
    LR_USERNS_RANGE, /* root writes the maps, and builds the mounts outside */
};

struct lr_op {
    enum lr_op_kind kind;
    int number; /* its place in the plan, for errors */
    unsigned flags;
    const char *arg[LR_PLAN_MAX_ARGS];
    int fd; /* a detached mount that was prepared for it; -1 */
};

struct sock_filter;

struct lr_plan {
    struct lr_op *ops;
    size_t count;
    enum lr_userns userns;
    uint64_t namespaces; /* CLONE_NEW* beside those that every sandbox has */
    bool pasta; /* a companion gives the network namespace a way out */
    bool net_given; /* the launcher has a network namespace for it */
    const char *hostname;
    uid_t uid; /* inside */
    gid_t gid;
    uid_t root_uid; /* outside: what inside 0 is; the fsuid of an overlay that is built outside */
    gid_t root_gid;
    uint64_t caps;
    uint64_t ambient; /* of these, what a command that does not run as root keeps */
    const char *groups; /* supplementary ones, by number, joined by commas; NULL: none */
    unsigned scopes; /* LANDLOCK_SCOPE_* */
    bool no_new_privs;
    const struct sock_filter *filter; /* of system calls */
    struct sock_filter *own_filter; /* the plan brought it; NULL: one of our own */
    unsigned short filter_length;
    mode_t umask;
    bool has_umask;
    const char *cwd;
    const char *cgroup_mount, *cgroup_name; /* where the app gets a control group of its own; NULL: nowhere */
    const char *volume; /* the data lies in this image, or in so many bytes of memory; NULL: in its folder */
    bool volume_in_memory;
    bool limited; /* there are operations limit */
    bool cgroup_late; /* move pid 1 into its group, instead of making it there */
    bool notify; /* carry what the command says of its readiness to $NOTIFY_SOCKET */
    char **env; /* NULL-terminated; filled by lr_plan_environ */
    char **argv; /* NULL-terminated: the plan's own command; may be empty */
};

int lr_plan_parse(struct lr_plan *plan, const char *bytes, size_t size, struct lr_error *err);

/* Is there no id inside but the caller's own? */
static inline bool lr_has_one_id(const struct lr_plan *plan)
{
    return plan->userns == LR_USERNS_SELF || plan->userns == LR_USERNS_UNGROUPED;
}

/* Fill plan->env. more: NAME=VALUE words that are set over all others, NAME for the caller's value; may be NULL. */
int lr_plan_environ(struct lr_plan *plan, const char *const *environ, const char *const *more,
                    struct lr_error *err);
/* The rlimits that are set for the command, those among them that stand in for a limit which the control group does not hold. */
void lr_plan_rlimits(const struct lr_plan *plan, struct lr_rlimits *rlimits);
int lr_op_fail(struct lr_error *err, const struct lr_op *op, const char *step, const char *path);
void lr_plan_free(struct lr_plan *plan);

#endif
