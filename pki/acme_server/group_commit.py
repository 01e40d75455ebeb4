"""Group commit: one transaction writes the changes of all requests that are handled in one iteration of the event loop.

A response must not leave before `GroupCommit.durable` returns, so that changes that were acknowledged survive a crash,
and no client sees a change that could still be lost.
"""

import asyncio
import contextlib

from authority import Store, StoreError


class GroupCommit:
    """Commits the changes of a deferred store."""

    def __init__(self, store: Store) -> None:
        """Make *store* deferred."""
        self._store = store
        self._committed: asyncio.Future[None] | None = None
        store.deferred = True

    async def durable(self) -> None:
        """Wait until all changes so far are on disk.

        Call this without another `await` after the last change.

        Raises:
            StoreError: the changes cannot be written, and are forgotten.
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
        with contextlib.suppress(StoreError):  # the batch has the error
            self._store.commit()
        if committed is not None:
            committed.set_result(None)
