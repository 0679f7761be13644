/* transfer.c: see transfer.h, control.h. */
#include "transfer.h"

#include "control.h"
#include "sys.h"

/* Places behind the devices. */
#define SHM LR_DEVICES
#define SOCKET (LR_DEVICES + 1)
#define BEYOND (LR_DEVICES + 2)

/* What pid 1 is sent, by its place. The lowers stay here: an overlay has its own copies of them. */
static int to_send(const struct lr_plan *plan, const struct lr_mounts *mounts, unsigned place)
{
    if (place == LR_PLACE_DEVICE + SOCKET)
        return mounts->listening;
    if (place == LR_PLACE_DEVICE + SHM)
        return mounts->shm;
    if (place >= LR_PLACE_DEVICE)
        return mounts->devices[place - LR_PLACE_DEVICE];
    return plan->ops[place].kind == LR_OP_LOWER || plan->ops[place].kind == LR_OP_PLACE ? -1
                                                                                        : plan->ops[place].fd;
}

int lr_transfer_send(const struct lr_plan *plan, const struct lr_mounts *mounts, int control,
                     struct lr_error *err)
{
    struct lr_message message = {.type = LR_MSG_MOUNTS};
    int fds[LR_MESSAGE_FDS];
    size_t total = plan->count + BEYOND;
    for (size_t i = 0; i < total; i++) {
        unsigned place = (unsigned)(i < plan->count ? i : LR_PLACE_DEVICE + i - plan->count);
        int fd = to_send(plan, mounts, place);
        if (fd >= 0) {
            message.places[message.count] = (uint16_t)place;
            fds[message.count++] = fd;
        }
        message.more = i + 1 < total;
        if (message.count < LR_MESSAGE_FDS && message.more)
            continue;
        if (lr_send(control, &message, fds))
            return lr_fail(err, "send the mounts", "");
        message.count = 0;
    }
    return 0;
}

static int take(struct lr_plan *plan, struct lr_mounts *mounts, const struct lr_message *message,
                const int *fds, struct lr_error *err)
{
    if (message->type == LR_MSG_ERROR) {
        *err = message->error;
        return -1;
    }
    if (message->type == LR_MSG_NET)
        mounts->net = fds[0];
    for (uint32_t i = 0; message->type == LR_MSG_MOUNTS && i < message->count; i++) {
        unsigned place = message->places[i];
        if (place == LR_PLACE_DEVICE + SOCKET)
            mounts->listening = fds[i];
        else if (place == LR_PLACE_DEVICE + SHM)
            mounts->shm = fds[i];
        else if (place >= LR_PLACE_DEVICE)
            mounts->devices[place - LR_PLACE_DEVICE] = fds[i];
        else
            plan->ops[place].fd = fds[i];
    }
    return 0;
}

static int receive(struct lr_plan *plan, struct lr_mounts *mounts, int control, struct lr_message *message,
                   struct lr_error *err)
{
    int fds[LR_MESSAGE_FDS];
    int got = lr_receive(control, message, fds, 0);
    if (got <= 0)
        return got ? lr_fail(err, "receive the mounts", "")
                   : lr_fail_code(err, ECANCELED, "wait for the launcher", "");
    return take(plan, mounts, message, fds, err);
}

int lr_transfer_receive(struct lr_plan *plan, struct lr_mounts *mounts, int control, struct lr_error *err)
{
    struct lr_message message;
    do {
        if (receive(plan, mounts, control, &message, err))
            return -1;
    } while (message.type != LR_MSG_MOUNTS || message.more);
    return 0;
}

int lr_transfer_receive_net(struct lr_plan *plan, struct lr_mounts *mounts, int control, struct lr_error *err)
{
    struct lr_message message;
    while (mounts->net < 0)
        if (receive(plan, mounts, control, &message, err))
            return -1;
    return 0;
}
