"""The catalog's rows of blobs: what a tree became when it was pushed, and which repositories have it."""

from __future__ import annotations

import attrs

from layerrun.store.rows import Rows

__all__ = ["Blob", "BlobRows"]

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


class BlobRows(Rows):
    """What `layerrun.store.catalog.Catalog` has of blobs; within it alone. All of it can be found out again."""

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

    def add_place(self, digest: str, repository: str) -> None:
        """Record that a repository has a blob; within a transaction."""
        self._db.execute(
            "INSERT OR IGNORE INTO places (digest, repository) VALUES (?, ?)", (digest, repository)
        )
