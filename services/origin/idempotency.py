"""Idempotency keys (draft-ietf-httpapi-idempotency-key-header-07): a write that is retried is executed once.

The response is stored in the same transaction as the write, so after a crash either both exist or neither.  A retry
that arrives while the first request is in flight waits for the database's writer and then receives the stored response;
the draft recommends 409 instead.
"""

import hashlib
import json
import re
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field

from origin.problems import Problem

#: How long a response is stored, in seconds; a later retry is executed as a new write.
LIFETIME = 24 * 3600.0
#: Pattern for a key: a quoted string, as the draft requires, or a bare token, which most clients send.
_KEY = re.compile(r'"([\x20\x21\x23-\x5b\x5d-\x7e]{1,255})"|([A-Za-z0-9!#$%&\'*+.^_`|~:/=-]{1,255})')
MISMATCH = "urn:firstbyte:idempotency-key-reused"
SCHEMA = """
CREATE TABLE IF NOT EXISTS reply (
    key TEXT PRIMARY KEY, fingerprint BLOB NOT NULL, status INTEGER NOT NULL, headers TEXT NOT NULL, body BLOB NOT NULL,
    created REAL NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS reply_age ON reply (created);
"""


@dataclass(frozen=True, slots=True)
class Reply:
    """The response to a write, which can be stored and replayed."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def parse_key(text: str | None) -> str | None:
    """Return the key in an Idempotency-Key field; None if there is no field.

    Raises:
        Problem: 400, the field is malformed.
    """
    if text is None:
        return None
    match = _KEY.fullmatch(text.strip())
    if match is None:
        raise Problem(400, f'expected Idempotency-Key: "1 to 255 printable characters", got {text[:60]!r}')
    return match[1] or match[2]


def fingerprint(method: str, target: str, media_type: str, body: bytes) -> bytes:
    """Return a digest of a request; a retry of the request has the same digest."""
    parts = (method.encode(), target.encode(), media_type.encode(), body)
    return hashlib.sha256(b"".join(len(each).to_bytes(8, "big") + each for each in parts)).digest()


def perform(
    db: sqlite3.Connection, key: str | None, print_: bytes, now: float, write: Callable[[], Reply]
) -> tuple[Reply, bool]:
    """Execute *write*, or return the response that is stored under *key*.

    Args:
        db: connection with an open transaction.
        key: the request's idempotency key; if None, *write* is always executed.
        print_: fingerprint of the request.
        now: seconds since the epoch.
        write: makes the changes; if it raises an exception, the transaction is rolled back and no response is stored.

    Returns:
        The response, and whether it is a replay.

    Raises:
        Problem: 422, the key was used for another request.
    """
    if key is None:
        return write(), False
    db.execute("DELETE FROM reply WHERE created < ?", (now - LIFETIME,))
    row = db.execute("SELECT fingerprint, status, headers, body FROM reply WHERE key = ?", (key,)).fetchone()
    if row is not None:
        if row[0] != print_:
            raise Problem(422, f"expected the request that used key {key!r} before, got another", kind=MISMATCH)
        return Reply(row[1], json.loads(row[2]), row[3]), True
    reply = write()
    values = (key, print_, reply.status, json.dumps(reply.headers), reply.body, now)
    db.execute("INSERT INTO reply VALUES (?, ?, ?, ?, ?, ?)", values)
    return reply, False
