/* terminal.c: see tty_ioctl(4), pts(4), setsid(2). */
#include "terminal.h"

#include "control.h"
#include "sys.h"

#include <sys/ioctl.h>
#include <termios.h>

int lr_terminal_take(int ptmx, int control, int *slave, struct lr_error *err)
{
    struct lr_message message = {.type = LR_MSG_TERMINAL, .count = 1};
    struct termios mode;
    struct winsize size;
    int unlock = 0;
    if (ioctl(ptmx, TIOCSPTLCK, &unlock) ||
        (*slave = ioctl(ptmx, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC)) < 0)
        return lr_fail(err, "open the command's terminal", "/dev/pts");
    if ((getsid(0) != getpid() && setsid() < 0) || ioctl(*slave, TIOCSCTTY, 0))
        return lr_fail(err, "take the command's terminal", "/dev/pts");
    /* The caller's erase character and the like, and its size, before the command can look. */
    if (!tcgetattr(0, &mode))
        tcsetattr(*slave, TCSANOW, &mode);
    if (!ioctl(0, TIOCGWINSZ, &size))
        ioctl(*slave, TIOCSWINSZ, &size);
    if (lr_send(control, &message, &ptmx))
        return lr_fail(err, "hand over the command's terminal", "");
    return 0;
}
