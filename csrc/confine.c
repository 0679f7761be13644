/* confine.c: ids, capabilities and no_new_privs. See capabilities(7), prctl(2). */
#include "confine.h"

#include "ids.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The bounding set first: dropping from it needs CAP_SETPCAP, which goes with the rest. Inheritable and ambient sets are emptied, or
 * an exec would bring back what they hold (CVE-2022-29162). */
static int drop_bounding(uint64_t keep, struct lr_error *err)
{
    for (unsigned cap = 0; cap < 64; cap++) {
        if (keep >> cap & 1)
            continue;
        if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0)) {
            if (errno == EINVAL) /* beyond the last one this kernel knows */
                break;
            return lr_fail(err, "drop a capability from the bounding set", "");
        }
    }
    return 0;
}

/* Somebody else than root keeps through an exec only what is ambient, and that must be inheritable. */
static int drop_capabilities(const struct lr_plan *plan, struct lr_error *err)
{
    uint64_t keep = plan->uid ? plan->ambient : plan->caps;
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
        return lr_fail(err, "clear the ambient capabilities", "");
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};
    for (int half = 0; half < 2; half++) {
        data[half].effective = data[half].permitted = (uint32_t)(keep >> (32 * half));
        data[half].inheritable = (uint32_t)(plan->ambient >> (32 * half));
    }
    if (syscall(SYS_capset, &header, data))
        return lr_fail(err, "drop the capabilities", "");
    for (unsigned cap = 0; plan->ambient >> cap; cap++)
        if (plan->ambient >> cap & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0))
            return lr_fail(err, "keep a capability for the command", "");
    return 0;
}

int lr_confine_begin(const struct lr_plan *plan, struct lr_error *err)
{
    return drop_bounding(plan->caps, err);
}

static int become_user(const struct lr_plan *plan, struct lr_error *err)
{
    if (!plan->uid && !plan->gid && !plan->groups)
        return 0;
    if (plan->ambient && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0))
        return lr_fail(err, "keep the capabilities", "");
    if (lr_ids_become(plan, plan->uid, plan->gid, err))
        return -1;
    return plan->ambient && prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0) ? lr_fail(err, "keep the capabilities", "")
                                                               : 0;
}

static int enter_filters(const struct lr_plan *plan, struct lr_error *err)
{
    return lr_landlock_enter(plan, err) || lr_seccomp_load(plan, err) ? -1 : 0;
}

int lr_confine(const struct lr_plan *plan, struct lr_error *err)
{
    char name[] = "layerrun";
    /* A session keyring of its own, or keys of the caller's session can be reached. Kernels without keyrings have none to reach. */
    if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 && errno != ENOSYS && errno != EDQUOT)
        return lr_fail(err, "join an empty keyring", "");
    /* Without no_new_privs only who administrates the user namespace may load a filter. */
    if (!plan->no_new_privs && enter_filters(plan, err))
        return -1;
    if (become_user(plan, err) || drop_capabilities(plan, err))
        return -1;
    if (plan->no_new_privs &&
        (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ? lr_fail(err, "set no_new_privs", "") : 0))
        return -1;
    /* The process keeps the lock's descriptor: nobody inside may look into it. */
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) || prctl(PR_SET_NAME, name, 0, 0, 0))
        return lr_fail(err, "hide the supervisor", "");
    return plan->no_new_privs ? enter_filters(plan, err) : 0;
}
