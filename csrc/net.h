/* net.h: the network namespace. See network_namespaces(7). */
#ifndef LR_NET_H
#define LR_NET_H

#include "plan.h"

/* Move into a network namespace of our own, with its loopback up. */
int lr_net_make(struct lr_error *err);

/* Whether the launcher has it made by another process. */
bool lr_net_is_apart(const struct lr_plan *plan);

/* Let a process make one for the user namespace of the sandbox behind pidfd, and send it there. Returns its pid. */
pid_t lr_net_spawn(int pidfd, int control, struct lr_error *err);

#endif
