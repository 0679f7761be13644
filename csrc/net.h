/* net.h: the network namespace. See network_namespaces(7). */
#ifndef LR_NET_H
#define LR_NET_H

#include "plan.h"

/* Move into a network namespace of our own, with its loopback up. */
int lr_net_make(struct lr_error *err);

/* Whether the launcher has it made by another process. */
bool lr_net_is_apart(const struct lr_plan *plan);

struct lr_net {
    pid_t maker; /* the process that makes it; 0: none */
    int talk; /* to the maker, which waits for a byte before it hands the namespace on; -1: it does not */
    int ready[2]; /* a pipe that the maker has too; -1 */
    pid_t companion; /* the process beside what gives it a way out; 0: none */
};

#define LR_NET_NONE ((struct lr_net){.talk = -1, .ready = {-1, -1}})

/* Let a process make one for the user namespace of the sandbox behind pidfd, and send it there by control. */
int lr_net_spawn(struct lr_net *net, const struct lr_plan *plan, int pidfd, int control,
                 struct lr_error *err);

/* Give it a way out, where the plan wants one; to be called once the sandbox's ids are mapped. */
int lr_net_open(struct lr_net *net, const struct lr_plan *plan, int pidfd, struct lr_error *err);

/* Wait for whoever made it. */
void lr_net_close(struct lr_net *net);

/* Wait for the companion; pid 1 has ended. */
void lr_net_end(struct lr_net *net);

#endif
