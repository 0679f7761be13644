/* landlock.c: beside namespaces, two doors that they leave open: sockets without a path, which belong to a network namespace, and so to
 * the machine where the network is its; and signals by other ways than a pid, as fcntl(2)'s F_SETOWN. See landlock(7).
 */
#include "confine.h"

#include "sys.h"

#include <stdbool.h>
#include <string.h>

/* linux/landlock.h of Linux 6.12, ABI 6. */
struct ruleset {
    uint64_t handled_access_fs;
    uint64_t handled_access_net;
    uint64_t scoped;
};

int lr_landlock_parse(struct lr_plan *plan, const char *text)
{
    static const char *const names[] = {"abstract-sockets", "signals"}; /* LANDLOCK_SCOPE_*: bit 0, bit 1 */
    while (*text) {
        size_t length = strcspn(text, ","), i = 0;
        while (i < 2 && (strlen(names[i]) != length || memcmp(names[i], text, length)))
            i++;
        if (i == 2)
            return -1;
        plan->scopes |= 1U << i;
        text += length;
        if (*text == ',' && !*++text)
            return -1;
    }
    return 0;
}

int lr_landlock_enter(const struct lr_plan *plan, struct lr_error *err)
{
    const struct ruleset ruleset = {.scoped = plan->scopes};
    if (!plan->scopes)
        return 0;
    LR_FD fd = (int)syscall(444 /* landlock_create_ruleset */, &ruleset, sizeof ruleset, 0);
    /* No Landlock, or one that knows no scopes: less depth, and `layerrun doctor` says so. */
    if (fd < 0 && (errno == ENOSYS || errno == EOPNOTSUPP || errno == E2BIG || errno == EINVAL))
        return 0;
    if (fd < 0 || syscall(446 /* landlock_restrict_self */, fd, 0))
        return lr_fail(err, "enter a Landlock domain", "");
    return 0;
}
