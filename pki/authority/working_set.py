"""The working set of a `Store`: recently used records in memory, and the changes that are not on disk yet."""

from typing import Any, TypeVar

from authority.errors import StoreError

#: Number of records in memory at which the working set is emptied.
MAX_RECORDS = 50_000

Record = TypeVar("Record")


class Batch:
    """Changes that one transaction writes."""

    def __init__(self) -> None:
        #: Changed records by class and primary key; only the last version of each record is written.
        self.records: dict[tuple[type, str], Any] = {}
        #: The reason why the transaction failed; None if it has not been attempted or succeeded.
        self.error: StoreError | None = None


class WorkingSet:
    """Records by class and primary key.  Records are immutable, so that any number of readers can share them."""

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
        """Keep a record that was read from disk."""
        self._records.setdefault((type(record), key), record)

    def change(self, key: str, record: object) -> None:
        """Keep a record that has to be written to disk."""
        if self.batch is None:
            self.batch = Batch()
        self._records[type(record), key] = self.batch.records[type(record), key] = record

    def forget(self, kind: type, key: str) -> None:
        """Remove a record, which was changed on disk."""
        self._records.pop((kind, key), None)

    def changes(self, kind: type) -> bool:
        """Return whether a record of class *kind* is not on disk yet."""
        return self.batch is not None and any(each is kind for each, _ in self.batch.records)

    def children(self, parent: str) -> tuple[str, ...] | None:
        """Return the primary keys that `set_children` stored for *parent*, or None."""
        return self._children.get(parent)

    def set_children(self, parent: str, keys: tuple[str, ...]) -> None:
        """Store the primary keys of the records that belong to *parent*."""
        self._children[parent] = keys

    def written(self) -> None:
        """Record that the batch is on disk; empty the working set if it has become too large."""
        self.batch = None
        if len(self._records) > MAX_RECORDS:
            self._records.clear()
            self._children.clear()

    def failed(self, error: StoreError) -> None:
        """Forget the changes of the batch, which could not be written; later reads return the records on disk."""
        if self.batch is not None:
            self.batch.error = error
            for kind, key in self.batch.records:
                self._records.pop((kind, key), None)
                self._children.pop(key, None)
        self.batch = None
