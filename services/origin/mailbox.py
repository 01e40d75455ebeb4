"""``/mailbox/NAME``: public keys, and letters that only the owner of the private key can read (end-to-end encryption).

The server can neither read letters nor move them to another mailbox (`origin.sealing`).  It can delete or withhold
letters.  It can also publish a false key, which senders detect by comparing the fingerprint.
"""

import sqlite3

from aiohttp import web

from origin.catalog import ID
from origin.conditions import Validators
from origin.database import Database
from origin.problems import Problem
from origin.representations import Representation, send

#: Size of a public key and maximum size of a letter, in bytes.
KEY, MAX_LETTER = 32, 64 * 1024
MEDIA_TYPE = "application/octet-stream"
SCHEMA = """
CREATE TABLE IF NOT EXISTS mailbox (name TEXT PRIMARY KEY, public_key BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS letter (
    mailbox TEXT NOT NULL REFERENCES mailbox, id TEXT NOT NULL, sealed BLOB NOT NULL, PRIMARY KEY (mailbox, id)) STRICT;
"""


class Mailbox:
    """Handlers for the mailboxes in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_to(self, router: web.UrlDispatcher, prefix: str) -> None:
        """Add the resources below *prefix*."""
        key = router.add_resource(f"{prefix}/mailbox/{{name}}/key")
        key.add_route("GET", self.get_key)
        key.add_route("PUT", self.put_key)
        router.add_get(f"{prefix}/mailbox/{{name}}/letters", self.list)
        letter = router.add_resource(f"{prefix}/mailbox/{{name}}/letters/{{id}}")
        for method, handler in (("GET", self.get_letter), ("PUT", self.put_letter), ("DELETE", self.delete_letter)):
            letter.add_route(method, handler)

    async def put_key(self, request: web.Request) -> web.Response:
        """Publish a key for a new mailbox; a published key cannot be replaced."""
        (name,), key = _names(request, "name"), await request.read()
        if len(key) != KEY:
            raise Problem(422, f"expected an X25519 public key of {KEY} bytes, got {len(key)} bytes")

        def write(db: sqlite3.Connection) -> bool:
            row = db.execute("SELECT public_key FROM mailbox WHERE name = ?", (name,)).fetchone()
            if row is None:
                db.execute("INSERT INTO mailbox VALUES (?, ?)", (name, key))
            elif row[0] != key:
                raise Problem(409, f"the mailbox {name!r} has another key: choose another name")
            return row is None

        return web.Response(status=201 if await self._database.write(write) else 204)

    async def get_key(self, request: web.Request) -> web.StreamResponse:
        """Return the public key of a mailbox."""
        (name,) = _names(request, "name")
        key = await self._one("SELECT public_key FROM mailbox WHERE name = ?", name)
        return await send(request, Representation.of(key, MEDIA_TYPE, Validators()))

    async def list(self, request: web.Request) -> web.Response:
        """Return the ids of the letters in a mailbox, oldest first."""
        (name,) = _names(request, "name")
        query = "SELECT id FROM letter WHERE mailbox = ? ORDER BY rowid"
        rows = await self._database.read(lambda db: db.execute(query, (name,)).fetchall())
        return web.json_response({"letters": [row[0] for row in rows]})

    async def put_letter(self, request: web.Request) -> web.Response:
        """Store a letter under an id chosen by its sender; a retry does not store the letter again."""
        (name, key), sealed = _names(request, "name", "id"), await request.read()
        if len(sealed) > MAX_LETTER:
            raise Problem(413, f"expected a letter of at most {MAX_LETTER} bytes, got {len(sealed)}")

        def write(db: sqlite3.Connection) -> bool:
            if db.execute("SELECT 1 FROM mailbox WHERE name = ?", (name,)).fetchone() is None:
                raise Problem(404, f"there is no mailbox {name!r}: its owner publishes a key first")
            row = db.execute("SELECT sealed FROM letter WHERE mailbox = ? AND id = ?", (name, key)).fetchone()
            if row is None:
                db.execute("INSERT INTO letter VALUES (?, ?, ?)", (name, key, sealed))
            elif row[0] != sealed:
                raise Problem(409, f"there is another letter {key!r}: choose another id")
            return row is None

        return web.Response(status=201 if await self._database.write(write) else 204)

    async def get_letter(self, request: web.Request) -> web.StreamResponse:
        """Return a letter, unchanged."""
        name, key = _names(request, "name", "id")
        sealed = await self._one("SELECT sealed FROM letter WHERE mailbox = ? AND id = ?", name, key)
        return await send(request, Representation.of(sealed, MEDIA_TYPE, Validators()))

    async def delete_letter(self, request: web.Request) -> web.Response:
        """Delete a letter."""
        names, query = _names(request, "name", "id"), "DELETE FROM letter WHERE mailbox = ? AND id = ?"
        await self._database.write(lambda db: db.execute(query, names))
        return web.Response(status=204)

    async def _one(self, query: str, *values: str) -> bytes:
        row = await self._database.read(lambda db: db.execute(query, values).fetchone())
        if row is None:
            raise Problem(404, f"there is no {' '.join(values)!r}")
        found: bytes = row[0]
        return found


def _names(request: web.Request, *parts: str) -> tuple[str, ...]:
    found = tuple(request.match_info[part] for part in parts)
    for each in found:
        if not ID.fullmatch(each):
            raise Problem(400, f"expected names of up to 64 letters, digits and ._~-, got {each[:70]!r}")
    return found
