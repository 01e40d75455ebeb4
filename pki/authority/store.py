"""What the CA remembers: accounts, orders, authorizations, certificates, in SQLite (WAL, synchronous=FULL).

Every method is one transaction, on disk when it returns: what was acknowledged survives a crash.
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

SCHEMA = """
CREATE TABLE IF NOT EXISTS account (
    id TEXT PRIMARY KEY, thumbprint TEXT NOT NULL UNIQUE, jwk TEXT NOT NULL, status TEXT NOT NULL,
    contact TEXT NOT NULL, created REAL NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS ordering (
    id TEXT PRIMARY KEY, account TEXT NOT NULL REFERENCES account, status TEXT NOT NULL, names TEXT NOT NULL,
    expires REAL NOT NULL, serial TEXT, error TEXT) STRICT;
CREATE TABLE IF NOT EXISTS authorization (
    id TEXT PRIMARY KEY, ordering TEXT NOT NULL REFERENCES ordering, account TEXT NOT NULL, name TEXT NOT NULL,
    status TEXT NOT NULL, token TEXT NOT NULL, expires REAL NOT NULL, validated REAL, error TEXT) STRICT;
CREATE INDEX IF NOT EXISTS authorization_of ON authorization (ordering);
CREATE TABLE IF NOT EXISTS certificate (
    serial TEXT PRIMARY KEY, account TEXT, names TEXT NOT NULL, not_before REAL NOT NULL, not_after REAL NOT NULL,
    issued REAL NOT NULL, pem TEXT NOT NULL, revoked REAL, reason INTEGER) STRICT;
CREATE INDEX IF NOT EXISTS certificate_end ON certificate (not_after);
"""


@dataclass(frozen=True, slots=True)
class Account:
    """An ACME account (RFC 8555 section 7.1.2)."""

    id: str
    #: RFC 7638, base64url.
    thumbprint: str
    jwk: dict[str, Any]
    status: str
    contact: tuple[str, ...]
    #: Seconds since the epoch.
    created: float


@dataclass(frozen=True, slots=True)
class Order:
    """An ACME order (RFC 8555 section 7.1.3); pending → ready → processing → valid, or invalid."""

    id: str
    account: str
    status: str
    names: tuple[str, ...]
    expires: float
    #: Of the certificate, once valid.
    serial: str | None = None
    #: An ACME problem document.
    error: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Authorization:
    """An ACME authorization and its one http-01 challenge (RFC 8555 sections 7.1.4, 8.3)."""

    id: str
    order: str
    account: str
    name: str
    status: str
    token: str
    expires: float
    validated: float | None = None
    error: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that was issued."""

    #: Lower-case hexadecimal.
    serial: str
    account: str | None
    names: tuple[str, ...]
    not_before: float
    not_after: float
    issued: float
    #: Leaf and chain.
    pem: str
    revoked: float | None = None
    reason: int | None = None


class Store:
    """The CA's memory.  Used by one thread."""

    def __init__(self, path: Path) -> None:
        """Open or create *path*."""
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA foreign_keys = ON")
        self._db.executescript(SCHEMA)

    def close(self) -> None:
        """Write everything into the main file and close."""
        self._db.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # --- accounts ---------------------------------------------------------------------------------------------------

    def account(self, account_id: str) -> Account | None:
        """Return one account."""
        return self._account("SELECT * FROM account WHERE id = ?", account_id)

    def account_by_thumbprint(self, thumbprint: str) -> Account | None:
        """Return the account that has this key."""
        return self._account("SELECT * FROM account WHERE thumbprint = ?", thumbprint)

    def _account(self, sql: str, key: str) -> Account | None:
        row = self._db.execute(sql, (key,)).fetchone()
        return (
            None
            if row is None
            else Account(row[0], row[1], json.loads(row[2]), row[3], tuple(json.loads(row[4])), row[5])
        )

    def put_account(self, account: Account) -> None:
        """Add or replace an account."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO account VALUES (?,?,?,?,?,?) ON CONFLICT (id) DO UPDATE SET thumbprint = excluded.thumbprint,"
                " jwk = excluded.jwk, status = excluded.status, contact = excluded.contact",
                (
                    account.id,
                    account.thumbprint,
                    json.dumps(account.jwk),
                    account.status,
                    json.dumps(account.contact),
                    account.created,
                ),
            )

    # --- orders -----------------------------------------------------------------------------------------------------

    def order(self, order_id: str) -> Order | None:
        """Return one order."""
        row = self._db.execute("SELECT * FROM ordering WHERE id = ?", (order_id,)).fetchone()
        if row is None:
            return None
        return Order(
            row[0], row[1], row[2], tuple(json.loads(row[3])), row[4], row[5], json.loads(row[6]) if row[6] else None
        )

    def orders(self, account_id: str) -> list[str]:
        """Return the ids of an account's orders, newest last."""
        rows = self._db.execute("SELECT id FROM ordering WHERE account = ? ORDER BY rowid", (account_id,))
        return [row[0] for row in rows]

    def put_order(self, order: Order, *authorizations: Authorization, certificate: Certificate | None = None) -> None:
        """Add or replace an order, with the authorizations and the certificate that go with it."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO ordering VALUES (?,?,?,?,?,?,?) ON CONFLICT (id) DO UPDATE SET status = excluded.status,"
                " serial = excluded.serial, error = excluded.error",
                (
                    order.id,
                    order.account,
                    order.status,
                    json.dumps(order.names),
                    order.expires,
                    order.serial,
                    json.dumps(order.error) if order.error else None,
                ),
            )
            for each in authorizations:
                db.execute(
                    "INSERT INTO authorization VALUES (?,?,?,?,?,?,?,?,?) ON CONFLICT (id) DO UPDATE SET"
                    " status = excluded.status, validated = excluded.validated, error = excluded.error",
                    (
                        each.id,
                        each.order,
                        each.account,
                        each.name,
                        each.status,
                        each.token,
                        each.expires,
                        each.validated,
                        json.dumps(each.error) if each.error else None,
                    ),
                )
            if certificate is not None:
                self._insert(db, certificate)

    def authorization(self, authorization_id: str) -> Authorization | None:
        """Return one authorization."""
        row = self._db.execute("SELECT * FROM authorization WHERE id = ?", (authorization_id,)).fetchone()
        return None if row is None else _authorization(row)

    def authorizations(self, order_id: str) -> list[Authorization]:
        """Return the authorizations of an order, in the order of its names."""
        rows = self._db.execute("SELECT * FROM authorization WHERE ordering = ? ORDER BY rowid", (order_id,))
        return [_authorization(row) for row in rows]

    def processing(self, now: float) -> list[Authorization]:
        """Return the authorizations whose validation has begun and not ended, unless they expired."""
        rows = self._db.execute("SELECT * FROM authorization WHERE status = 'processing' AND expires > ?", (now,))
        return [_authorization(row) for row in rows]

    def authorized_names(self, account_id: str, now: float) -> set[str]:
        """Return the names for which an account holds a valid authorization."""
        rows = self._db.execute(
            "SELECT DISTINCT name FROM authorization WHERE account = ? AND status = 'valid' AND expires > ?",
            (account_id, now),
        )
        return {row[0] for row in rows}

    # --- certificates -----------------------------------------------------------------------------------------------

    def put_certificate(self, certificate: Certificate) -> None:
        """Add a certificate that no order asked for (the CA's own)."""
        with self._transaction() as db:
            self._insert(db, certificate)

    @staticmethod
    def _insert(db: sqlite3.Connection, each: Certificate) -> None:
        values = (
            each.serial,
            each.account,
            json.dumps(each.names),
            each.not_before,
            each.not_after,
            each.issued,
            each.pem,
        )
        db.execute("INSERT INTO certificate VALUES (?,?,?,?,?,?,?,?,?)", (*values, each.revoked, each.reason))

    def certificate(self, serial: str) -> Certificate | None:
        """Return one certificate."""
        row = self._db.execute("SELECT * FROM certificate WHERE serial = ?", (serial,)).fetchone()
        return None if row is None else _certificate(row)

    def certificates(self, after: float = 0.0) -> list[Certificate]:
        """Return the certificates that end later than *after*, oldest first."""
        rows = self._db.execute("SELECT * FROM certificate WHERE not_after > ? ORDER BY issued", (after,))
        return [_certificate(row) for row in rows]

    def revoke(self, serial: str, now: float, reason: int) -> Certificate | None:
        """Mark a certificate as revoked; return it as it was before, or None when there is none."""
        before = self.certificate(serial)
        if before is not None and before.revoked is None:
            with self._transaction() as db:
                db.execute("UPDATE certificate SET revoked = ?, reason = ? WHERE serial = ?", (now, reason, serial))
        return before


def _authorization(row: tuple[Any, ...]) -> Authorization:
    return replace(Authorization(*row[:9]), error=json.loads(row[8]) if row[8] else None)


def _certificate(row: tuple[Any, ...]) -> Certificate:
    return replace(Certificate(*row), names=tuple(json.loads(row[2])))
