"""Doing tree operations as root of a user namespace, in a process of its own.

What a plain user's store holds may belong to the user's subordinate ids: only a process that is root
of a user namespace that maps them can read, change or remove it. Python cannot leave its user
namespace here (unshare(2) wants a single thread, and it would be for good), so a fresh Python does:
it makes the namespace, has it mapped, calls one function by name and reports its result as JSON.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import IO, TYPE_CHECKING, Any, NoReturn

from layerrun import errors

if TYPE_CHECKING:
    import subprocess

__all__ = ["import_path", "map_other", "map_self", "run_in_userns", "start_in_userns"]

IdMap = Sequence[tuple[int, int, int]]

# -I -S: nothing of the caller's environment or site decides what runs; only the path it has itself.
_BOOT = "import sys; sys.path[:] = sys.argv[1:]; from layerrun.native.worker import main; main()"


def run_in_userns(
    function: str,
    *args: Any,
    uid_map: IdMap | None = None,
    gid_map: IdMap | None = None,
    own: bool = False,
    pass_fds: Sequence[int] = (),
) -> Any:
    """Call ``module:function`` with JSON-able ``args`` as root of a new user namespace; return its result.

    The maps are of (inside, outside, count), by default the caller as 0 and its subordinate ids as 1
    and up, where it has any; with ``own`` the caller as 0 and nobody else. ``pass_fds`` keep their numbers. What the
    function raises of layerrun's errors is raised here.
    """
    import json

    if own:
        uid_map, gid_map = [(0, os.geteuid(), 1)], [(0, os.getegid(), 1)]
    process = _spawn(function, args, uid_map, gid_map, pass_fds)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        output = process.stdout.read()
    finally:
        process.stdout.close()
        status = process.wait()
    try:
        answer = json.loads(output)
    except ValueError:
        raise errors.StoreError(
            f"the helper process for {function} died with status {status}",
            hint="what it said stands above; is there enough memory?",
        ) from None
    if "error" in answer:
        raise _unpack(answer["error"])
    return answer["result"]


def start_in_userns(
    function: str,
    *args: Any,
    uid_map: IdMap | None = None,
    gid_map: IdMap | None = None,
    pass_fds: Sequence[int] = (),
) -> None:
    """Like `run_in_userns`, in a session of its own and at low priority; returns at once, without a result."""
    process = _spawn(function, args, uid_map, gid_map, pass_fds, session=True, quiet=True, detached=True)
    # It outlives us; without this, Popen complains of a child that nobody waited for.
    process.returncode = 0


def _default_maps(uid_map: IdMap | None, gid_map: IdMap | None) -> tuple[IdMap, IdMap]:
    from layerrun.native.subids import id_maps, subids

    found = subids() if uid_map is None or gid_map is None else None
    if found is None:
        return uid_map or [(0, os.geteuid(), 1)], gid_map or [(0, os.getegid(), 1)]
    uids, gids = id_maps(found)
    return uid_map or uids, gid_map or gids


def _spawn(
    function: str,
    args: Sequence[Any],
    uid_map: IdMap | None,
    gid_map: IdMap | None,
    pass_fds: Sequence[int],
    *,
    session: bool = False,
    quiet: bool = False,
    detached: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a helper and give it its request.

    ``session``: it gets one of its own; ``quiet``: what it says is lost; ``detached``: its answer too.
    """
    import json
    import subprocess

    uids, gids = _default_maps(uid_map, gid_map)
    request = {"function": function, "args": args, "uid_map": uids, "gid_map": gids, "detached": detached}
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _BOOT, *import_path()],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL if detached else subprocess.PIPE,
        stderr=subprocess.DEVNULL if quiet else None,
        pass_fds=tuple(pass_fds),
        start_new_session=session,
        cwd="/",
    )
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(request).encode("ascii"))
        process.stdin.close()
    except BrokenPipeError:
        pass  # it died; what is missing from its answer says so
    return process


def import_path() -> list[str]:
    """Return where a helper finds layerrun and what it needs: our own absolute entries."""
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return [here, *(entry for entry in sys.path if os.path.isabs(entry) and entry != here)]


# What follows runs in the worker.


