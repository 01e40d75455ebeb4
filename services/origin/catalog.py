"""The catalog's items: validation, representation, and the SQL that reads and changes them.

Functions that take a connection require a transaction, which the caller has opened.
"""

import hashlib
import json
import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from origin.conditions import Decision, ETag, MalformedError, Validators, decide
from origin.content import ITEMS
from origin.idempotency import Reply
from origin.problems import Problem
from origin.representations import validator_headers

#: Pattern for an id that a client chooses, which is the last segment of the item's path.
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,63}")
#: Length limits of the fields, in characters.
MAX_NAME, MAX_TEXT = 100, 10_000
#: Default and maximum number of items on a page.
PAGE, MAX_PAGE = 50, 200
MEDIA_TYPE = "application/json"
SCHEMA = """
CREATE TABLE IF NOT EXISTS item (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, price_rtt REAL NOT NULL, text TEXT NOT NULL, modified INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""
_FIELDS: dict[str, type | tuple[type, ...]] = {"name": str, "price_rtt": (int, float), "text": str}


@dataclass(frozen=True, slots=True)
class Item:
    """One item of the catalog."""

    id: str
    name: str
    #: Price in round trips.
    price_rtt: float
    text: str
    #: Time of the last change, in whole seconds since the epoch.
    modified: int

    @property
    def body(self) -> bytes:
        """The JSON representation, identical on every server."""
        fields = {"id": self.id, "name": self.name, "price_rtt": self.price_rtt, "text": self.text}
        return json.dumps(fields).encode() + b"\n"

    @property
    def validators(self) -> Validators:
        """The strong entity tag (a digest of the representation) and the time of the last change."""
        return Validators(ETag(f'"{hashlib.sha256(self.body).hexdigest()[:20]}"'), self.modified)


def stock(db: sqlite3.Connection, now: float) -> None:
    """Insert the sample items into a new database."""
    for key, each in ITEMS.items():
        put(db, Item(key, each["name"], each["price_rtt"], each["text"], int(now)))


def put(db: sqlite3.Connection, item: Item) -> None:
    """Insert or replace an item."""
    values = (item.id, item.name, item.price_rtt, item.text, item.modified)
    db.execute("INSERT OR REPLACE INTO item VALUES (?, ?, ?, ?, ?)", values)


def get(db: sqlite3.Connection, key: str) -> Item | None:
    """Return the item with the id *key*, or None."""
    row = db.execute("SELECT * FROM item WHERE id = ?", (key,)).fetchone()
    return None if row is None else Item(*row)


def page(db: sqlite3.Connection, after: str, limit: int) -> tuple[list[Item], bool]:
    """Return at most *limit* items whose id follows *after*, and whether there are more.

    The cursor is the id of the last item, so inserting or deleting items does not shift later pages.
    """
    rows = db.execute("SELECT * FROM item WHERE id > ? ORDER BY id LIMIT ?", (after, limit + 1)).fetchall()
    return [Item(*row) for row in rows[:limit]], len(rows) > limit


def create(db: sqlite3.Connection, key: str, given: dict[str, Any], now: float, prefix: str) -> Reply:
    """Insert a new item with the id *key* (POST)."""
    item = _validated(key, {"price_rtt": 0.0, "text": "", **given}, now)
    put(db, item)
    return _reply(201, item, {"Location": f"{prefix}/items/{key}"})


def replace(db: sqlite3.Connection, key: str, given: dict[str, Any], now: float, fields: Mapping[str, str]) -> Reply:
    """Create or replace the item *key* if the preconditions in *fields* allow it (PUT)."""
    before = get(db, key)
    require("PUT", fields, before.validators if before else None)
    item = _validated(key, {"price_rtt": 0.0, "text": "", **given}, now)
    put(db, item)
    return _reply(201 if before is None else 200, item)


def patch(db: sqlite3.Connection, key: str, given: dict[str, Any], now: float, fields: Mapping[str, str]) -> Reply:
    """Apply a JSON merge patch (RFC 7396) to the item *key* if the preconditions allow it."""
    before = get(db, key)
    if before is None and "if-match" not in fields:
        raise missing(key)
    require("PATCH", fields, before.validators if before else None)
    if before is None:
        raise missing(key)
    merged: dict[str, Any] = {name: getattr(before, name) for name in _FIELDS}
    for name, value in given.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = value
    item = _validated(key, {"price_rtt": 0.0, "text": "", **merged}, now)
    put(db, item)
    return _reply(200, item)


def delete(db: sqlite3.Connection, key: str, fields: Mapping[str, str]) -> Reply:
    """Delete the item *key* if the preconditions allow it."""
    before = get(db, key)
    if before is None and "if-match" not in fields:
        raise missing(key)
    require("DELETE", fields, before.validators if before else None)
    db.execute("DELETE FROM item WHERE id = ?", (key,))
    return Reply(204)


def require(method: str, fields: Mapping[str, str], current: Validators | None) -> None:
    """Check the preconditions of a write against *current*, the validators of the item (None: the item does not exist).

    Raises:
        Problem: 412, a precondition failed; 400, a precondition is malformed.
    """
    try:
        decision = decide(method, fields, current)
    except MalformedError as error:
        raise Problem(400, str(error)) from None
    if decision is not Decision.PROCEED:
        now = "there is none" if current is None else f"the current version is {current.etag}"
        raise Problem(412, f"the precondition does not hold: {now}; fetch it and decide again")


def missing(key: str) -> Problem:
    """Return the problem for an item that does not exist."""
    return Problem(404, f"there is no item {key[:64]!r}: GET /items lists them")


def parse(raw: bytes) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        Problem: 400, *raw* is not a JSON object.
    """
    try:
        given = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Problem(400, f"expected a JSON object: {error}") from None
    if not isinstance(given, dict):
        raise Problem(400, f"expected a JSON object, got {type(given).__name__}")
    return given


def _validated(key: str, given: dict[str, Any], now: float) -> Item:
    unknown = sorted(given.keys() - _FIELDS.keys() - {"id"})
    if unknown:
        raise Problem(422, f"expected {', '.join(_FIELDS)}; got {unknown[0][:40]!r} as well")
    if given.get("id", key) != key:
        raise Problem(422, f"expected the id {key!r} of the path, or none")
    for name, kind in _FIELDS.items():
        value = given.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise Problem(422, f"expected {name} as a {'string' if kind is str else 'number'}, got {value!r:.60}")
    name, price, text = given["name"], given["price_rtt"], given["text"]
    if not (1 <= len(name) <= MAX_NAME and len(text) <= MAX_TEXT):
        raise Problem(422, f"expected a name of 1 to {MAX_NAME} characters and a text of at most {MAX_TEXT}")
    if not 0 <= price <= 1e6:
        raise Problem(422, f"expected price_rtt from 0 to 1000000, got {price!r:.60}")
    try:
        (name + text).encode()
    except UnicodeEncodeError:
        raise Problem(422, "expected text in Unicode, got half of a surrogate pair") from None
    return Item(key, name, float(price), text, int(now))


def _reply(status: int, item: Item, more: dict[str, str] | None = None) -> Reply:
    headers = {"Content-Type": MEDIA_TYPE, **validator_headers(item.validators), **(more or {})}
    return Reply(status, headers, item.body)
