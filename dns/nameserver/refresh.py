"""Keep secondary zones fresh: the sockets, clocks, files and tasks for `nameserver.secondary`.

Each zone has one task, which performs the actions returned by the state machine. Queries for the serial number use UDP,
transfers use TCP. Parsing, building and compiling run in threads so that queries are not delayed. A new version is
served first and copied to disk afterwards.
"""

import asyncio
import contextlib
import random
import secrets
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from dnsmessage import Name, RemoteError, decode_reply, encode_query, rcode_to_text, rdtypes
from dnsmessage.message import NOERROR, NOTAUTH, REFUSED
from dnsmessage.tsig import Key, Verifier, sign
from nameserver import copies
from nameserver.changes import is_newer, serial_of
from nameserver.errors import NameServerError
from nameserver.inbound import Changes, Inbound, TransferError, UpToDate, Whole, encode_transfer_query
from nameserver.secondary import AskSerial, Expire, Primary, Secondary, Transfer, Wait
from nameserver.zone import Zone
from telemetry import Telemetry, log
from telemetry.metrics import Counter

logger = log.get("nameserver")

#: Time-out of a query over UDP in seconds, and maximum number of attempts.
UDP_TIMEOUT, UDP_TRIES = 2.0, 2
#: Time-out for connecting and for each message of a transfer, and time-out for the whole transfer, in seconds.
IDLE_TIMEOUT, TRANSFER_TIMEOUT = 10.0, 600.0
#: Maximum number of concurrent transfers, so that a restart with many zones does not overload the primaries.
MAX_TRANSFERS = 10
#: Pause after a copy is written, as a multiple of the time that writing took: 20 s after a write of 1 s.
COPY_SHARE = 20


class Server(Protocol):
    """The part of the server's interface that a secondary zone needs."""

    telemetry: Telemetry

    def zone(self, apex: Name) -> Zone | None:
        """Return the zone that is being served."""

    async def publish(self, make: Callable[[], Zone]) -> Zone:
        """Build a zone in a thread, then serve it."""

    def withdraw(self, apex: Name) -> None:
        """Stop serving the zone *apex*; queries for it get SERVFAIL."""


