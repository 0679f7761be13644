"""``undo``, ``redo`` and ``log``: what was committed to this machine, and back again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from layerrun.cli.committing import commit_record, say_done
from layerrun.cli.common import Verb, nothing, open_store
from layerrun.cli.options import F, json_option
from layerrun.cli.output import emit, line, plural, quoted, size, table

if TYPE_CHECKING:
    from layerrun.changes import Commit
    from layerrun.commit.log import File

__all__ = ["log", "redo", "undo"]


def _number(function: F) -> F:
    """Add the number of a commit."""
    return click.argument("number", metavar="[NUMBER]", type=click.IntRange(min=1), required=False)(function)


@click.command(
    cls=Verb,
    examples=[
        ("layerrun undo", "take back the last commit that was not"),
        ("layerrun undo 3", "take back number 3 of layerrun log"),
        ("layerrun undo 3 --force", "also where something was changed since"),
    ],
)
@_number
@click.option(
    "--force", is_flag=True, help="Also where something was changed since; what is there is kept aside."
)
@json_option
def undo(number: int | None, force: bool, as_json: bool) -> int:
    """Take a commit back: everything that it changed on this machine is exactly as it was before.

    Without NUMBER the last one. What was changed since is a conflict: the paths are named, nothing is done, and the
    exit status is 3. `layerrun redo` does the commit again.
    """
    from layerrun.changes import CommitState

    with open_store() as store:
        from layerrun.commit import engine

        found = engine.find(store, number, [CommitState.DONE], "undo")
        done = engine.undo(store, found, force=force)
    return _done(done, "took back number {}", as_json=as_json)


@click.command(
    cls=Verb,
    examples=[
        ("layerrun redo", "do again what was undone last"),
        ("layerrun redo 3", "do number 3 of layerrun log again"),
    ],
)
@_number
@json_option
def redo(number: int | None, as_json: bool) -> int:
    """Do a commit again that was taken back.

    Without NUMBER the one that was taken back last. What was changed since is a conflict: the paths are named, nothing
    is done, and the exit status is 3.
    """
    from layerrun.changes import CommitState

    with open_store() as store:
        from layerrun.commit import engine

        found = engine.find(store, number, [CommitState.UNDONE], "do again")
        done = engine.redo(store, found)
    return _done(done, "did number {} again", as_json=as_json)


def _done(commit: Commit, what: str, *, as_json: bool) -> int:
    say_done(commit, what)
    if as_json:
        emit({"commit": commit_record(commit)})
    return 0


@click.command(
    cls=Verb,
    examples=[
        ("layerrun log", "the commits to this machine, the last one first"),
        ("layerrun log 3 --files", "each path that number 3 changed"),
        ("layerrun log --files --json | jq '.commits[0].files'", "those of the last one, for a program"),
    ],
)
@_number
@click.option("--files", "with_files", is_flag=True, help="List what each of them changed.")
@json_option
def log(number: int | None, with_files: bool, as_json: bool) -> int:
    """List the commits to this machine, the last one first, or that one alone. `layerrun gc` forgets old ones."""
    with open_store() as store:
        from layerrun.commit import engine
        from layerrun.commit import log as commits

        found = commits.entries(store) if number is None else [engine.find(store, number, [], "list")]
        listed = [(one, commits.files(store, one) if with_files else []) for one in found]
    if as_json:
        emit({"commits": [_record(one, files if with_files else None) for one, files in listed]})
    elif with_files:
        for one, files in listed:
            line(f"{one.number}  {one.created}  {one.state.value}  {one.name}  {_command(one)}".rstrip())
            for file in files:
                line(_shown(file))
    else:
        head = [">NUMBER", "CREATED", "STATE", "NAME", "CHANGES", "COMMAND"]
        table(
            head,
            ([str(c.number), c.created, c.state.value, c.name, _counts(c), _command(c)] for c in found),
        )
    if not found:
        nothing("nothing was committed to this machine; layerrun try -- CMD begins it")
    return 0


def _record(commit: Commit, files: list[File] | None) -> dict[str, Any]:
    found = commit_record(commit)
    if files is not None:
        found["files"] = [
            {"change": f.letter, "path": f.path, "size": f.size, "old_size": f.old_size} for f in files
        ]
    return found


def _shown(file: File) -> str:
    amount = file.size if file.size is not None else file.old_size
    return f"  {file.letter} {size(amount or 0):>11}  {quoted(file.path)}"


def _counts(commit: Commit) -> str:
    letters = [f"{letter} {commit.counts[letter]:,}" for letter in "AMDTP" if commit.counts.get(letter)]
    return " ".join(letters) or plural(0, "change")


def _command(commit: Commit) -> str:
    """Return the command as a shell's user would type it, with nothing in it that drives a terminal."""
    import shlex

    return " ".join(quoted(word) if quoted(word) != word else shlex.quote(word) for word in commit.command)
