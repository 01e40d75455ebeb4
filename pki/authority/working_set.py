"""In-memory working set of a `Store`: recently used records, and changes that are not on disk yet."""

from typing import Any, TypeVar

from authority.errors import StoreError

#: Maximum number of records in memory; the working set is emptied when this number is exceeded.
MAX_RECORDS = 50_000

Record = TypeVar("Record")


class Batch:
    """Changes that are written in one transaction."""

    def __init__(self) -> None:
        #: Changed records, keyed by class and primary key; only the latest version of each record is written.
        self.records: dict[tuple[type, str], Any] = {}
        #: Error of the failed transaction; None if the transaction has not been attempted yet, or has succeeded.
        self.error: StoreError | None = None


class WorkingSet:
    """Caches records, keyed by class and primary key.  Records are immutable, so that readers can share them."""

    def __init__(self) -> None:
        self._records: dict[tuple[type, str], Any] = {}
        self._children: dict[str, tuple[str, ...]] = {}
        #: The changes that are not on disk; None if there are none.
        self.batch: Batch | None = None

    def __repr__(self) -> str:
        return f"<WorkingSet records={len(self._records)} changed={len(self.batch.records) if self.batch else 0}>"

    def get(self, kind: type[Record], key: str) -> Record | None:
        """Return the record of class *kind* with primary key *key*, or None if it is not in memory."""
        found: Record | None = self._records.get((kind, key))
        return found

    def remember(self, key: str, record: object) -> None:
        """Cache a record that was read from disk."""
        self._records.setdefault((type(record), key), record)

    def change(self, key: str, record: object) -> None:
        """Cache a changed record, and add it to the batch waiting to be written."""
        if self.batch is None:
            self.batch = Batch()
        self._records[type(record), key] = self.batch.records[type(record), key] = record

    def forget(self, kind: type, key: str) -> None:
        """Remove from the cache a record that was changed or deleted on disk."""
        self._records.pop((kind, key), None)
        self._children.pop(key, None)

    def changes(self, kind: type) -> bool:
        """Return whether the batch contains records of class *kind* that are not on disk yet."""
        return self.batch is not None and any(each is kind for each, _ in self.batch.records)

    def children(self, parent: str) -> tuple[str, ...] | None:
        """Return the primary keys that `set_children` stored for *parent*, or None."""
        return self._children.get(parent)

    def set_children(self, parent: str, keys: tuple[str, ...]) -> None:
        """Store the primary keys of the records that belong to *parent*."""
        self._children[parent] = keys

    def written(self) -> None:
        """Discard the batch after a successful write; empty the working set if it has become too large."""
        self.batch = None
        if len(self._records) > MAX_RECORDS:
            self._records.clear()
            self._children.clear()

    def failed(self, error: StoreError) -> None:
        """Discard the batch's changes after a failed write; later reads return the records on disk."""
        if self.batch is not None:
            self.batch.error = error
            for kind, key in self.batch.records:
                self._records.pop((kind, key), None)
                self._children.pop(key, None)
        self.batch = None
