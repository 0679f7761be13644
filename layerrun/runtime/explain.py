"""The one place where the kernel's answers to a start are put into words a person can act on."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from layerrun.errors import CommandNotExecutableError, CommandNotFoundError, LaunchError
from layerrun.model import App, IdMode
from layerrun.native.launch import Failure

__all__ = ["launch_error"]


def _sysctl(name: str) -> str | None:
    try:
        return Path("/proc/sys", *name.split(".")).read_text().strip()
    except OSError:
        return None


def user_namespaces_forbidden() -> str | None:
    """Return which setting keeps user namespaces from being made, or ``None``."""
    for name, bad in (
        ("user.max_user_namespaces", "0"),
        ("kernel.unprivileged_userns_clone", "0"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1"),
    ):
        if _sysctl(name) == bad and (os.geteuid() != 0 or name.startswith("user.")):
            return f"{name} is {bad}"
    return None


def _namespace_hint(code: int) -> str | None:
    inside = os.environ.get("LAYERRUN_APP")
    if inside and code in (errno.EPERM, errno.ENOSYS):
        return f"this is inside the app {inside!r}: layerrun does not nest; run it outside"
    found = user_namespaces_forbidden()
    if found:
        return f"{found}: an administrator can change it with sysctl"
    if code == errno.ENOSPC:
        return "a limit on namespaces is reached: see sysctl user.max_user_namespaces and its neighbours"
    if code in (errno.EPERM, errno.ENOSYS):
        return "user namespaces are forbidden here: by a seccomp filter (a container?) or a security module"
    if code == errno.EAGAIN:
        return "the limit on processes is reached: see `ulimit -u` and kernel.pid_max"
    return None


def _overlay_hint(failure: Failure, app: App, store_path: str) -> str | None:
    if failure.code == errno.ENODEV:
        return (
            "this kernel has no overlay file system: `modprobe overlay`, or a kernel with CONFIG_OVERLAY_FS"
        )
    if failure.step.startswith("set apart"):
        return (
            "the kernel stacks two overlays at most, and / is one already (is this a container?): "
            f"what {app.shown_name!r} has frozen cannot lie over it; begin anew with `layerrun reset`, or over a base"
        )
    if "map the ids" in failure.step and failure.code in (errno.EINVAL, errno.EPERM, errno.EOPNOTSUPP):
        return (
            "that file system cannot be mapped to other ids (is this a container, whose / is itself an overlay?): "
            "import a base with `layerrun base import`, or make the app with --no-userns, "
            "which is an undo and not a jail"
        )
    if failure.code == errno.EINVAL and "upper" in failure.path:
        return (
            f"the store {store_path} lies on a file system that cannot hold an upper (an overlay, as in a container?): "
            "set LAYERRUN_STORE to a folder on a disk, a volume or a tmpfs"
        )
    if failure.code in (errno.EROFS, errno.EOVERFLOW):
        return "the kernel made it read-only: the file system of the store is full, read-only, or cannot be mapped"
    if failure.code == errno.ENOENT:
        return "run `layerrun doctor`: something that the catalog names is missing"
    if failure.code == errno.EPERM and app.ids is not IdMode.RANGE:
        return "this kernel does not allow overlays in user namespaces: it needs Linux 5.13 or newer"
    return None


# Not the program's fault: the same start may work a moment later.
_SHORTAGES = {errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EIO}


def _general_hint(code: int) -> str | None:
    return {
        errno.EMFILE: "too few descriptors are allowed: raise `ulimit -n`",
        errno.ENFILE: "the machine is out of descriptors: see sysctl fs.file-max",
        errno.ENOMEM: "the machine is out of memory",
        errno.ENOSPC: "a disk is full, or sysctl fs.mount-max or a limit on namespaces is reached",
        errno.EDQUOT: "a disk quota is used up",
        errno.EAGAIN: "the limit on processes is reached: see `ulimit -u` and kernel.pid_max",
        errno.EPROTONOSUPPORT: "the plan is of another version of layerrun",
    }.get(code)


def _pasta_hint(said: str) -> str:
    if "bind" in said:
        return "a port is in use, or below 1024: `ss -lntup` tells by whom"
    if "interface" in said or "routable" in said:
        return "the machine has no way out itself: --network none does without"
    return "see the machine's log; a security module may keep pasta from the namespaces"


def launch_error(failure: Failure, app: App, store_path: str) -> LaunchError:
    """Return the error for a start that failed, with its exit status and what to do about it."""
    why = os.strerror(failure.code)
    if failure.step.startswith("execute"):
        detail = failure.step.removeprefix("execute").strip(" ()")
        text = f"cannot run {failure.path!r} in {app.shown_name!r}: {detail or why}"
        if failure.code == errno.ENOENT:
            hint = (
                None if detail else "it is not there: install it in the app, or check the spelling and PATH"
            )
            return CommandNotFoundError(text, hint=hint, errno=failure.code, path=failure.path)
        hint = {
            errno.EACCES: "it is not executable there, or a folder on the way is closed: see `layerrun which`",
            errno.ENOEXEC: "it is not a program of this machine, or a script that lacks its #! line",
        }.get(failure.code)
        if failure.code in _SHORTAGES:
            return LaunchError(text, hint=_general_hint(failure.code))
        return CommandNotExecutableError(text, hint=hint, errno=failure.code, path=failure.path)
    about = f" {failure.path}" if failure.path else ""
    text = f"cannot start {app.shown_name!r}: {failure.step}{about}: {why}"
    if failure.step == "enter the working folder":
        return LaunchError(text, hint="choose another --cwd: paths are as seen inside")
    if failure.step in ("create the namespaces", "write the id map"):
        hint = _namespace_hint(failure.code)
    elif failure.step == "set up the network by pasta":
        text = f"cannot start {app.shown_name!r}: pasta: {failure.path.strip() or 'it has ended'}"
        hint = _pasta_hint(failure.path)
    elif failure.step == "start pasta":
        hint = "a private network without root takes pasta: install passt, or choose --network none or host"
    elif "newuidmap" in failure.path or "newgidmap" in failure.path:
        hint = "install uidmap, and look at your lines in /etc/subuid and /etc/subgid"
    elif failure.path.startswith("/proc") and failure.code == errno.EPERM:
        hint = (
            "a new /proc is refused where the present one has parts masked: is this a container? "
            "Run it with those unmasked"
        )
    else:
        hint = _overlay_hint(failure, app, store_path)
    return LaunchError(text, hint=hint or _general_hint(failure.code))
