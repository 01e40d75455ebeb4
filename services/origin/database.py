"""SQLite for asyncio: one thread for writes and one for reads, each with a bounded queue.

With a write-ahead log and synchronous=FULL, a committed transaction survives SIGKILL and power cuts, readers never wait
for a writer, and only one process writes at a time.  Callers pass functions that take a connection; this module
defines no tables.
"""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

#: Maximum size of the database file in bytes, so that the lab does not fill the disk and a dump fits in the host's
#: memory limit of 128 MiB.
MAX_BYTES = 4 << 20
#: Maximum number of jobs in a queue.  At 1 ms per commit, a full queue takes less than 0.1 s.
MAX_WAITING = 64
#: Time-out for a lock that another process holds, in seconds.
LOCK_TIMEOUT = 2.0
#: Time-out for opening the file, in seconds; another process may be creating the file at the same time.
OPEN_TIMEOUT = 10.0
_PAGE = 4096
#: Size to which the write-ahead log is truncated after a checkpoint, in bytes.
_LOG = 4 << 20

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]


class DatabaseError(Exception):
    """A job failed; the database is unchanged."""


class BusyError(DatabaseError):
    """The queue is full, or another process holds the lock."""


class FullError(DatabaseError):
    """The database has reached its size limit, or the disk is full."""


class BrokenError(DatabaseError):
    """The file cannot be read or written, or is not a database."""


class Database:
    """A database in a file or, without a path, in memory."""

    def __init__(self, path: Path | None, *, max_bytes: int = MAX_BYTES, lock_timeout: float = LOCK_TIMEOUT) -> None:
        self.path, self._max_bytes, self._lock_timeout = path, max_bytes, lock_timeout
        self._writer = _Worker("writer")
        self._reader = _Worker("reader") if path is not None else self._writer
        #: Called with the reason when a job finds that the file is broken, and with "" when a later job succeeds.
        self.on_health: Callable[[str], None] = lambda _: None
        self._broken = ""

    def __repr__(self) -> str:
        return f"<Database {self.path or 'in memory'} writing={self._writer.waiting} reading={self._reader.waiting}>"

    async def open(self, prepare: Work[None]) -> None:
        """Open the file, creating it if necessary, and run *prepare* in a transaction.

        Raises:
            DatabaseError: the file cannot be opened.
        """
        deadline = time.monotonic() + OPEN_TIMEOUT
        while True:
            try:
                await self._writer.connect(self._connect)
                if self._reader is not self._writer:
                    await self._reader.connect(self._connect)
                await self.write(prepare)
            except BusyError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.05)  # polls: another process may still be creating the file
            else:
                return

    async def read(self, work: Work[T]) -> T:
        """Run *work* on a snapshot of the database and return its result; *work* must not write.

        Raises:
            DatabaseError: *work* could not be run.
        """
        return await self._watched(self._reader.run(lambda db: _transaction(db, "BEGIN", work)))

    async def write(self, work: Work[T]) -> T:
        """Run *work* in a transaction; when this returns, its changes are on disk.

        Raises:
            DatabaseError: *work* could not be run; the database is unchanged.
        """
        return await self._watched(self._writer.run(lambda db: _transaction(db, "BEGIN IMMEDIATE", work)))

    def waiting(self) -> dict[str, int]:
        """Return the number of jobs in each queue, including the running job."""
        return {"write": self._writer.waiting, "read": self._reader.waiting}

    async def dump(self) -> bytes:
        """Return the bytes of the database file and its write-ahead log, as they are on disk."""
        if self.path is None:
            return await self._reader.run(lambda db: db.serialize())
        files = (self.path, self.path.with_name(self.path.name + "-wal"))
        return await asyncio.to_thread(lambda: b"".join(each.read_bytes() for each in files if each.exists()))

    async def close(self) -> None:
        """Finish the jobs in the queues, and close the file."""
        await self._writer.close()
        if self._reader is not self._writer:
            await self._reader.close()

    async def _watched(self, job: Awaitable[T]) -> T:
        broken = ""
        try:
            return await job
        except BrokenError as error:
            broken = str(error)
            raise
        except DatabaseError:
            broken = self._broken  # a lock or a full disk does not mean that the file is broken
            raise
        finally:
            if broken != self._broken:
                self._broken = broken
                self.on_health(broken)

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path or ":memory:", isolation_level=None, timeout=self._lock_timeout)
        try:
            db.execute(f"PRAGMA page_size = {_PAGE}")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute(f"PRAGMA journal_size_limit = {_LOG}")
            db.execute(f"PRAGMA max_page_count = {max(1, self._max_bytes // _PAGE)}")
            db.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            db.close()
            raise
        return db


class _Worker:
    """A thread with one connection and a bounded queue."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(1, f"sqlite-{name}")
        self._db: sqlite3.Connection | None = None
        self._lock = threading.Lock()
        #: Number of jobs that are queued or running.
        self.waiting = 0

    async def connect(self, connect: Callable[[], sqlite3.Connection]) -> None:
        def work() -> None:
            if self._db is None:
                self._db = connect()

        await self._submit(work)

    async def run(self, work: Work[T]) -> T:
        return await self._submit(lambda: work(self._db))  # type: ignore[arg-type]  # `_db` is set before the first job

    async def close(self) -> None:
        def work() -> None:
            if self._db is not None:
                self._db.close()

        await asyncio.get_running_loop().run_in_executor(self._executor, work)
        self._executor.shutdown()

    async def _submit(self, work: Callable[[], T]) -> T:
        with self._lock:
            if self.waiting >= MAX_WAITING:
                raise BusyError(f"{MAX_WAITING} requests wait for the database")
            self.waiting += 1

        def counted() -> T:
            try:
                return work()
            except sqlite3.Error as error:
                raise _translated(error) from error
            finally:
                with self._lock:
                    self.waiting -= 1

        # If the request is cancelled, the job still runs, and the count of waiting jobs stays correct.
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._executor, counted))


def _transaction(db: sqlite3.Connection, begin: str, work: Work[T]) -> T:
    db.execute(begin)
    try:
        result = work(db)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # after some errors, such as a full disk, SQLite has already rolled back
            db.execute("ROLLBACK")
        raise
    return result


def _translated(error: sqlite3.Error) -> DatabaseError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return BusyError("another process is writing")
    if code == sqlite3.SQLITE_FULL:
        return FullError("the database is full: delete something")
    return BrokenError(f"{type(error).__name__}: {error}")
