/* cgroup.c: see cgroup.h. A group costs 30 us to make, 25 to remove and 5 to open: so it is kept from one run to the next, and goes
 * when the app is removed. */
#include "cgroup.h"

#include "sys.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define LINK "cgroup"
#define PREFIX "layerrun-"

/* Our own group in the second version's hierarchy, the line "0::/PATH". It has two dots where the namespace does not show it. */
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

int lr_cgroup_open(const char *mount, const char *name, int app_fd)
{
    char own[PATH_MAX / 2], path[PATH_MAX];
    if (find_own(own, sizeof own))
        return -1;
    int length = snprintf(path, sizeof path, "%s%s/%s", mount, own[1] ? own : "", name);
    if (length < 0 || (size_t)length >= sizeof path)
        return -1;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0 || errno != ENOENT || mkdir(path, 0755))
        return fd;
    if (record(app_fd, path))
        errno = 0;
    return open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}