class Refresher:
    """Keeps one secondary zone fresh by performing the actions of its state machine."""

    def __init__(
        self, core: Secondary, server: Server, keys: Mapping[Name, Key], folder: Path | None, transfers: Counter
    ) -> None:
        """Create the refresher; copies are written to *folder* unless it is None, and *transfers* counts transfers."""
        self.core = core
        self._server, self._keys, self._clock = server, keys, server.telemetry.clock
        self._path = None if folder is None else copies.path_of(folder, core.apex)
        self._wake, self._dirty = asyncio.Event(), asyncio.Event()
        self._transfers = transfers
        #: Error message that was logged last.
        self._warned = ""
        #: Serial number of the copy on disk; None if none has been read or written.
        self._saved: int | None = None

    def __repr__(self) -> str:
        return f"<Refresher {self.core!r}>"

    def restore(self) -> Zone | None:
        """Return the zone from its copy on disk, for the caller to serve; None if there is no usable copy."""
        zone = self._restored()
        self._report()
        return zone

    def _restored(self) -> Zone | None:
        try:
            found = None if self._path is None else copies.read(self._path, self.core.apex)
        except NameServerError as error:
            logger.error("copy_unusable", zone=str(self.core.apex), error=str(error))
            return None
        if found is None:
            return None
        zone, confirmed = found
        self._saved = zone.serial
        now = self._clock.monotonic()
        self.core.restored(zone.soa.rdata[0], now - max(0.0, self._clock.time() - confirmed))
        return zone if now < self.core.expires else None

    async def run(self, transfers: asyncio.Semaphore) -> None:
        """Keep the zone fresh until cancelled."""
        saving = asyncio.create_task(self._save())
        try:
            while True:
                self._report()
                match self.core.next(self._clock.monotonic()):
                    case Wait(until):
                        # Not `asyncio.wait_for`, which can swallow a cancellation in Python 3.11.
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(until - self._clock.monotonic()):
                                await self._wake.wait()
                        self._wake.clear()
                    case AskSerial(primary):
                        await self._ask(primary)
                    case Transfer(primary, changes):
                        async with transfers:
                            await self._transfer(primary, changes=changes)
                    case Expire():
                        self._server.withdraw(self.core.apex)
                        logger.error("zone_expired", zone=str(self.core.apex), serial=self.core.serial)
        finally:
            saving.cancel()

    def notified(self, address: str, serial: int | None) -> bool:
        """Pass a NOTIFY to the state machine; return whether *address* is one of the primaries."""
        accepted = self.core.notified(address, serial, self._clock.monotonic())
        self._wake.set()
        return accepted

    def check_now(self) -> None:
        """Query the primaries for their serial number now."""
        self.core.check_now(self._clock.monotonic())
        self._wake.set()

    def describe(self) -> dict[str, Any]:
        """Return the state of the zone for ``GET /admin/zones``.

        ``confirmed_s`` is the number of seconds since a primary last confirmed the zone, ``refresh_s`` the number of
        seconds until the primaries are queried again, ``expires_s`` the number of seconds until the zone expires.
        """
        core, now = self.core, self._clock.monotonic()
        known = core.serial is not None
        return {
            "primaries": [str(each) for each in core.primaries],
            "expired": core.expired,
            "confirmed_s": round(now - core.confirmed, 3) if known else None,
            "refresh_s": round(core.due - now, 3) if known else None,
            "expires_s": round(core.expires - now, 3) if known else None,
            "trouble": core.trouble,
        }

    # --- actions of the state machine --------------------------------------------------------------------------------

    async def _ask(self, primary: Primary) -> None:
        """Query *primary* over UDP for its SOA record."""
        query = encode_query(secrets.randbits(16), self.core.apex, rdtypes.SOA, edns=False)
        try:
            reply = decode_reply(query, await self._exchange(primary, query))
            soa = [each.rdata for each in reply.answer if each.rdtype == rdtypes.SOA and each.name == self.core.apex]
            if reply.rcode or not reply.authoritative or len(soa) != 1:
                raise TransferError(f"expected an authoritative SOA record, got {rcode_to_text(reply.rcode)}")
        except (OSError, TimeoutError, RemoteError, TransferError) as error:
            self._failed(_words(error))
            return
        if self._path is not None and self._saved == self.core.serial == serial_of(soa[0]):
            with contextlib.suppress(OSError):  # the copy was removed; the next change writes it again
                copies.confirm(self._path, self._clock.time())
        self.core.serial_is(serial_of(soa[0]), self._clock.monotonic())

    async def _exchange(self, primary: Primary, query: bytes) -> bytes:
        """Send *query* over UDP and return the verified reply; datagrams with another ID are ignored."""
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, (primary.address, primary.port))
            for attempt in range(UDP_TRIES):
                wire, verifier = self._signed(primary, query)
                await loop.sock_sendall(sock, wire)
                try:
                    async with asyncio.timeout(UDP_TIMEOUT):
                        while (reply := await loop.sock_recv(sock, 65_535))[:2] != query[:2]:
                            pass
                except TimeoutError:
                    if attempt == UDP_TRIES - 1:
                        raise
                else:
                    return reply if verifier is None else verifier.verify(reply, int(self._clock.time()))
        raise AssertionError("unreachable: the last try returns or raises")

    async def _transfer(self, primary: Primary, *, changes: bool) -> None:
        """Transfer the zone from *primary*, or only changes if *changes* is set, and serve the result."""
        kind, began, served = "IXFR" if changes else "AXFR", self._clock.monotonic(), self._server.zone(self.core.apex)
        base = served if changes else None
        reader: Inbound | None = None
        try:
            async with asyncio.timeout(TRANSFER_TIMEOUT):
                reader = await self._receive(primary, base)
            if isinstance(reader.result, UpToDate):
                self._transfers.inc(kind=kind, outcome="up_to_date")
                self.core.serial_is(reader.result.serial, self._clock.monotonic())
                return
            make = self._maker(reader.result, base)
            zone = await self._server.publish(make)
        except (OSError, TimeoutError, RemoteError, NameServerError, asyncio.IncompleteReadError) as error:
            self._transfers.inc(kind=kind, outcome="failed")
            self._failed(f"{kind}: {_words(error)}", answered=isinstance(error, (RemoteError, NameServerError)))
            return
        now = self._clock.monotonic()
        self._transfers.inc(kind=kind, outcome="done")
        logger.info(
            "zone_transferred", zone=str(zone.apex), serial=zone.serial, primary=str(primary), kind=kind,
            records=reader.records, bytes=reader.bytes, took_ms=round(1000 * (now - began), 1),
        )  # fmt: skip
        self.core.transferred(zone.soa.rdata[0], now)
        self._warned = ""
        self._dirty.set()

    async def _receive(self, primary: Primary, base: Zone | None) -> Inbound:
        """Send the query for a transfer and read the whole answer."""
        apex = self.core.apex
        query = encode_transfer_query(secrets.randbits(16), apex, None if base is None else base.soa.rdata[0])
        inbound = Inbound(query, apex, None if base is None else base.serial)
        async with asyncio.timeout(IDLE_TIMEOUT):
            reader, writer = await asyncio.open_connection(primary.address, primary.port)
        try:
            wire, verifier = self._signed(primary, query)
            writer.write(struct.pack("!H", len(wire)) + wire)
            done = False
            while not done:
                async with asyncio.timeout(IDLE_TIMEOUT):
                    (length,) = struct.unpack("!H", await reader.readexactly(2))
                    message = await reader.readexactly(length)
                if verifier is not None:
                    message = verifier.verify(message, int(self._clock.time()))
                done = await asyncio.to_thread(
                    inbound.feed, message
                )  # in a thread: a message may hold thousands of records
            if verifier is not None:
                verifier.finish()
        finally:
            writer.close()
        return inbound

    def _maker(self, result: Changes | Whole | None, base: Zone | None) -> Callable[[], Zone]:
        """Return a function that builds the new zone; it is called in a thread."""
        serial, expired = self.core.serial, self.core.expired

        def make() -> Zone:
            if isinstance(result, Whole):
                zone = result.builder.zone()
            else:
                assert isinstance(result, Changes)  # noqa: S101 - only `Changes` is left
                assert base is not None  # noqa: S101 - changes are requested only if the server has the zone
                zone = base.apply(*result.changes)
            if serial is not None and not expired and not is_newer(zone.serial, serial):
                raise TransferError(f"expected a serial newer than {serial}, got {zone.serial}")
            return zone

        return make

    def _signed(self, primary: Primary, query: bytes) -> tuple[bytes, Verifier | None]:
        if primary.key is None:
            return query, None
        key = self._keys[primary.key]
        wire, mac = sign(query, key, int(self._clock.time()))
        return wire, Verifier(key, mac)

    def _failed(self, why: str, *, answered: bool = False) -> None:
        self.core.failed(why, self._clock.monotonic(), answered=answered)
        if self.core.trouble != self._warned:  # log a repeated failure only once
            self._warned = self.core.trouble
            logger.warning("refresh_failed", zone=str(self.core.apex), serial=self.core.serial, error=self.core.trouble)

    def _report(self) -> None:
        core = self.core
        trouble = f"; {core.trouble}" if core.trouble else ""
        if core.serial is None:
            detail = f"no data yet{trouble}"
        elif core.expired:
            detail = f"expired: no primary confirmed serial {core.serial} in time{trouble}"
        else:
            detail = f"serial {core.serial}{trouble}"
        self._server.telemetry.health.set(
            f"zone {core.apex}", ok=core.serial is not None and not core.expired, detail=detail
        )

    async def _save(self) -> None:
        """Write a copy of the zone to disk after each change, unless there is no folder for copies."""
        while self._path is not None:
            await self._dirty.wait()
            self._dirty.clear()
            zone = self._server.zone(self.core.apex)
            if zone is None:
                continue
            began = self._clock.monotonic()
            confirmed = self._clock.time() - (began - self.core.confirmed)
            try:
                await asyncio.to_thread(copies.write, self._path, zone, confirmed)
                self._saved = zone.serial
            except OSError as error:
                logger.error("copy_not_written", zone=str(zone.apex), path=str(self._path), error=str(error))
            pause = COPY_SHARE * (self._clock.monotonic() - began)
            await asyncio.sleep(pause)  # limits the share of time spent writing


