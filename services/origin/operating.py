"""Operation of a catalog: start of the database, metrics, health, the admin API, and a fault for fault injection."""

import base64
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from typing import Any

from origin import catalog, idempotency, mailbox
from origin import notes as notes_
from origin.database import Database, DatabaseError
from origin.keyring import KeyringError
from origin.notes import Notes
from telemetry import AdminError, Request, Telemetry, stall


async def open_(database: Database, notes: Notes) -> None:
    """Open the database and the keyring, creating missing files; only one process does this at a time.

    Raises:
        DatabaseError, KeyringError, OSError: a file cannot be used.
    """
    await database.open(prepare)
    await database.write(lambda _: notes.keyring.create())


def prepare(db: sqlite3.Connection) -> None:
    """Create the tables, and insert the sample items if the database is new."""
    new = db.execute("PRAGMA user_version").fetchone()[0] == 0
    for statement in "".join(each.SCHEMA for each in (catalog, idempotency, notes_, mailbox)).split(";"):
        db.execute(statement)
    if new:
        catalog.stock(db, time.time())
        db.execute("PRAGMA user_version = 1")


def crash_switch(telemetry: Telemetry) -> Callable[[], None]:
    """Declare the fault `crash_before_reply`; return the function that kills this process if the fault is active."""
    stall.declare(telemetry)
    telemetry.faults.declare("crash_before_reply", "Die by SIGKILL when a write is on disk, before it is acknowledged")

    def act() -> None:
        if telemetry.faults.any_on and telemetry.faults.hit("crash_before_reply"):
            os.kill(os.getpid(), signal.SIGKILL)

    return act


def export(telemetry: Telemetry, database: Database, notes: Notes) -> None:
    """Register the metrics, the health check and the admin requests of a catalog."""
    size = telemetry.metrics.gauge("firstbyte_origin_database_bytes", "Size of the database file")
    waiting = telemetry.metrics.gauge("firstbyte_origin_database_waiting", "Jobs in a queue of the database", "queue")

    def health(reason: str) -> None:
        telemetry.health.set("database", ok=not reason, detail=reason or str(database.path or "in memory"))

    health("")
    database.on_health = health

    def refresh() -> None:
        size.set(database.path.stat().st_size if database.path is not None and database.path.exists() else 0)
        for queue, jobs in database.waiting().items():
            waiting.set(jobs, queue=queue)

    telemetry.metrics.before_render(refresh)

    async def dump(_: Request) -> dict[str, str]:
        return {"base64": base64.b64encode(await database.dump()).decode()}

    def keys(_: Request) -> dict[str, Any]:
        notes.keyring.refresh()
        return {"current": notes.keyring.current, "keys": notes.keyring.ids}

    async def stored(request: Request) -> dict[str, str]:
        key = request.params["id"]
        sealed = await database.read(lambda db: notes_.load(db, key))
        if sealed is None:
            raise AdminError(404, f"there is no note {key!r}")
        return {"key_id": sealed.key_id, "nonce": sealed.nonce.hex(), "sealed": sealed.data.hex()}

    async def rotate(_: Request) -> dict[str, Any]:
        try:
            return await notes.rotate()
        except (DatabaseError, KeyringError, OSError) as error:
            raise AdminError(503, f"the keys were not rotated: {error}") from None

    telemetry.route("GET", "/admin/database", dump)
    telemetry.route("GET", "/admin/notes/{id}", stored)
    telemetry.route("GET", "/admin/keys", keys)
    telemetry.route("POST", "/admin/keys/rotate", rotate)
