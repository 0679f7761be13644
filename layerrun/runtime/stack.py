"""The stack of an app as mounts: its base, layers and upper, and the base's own mounts decomposed.

As root one overlay takes the host's ``/`` as it is, and each further file system gets one of its own.
Without root the kernel refuses a lower that has mounts beneath it, so ``/`` is taken apart: a skeleton
at the top, one overlay for each largest folder that is free of mounts.
"""

from __future__ import annotations

import os
from contextlib import suppress

import attrs

from layerrun.model import App, IdMode
from layerrun.runtime.mountinfo import Mount, classify, mount_points, visible_mounts
from layerrun.runtime.plan import Plan, Policy
from layerrun.runtime.skeleton import Skeleton
from layerrun.runtime.sums import names
from layerrun.runtime.uppers import Uppers, effective_mode

__all__ = ["HostStack", "add_tree", "beneath", "overlay_flags"]


_EVERYBODYS = ("/var/tmp",)
_DIR = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def overlay_flags(app: App) -> str:
    """Return the flags of an overlay over the app's layers: which flavour of overlayfs's attributes is in them."""
    return "userxattr" if app.ids.userxattr else ""


def _lower_flags(app: App) -> str:
    return "idmap" if app.ids is IdMode.RANGE else ""


def add_tree(plan: Plan, app: App, lowers: list[str], data: str, uppers: Uppers, *, image: str = "") -> None:
    """Add the one overlay of an app over an imported base.

    ``lowers``: paths, the topmost first; the one that is called ``image`` is a file to be mounted.
    """
    place = uppers.prepare("/")
    if place is None:
        raise AssertionError("the upper's own root is a folder")
    plan.add("data", data)
    plan.add("overlay", "/", *place, overlay_flags(app))
    for lower in lowers:
        plan.add(
            "lower", lower, ",".join(filter(None, (_lower_flags(app), "image" if lower == image else "")))
        )


def beneath(path: str, top: str) -> bool:
    """Say whether ``path`` is ``top`` or lies beneath it."""
    return path == top or path.startswith(top.rstrip("/") + "/")


def layers_at(layers: list[str], path: str) -> tuple[list[str], bool]:
    """Return the folders that layers (trees, the topmost first) have at a path; and whether what is beneath them shows.

    An app made what is in them: no link is followed, and a layer that has something else there, or deletes it,
    hides what is beneath. Marks of opaque folders do not count, as those of an upper do not at an overlay's root.
    """
    found = []
    for layer in layers:
        there = _is_folder(layer, path)
        if there:
            found.append(layer if path == "/" else layer + path)
        elif there is False:
            return found, False
    return found, True


def _is_folder(layer: str, path: str) -> bool | None:
    """Say whether a layer has a folder at a path; ``None``: it has nothing there."""
    fd = os.open(layer, _DIR)
    try:
        for part in path.strip("/").split("/") if path != "/" else ():
            try:
                deeper = os.open(part, _DIR | os.O_PATH, dir_fd=fd)
            except FileNotFoundError:
                return None
            except NotADirectoryError:  # a link as well
                return False
            os.close(fd)
            fd = deeper
        return True
    finally:
        os.close(fd)


