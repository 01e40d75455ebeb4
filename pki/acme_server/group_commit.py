"""Group commit: one transaction writes the changes of all requests handled in the same iteration of the event loop.

A response must not be sent before `GroupCommit.durable` returns.  Acknowledged changes therefore survive a crash, and
no client sees a change that could still be lost.
"""

import asyncio
import contextlib

from authority import Store, StoreError


class GroupCommit:
    """Commits the pending changes of a store in batches."""

    def __init__(self, store: Store) -> None:
        """Switch *store* to deferred mode, in which changes stay in memory until they are committed."""
        self._store = store
        self._committed: asyncio.Future[None] | None = None
        store.deferred = True

    async def durable(self) -> None:
        """Wait until all changes so far are on disk.

        After the last change, call this method before any other `await`.

        Raises:
            StoreError: the changes cannot be written, and are discarded.
        """
        batch = self._store.batch
        if batch is None:
            return
        if self._committed is None:
            loop = asyncio.get_running_loop()
            self._committed = loop.create_future()
            loop.call_soon(self._commit)
        await asyncio.shield(self._committed)
        if batch.error is not None:
            raise batch.error

    def _commit(self) -> None:
        committed, self._committed = self._committed, None
        with contextlib.suppress(StoreError):  # ignored here: the batch stores the error, and `durable` raises it
            self._store.commit()
        if committed is not None:
            committed.set_result(None)
