"""The CA's database: accounts, orders, authorizations and certificates, in SQLite (WAL, synchronous=FULL).

Changes are on disk when a method returns.  If the store is `deferred`, they are on disk when `commit` returns, which
writes the changes of many requests in one transaction.  Acknowledge a change only when it is on
disk, so that acknowledged changes survive a crash.
"""

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from authority.errors import StoreError
from authority.records import Account, Authorization, Certificate, Order, Recall, Record
from authority.revocation import Revoked
from authority.working_set import Batch, WorkingSet

#: Time-outs for the database lock while another process writes, in seconds: when the database is opened, and for later
#: accesses.  The server answers no requests while it waits for the lock.
OPEN_TIMEOUT, BUSY_TIMEOUT = 5.0, 0.2
SCHEMA = """
CREATE TABLE IF NOT EXISTS account (
    id TEXT PRIMARY KEY, thumbprint TEXT NOT NULL UNIQUE, jwk TEXT NOT NULL, status TEXT NOT NULL,
    contact TEXT NOT NULL, created REAL NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS ordering (
    id TEXT PRIMARY KEY, account TEXT NOT NULL REFERENCES account, status TEXT NOT NULL, names TEXT NOT NULL,
    expires REAL NOT NULL, serial TEXT, error TEXT, replaces TEXT) STRICT;
CREATE TABLE IF NOT EXISTS authorization (
    id TEXT PRIMARY KEY, ordering TEXT NOT NULL REFERENCES ordering, account TEXT NOT NULL, name TEXT NOT NULL,
    status TEXT NOT NULL, token TEXT NOT NULL, expires REAL NOT NULL, validated REAL, error TEXT,
    method TEXT NOT NULL DEFAULT '') STRICT;
CREATE INDEX IF NOT EXISTS authorization_of ON authorization (ordering);
CREATE TABLE IF NOT EXISTS certificate (
    serial TEXT PRIMARY KEY, account TEXT, names TEXT NOT NULL, not_before REAL NOT NULL, not_after REAL NOT NULL,
    issued REAL NOT NULL, pem TEXT NOT NULL, revoked REAL, reason INTEGER) STRICT;
CREATE INDEX IF NOT EXISTS certificate_end ON certificate (not_after);
CREATE TABLE IF NOT EXISTS compromised_key (fingerprint TEXT PRIMARY KEY, reported REAL NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS certificate_revoked ON certificate (not_after) WHERE revoked IS NOT NULL;
CREATE TABLE IF NOT EXISTS recall (
    created REAL NOT NULL, serials TEXT NOT NULL, issuer TEXT NOT NULL, start REAL NOT NULL, ends REAL NOT NULL,
    url TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS crl (number INTEGER PRIMARY KEY) STRICT;
"""
#: Columns that are missing from the tables of databases created by earlier versions.
ADDED = {
    "account": {"binding": "TEXT"},
    "authorization": {"method": "TEXT NOT NULL DEFAULT ''"},
    "certificate": {"issuer": "TEXT NOT NULL DEFAULT ''"},
    "ordering": {"profile": "TEXT NOT NULL DEFAULT ''", "replaces": "TEXT"},
}


T = TypeVar("T", Account, Order, Authorization, Certificate)
#: Fields stored as JSON, with the function that converts the parsed JSON value to the field's type.
_JSON: dict[str, Callable[[Any], Any]] = {"jwk": dict, "contact": tuple, "names": tuple, "error": dict, "binding": dict}
#: Column name for each field whose column has a different name.
_COLUMNS = {"order": "ordering"}


@dataclass(frozen=True, slots=True)
class _Table:
    """SQL statements for the records of one class; columns are in field order, and the first is the primary key."""

    name: str
    columns: tuple[str, ...]
    #: Statement that inserts a record, or updates the mutable columns of an existing record.
    put: str
    #: Statement that reads all columns; a WHERE clause may be appended.
    select: str

    @classmethod
    def of(cls, kind: type[Record], name: str, changing: Iterable[str]) -> "_Table":
        columns = tuple(each.name for each in fields(kind))
        stored = [_COLUMNS.get(each, each) for each in columns]
        updates = ", ".join(f"{column} = excluded.{column}" for column in changing)
        conflict = f" ON CONFLICT (id) DO UPDATE SET {updates}" if updates else ""
        places, listed = ",".join("?" * len(stored)), ",".join(stored)
        put = f"INSERT INTO {name} ({listed}) VALUES ({places}){conflict}"  # noqa: S608 - the SQL has only constants; values are bound parameters
        return cls(name, columns, put, f"SELECT {listed} FROM {name} WHERE")  # noqa: S608 - the SQL has only constants; values are bound parameters

    def row(self, record: Record) -> list[Any]:
        values = ((name, getattr(record, name)) for name in self.columns)
        return [json.dumps(value) if name in _JSON and value is not None else value for name, value in values]


