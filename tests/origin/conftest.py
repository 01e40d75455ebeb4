"""Fixtures for the origin: a catalog on a real database, served on loopback."""

import contextlib
import io
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from origin.application import Options, Parts, build, request_counter
from origin.database import Database
from origin.keyring import Keyring
from origin.notes import Notes
from origin.operating import open_
from telemetry import Telemetry
from telemetry.tap import Tap
from tests.acme_server.conftest import site


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, header fields with lower-case names, and body."""

    status: int
    fields: dict[str, str]
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Client that sends unmodified requests to one server."""

    def __init__(self, http: aiohttp.ClientSession, base: str, notes: Notes) -> None:
        self.http, self.base, self.notes, self.database = http, base, notes, notes.database

    async def __call__(self, method: str, path: str, given: Any = None, **fields: str) -> Answer:
        """Send a request with *given* as a JSON body; a field ``if_match="…"`` becomes ``If-Match: …``."""
        headers = {name.replace("_", "-").title(): value for name, value in fields.items()}
        data = None
        if given is not None:
            headers.setdefault("Content-Type", "application/json")
            data = io.BytesIO(given if isinstance(given, bytes) else json.dumps(given).encode())
        async with self.http.request(method, self.base + path, data=data, headers=headers) as response:
            lower = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status, lower, await response.read())


@contextlib.asynccontextmanager
async def catalog(path: Path | None, **limits: Any) -> AsyncIterator[int]:
    """Serve a catalog with its database in *path*; yield the port."""
    async with opened(path, **limits) as (port, _):
        yield port


@contextlib.asynccontextmanager
async def opened(path: Path | None, **limits: Any) -> AsyncIterator[tuple[int, Notes]]:
    """Serve a catalog with its database in *path*; yield the port and its notes."""
    database = Database(path, **limits)
    notes = Notes(database, Keyring(None if path is None else path.with_name("keys.json")))
    await open_(database, notes)
    try:
        telemetry = Telemetry("origin")
        options, counter = Options("catalog-1.example.com", "catalog"), request_counter(telemetry)
        parts = Parts(database, notes=notes, tap=Tap(telemetry))
        async with site(build(options, counter, mutual=False, parts=parts)) as port:
            yield port, notes
    finally:
        await database.close()


@contextlib.asynccontextmanager
async def talking(path: Path | None, **limits: Any) -> AsyncIterator[Client]:
    """Serve a catalog with its database in *path*; yield a client."""
    async with opened(path, **limits) as (port, notes), aiohttp.ClientSession() as http:
        yield Client(http, f"http://127.0.0.1:{port}", notes)


@pytest.fixture
async def ask(tmp_path: Path) -> AsyncIterator[Client]:
    async with talking(tmp_path / "catalog.sqlite") as client:
        yield client
