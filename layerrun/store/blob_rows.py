"""The catalog's rows of registries: what trees became there, which repositories have it, what was pulled from where."""

from __future__ import annotations

import attrs

from layerrun.store.rows import Rows

__all__ = ["Blob", "BlobRows", "Pull"]

_BLOB = "digest, diff_id, size, media_type, tree"


@attrs.frozen
class Blob:
    """A layer of an image as registries have it.

    ``digest`` and ``size`` are of its bytes, ``diff_id`` of the tar archive within; ``tree`` says what it was made of:
    the digest of a base, or ``layer:`` and the id of a layer.
    """

    digest: str
    diff_id: str
    size: int
    media_type: str
    tree: str


@attrs.frozen
class Pull:
    """Where an app came from: the ``reference`` as it was given, and the ``digest`` it stood for at ``pulled``.

    ``layers``: of how many layers the image made the app's factory state.
    """

    reference: str
    digest: str
    layers: int
    pulled: str


class BlobRows(Rows):
    """What `layerrun.store.catalog.Catalog` has of registries; within it alone. Of blobs all can be found out again."""

    def blob(self, tree: str, media_type: str) -> Blob | None:
        """Return what a tree became in a format, if it was ever written."""
        rows = self._rows(
            f"SELECT {_BLOB} FROM blobs WHERE tree = ? AND media_type = ? ORDER BY digest", tree, media_type
        )
        return Blob(*rows[0]) if rows else None

    def add_blob(self, blob: Blob) -> None:
        """Record what a tree became; within a transaction."""
        self._db.execute(
            f"INSERT OR REPLACE INTO blobs ({_BLOB}) VALUES (?, ?, ?, ?, ?)", attrs.astuple(blob)
        )

    def places(self, digest: str) -> list[str]:
        """Return the repositories, HOST/NAME, that have had a blob, by name."""
        rows = self._rows("SELECT repository FROM places WHERE digest = ? ORDER BY repository", digest)
        return [row[0] for row in rows]

    def pull(self, app_id: str) -> Pull | None:
        """Return where an app was pulled from, if it was."""
        rows = self._rows("SELECT reference, digest, layers, pulled FROM pulls WHERE app_id = ?", app_id)
        return Pull(*rows[0]) if rows else None

    def set_pull(self, app_id: str, pull: Pull) -> None:
        """Record where an app was pulled from; within a transaction."""
        self._db.execute(
            "INSERT OR REPLACE INTO pulls (app_id, reference, digest, layers, pulled) VALUES (?, ?, ?, ?, ?)",
            (app_id, *attrs.astuple(pull)),
        )

    def copy_pull(self, app_id: str, other: str) -> None:
        """Record of an app that it came from where another did, if that was pulled; within a transaction."""
        self._db.execute(
            "INSERT OR REPLACE INTO pulls (app_id, reference, digest, layers, pulled)"
            " SELECT ?, reference, digest, layers, pulled FROM pulls WHERE app_id = ?",
            (other, app_id),
        )

    def add_place(self, digest: str, repository: str) -> None:
        """Record that a repository has a blob; within a transaction."""
        self._db.execute(
            "INSERT OR IGNORE INTO places (digest, repository) VALUES (?, ?)", (digest, repository)
        )
