/* notify.h: systemd's readiness protocol, carried from the command to whoever manages the launcher. */
#ifndef LR_NOTIFY_H
#define LR_NOTIFY_H

#include "lr.h"

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>

struct lr_notify {
    int fd; /* what the command says comes in here, and goes out from here; -1: nobody wants to hear it */
    struct sockaddr_un manager;
    socklen_t size;
};

/* Listen in the app's folder for what goes to $NOTIFY_SOCKET of this environment. The caller holds the app's lock. */
int lr_notify_open(struct lr_notify *notify, int app_fd, const char *const *environ, struct lr_error *err);

/* Pass on what has come, if anything. Returns whether there was something. */
bool lr_notify_carry(const struct lr_notify *notify);

#endif
