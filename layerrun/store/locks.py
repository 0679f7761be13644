"""Locks that die with their holder: flock(2) on files of the store, never a pid file.

A flock belongs to the open file description. Whoever inherits or is handed the descriptor (the
sandbox's pid 1) holds the lock too, until the last copy is closed, by kill -9 as by any exit.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import time
from types import TracebackType

from layerrun.errors import BusyError, NotFoundError
from layerrun.store.fs import explain

__all__ = ["PATIENCE", "AppLock", "boot_id", "lock_file", "start_time"]

_POLL = 0.02
_EXITING = 0x4  # PF_EXITING of the kernel's include/linux/sched.h, in field 9 of proc_pid_stat(5)
PATIENCE = 10.0
_LOOKS = 10


def boot_id() -> str:
    """Return the id of this boot, proc_sys_kernel(5), or ``-``."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return "-"


def start_time(pid: int) -> str | None:
    """Return when ``pid`` started, in clock ticks after boot (proc_pid_stat(5), field 22)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The command name may hold blanks and parentheses: count from the last one.
            return file.read().rpartition(b")")[2].split()[19].decode("ascii")
    except (OSError, IndexError):
        return None


def lock_file(fd: int, *, exclusive: bool, wait: float) -> bool:
    """Take a flock on ``fd``, for at most ``wait`` seconds; say whether it was got."""
    kind = (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(fd, kind)
            return True
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EINTR):
                raise
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL)


class AppLock:
    """The lock of one app: held while it runs or is being changed.

    The file's content, one line ``pid starttime boot_id what``, only serves to name the holder; the
    flock alone decides.
    """

    def __init__(self, fd: int, name: str) -> None:
        self._fd = fd
        self.name = name

    @classmethod
    def acquire(
        cls,
        dir_fd: int,
        name: str,
        *,
        exclusive: bool = True,
        wait: float = 0.0,
        what: str = "use",
        patience: float = PATIENCE,
    ) -> AppLock:
        """Lock the app whose folder is ``dir_fd``, waiting at most ``wait`` seconds for who has it.

        ``patience``: how many seconds to wait for one who has given it up by dying, to be gone.

        Raises `BusyError` naming the holder, or `NotFoundError` when the app was removed meanwhile.
        """
        with explain("open the lock of", name):
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                fd = os.open("lock", flags, 0o600, dir_fd=dir_fd)
            except FileNotFoundError:  # with O_CREAT: the folder itself was deleted
                raise NotFoundError(f"{name!r} was removed meanwhile") from None
        try:
            if not lock_file(fd, exclusive=exclusive, wait=wait):
                raise _busy(fd, name)
            if not _await_last(fd, patience):
                raise BusyError(
                    f"{name!r} is in use: what ran in it has not ended yet",
                    hint="try again; a process that waits for a disk or a server can take long to end",
                )
            if os.fstat(dir_fd).st_nlink == 0 or os.fstat(fd).st_nlink == 0:
                raise NotFoundError(f"{name!r} was removed meanwhile")
            lock = cls(fd, name)
            if exclusive:
                lock.write_holder(os.getpid(), what)
        except BaseException:
            os.close(fd)
            raise
        return lock

    def fileno(self) -> int:
        """Return the descriptor that holds the lock; a duplicate of it holds it too."""
        return self._fd

    def write_holder(self, pid: int, what: str) -> None:
        """Say in the file who holds the lock now."""
        line = f"{pid} {start_time(pid) or '-'} {boot_id()} {' '.join(what.split())}\n"
        data = line.encode("utf-8", "surrogateescape")
        try:
            os.pwrite(self._fd, data, 0)
            os.ftruncate(self._fd, len(data))
        except OSError as error:
            # The line is a courtesy: a full disk must not keep anyone from clearing data.
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise

    def await_end(self, patience: float = PATIENCE) -> bool:
        """Wait for the end of the sandbox that was handed this lock and has told its status; say whether it ended."""
        return _await_last(self._fd, patience)

    def release(self) -> None:
        """Close this copy of the descriptor; the lock goes when the last copy is closed."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> AppLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _read(fd: int) -> list[str]:
    """Return the words of the line; behind a line that is just being written the rest of an older one may stand."""
    line = os.pread(fd, 4096, 0).decode("utf-8", "surrogateescape").partition("\n")[0]
    return line.split(None, 3)


def holder(fd: int) -> tuple[int, str] | None:
    """Return (pid, what) from a lock file, if that process is alive and is the one that wrote it."""
    fields = _read(fd)
    if len(fields) < 4 or not fields[0].isdigit():
        return None
    pid = int(fields[0])
    if fields[2] != boot_id() or start_time(pid) != fields[1]:
        return None
    return pid, fields[3].strip()


def _ending(pid: int, started: str, what: str) -> bool:
    """Say whether who held the lock is about to end. Pid 1 of an app gives it up only then."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return fields[19] == started.encode() and (what == "run" or bool(int(fields[6]) & _EXITING))
    except (OSError, IndexError):
        return False


def _await_last(fd: int, patience: float) -> bool:
    """Wait until whoever held the lock last has ended, if it is in the middle of that; say whether it has.

    The lock goes before the mounts: a dying process closes its descriptors first. The line of a sandbox names
    its pid 1, whose end (pidfd_open(2)) comes after that of everything inside.
    """
    fields = _read(fd)
    if len(fields) < 4 or not fields[0].isdigit() or fields[2] != boot_id():
        return True
    pid, started, what = int(fields[0]), fields[1], fields[3].strip()
    if not _ending(pid, started, what):
        return True
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return True
    try:
        # Looked at again: the pid may have been given to another since.
        return not _ending(pid, started, what) or bool(select.select([pidfd], [], [], patience)[0])
    finally:
        os.close(pidfd)


def _busy(fd: int, name: str) -> BusyError:
    found = holder(fd)
    for _ in range(_LOOKS):
        if found is not None:
            break
        time.sleep(_POLL)  # whoever got the lock just now has not written yet
        found = holder(fd)
    if found is None:
        return BusyError(f"{name!r} is in use by another process", hint="wait for it to end, then try again")
    pid, what = found
    if what == "run":  # as pid 1 of a running app is recorded
        return BusyError(f"{name!r} is running (process {pid})", hint=f"layerrun stop {name}")
    return BusyError(
        f"{name!r} is in use by process {pid} ({what})",
        hint="wait for it to end, or end it, then try again",
        beginning=what.startswith("run "),
    )
