/* control.c: messages with descriptors. See unix(7), SCM_RIGHTS. */
#include "control.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

union fd_buffer {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int) * LR_MESSAGE_FDS)];
};

int lr_send(int socket, const struct lr_message *message, const int *fds)
{
    union fd_buffer buffer;
    struct iovec data = {.iov_base = (void *)message, .iov_len = sizeof *message};
    struct msghdr header = {.msg_iov = &data, .msg_iovlen = 1};
    if (message->count) {
        size_t size = sizeof(int) * message->count;
        memset(&buffer, 0, sizeof buffer);
        header.msg_control = buffer.bytes;
        header.msg_controllen = CMSG_SPACE(size);
        struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
        *rights =
            (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(size)};
        memcpy(CMSG_DATA(rights), fds, size);
    }
    ssize_t sent;
    while ((sent = sendmsg(socket, &header, MSG_NOSIGNAL)) < 0 && errno == EINTR)
        ;
    return sent < 0 ? -1 : 0;
}

int lr_receive(int socket, struct lr_message *message, int *fds, int flags)
{
    union fd_buffer buffer;
    struct iovec data = {.iov_base = message, .iov_len = sizeof *message};
    struct msghdr header = {.msg_iov = &data,
                            .msg_iovlen = 1,
                            .msg_control = buffer.bytes,
                            .msg_controllen = sizeof buffer.bytes};
    ssize_t got;
    while ((got = recvmsg(socket, &header, MSG_CMSG_CLOEXEC | flags)) < 0 && errno == EINTR)
        ;
    if (got <= 0)
        return (int)got;
    struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
    size_t count =
        rights && rights->cmsg_type == SCM_RIGHTS ? (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;
    if ((size_t)got != sizeof *message || count != message->count || header.msg_flags & MSG_CTRUNC) {
        errno = count < message->count ? EMFILE
                                       : EPROTO; /* the kernel leaves out descriptors it has no room for */
        return -1;
    }
    if (count)
        memcpy(fds, CMSG_DATA(rights), count * sizeof(int));
    return 1;
}