_TABLES: dict[type, _Table] = {
    kind: _Table.of(kind, name, changing)
    for kind, name, changing in (
        (Account, "account", ("thumbprint", "jwk", "status", "contact")),
        (Order, "ordering", ("status", "expires", "serial", "error")),
        (Authorization, "authorization", ("status", "validated", "error", "method")),
        (Certificate, "certificate", ()),
    )
}


class Store:
    """A connection to the CA's database; use it from one thread only.  Every method may raise `StoreError`."""

    def __init__(self, path: Path) -> None:
        """Open or create the database at *path*."""
        self.path = path
        #: The reason why the last write failed; empty if it succeeded.
        self.failure = ""
        #: Whether changes stay in memory until `commit` is called.
        self.deferred = False
        #: Called before each transaction that writes records, for example to write an issuance log first.
        self.before_commit: Callable[[], None] = _nothing
        self._working = WorkingSet()
        self._checks = 0
        with _errors(path.name):
            self._db = sqlite3.connect(path, isolation_level=None, timeout=OPEN_TIMEOUT)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA foreign_keys = ON")
            self._db.executescript(SCHEMA)
            for table, columns in ADDED.items():
                present = {row[1] for row in self._db.execute(f"PRAGMA table_info({table})")}
                for column in columns.keys() - present:
                    self._db.execute(f"ALTER TABLE {table} ADD COLUMN {column} {columns[column]}")
            self._db.execute("CREATE INDEX IF NOT EXISTS ordering_replaces ON ordering (replaces)")
            self._db.execute("CREATE INDEX IF NOT EXISTS ordering_end ON ordering (expires)")
            self._db.execute(f"PRAGMA busy_timeout = {round(BUSY_TIMEOUT * 1000)}")

    def close(self) -> None:
        """Write all changes, checkpoint the write-ahead log and close the database."""
        try:
            self.commit()
        finally:
            self._db.close()

    def check(self) -> None:
        """Test whether the database is writable by writing a few bytes, and set `failure`."""
        self._checks += 1
        with self._transaction():
            self._db.execute(f"PRAGMA user_version = {self._checks % 1000}")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            with _errors("the CA's store"):
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise
        except StoreError as error:
            self.failure = str(error)
            raise
        self.failure = ""

    @property
    def batch(self) -> Batch | None:
        """The pending changes that `commit` would write; None if there are none."""
        return self._working.batch

    def commit(self) -> None:
        """Write all pending changes to disk in one transaction; if the transaction fails, discard them.

        Raises:
            StoreError: the changes cannot be written; the error is also stored in the batch.
        """
        if (batch := self._working.batch) is None:
            return
        try:
            self.before_commit()
            with self._transaction():
                for (kind, _), record in batch.records.items():
                    table = _TABLES[kind]
                    self._db.execute(table.put, table.row(record))
        except StoreError as error:
            self._working.failed(error)
            raise
        self._working.written()

    def _put(self, *records: Record) -> None:
        """Insert or update *records*; the transaction fails if a certificate's serial number already exists."""
        for record in records:
            key = record.serial if isinstance(record, Certificate) else record.id
            self._working.change(key, record)
        if not self.deferred:
            self.commit()

    def _read(self, kind: type[T], condition: str, *values: object) -> list[T]:
        """Return the records of class *kind* on disk that match an SQL *condition*."""
        table = _TABLES[kind]
        with _errors("the CA's store"):
            found = self._db.execute(f"{table.select} {condition}", values).fetchall()
        return [
            kind(
                *(
                    _JSON[name](json.loads(value)) if name in _JSON and value is not None else value
                    for name, value in zip(table.columns, row, strict=True)
                )
            )
            for row in found
        ]

    def _select(self, kind: type[T], condition: str, *values: object) -> list[T]:
        """Write all pending changes, and return the records of class *kind* that match an SQL *condition*."""
        self.commit()
        return self._read(kind, condition, *values)

    def _get(self, kind: type[T], key: str) -> T | None:
        """Return the record of class *kind* with primary key *key*, or None."""
        found = self._working.get(kind, key)
        if found is None:
            name = "serial" if kind is Certificate else "id"
            found = next(iter(self._read(kind, f"{name} = ?", key)), None)
            if found is not None:
                self._working.remember(key, found)
        return found

    # --- accounts ---------------------------------------------------------------------------------------------------

    def account(self, account_id: str) -> Account | None:
        """Return the account with this id, or None."""
        return self._get(Account, account_id)

    def account_by_thumbprint(self, thumbprint: str) -> Account | None:
        """Return the account whose key has this thumbprint, or None."""
        if self._working.changes(Account):
            self.commit()
        return next(iter(self._read(Account, "thumbprint = ?", thumbprint)), None)

    def put_account(self, account: Account) -> None:
        """Insert or update an account."""
        self._put(account)

    # --- orders -----------------------------------------------------------------------------------------------------

    def order(self, order_id: str) -> Order | None:
        """Return the order with this id, or None."""
        return self._get(Order, order_id)

    def orders(self, account_id: str, skip: int = 0, limit: int = -1) -> list[str]:
        """Return the ids of an account's orders, oldest first: up to *limit* (-1: all) after skipping *skip* orders."""
        found = self._select(Order, "account = ? ORDER BY rowid LIMIT ? OFFSET ?", account_id, limit, skip)
        return [order.id for order in found]

    def open_order(self, order: Order, authorizations: Sequence[Authorization]) -> None:
        """Insert a new order with all its *authorizations* in one transaction."""
        self._working.set_children(order.id, tuple(each.id for each in authorizations))
        self._put(order, *authorizations)

    def put_order(self, order: Order, *authorizations: Authorization, certificate: Certificate | None = None) -> None:
        """Insert or update an order, its *authorizations* and its *certificate* in one transaction."""
        self._put(order, *authorizations, *(() if certificate is None else (certificate,)))

    def prune(self, before: float, limit: int) -> int:
        """Delete up to *limit* orders that expired before *before*, with their authorizations; return their number.

        Certificates and accounts are kept.
        """
        self.commit()
        with _errors("the CA's store"):
            query = "SELECT id FROM ordering WHERE expires < ? ORDER BY expires LIMIT ?"
            found = self._db.execute(query, (before, limit)).fetchall()
        if found:
            with self._transaction():
                self._db.executemany("DELETE FROM authorization WHERE ordering = ?", found)
                self._db.executemany("DELETE FROM ordering WHERE id = ?", found)
        for (order,) in found:
            for key in self._working.children(order) or ():
                self._working.forget(Authorization, key)
            self._working.forget(Order, order)
        return len(found)

    def authorization(self, authorization_id: str) -> Authorization | None:
        """Return the authorization with this id, or None."""
        return self._get(Authorization, authorization_id)

    def authorizations(self, order_id: str) -> list[Authorization]:
        """Return an order's authorizations, in the same sequence as the names in the order."""
        if (known := self._working.children(order_id)) is None:
            found = self._select(Authorization, "ordering = ? ORDER BY rowid", order_id)
            self._working.set_children(order_id, tuple(each.id for each in found))
            return found
        return [each for each in (self._get(Authorization, key) for key in known) if each is not None]

    def processing(self, now: float) -> list[Authorization]:
        """Return the authorizations whose validation has started but not finished, except expired authorizations."""
        return self._select(Authorization, "status = 'processing' AND expires > ?", now)

    def authorized_names(self, account_id: str, now: float) -> set[str]:
        """Return the DNS names for which an account has a valid, unexpired authorization."""
        condition = "account = ? AND status = 'valid' AND expires > ?"
        return {each.name for each in self._select(Authorization, condition, account_id, now)}

    # --- certificates -----------------------------------------------------------------------------------------------

    def put_certificate(self, *certificates: Certificate) -> None:
        """Insert certificates that do not belong to an order, such as the ACME server's own, in one transaction."""
        self._put(*certificates)

    def certificate(self, serial: str) -> Certificate | None:
        """Return the certificate with this serial number (hexadecimal), or None."""
        return self._get(Certificate, serial)

    def certificates(self, after: float = 0.0) -> list[Certificate]:
        """Return the certificates that expire after *after* (seconds since the epoch), oldest first."""
        return self._select(Certificate, "not_after > ? ORDER BY issued", after)

    def leaves_after(self, row: int) -> list[tuple[int, str]]:
        """Return the row number and the PEM of each certificate stored after row *row*, oldest first."""
        self.commit()
        with _errors("the CA's store"):
            query = "SELECT rowid, pem FROM certificate WHERE rowid > ? ORDER BY rowid"
            return self._db.execute(query, (row,)).fetchall()

    def revoke(self, serial: str, now: float, reason: int, compromised: str = "") -> Certificate | None:
        """Mark a certificate as revoked; *reason* keyCompromise (1) also replaces another reason.

        Args:
            serial: serial number of the certificate, in lower-case hexadecimal.
            now: time of revocation, in seconds since the epoch.
            reason: reason code (RFC 5280 section 5.3.1).
            compromised: fingerprint of the certificate's key if it is compromised, otherwise empty.

        Returns:
            The record before the change, or None if the serial number is unknown.
        """
        self.commit()
        before = self.certificate(serial)
        self._working.forget(Certificate, serial)
        with self._transaction():
            self._db.execute(
                "UPDATE certificate SET revoked = coalesce(revoked, ?1), reason = ?2 WHERE serial = ?3 AND"
                " (revoked IS NULL OR ?2 = 1)",
                (now, reason, serial),
            )
            if compromised:
                self._db.execute("INSERT OR IGNORE INTO compromised_key VALUES (?, ?)", (compromised, now))
        return before

    def revoked(self, after: float, issuer: str) -> list[tuple[float, Revoked]]:
        """Return the issuer's revoked certificates that expire later than *after*, each with its expiry time.

        Args:
            after: time in seconds since the epoch.
            issuer: key identifier of the issuer, in hexadecimal; empty in rows stored by earlier versions.
        """
        query = (
            "SELECT not_after, serial, revoked, coalesce(reason, 0) FROM certificate"
            " WHERE revoked IS NOT NULL AND not_after > ? AND issuer IN (?, '')"
        )
        self.commit()
        with _errors("the CA's store"):
            rows = self._db.execute(query, (after, issuer)).fetchall()
        return [(end, Revoked(int(serial, 16), at, reason)) for end, serial, at, reason in rows]

    def last_expiry(self, issuer: str) -> float:
        """Return the time at which the last certificate of one issuer expires, in seconds since the epoch; 0 if none.

        Args:
            issuer: key identifier of the issuer, in hexadecimal.
        """
        self.commit()
        with _errors("the CA's store"):
            query = "SELECT coalesce(max(not_after), 0) FROM certificate WHERE issuer = ?"
            (found,) = self._db.execute(query, (issuer,)).fetchone()
        return float(found)

    # --- recalls ----------------------------------------------------------------------------------------------------

    def recalls(self) -> list[Recall]:
        """Return all recalls, oldest first."""
        with _errors("the CA's store"):
            rows = self._db.execute("SELECT created, serials, issuer, start, ends, url FROM recall").fetchall()
        return [Recall(at, tuple(json.loads(serials)), *rest) for at, serials, *rest in rows]

    def add_recall(self, recall: Recall) -> None:
        """Store a recall."""
        values = (recall.created, json.dumps(recall.serials), recall.issuer, recall.start, recall.end, recall.url)
        self.commit()
        with self._transaction():
            self._db.execute("INSERT INTO recall VALUES (?, ?, ?, ?, ?, ?)", values)

    def end_recalls(self) -> None:
        """Remove all recalls."""
        with self._transaction():
            self._db.execute("DELETE FROM recall")

    def replaced(self, serial: str | None = None) -> set[str]:
        """Return the serial numbers of the certificates that orders replace; ignore invalid orders.

        If *serial* is given, the result contains at most this serial number.
        """
        self.commit()
        query = "SELECT replaces FROM ordering WHERE status != 'invalid' AND replaces IS NOT NULL"
        with _errors("the CA's store"):
            only = "" if serial is None else " AND replaces = ?"
            rows = self._db.execute(query + only, () if serial is None else (serial,)).fetchall()
        return {each for (each,) in rows}

    def next_crl_number(self) -> int:
        """Return a CRL number for a new CRL, larger than all earlier CRL numbers (RFC 5280 section 5.2.3)."""
        with self._transaction():
            (number,) = self._db.execute("SELECT coalesce(max(number), 0) + 1 FROM crl").fetchone()
            self._db.execute("DELETE FROM crl")
            self._db.execute("INSERT INTO crl VALUES (?)", (number,))
        return int(number)

    def compromised(self, fingerprint: str) -> bool:
        """Return whether the key with this fingerprint (see `public_keys.fingerprint`) is known to be compromised."""
        with _errors("the CA's store"):
            query = "SELECT 1 FROM compromised_key WHERE fingerprint = ?"
            return self._db.execute(query, (fingerprint,)).fetchone() is not None


def _nothing() -> None:
    """Do nothing."""


@contextlib.contextmanager
def _errors(what: str) -> Iterator[None]:
    """Convert SQLite errors inside the block to `StoreError`; *what* begins the message."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"{what}: {error}") from error
