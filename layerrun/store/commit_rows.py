"""The catalog's rows of commits to the host."""

from __future__ import annotations

import json
from typing import Any

from layerrun.changes import Commit, CommitState
from layerrun.errors import DamagedError
from layerrun.store.rows import Rows

__all__ = ["CommitRows"]

_COMMIT = "id, number, name, state, created, counts, ended_ns, command"


class CommitRows(Rows):
    """What `layerrun.store.catalog.Catalog` has of commits; within it alone."""

    def commits(self) -> list[Commit]:
        """Return the commits to the host, by number."""
        return [self._commit(row) for row in self._rows(f"SELECT {_COMMIT} FROM commits ORDER BY number")]

    def commit_by_number(self, number: int) -> Commit | None:
        """Return the commit with this number."""
        rows = self._rows(f"SELECT {_COMMIT} FROM commits WHERE number = ?", number)
        return self._commit(rows[0]) if rows else None

    def commit_by_id(self, id_: str) -> Commit | None:
        """Return the commit with this id."""
        rows = self._rows(f"SELECT {_COMMIT} FROM commits WHERE id = ?", id_)
        return self._commit(rows[0]) if rows else None

    def add_commit(self, commit: Commit) -> None:
        """Record a commit; within a transaction."""
        self._db.execute(
            "INSERT INTO commits VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                commit.id,
                commit.number,
                commit.name,
                commit.state.value,
                commit.created,
                json.dumps(commit.counts),
                commit.ended_ns,
                json.dumps(commit.command),
            ),
        )

    def set_commit_state(self, id_: str, state: CommitState, ended_ns: int | None = None) -> None:
        """Say how far a commit is, and when it ended if ``ended_ns`` is given; within a transaction."""
        self._db.execute(
            "UPDATE commits SET state = ?, ended_ns = coalesce(?, ended_ns) WHERE id = ?",
            (state.value, ended_ns, id_),
        )

    def delete_commit(self, id_: str) -> None:
        """Forget a commit; within a transaction."""
        self._db.execute("DELETE FROM commits WHERE id = ?", (id_,))

    def _commit(self, row: tuple[Any, ...]) -> Commit:
        id_, number, name, state, created, counts, ended_ns, command = row
        try:
            return Commit(
                id=id_,
                number=number,
                name=name,
                state=CommitState(state),
                created=created,
                counts=dict(json.loads(counts)),
                ended_ns=ended_ns,
                command=tuple(json.loads(command)),
            )
        except (ValueError, TypeError) as error:
            raise DamagedError(f"the catalog {self.path!r} is damaged: commit {number}: {error}") from error