def main() -> NoReturn:
    """Read a request from stdin, do it, write the answer to stdout; nothing else is written there."""
    import json

    request = json.loads(sys.stdin.buffer.read())
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    if request["detached"]:
        os.nice(10)
    try:
        parent = os.getppid()
        _enter(request["uid_map"], request["gid_map"])
        from layerrun.native.privileges import confine

        confine(None if request["detached"] else parent)
        answer = {"result": _call(request["function"], request["args"])}
    except errors.LayerrunError as error:
        answer = {"error": _pack(error)}
    except OSError as error:
        wrapped = errors.SystemError(
            f"{request['function']}: {error}", errno=error.errno or 0, path=_text(error.filename)
        )
        answer = {"error": _pack(wrapped)}
    _answer(answers, json.dumps(answer).encode("ascii"))
    sys.exit(0)


def _answer(file: IO[bytes], data: bytes) -> None:
    try:
        file.write(data)
        file.close()
    except BrokenPipeError:
        os._exit(1)  # nobody is listening any more


def _call(function: str, args: Iterable[Any]) -> Any:
    import importlib

    module, _, name = function.partition(":")
    return getattr(importlib.import_module(module), name)(*args)


def _enter(uid_map: IdMap, gid_map: IdMap) -> None:
    """Become root of a new user namespace with these maps."""
    from layerrun.native.syscalls import CLONE_NEWUSER, unshare

    alone = len(uid_map) == len(gid_map) == 1 and uid_map[0][2] == gid_map[0][2] == 1
    helper = None if alone else _start_mapper(uid_map, gid_map)
    try:
        unshare(CLONE_NEWUSER)
    except OSError as error:
        raise errors.SystemError(
            f"cannot make a user namespace: {error.strerror}",
            errno=error.errno or 0,
            hint="look at /proc/sys/user/max_user_namespaces, kernel.unprivileged_userns_clone and"
            " kernel.apparmor_restrict_unprivileged_userns",
        ) from None
    if helper is None:
        map_self(uid_map, gid_map)
    else:
        _await_mapper(*helper)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def map_self(uid_map: IdMap, gid_map: IdMap) -> None:
    """Map one id each, which needs no helper, user_namespaces(7)."""
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", "{} {} {}".format(*uid_map[0])),
        ("gid_map", "{} {} {}".format(*gid_map[0])),
    ):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _start_mapper(uid_map: IdMap, gid_map: IdMap) -> tuple[int, int]:
    """Fork a process that stays outside and maps us when told to; return its pid and the pipe to tell it by."""
    target = os.getpid()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(reader)
        return pid, writer
    status = 1
    try:
        os.close(writer)
        if os.read(reader, 1) == b"m":
            map_other(target, uid_map, gid_map)
            status = 0
    except errors.LayerrunError:
        pass
    finally:
        os._exit(status)


def _await_mapper(pid: int, writer: int) -> None:
    os.write(writer, b"m")
    os.close(writer)
    if os.waitpid(pid, 0)[1] != 0:
        raise _not_mapped()


def map_other(pid: int, uid_map: IdMap, gid_map: IdMap) -> None:
    """Map ids of the user namespace of another process, with newuidmap(1) and newgidmap(1)."""
    import subprocess

    for tool, ids in (("newuidmap", uid_map), ("newgidmap", gid_map)):
        words = [str(number) for line in ids for number in line]
        try:
            subprocess.run([tool, str(pid), *words], check=True, stdin=subprocess.DEVNULL)
        except (OSError, subprocess.SubprocessError):
            raise _not_mapped() from None


def _not_mapped() -> errors.LayerrunError:
    return errors.StoreError(
        "newuidmap or newgidmap could not map your subordinate ids",
        hint="look at your lines in /etc/subuid and /etc/subgid, and whether newuidmap is setuid root",
    )


def _text(value: Any) -> str | None:
    return os.fsdecode(value) if isinstance(value, str | bytes) else None


def _pack(error: errors.LayerrunError) -> dict[str, Any]:
    packed: dict[str, Any] = {"class": type(error).__name__, "message": str(error), "hint": error.hint}
    if isinstance(error, errors.SystemError):
        packed |= {"errno": error.errno, "path": _text(error.filename)}
    return packed


def _unpack(packed: dict[str, Any]) -> errors.LayerrunError:
    if "errno" in packed:
        return errors.SystemError(
            packed["message"], errno=packed["errno"], path=packed["path"], hint=packed["hint"]
        )
    kind: type[errors.LayerrunError] = getattr(errors, packed["class"], errors.StoreError)
    return kind(packed["message"], hint=packed["hint"])
