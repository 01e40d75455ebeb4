"""Idempotency keys (draft-ietf-httpapi-idempotency-key-header-07): a write that is sent twice happens once.

The response is stored in the transaction of the write itself, so a crash leaves both or neither.  A repetition that
arrives while the first is in flight waits for the database's writer, then receives the stored response; the draft would
answer it with 409.
"""

import hashlib
import json
import re
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field

from origin.problems import Problem

#: Seconds for which a response is stored; a client that retries later than this writes again.
LIFETIME = 24 * 3600.0
#: A quoted string as the draft requires, or the bare token that most clients send.
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
    """Return a digest of everything that makes two requests the same."""
    parts = (method.encode(), target.encode(), media_type.encode(), body)
    return hashlib.sha256(b"".join(len(each).to_bytes(8, "big") + each for each in parts)).digest()


def perform(
    db: sqlite3.Connection, key: str | None, print_: bytes, now: float, write: Callable[[], Reply]
) -> tuple[Reply, bool]:
    """Execute *write*, or return the response that is stored under *key*.

    Args:
        db: connection with an open transaction.
        key: the request's key; without one, *write* is executed.
        print_: fingerprint of the request.
        now: seconds since the epoch.
        write: makes the changes; what it raises is not stored, because the transaction is rolled back.

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
