"""Work on an app's files, by descriptors: called directly, or by name in a helper that maps the ids.

A store with subordinate ids (`IdMode.SUBIDS`) holds files that its owner may not even read; only root of
a user namespace that maps them may. So arguments and results are plain JSON data.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from typing import Any

from layerrun.layers import overlay
from layerrun.layers.between import Row, Stacks, rows
from layerrun.layers.delta import Delta, Stat
from layerrun.layers.diff import deltas
from layerrun.model import App, IdMode
from layerrun.native import trees
from layerrun.native.trees import open_beneath
from layerrun.store.fs import present

__all__ = [
    "details_job",
    "dress_job",
    "drop_job",
    "on_files",
    "on_ids",
    "restore_job",
    "rows_job",
    "shadows_job",
    "squash_job",
    "tidy_job",
    "usage_job",
    "walk_deltas",
    "which_job",
]

Job = Callable[..., Any]


def on_files(app: App, job: Job, fds: list[int], *args: Any, helped: bool = False) -> Any:
    """Run a job where the app's files can be read, with ``fds`` as its first arguments.

    A folder of mode 000 stops even its owner; root of a user namespace that maps the owner may enter: so is it done
    where that is met, or at once if ``helped``: of a job that cannot be done anew after half of it.
    """
    return on_ids(app.ids, job, fds, *args, helped=helped)


def on_ids(ids: IdMode | None, job: Job, fds: list[int], *args: Any, helped: bool = False) -> Any:
    """Do as `on_files`, with files whose owners mean ``ids``; ``None``: the machine's own.

    A job is a function of a module, with plain JSON data beside ``fds``.
    """
    if ids is not IdMode.SUBIDS and not helped:
        try:
            return job(*fds, *args)
        except OSError as error:
            if error.errno != errno.EACCES or os.geteuid() == 0:
                raise
    from layerrun.native.worker import run_in_userns

    own = ids is not IdMode.SUBIDS
    return run_in_userns(f"{job.__module__}:{job.__name__}", *fds, *args, own=own, pass_fds=fds)


def usage_job(*fds: int) -> list[list[int]]:
    """Return entries, apparent and allocated bytes of each folder."""
    return [list(trees.usage(fd)) for fd in fds]


def rows_job(*arguments: Any) -> list[Row]:
    """Arguments: the layers, how many there are of each kind (a list), and the options of a comparison (a dict)."""
    stacks, options = _comparison(arguments)
    return list(rows(stacks, **options))


def details_job(*arguments: Any) -> list[dict[str, Any]]:
    """Arguments: as those of `rows_job`, with ``wanted`` among the options."""
    from layerrun.layers.details import details

    stacks, options = _comparison(arguments)
    return details(stacks, **options)


def _comparison(arguments: Sequence[Any]) -> tuple[Stacks, dict[str, Any]]:
    *fds, counts, options = arguments
    old, new = fds[: counts[0]], fds[counts[0] : counts[0] + counts[1]]
    names = {key: [os.fsencode(path.strip("/")) for path in options[key]] for key in ("roots", "only")}
    return Stacks(old, new, fds[counts[0] + counts[1] :]), {**options, **names}


def walk_deltas(*arguments: Any) -> Iterator[Delta]:
    """Arguments: the upper, the lowers, then userxattr, cross_mounts, the roots (a list)."""
    *fds, userxattr, cross_mounts, roots = arguments
    return deltas(fds[0], fds[1:], userxattr=userxattr, cross_mounts=cross_mounts, roots=roots)


def deltas_job(*arguments: Any) -> list[list[Any]]:
    """Arguments: the upper, the lowers, then userxattr, cross_mounts, the roots (a list).

    Before the deltas come the ids that are the caller's where this runs.
    """
    found = walk_deltas(*arguments)
    ids = [os.geteuid(), os.getegid()]
    return [ids, *([letter, path.decode("latin-1"), *rest] for letter, path, *rest in found)]


def deltas_from(found: list[list[Any]]) -> list[Delta]:
    """Return the deltas that `deltas_job` flattened."""
    (uid, gid), *rest = found
    return [_delta_from(values, uid, gid) for values in rest]


def _delta_from(values: list[Any], uid: int, gid: int) -> Delta:
    letter, path, new, old, *rest = values
    sides = [None if side is None else _stat_from(side, uid, gid) for side in (new, old)]
    return Delta(letter, path.encode("latin-1"), sides[0], sides[1], *rest)


def _stat_from(side: Sequence[int], uid: int, gid: int) -> Stat:
    """Return one side; what is the caller's in a namespace of its own is the caller's here."""
    found = Stat(*side)
    if (uid, gid) == (os.geteuid(), os.getegid()):
        return found
    return found._replace(
        uid=os.geteuid() if found.uid == uid else found.uid,
        gid=os.getegid() if found.gid == gid else found.gid,
    )


def restore_job(*arguments: Any) -> list[str]:
    """Arguments: the trash, the upper, the lowers, then userxattr, cross_mounts, the patterns (a list)."""
    from layerrun.layers.restore import restore_paths

    *fds, userxattr, cross_mounts, globs = arguments
    return restore_paths(fds[1], fds[2:], globs, fds[0], userxattr=userxattr, cross_mounts=cross_mounts)


def tidy_job(*arguments: Any) -> list[str]:
    """Arguments: the upper, the lowers, then userxattr, cross_mounts, the roots (a list). See `droppable`."""
    from layerrun.layers.tidy import droppable

    *fds, userxattr, cross_mounts, roots = arguments
    found = droppable(fds[0], fds[1:], userxattr=userxattr, cross_mounts=cross_mounts, roots=roots)
    return list(map(os.fsdecode, found))


def drop_job(upper: int, trash: int, paths: list[str]) -> None:
    """Move paths of an upper into the trash; see `drop`."""
    from layerrun.layers.tidy import drop

    drop(upper, trash, map(os.fsencode, paths))


def home_cache_job(home: int, trash: int) -> bool:
    """Move ``.cache`` out of a fresh home; say whether there was one."""
    try:
        os.rename(".cache", "home-cache", src_dir_fd=home, dst_dir_fd=trash)
    except FileNotFoundError:
        return False
    return True


def dress_job(data: int, like: int, userxattr: bool, top: str, roots: list[str]) -> list[str]:
    """Make folders in ``upper`` of a data unit like those of another, or of a layer; return which there are.

    ``top`` is the folder in ``like`` that has them, ``roots`` are their paths; the root itself and ``home`` go along.
    """
    places = [(top, "upper")] + [(f"{top}/{root}", f"upper/{root}") for root in sorted(roots)]
    made = []
    for source, target in [*places, ("home", "home")]:
        try:
            os.close(_folder(like, source))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                continue  # the app has put something else in its place, or has no home of its own
            raise
        if target == "home" and not present(data, target):
            continue
        with suppress(FileExistsError):
            _make_folder(data, target)
        made.append((source, target))
    for source, target in reversed(made):  # a folder that we may not write could not have been filled
        _make_alike(_folder(like, source), _folder(data, target), userxattr=userxattr)
    return [target.removeprefix("upper/") for _, target in made if target.startswith("upper/")]


def _folder(dir_fd: int, path: str) -> int:
    return open_beneath(dir_fd, os.fsencode(path), os.O_RDONLY | os.O_DIRECTORY)


def _make_folder(dir_fd: int, path: str) -> None:
    if "/" not in path:
        return  # the unit's own, which it has or is not to have
    above, _, name = path.rpartition("/")
    parent = _folder(dir_fd, above)
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    finally:
        os.close(parent)


def _make_alike(source: int, target: int, *, userxattr: bool) -> None:
    try:
        info = os.fstat(source)
        overlay.copy_metadata(source, target, userxattr=userxattr)
        os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))
    finally:
        os.close(source)
        os.close(target)


def squash_job(layers: int, target: int, names: list[str], part: str, *options: bool) -> None:
    """Make one tree of those that layers have as ``part``, the topmost first; see `squash_trees`."""
    from layerrun.layers.squash import squash_trees

    trees.remove_tree(target, os.fsencode(part))  # after an attempt without a helper
    os.mkdir(part, 0o700, dir_fd=target)
    with ExitStack() as opened:
        fds = []
        for path in [*(f"{name}/{part}" for name in names), ""]:
            fds.append(_folder(layers, path) if path else _folder(target, part))
            opened.callback(os.close, fds[-1])
        squash_trees(fds[:-1], fds[-1], userxattr=options[0], lowest=options[1])


def melt_job(layers: int, old: int, data: int, names: list[str], userxattr: bool) -> None:
    """Copy what an upper, in the data unit ``old``, and layers (the topmost first) show into that of another unit."""
    from layerrun.layers.squash import squash_trees

    trees.remove_tree(data, b"upper")
    os.mkdir("upper", 0o700, dir_fd=data)
    with ExitStack() as opened:
        fds = [
            _folder(old, "upper"),
            *(_folder(layers, f"{name}/tree") for name in names),
            _folder(data, "upper"),
        ]
        for fd in fds:
            opened.callback(os.close, fd)
        squash_trees(fds[:-1], fds[-1], userxattr=userxattr, copies=True)


def put_back_job(*arguments: Any) -> list[list[str]]:
    """Arguments: the upper, what lies beneath, the other stack; how many beneath; paths, userxattr, cross_mounts.

    Return what `put_back` does.
    """
    from layerrun.layers.putback import Stack, put_back

    upper, *fds, count, paths, userxattr, cross_mounts = arguments
    beneath, wanted = (Stack(part, userxattr, cross_mounts) for part in (fds[:count], fds[count:]))
    found = put_back(upper, beneath, wanted, map(os.fsencode, paths))
    return [[os.fsdecode(path) for path in part] for part in found]


def shadows_job(*arguments: Any) -> list[list[str]]:
    """Arguments: layers, then paths with whether each is a folder (a list of pairs), userxattr.

    Return for each layer what it hides of them; see `layerrun.layers.shadows.hidden`.
    """
    from layerrun.layers.shadows import hidden

    *fds, paths, userxattr = arguments
    wanted = [(os.fsencode(path), is_folder) for path, is_folder in paths]
    return [list(map(os.fsdecode, hidden(fd, wanted, userxattr=userxattr))) for fd in fds]


def which_job(*arguments: Any) -> tuple[str, str, int | None]:
    """Arguments: the upper, the lowers, then the path, userxattr, cross_mounts.

    Return what the upper says of the path and where (see `_in_upper`), and the number of the first lower with it.
    """
    *fds, path, userxattr, cross_mounts = arguments
    state, at = ("nothing", "") if path == "/" else _in_upper(fds[0], path, userxattr=userxattr)
    return state, at, None if state == "has" else _first_lower(fds[1:], path, cross_mounts=cross_mounts)


def _in_upper(upper: int, path: str, *, userxattr: bool) -> tuple[str, str]:
    """Return what the upper says of a path: ``has``, ``deletes``, ``hides`` or ``nothing``, and where."""
    done, opaque = "", False
    for part in path.strip("/").split("/"):
        folder = open_beneath(upper, os.fsencode(done.strip("/")), os.O_RDONLY | os.O_DIRECTORY)
        try:
            # What is in an opaque folder need not be opaque itself: nothing shows through there any more.
            opaque = opaque or (overlay.is_opaque(folder, userxattr=userxattr) and done != "")
            done += "/" + part
            try:
                info = os.stat(part, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                return ("hides" if opaque else "nothing"), done
        finally:
            os.close(folder)
        if overlay.is_whiteout(info):
            return "deletes", done
        if done != path and not stat.S_ISDIR(info.st_mode):
            return "hides", done
    return "has", done


def _first_lower(lowers: Sequence[int], path: str, *, cross_mounts: bool) -> int | None:
    for number, fd in enumerate(lowers):
        try:
            found = open_beneath(
                fd, os.fsencode(path.strip("/")), os.O_PATH, cross_mounts=cross_mounts and fd == lowers[-1]
            )
        except OSError:
            continue
        os.close(found)
        return number
    return None