@attrs.define
class HostStack:
    """Builds the overlays of an app over the host's own ``/``.

    ``private`` are the tops that the sandbox has for itself; nothing mounted there is looked at.
    """

    plan: Plan
    app: App
    data: str
    uppers: Uppers
    skeleton: Skeleton
    layers: list[str]
    private: tuple[str, ...]
    mounts: list[Mount] = attrs.field(factory=visible_mounts)
    tops: list[str] = attrs.field(factory=mount_points)
    late: list[tuple[str, ...]] = attrs.field(factory=list)

    def _is_private(self, path: str) -> bool:
        return any(beneath(path, top) for top in self.private)

    def _overlay(self, path: str, *, flags: str = "") -> bool:
        lowers = self._lowers_at(path)
        place = self.uppers.prepare(path) if lowers else None
        if place is None:
            # What is seen there is then the app's own: there is nothing to cover.
            self.plan.note(path, Policy.HIDDEN, "the app has put something else in its place")
            return False
        own = ",".join(filter(None, (overlay_flags(self.app), flags)))
        self.late.append(("overlay", path, *place, own))
        self.late += [("lower", *lower) for lower in lowers]
        return True

    def _lowers_at(self, path: str) -> list[tuple[str, str]]:
        """Return the lowers of an overlay at ``path`` with their flags, the topmost first."""
        found, through = layers_at(self.layers, path)
        lowers = [(layer, _lower_flags(self.app)) for layer in found]
        if through:
            flags = [_lower_flags(self.app)]
            if lowers and self._holds_layers(path):
                flags.append("apart")
            lowers.append((path, ",".join(filter(None, flags))))
        return lowers

    def _holds_layers(self, path: str) -> bool:
        """Say whether the layers may lie within a folder of the host, by whichever mount."""
        top = self.layers[0]
        if beneath(top, path):
            return True
        return (
            any(mount.path == path for mount in self.mounts) and os.stat(path).st_dev == os.stat(top).st_dev
        )

    def _mount(self, mount: Mount) -> Policy:
        """Add a mount below the base by its policy."""
        policy, why = classify(mount)
        if policy is Policy.OVERLAID:
            if not self._overlay(mount.path, flags="try"):
                return Policy.HIDDEN
        elif policy is Policy.READ_ONLY:
            # With what is mounted beneath it: without root the kernel gives no copy that would uncover a folder.
            self.late.append(("bind", mount.path, mount.path, "ro,rec,nosuid,nodev,try"))
        if policy is Policy.HIDDEN and mount.is_dir:
            self.late.append(("mask", mount.path, "try"))
        self.plan.note(mount.path, policy, why, mount.fstype)
        return policy

    def build(self) -> None:
        """Work out the stack; `late` are then its operations, in order."""
        if self.app.ids in (IdMode.RANGE, IdMode.NONE):
            self.as_root()
        else:
            self.as_user()

    def as_root(self) -> None:
        """One overlay over ``/``, one over each file system of its own."""
        hidden: list[str] = []
        self._overlay("/")
        self.plan.note("/", Policy.OVERLAID, "the host's root file system", self._fstype("/"))
        for mount in self.mounts:
            path = mount.path
            if path == "/" or self._is_private(path) or any(beneath(path, top) for top in hidden):
                continue
            if self._mount(mount) is not Policy.OVERLAID:
                hidden.append(path)

    def place(self, wanted: list[tuple[str, bool]]) -> None:
        """Add mount points (path, whether a folder) that the host lacks, each beneath the overlay it lies in."""
        tops = [(i, op[1]) for i, op in enumerate(self.late) if op[0] == "overlay"]
        added: dict[int, dict[str, str]] = {}
        for path, folder in wanted:
            index, top = max(
                (found for found in tops if beneath(path, found[1])),
                key=lambda found: len(found[1]),
                default=(-1, ""),
            )
            if index < 0:
                self.skeleton.folder(path) if folder else self.skeleton.file(path)
                continue
            places, parts = added.setdefault(index, {}), path[len(top.rstrip("/")) + 1 :].split("/")
            for i in range(1, len(parts)):
                places.setdefault("/" + "/".join(parts[:i]), "dir")
            places.setdefault("/" + "/".join(parts), "dir" if folder else "file")
        for index in sorted(added, reverse=True):
            end = index + 1
            while end < len(self.late) and self.late[end][0] == "lower":
                end += 1
            self.late[end:end] = [("place", *item) for item in added[index].items()]

    def _fstype(self, path: str) -> str:
        return next((m.fstype for m in reversed(self.mounts) if m.path == path), "")

    def as_user(self) -> None:
        """A skeleton at ``/`` and overlays over the largest folders without mounts."""
        self.plan.note("/", Policy.OVERLAID, "taken apart around its mounts", self._fstype("/"))
        self._take_apart("/")
        # Anyone may write there outside; inside it could not be copied up, for its owner has no id here.
        for path in _EVERYBODYS:
            if not os.path.islink(path) and os.path.isdir(path) and not self._is_private(path):
                self.uppers.own_folder(path)

    def _take_apart(self, path: str) -> None:
        self.plan.listed[path] = names(path)  # before it is read: what comes in between outdates the plan
        try:
            entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        except OSError:
            self.late.append(("mask", path, "try"))
            self.plan.note(path, Policy.HIDDEN, "it cannot be listed, and something is mounted beneath it")
            return
        for entry in entries:
            # What went since the folder was listed is as if it had never been there.
            with suppress(FileNotFoundError):
                self._entry(entry)

    def _entry(self, entry: os.DirEntry[str]) -> None:
        path = entry.path
        # A mount is judged by its line in mountinfo alone: a dead server behind it must not hang us.
        mounted = next((m for m in reversed(self.mounts) if m.path == path), None)
        if self._is_private(path):
            self.skeleton.folder(path)
        elif mounted is not None and not mounted.is_dir:
            self.skeleton.file(path)
            self._mount(mounted)
        elif mounted is not None or (entry.is_dir(follow_symlinks=False)):
            self._folder(path, mounted)
        elif entry.is_symlink():
            self.skeleton.link(path, os.readlink(path))
        elif entry.is_file(follow_symlinks=False):
            self.skeleton.file(path)
            self.late.append(("bind", path, path, "ro,nosuid,nodev,try"))
            self.plan.note(path, Policy.READ_ONLY, "a file beside mounts")

    def _folder(self, path: str, mounted: Mount | None) -> None:
        if mounted is None:
            self.plan.judged.append(path)
        if mounted is None and not os.access(path, os.R_OK | os.X_OK):
            self.skeleton.folder(path, 0)
            self.plan.note(path, Policy.HIDDEN, "closed to you outside as well")
            return
        deeper = any(top != path and beneath(top, path) for top in self.tops)
        lowered = mounted is None or classify(mounted)[0] is Policy.OVERLAID
        if deeper and lowered:
            # It stays visible, and belongs to us: what the real one does not let us do there, this must not either.
            self.skeleton.folder(path, effective_mode(path, os.stat(path, follow_symlinks=False)))
            if mounted is not None:
                self.plan.note(path, Policy.OVERLAID, "taken apart around its mounts", mounted.fstype)
            self._take_apart(path)
            return
        self.skeleton.folder(path)
        if mounted is not None:
            self._mount(mounted)
        # Deep down, beside busy mount points, a folder may go while we look; one at the top must be there.
        else:
            self._overlay(path, flags="try" if path.count("/") > 1 else "")
