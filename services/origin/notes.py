"""``/notes/ID``: texts that are stored encrypted (encryption at rest).

The origin decrypts a note for every client: encryption at rest protects against a stolen disk, not against the server.
Idempotency keys are not supported, because the database would then hold a digest of the plaintext.
"""

import sqlite3
from typing import Any

from aiohttp import web

from origin.catalog import ID, require
from origin.conditions import ETag, Validators
from origin.database import Database
from origin.keyring import Keyring, Sealed, TamperedError
from origin.problems import Problem
from origin.representations import Representation, fields_of, send, validator_headers
from telemetry import log

#: Maximum size of a note in bytes.
MAX_NOTE = 64 * 1024
MEDIA_TYPE = "text/plain; charset=utf-8"
SCHEMA = """
CREATE TABLE IF NOT EXISTS note (id TEXT PRIMARY KEY, key_id TEXT NOT NULL, nonce BLOB NOT NULL, sealed BLOB NOT NULL)
STRICT, WITHOUT ROWID;
"""
logger = log.get("origin.notes")


def load(db: sqlite3.Connection, key: str) -> Sealed | None:
    """Return the encrypted note with the id *key*, or None."""
    row = db.execute("SELECT key_id, nonce, sealed FROM note WHERE id = ?", (key,)).fetchone()
    return None if row is None else Sealed(*row)


def store(db: sqlite3.Connection, key: str, sealed: Sealed) -> None:
    """Insert or replace a note."""
    db.execute("INSERT OR REPLACE INTO note VALUES (?, ?, ?, ?)", (key, sealed.key_id, sealed.nonce, sealed.data))


class Notes:
    """Handlers for the notes in a database, and the encryption keys."""

    def __init__(self, database: Database, keyring: Keyring) -> None:
        self.database, self.keyring = database, keyring

    def add_to(self, router: web.UrlDispatcher, prefix: str) -> None:
        """Add the resources below *prefix*."""
        one = router.add_resource(f"{prefix}/notes/{{id}}")
        for method, handler in (("GET", self.get), ("HEAD", self.get), ("PUT", self.put), ("DELETE", self.delete)):
            one.add_route(method, handler)

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Return a decrypted note."""
        key = request.match_info["id"]
        sealed = await self.database.read(lambda db: load(db, key))
        if sealed is None:
            raise Problem(404, f"there is no note {key[:64]!r}")
        try:
            if sealed.key_id not in self.keyring.ids:
                self.keyring.refresh()
            text = self.keyring.open(sealed, key)
        except TamperedError as error:
            logger.error("note_tampered", note=key[:64], reason=str(error))
            raise Problem(500, f"the stored note cannot be trusted: {error}") from None
        return await send(request, Representation.of(text, MEDIA_TYPE, _validators(sealed)))

    async def put(self, request: web.Request) -> web.Response:
        """Encrypt and store a note if the preconditions hold."""
        key, fields = _id(request), fields_of(request)
        text = await request.read()
        if len(text) > MAX_NOTE:
            raise Problem(413, f"expected a note of at most {MAX_NOTE} bytes, got {len(text)}")

        def write(db: sqlite3.Connection) -> tuple[bool, Sealed]:
            before = load(db, key)
            require("PUT", fields, None if before is None else _validators(before))
            self.keyring.refresh()
            sealed = self.keyring.seal(text, key)
            store(db, key, sealed)
            return before is None, sealed

        new, sealed = await self.database.write(write)
        return web.Response(status=201 if new else 204, headers=validator_headers(_validators(sealed)))

    async def delete(self, request: web.Request) -> web.Response:
        """Delete a note if the preconditions hold."""
        key, fields = _id(request), fields_of(request)

        def write(db: sqlite3.Connection) -> None:
            before = load(db, key)
            if before is None and "if-match" not in fields:
                raise Problem(404, f"there is no note {key!r}")
            require("DELETE", fields, None if before is None else _validators(before))
            db.execute("DELETE FROM note WHERE id = ?", (key,))

        await self.database.write(write)
        return web.Response(status=204)

    async def rotate(self) -> dict[str, Any]:
        """Create a new key, re-encrypt every note with it, and delete the keys that no note uses."""

        def change(db: sqlite3.Connection) -> int:
            self.keyring.refresh()
            current = self.keyring.rotate()
            rows = db.execute("SELECT id FROM note WHERE key_id != ?", (current,)).fetchall()
            for (key,) in rows:
                sealed = load(db, key)
                if sealed is not None:
                    try:
                        store(db, key, self.keyring.seal(self.keyring.open(sealed, key), key))
                    except TamperedError as error:  # keep the note and its key unchanged
                        logger.error("note_tampered", note=key, reason=str(error))
            return len(rows)

        def forget(db: sqlite3.Connection) -> list[str]:
            return self.keyring.retire({row[0] for row in db.execute("SELECT DISTINCT key_id FROM note")})

        notes = await self.database.write(change)
        return {"current": self.keyring.current, "notes": notes, "retired": await self.database.write(forget)}


def _validators(sealed: Sealed) -> Validators:
    """Return the nonce as the entity tag: it is unique per encryption and reveals nothing about the text."""
    return Validators(ETag(f'"{sealed.nonce.hex()}"'))


def _id(request: web.Request) -> str:
    key = request.match_info["id"]
    if not ID.fullmatch(key):
        raise Problem(400, f"expected an id of up to 64 letters, digits and ._~-, got {key[:70]!r}")
    return key
