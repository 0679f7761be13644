/* control.h: what the launcher and pid 1 say to each other, over a pair of SOCK_SEQPACKET sockets. */
#ifndef LR_CONTROL_H
#define LR_CONTROL_H

#include "lr.h"

#include <stdint.h>

enum lr_message_type {
    LR_MSG_MOUNTS =
        'M', /* to pid 1: its maps are written; what was prepared for it, by descriptor; the last one has more == 0 */
    LR_MSG_NET = 'N', /* to pid 1: the network namespace */
    LR_MSG_ERROR = 'E', /* to the launcher, and from who makes the network namespace: it failed, and why */
    LR_MSG_TERMINAL = 'T', /* to the launcher: the master of the command's terminal */
    LR_MSG_STOPPED = 'S', /* to the launcher: the command was stopped, as by Ctrl-Z */
    LR_MSG_ENDED =
        'X', /* to the launcher: the command's exit status, and the signal it was killed by << 8; more: what becomes of the rest, see below */
    LR_MSG_DETACH = 'D', /* inwards: live on without a launcher; the answer is that the socket is closed */
    LR_MSG_JOIN =
        'J', /* to pid 1: a request, three standard descriptors, perhaps a pipe to hold until exec */
    LR_MSG_WELCOME = 'W', /* to who joined: from now on it counts as started */
    LR_MSG_SIGNAL =
        'K', /* inwards: a signal for the command (more: for its group); from who has not joined: for everybody */
};

#define LR_ENDED_ALL 0 /* there is no other process */
#define LR_ENDED_STAYS 1 /* others live on */
#define LR_ENDED_FIRST 2 /* others end with pid 1 */

/* The kernel passes at most 253 descriptors with a message (SCM_MAX_FD). */
#define LR_MESSAGE_FDS 250

struct lr_message {
    int32_t type;
    int32_t more;
    int32_t value; /* a signal or how the command ended */
    uint32_t count; /* descriptors that come along */
    union {
        uint16_t places
            [LR_MESSAGE_FDS]; /* operation numbers; from LR_PLACE_DEVICE on: device nodes, shared memory, the app's socket */
        struct lr_error error;
    };
};

#define LR_PLACE_DEVICE 60000

int lr_send(int socket, const struct lr_message *message, const int *fds);
int lr_receive(int socket, struct lr_message *message, int *fds,
               int flags); /* 1: got one; 0: the other end is gone; -1: errno */

#endif