class Secondaries:
    """All secondary zones of a server."""

    def __init__(
        self, server: Server, zones: Mapping[Name, Iterable[Primary]], keys: Mapping[Name, Key], folder: Path | None
    ) -> None:
        self._server, self._keys, self._folder = server, keys, folder
        self._transfers = server.telemetry.metrics.counter(
            "firstbyte_nameserver_transfers_total", "Transfers of secondary zones", "kind", "outcome"
        )
        self.zones = {apex: self._refresher(apex, primaries) for apex, primaries in zones.items()}
        self._limit = asyncio.Semaphore(MAX_TRANSFERS)
        self._tasks: list[asyncio.Task[None]] = []
        self._refusals = log.bounded("nameserver")

    def _refresher(self, apex: Name, primaries: Iterable[Primary]) -> Refresher:
        core = Secondary(apex, tuple(primaries), random.SystemRandom())
        return Refresher(core, self._server, self._keys, self._folder, self._transfers)

    def add(self, apex: Name, primaries: Iterable[Primary]) -> None:
        """Start transferring and refreshing the new zone *apex*.

        Queries for the zone get SERVFAIL until the first transfer completes.
        """
        self.zones[apex] = self._refresher(apex, primaries)
        self._server.withdraw(apex)
        self._tasks.append(asyncio.create_task(self.zones[apex].run(self._limit)))

    def restore(self) -> Iterator[tuple[Name, Zone | None]]:
        """Yield each apex with the zone from its copy on disk, or with None if there is no usable copy."""
        yield from ((apex, each.restore()) for apex, each in self.zones.items())

    def notified(self, apex: Name, address: str, serial: int | None) -> int:
        """Pass a NOTIFY from *address* to the zone *apex*; return the rcode (RFC 1996).

        *serial* is the serial number in the NOTIFY; None if the NOTIFY contains none.
        """
        zone = self.zones.get(apex)
        if zone is None:
            return NOTAUTH
        if zone.notified(address, serial):
            return NOERROR
        self._refusals.warning("notify_refused", zone=str(apex), client=address)
        return REFUSED

    def start(self) -> None:
        """Start the tasks that keep all zones fresh."""
        self._tasks = [asyncio.create_task(each.run(self._limit)) for each in self.zones.values()]

    def close(self) -> None:
        """Stop all tasks and transfers; the zones remain in service."""
        for task in self._tasks:
            task.cancel()


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, asyncio.IncompleteReadError):
        return "the connection ended in the middle of the transfer"
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
