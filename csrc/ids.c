/* ids.c: the maps of a user namespace, and becoming somebody in it. */
#include "ids.h"

#include "sys.h"

#include <grp.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

static int write_file(const char *path, const char *text, struct lr_error *err)
{
    LR_FD fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        return lr_fail(err, "write the id map", path);
    return 0;
}

static int format_map(const struct lr_plan *plan, enum lr_op_kind kind, char *text, size_t size)
{
    size_t used = 0;
    text[0] = 0;
    for (size_t i = 0; i < plan->count && used < size; i++)
        if (plan->ops[i].kind == kind)
            used += (size_t)snprintf(text + used, size - used, "%s %s %s\n", plan->ops[i].arg[0],
                                     plan->ops[i].arg[1], plan->ops[i].arg[2]);
    return used && used < size ? 0 : -1;
}

static int write_map(const struct lr_plan *plan, const char *folder, enum lr_op_kind kind,
                     struct lr_error *err)
{
    char path[64], text[4000];
    snprintf(path, sizeof path, "%s/%s", folder, kind == LR_OP_UIDMAP ? "uid_map" : "gid_map");
    if (format_map(plan, kind, text, sizeof text))
        return lr_fail_code(err, E2BIG, "write the id map: it is empty or too long", path);
    return write_file(path, text, err);
}

static int write_maps(const struct lr_plan *plan, const char *folder, struct lr_error *err)
{
    return write_map(plan, folder, LR_OP_UIDMAP, err) || write_map(plan, folder, LR_OP_GIDMAP, err) ? -1 : 0;
}

int lr_ids_map_self(const struct lr_plan *plan, struct lr_error *err)
{
    return write_file("/proc/self/setgroups", "deny", err) ? -1 : write_maps(plan, "/proc/self", err);
}

int lr_ids_map_range(const struct lr_plan *plan, pid_t pid, struct lr_error *err)
{
    char folder[32];
    snprintf(folder, sizeof folder, "/proc/%d", pid);
    return write_maps(plan, folder, err);
}

#define MOST_MAPS 64

static int spawn_helper(const struct lr_plan *plan, enum lr_op_kind kind, const char *program, pid_t target,
                        pid_t *helper, struct lr_error *err)
{
    static char *const no_environment[] = {NULL};
    char pid[16], *argv[2 + 3 * MOST_MAPS + 1];
    size_t n = 2, maps = 0;
    snprintf(pid, sizeof pid, "%d", target);
    argv[0] = (char *)program;
    argv[1] = pid;
    for (size_t i = 0; i < plan->count; i++) {
        if (plan->ops[i].kind != kind)
            continue;
        if (maps++ == MOST_MAPS)
            return lr_fail_code(err, E2BIG, "run", program);
        for (int j = 0; j < 3; j++)
            argv[n++] = (char *)plan->ops[i].arg[j];
    }
    argv[n] = NULL;
    int code = posix_spawnp(helper, program, NULL, NULL, argv, no_environment);
    return code ? lr_fail_code(err, code, "run", program) : 0;
}

static int wait_helper(pid_t helper, const char *program, struct lr_error *err)
{
    int status;
    while (waitpid(helper, &status, 0) < 0)
        if (errno != EINTR)
            return lr_fail(err, "wait for", program);
    return WIFEXITED(status) && !WEXITSTATUS(status)
               ? 0
               : lr_fail_code(err, EPERM, "map the subordinate ids with", program);
}

/* The two run side by side: together they are the dearest step of a start without root (about 2 ms). */
int lr_ids_map_helper(const struct lr_plan *plan, pid_t pid, struct lr_error *err)
{
    pid_t uids, gids;
    if (spawn_helper(plan, LR_OP_UIDMAP, "newuidmap", pid, &uids, err))
        return -1;
    int failed = spawn_helper(plan, LR_OP_GIDMAP, "newgidmap", pid, &gids, err);
    if (!failed)
        failed = wait_helper(gids, "newgidmap", err);
    return wait_helper(uids, "newuidmap", err) || failed ? -1 : 0;
}

/* The own uid anybody may map. setgroups(2) is allowed only where a helper wrote the map of groups, and it does so only for a map
 * that holds a subordinate group: user_namespaces(7), newgidmap(1). */
int lr_ids_map_ungrouped(const struct lr_plan *plan, pid_t pid, struct lr_error *err)
{
    pid_t helper;
    char folder[32];
    if (spawn_helper(plan, LR_OP_GIDMAP, "newgidmap", pid, &helper, err))
        return -1;
    snprintf(folder, sizeof folder, "/proc/%d", pid);
    int failed = write_map(plan, folder, LR_OP_UIDMAP, err);
    return wait_helper(helper, "newgidmap", err) || failed ? -1 : 0;
}

#define MOST_GROUPS 256

static size_t parse_groups(const char *text, gid_t groups[MOST_GROUPS])
{
    size_t count = 0;
    for (char *end; text && *text && count < MOST_GROUPS; text = *end ? end + 1 : end)
        groups[count++] = (gid_t)strtoul(text, &end, 10);
    return count;
}

/* Groups, then gid, then uid: in any other order the last steps are no longer allowed. A namespace of one id cannot drop groups
 * (setgroups is denied there), but see above. */
int lr_ids_become(const struct lr_plan *plan, uid_t uid, gid_t gid, struct lr_error *err)
{
    if (plan->userns == LR_USERNS_SELF)
        return 0;
    gid_t groups[MOST_GROUPS];
    size_t count = uid == plan->uid && gid == plan->gid ? parse_groups(plan->groups, groups) : 0;
    if (syscall(SYS_setgroups, count, groups))
        return lr_fail(err, "set the supplementary groups", "");
    if (plan->userns == LR_USERNS_UNGROUPED)
        return 0;
    if (syscall(SYS_setresgid, gid, gid, gid) || syscall(SYS_setresuid, uid, uid, uid))
        return lr_fail(err, "become the user inside", "");
    return 0;
}
