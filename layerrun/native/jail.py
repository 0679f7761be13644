"""Work on hostile input, in a process that has one folder, or none, and nothing else of the machine.

As `layerrun.native.worker` a fresh Python calls one function by name. Before it does it shuts itself in: user, mount,
process, network, ipc, host name and control group namespaces of its own, an empty root, no descriptor but those it is
given, few capabilities and only over that folder's owners, no new privileges, Landlock, limits. For root's stores the
folder is shown through mapped ids, so that not even the machine's root by number is in there. Nothing it answers is
believed: errors are text for people, what it made is looked at by others.

Its start takes longer than reading a small archive does, so `make_ready` lets it begin before there is work: it waits,
still outside, for the request, which brings its descriptors along (unix(7), SCM_RIGHTS).
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, NoReturn

from layerrun import errors
from layerrun.native import worker

if TYPE_CHECKING:
    import subprocess

    from layerrun.native.worker import IdMap

__all__ = ["make_ready", "run_jailed"]

_BOOT = "import sys; sys.path[:] = sys.argv[2:]; from layerrun.native.jail import main; main(sys.argv[1])"
# Bytes of an answer, and characters of what an error says.
_MOST = 65536
_SAID = 1000
# Seconds to end in after the answer.
_ENDING = 10.0
# Descriptors that one message may carry: SCM_MAX_FD.
_DESCRIPTORS = 253
# sched.h: mount, cgroup, uts, ipc, pid and network namespaces.
_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000


class _Helper:
    """A helper that has not been told yet what it is to do."""

    def __init__(self, module: str = "") -> None:
        import subprocess

        self.channel, theirs = socket.socketpair()
        argv = [sys.executable, "-I", "-S", "-c", _BOOT, module, *worker.import_path()]
        with theirs:
            self.process: subprocess.Popen[bytes] = subprocess.Popen(
                argv,
                stdin=theirs.fileno(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
            )

    def tell(self, request: Mapping[str, Any], fds: Sequence[int]) -> None:
        """Tell it what to do; its ends of ``fds`` are its own."""
        import json

        with (
            self.channel,
            suppress(BrokenPipeError, ConnectionResetError),
        ):  # what is missing from its answer says so
            socket.send_fds(self.channel, [b"{"], fds)
            self.channel.sendall(json.dumps(request).encode("ascii")[1:])

    def drop(self) -> None:
        """End it."""
        self.channel.close()
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


_ready: list[_Helper] = []


def make_ready(module: str) -> None:
    """Start what the next `run_jailed` of this process needs, likely for a function of ``module``, which it imports.

    The caller's thread has to outlive it.
    """
    import atexit

    if not _ready:
        _ready.append(_Helper(module))
        atexit.register(_drop)


def _drop() -> None:
    while _ready:
        _ready.pop().drop()


def run_jailed(
    function: str,
    *args: Any,
    folder: str | None,
    pass_fds: Sequence[int],
    uid_map: IdMap,
    gid_map: IdMap,
    mapped: bool,
    limits: Mapping[str, int | None],
) -> Any:
    """Call ``module:function`` with a descriptor of ``folder``, if any, ``pass_fds`` and ``args``; return its result.

    ``mapped`` (root only): the maps are of ids that nobody has, and the folder is shown through them; else they are the
    caller's own ids, by `subids`. ``limits`` are of `resource`, by name, as ``RLIMIT_AS``; None: the function sets it.
    The result is JSON and not to be trusted.
    Raises `layerrun.errors.ArchiveError` with what the function says of its input, or of its end.
    """
    import json
    import subprocess

    request = {
        "function": function,
        "args": args,
        "uid_map": uid_map,
        "gid_map": gid_map,
        "folder": None if folder is None else os.path.realpath(folder),
        "mapped": mapped,
        "limits": dict(limits),
        "fds": list(pass_fds),
    }
    helper = _ready.pop() if _ready else _Helper()
    process = helper.process
    assert process.stdout is not None
    try:
        helper.tell(request, pass_fds)
        output = process.stdout.read(_MOST + 1)
        process.stdout.close()
        status = process.wait(_ENDING)
    except BaseException as error:
        # Interrupted, or it has said its last word and goes on: what it works in is about to be removed.
        process.kill()
        process.stdout.close()
        status = process.wait()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
    try:
        answer = json.loads(output) if len(output) <= _MOST else None
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise errors.ArchiveError(
            f"what unpacks died (status {status})",
            hint="is the archive damaged, or is there too little memory?",
        )
    if "error" in answer:
        raise _error(answer["error"])
    return answer.get("result")


def _error(said: Any) -> errors.LayerrunError:
    values = said if isinstance(said, dict) else {}
    message, code = str(values.get("message", ""))[:_SAID], values.get("errno")
    if isinstance(code, int) and 0 < code < 4096:
        return errors.SystemError(message, errno=code)
    hint = values.get("hint")
    return errors.ArchiveError(message, hint=None if hint is None else str(hint)[:_SAID])


# What follows runs in the helper.


def main(expected: str) -> NoReturn:
    """Read a request from stdin, shut ourselves in, do it, write the answer to stdout.

    ``expected`` is the module that its function is likely in; "": nobody knows.
    """
    import importlib
    import json

    _prepare(expected)
    request = _receive()
    module, _, name = request["function"].partition(":")
    function = getattr(importlib.import_module(module), name)
    answers = os.fdopen(os.dup(1), "wb")
    try:
        folder = _enter(request)
        alive = _become_init(answers)
        _shut(request, folder, alive, answers)
        given = [*([folder] if folder >= 0 else []), *request["fds"]]
        result = {"result": function(*given, *request["args"])}
    except errors.LayerrunError as error:
        code = error.errno if isinstance(error, errors.SystemError) else None
        result = {"error": {"message": str(error), "hint": error.hint, "errno": code}}
    except OSError as error:
        result = {"error": {"message": f"cannot unpack: {error}", "errno": error.errno}}
    except MemoryError:
        result = {"error": {"message": "cannot unpack: it takes too much memory"}}
    except Exception as error:  # noqa: BLE001  (there is nobody else to say it)
        result = {"error": {"message": f"cannot unpack: {type(error).__name__}: {error}"}}
    answers.write(json.dumps(result).encode("ascii"))
    answers.close()
    os._exit(0)


def _prepare(expected: str) -> None:
    """Import what a request needs, before there is one."""
    import array
    import fcntl
    import importlib
    import resource
    import select

    import prctl

    from layerrun.native import privileges, syscalls

    if expected:
        importlib.import_module(expected)
    del array, fcntl, resource, select, prctl, privileges, syscalls


def _receive() -> dict[str, Any]:
    """Return the request; the descriptors that come with it get the numbers that they have outside."""
    import fcntl
    import json

    with socket.socket(fileno=os.dup(0)) as channel:
        data, fds, _, _ = socket.recv_fds(channel, 1, _DESCRIPTORS)
        parts = [data]
        while data:
            data = channel.recv(65536)
            parts.append(data)
    if not parts[0]:
        os._exit(0)  # nobody has anything to do
    request: dict[str, Any] = json.loads(b"".join(parts))
    numbers = request["fds"]
    above = max(numbers, default=0) + 1
    held = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for fd in fds]
    for fd in fds:
        os.close(fd)
    for fd, number in zip(held, numbers, strict=True):
        os.dup2(fd, number, inheritable=False)
        os.close(fd)
    return request


def _enter(request: Mapping[str, Any]) -> int:
    """Enter the namespaces, as their root; return a descriptor of the folder, -1 if there is none."""
    from layerrun.native.privileges import confine
    from layerrun.native.syscalls import CLONE_NEWUSER, unshare

    parent = os.getppid()
    uids, gids = request["uid_map"], request["gid_map"]
    ours, theirs = socket.socketpair()
    warden = _start_warden(request, ours, theirs)
    try:
        unshare(CLONE_NEWUSER)
    except OSError as error:
        raise errors.SystemError(
            f"cannot make a user namespace: {error.strerror}", errno=error.errno or 0
        ) from None
    ours.send(b"m")
    data, fds, _, _ = socket.recv_fds(ours, 512, 1)
    ours.close()
    os.waitpid(warden, 0)
    if data != b"k":
        raise errors.SystemError(data.decode("utf-8", "replace") or "cannot map the ids", errno=1)
    if not request["mapped"] and _alone(uids, gids):
        worker.map_self(uids, gids)
    else:
        os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    confine(parent)
    unshare(_NAMESPACES)
    if fds or request["folder"] is None:
        return fds[0] if fds else -1
    return _mount(request["folder"], -1)


def _alone(uids: IdMap, gids: IdMap) -> bool:
    return len(uids) == len(gids) == 1 and uids[0][2] == gids[0][2] == 1


def _mount(folder: str, userns: int) -> int:
    from layerrun.native import lib, new_error, raise_error

    error = new_error()
    fd: int = lib.lr_jail_mount(os.fsencode(folder), userns, error)
    if fd < 0:
        raise_error(error)
    return fd


def _start_warden(request: Mapping[str, Any], ours: socket.socket, theirs: socket.socket) -> int:
    """Fork a process that stays outside, and maps us and the folder when it is told to."""
    target = os.getpid()
    pid = os.fork()
    if pid:
        theirs.close()
        return pid
    try:
        ours.close()
        if theirs.recv(1) == b"m":
            theirs.sendmsg([b"k"], _rights(_map(request, target)))
    except BaseException as error:  # noqa: BLE001  (whatever it is, the other side is to say it)
        theirs.send(str(error).encode("utf-8", "replace")[:500] or b"?")
    finally:
        os._exit(0)


def _rights(fds: list[int]) -> list[tuple[int, int, bytes]]:
    import array

    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds).tobytes())] if fds else []


def _map(request: Mapping[str, Any], target: int) -> list[int]:
    """Write the maps of the process ``target``; return the folder's descriptor where it must be made outside."""
    uids, gids = request["uid_map"], request["gid_map"]
    if not request["mapped"]:
        if not _alone(uids, gids):
            worker.map_other(target, uids, gids)
        return []
    for name, lines in (("uid_map", uids), ("gid_map", gids)):
        with open(f"/proc/{target}/{name}", "w", encoding="ascii") as file:
            file.write("".join("{} {} {}\n".format(*line) for line in lines))
    if request["folder"] is None:
        return []
    userns = os.open(f"/proc/{target}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    return [_mount(request["folder"], userns)]


def _become_init(answers: IO[bytes]) -> int:
    """Go on as pid 1 of the new process namespace; return a pipe that ends with who waits for us outside."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writer)
        return reader
    answers.close()
    os.close(1)
    status = os.waitpid(pid, 0)[1]
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _shut(request: Mapping[str, Any], folder: int, alive: int, answers: IO[bytes]) -> None:
    """Give up everything but the folder, what was passed, and the way to answer."""
    import resource
    import select

    import prctl

    from layerrun.native import lib, new_error, raise_error

    prctl.set_pdeathsig(signal.SIGKILL)
    if select.select([alive], [], [], 0)[0]:
        os._exit(1)  # whoever waited for us is gone already
    null = os.open("/dev/null", os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    kept, least = sorted({folder, answers.fileno(), *request["fds"]}), 3
    for fd in (fd for fd in kept if fd >= least):
        os.closerange(least, fd)
        least = fd + 1
    os.closerange(least, 1 << 20)
    error = new_error()
    if lib.lr_jail_enter(error) < 0:
        raise_error(error)
    os.umask(0)
    over_files = (
        prctl.CAP_CHOWN,
        prctl.CAP_DAC_OVERRIDE,
        prctl.CAP_FOWNER,
        prctl.CAP_FSETID,
        prctl.CAP_SETFCAP,
    )
    keep = over_files if folder >= 0 else ()
    prctl.capbset.limit(*keep)
    prctl.cap_inheritable.limit()
    prctl.cap_effective.limit(*keep)
    prctl.cap_permitted.limit(*keep)
    prctl.set_no_new_privs(True)
    prctl.set_dumpable(False)
    for name, value in {"RLIMIT_NPROC": 0, **request["limits"], "RLIMIT_CORE": 0}.items():
        if value is None:
            continue
        number = getattr(resource, name)
        hard = resource.getrlimit(number)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(number, (value, value))
    if lib.lr_jail_landlock(folder, error) < 0 or lib.lr_jail_filter(error):
        raise_error(error)
