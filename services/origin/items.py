"""HTTP resources of the catalog: ``/items`` and ``/items/ID``, with reads, writes, pages and idempotency keys."""

import secrets
import sqlite3
import time
from collections.abc import Callable
from functools import partial

from aiohttp import web

from origin import catalog, idempotency
from origin.database import Database
from origin.idempotency import Reply
from origin.problems import Problem
from origin.representations import Representation, fields_of, send

#: Media types accepted for the body of a write.
JSON = frozenset({"application/json", "application/merge-patch+json"})

#: Function that gets a connection with an open transaction and the time (seconds since the epoch), makes the changes,
#: and returns the response.
Write = Callable[[sqlite3.Connection, float], Reply]


class Items:
    """Handlers for the items in a database."""

    def __init__(self, database: Database, name: str, before_reply: Callable[[], None] = lambda: None) -> None:
        """Create the handlers.

        Args:
            database: the database that holds the items.
            name: name of this server, for the header ``X-Origin``.
            before_reply: function that is called after a write is on disk and before the write is acknowledged.
        """
        self._database, self._name, self._before_reply = database, name, before_reply

    def add_to(self, router: web.UrlDispatcher, prefix: str) -> None:
        """Add the resources below *prefix*."""
        router.add_get(f"{prefix}/items", self.list)
        router.add_post(f"{prefix}/items", partial(self.create, prefix))
        one = router.add_resource(f"{prefix}/items/{{id}}")
        one.add_route("GET", self.get)
        one.add_route("HEAD", self.get)
        one.add_route("PUT", self.replace)
        one.add_route("PATCH", self.patch)
        one.add_route("DELETE", self.delete)

    async def list(self, request: web.Request) -> web.Response:
        """Return one page of items, with a link to the next page (RFC 8288)."""
        limit_text = request.query.get("limit", str(catalog.PAGE))
        if not (limit_text.isascii() and limit_text.isdigit()) or not 1 <= int(limit_text[:6]) <= catalog.MAX_PAGE:
            raise Problem(400, f"expected limit from 1 to {catalog.MAX_PAGE}, got {limit_text[:40]!r}")
        limit, after = int(limit_text), request.query.get("after", "")
        items, more = await self._database.read(lambda db: catalog.page(db, after, limit))
        body: dict[str, object] = {
            "origin": self._name,
            "items": [{"id": each.id, "name": each.name} for each in items],
            "next": None,
        }
        headers = {}
        if more:
            body["next"] = f"{request.path}?limit={limit}&after={items[-1].id}"
            headers["Link"] = f'<{body["next"]}>; rel="next"'
        return web.json_response(body, headers=headers)

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Return one item."""
        key = request.match_info["id"]
        item = await self._database.read(lambda db: catalog.get(db, key))
        if item is None:
            raise catalog.missing(key)
        what = Representation.of(item.body, catalog.MEDIA_TYPE, item.validators)
        return await send(request, what, **{"X-Origin": self._name})

    async def create(self, prefix: str, request: web.Request) -> web.Response:
        """Create an item with a new id."""
        given, key = catalog.parse(await self._json(request)), secrets.token_hex(8)
        return await self._write(request, lambda db, now: catalog.create(db, key, given, now, prefix))

    async def replace(self, request: web.Request) -> web.Response:
        """Create or replace an item."""
        key, given, fields = _id(request), catalog.parse(await self._json(request)), fields_of(request)
        return await self._write(request, lambda db, now: catalog.replace(db, key, given, now, fields))

    async def patch(self, request: web.Request) -> web.Response:
        """Change some fields of an item."""
        key, given, fields = _id(request), catalog.parse(await self._json(request)), fields_of(request)
        return await self._write(request, lambda db, now: catalog.patch(db, key, given, now, fields))

    async def delete(self, request: web.Request) -> web.Response:
        """Delete an item."""
        key, fields = _id(request), fields_of(request)
        return await self._write(request, lambda db, _: catalog.delete(db, key, fields))

    async def _json(self, request: web.Request) -> bytes:
        if request.content_type not in JSON:
            raise Problem(
                415, f"expected {' or '.join(sorted(JSON))}, got {request.content_type}",
                accept_patch="application/merge-patch+json",
            )  # fmt: skip
        return await request.read()

    async def _write(self, request: web.Request, write: Write) -> web.Response:
        return await perform(self._database, request, write, self._name, self._before_reply)


async def perform(
    database: Database,
    request: web.Request,
    write: Write,
    name: str,
    before_reply: Callable[[], None] = lambda: None,
) -> web.Response:
    """Execute a write once per idempotency key, and return its response when the write is on disk.

    Args:
        database: the database to change.
        request: the client's request.
        write: function that makes the changes and returns the response (`Write`).
        name: name of this server, for the header ``X-Origin``.
        before_reply: function that is called when the write is on disk.
    """
    key = idempotency.parse_key(request.headers.get("Idempotency-Key"))
    print_ = idempotency.fingerprint(request.method, request.path_qs, request.content_type, await request.read())
    now = time.time()
    reply, replayed = await database.write(lambda db: idempotency.perform(db, key, print_, now, lambda: write(db, now)))
    before_reply()
    headers = {**reply.headers, "X-Origin": name, **({"Idempotency-Replayed": "true"} if replayed else {})}
    return web.Response(status=reply.status, headers=headers, body=reply.body)


def _id(request: web.Request) -> str:
    key = request.match_info["id"]
    if not catalog.ID.fullmatch(key):
        raise Problem(400, f"expected an id of up to 64 letters, digits and ._~-, got {key[:70]!r}")
    return key
