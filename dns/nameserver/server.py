"""Name server process: sockets, counters, fault switches and the admin API."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import serving
from dnsmessage import LocalError, Name, rcode_to_text, rdtypes
from dnsmessage import rdata as rdatas
from dnsmessage.message import MAX_TTL
from nameserver.compiled import Compiled, compile_zone
from nameserver.errors import NameServerError
from nameserver.master_file import load, words
from nameserver.query_log import QueryLog
from nameserver.responder import Responder
from nameserver.zone import Zone
from telemetry import AdminError, Request, Telemetry, log

logger = log.get("nameserver")

#: Number of queries kept for ``GET /admin/queries``, about as many as an experiment sends in a few seconds.
QUERY_LOG = 2000
#: Interpreter thread-switch interval, in seconds (Python's default is 5 ms). The short interval keeps queries from
#: waiting while a zone is compiled in a thread.
SWITCH_INTERVAL = 0.001
#: Maximum number of records in one RRset that the admin API accepts.
MAX_RECORDS = 100


class Server:
    """A name server that serves a set of zones on one address."""

    def __init__(self, telemetry: Telemetry, files: dict[str, Path]) -> None:
        """Load the zones in *files*, a dict from origin to master file.

        Raises:
            ZoneFileError: a file cannot be read or is not a valid zone.
        """
        self.telemetry = telemetry
        self.files = {Name.from_text(origin): path for origin, path in files.items()}
        self.responder = Responder({apex: load(str(apex), path) for apex, path in self.files.items()})
        self.queries = QueryLog(QUERY_LOG)
        self._changing = asyncio.Lock()
        self._reloading: set[asyncio.Task[None]] = set()
        sys.setswitchinterval(SWITCH_INTERVAL)
        metrics = telemetry.metrics
        self._count = metrics.counter(
            "firstbyte_nameserver_queries_total", "Queries by transport and rcode", "transport", "rcode"
        )
        self._dropped = metrics.counter("firstbyte_nameserver_dropped_total", "Queries without an answer", "reason")
        serials = metrics.gauge("firstbyte_nameserver_zone_serial", "Serial of each zone", "zone")

        #: Finished answers sent since the last metrics scrape. They are counted here because updating a labelled
        #: counter for each batch costs as much as the batch's lookups.
        self._finished = 0

        def refresh() -> None:
            self._count.inc(self._finished, transport="udp", rcode="NOERROR")
            self._finished = 0
            for apex, zone in self.responder.zones.items():
                serials.set(zone.serial, zone=str(apex))

        metrics.before_render(refresh)
        telemetry.faults.declare("drop_answers", "Drop answers with this probability", probability=1.0, seed=0)
        telemetry.faults.declare("delay_answers", "Answer this many milliseconds late", ms=1000.0)
        telemetry.faults.declare("servfail", "Answer SERVFAIL with this probability", probability=1.0, seed=0)
        self._routes()
        telemetry.health.set("zones", ok=True, detail=", ".join(map(str, self.responder.zones)))

    async def start(self, endpoint: tuple[str, int], *, shared: bool = False) -> serving.Listener:
        """Listen on *endpoint*; raise `OSError` if the address is in use. *shared* enables SO_REUSEPORT."""
        listener = await serving.start(endpoint, self.handle, finished=self, shared=shared)
        self.telemetry.health.set("listener", ok=True, detail=f"{listener.address[0]}:{listener.address[1]}")
        return listener

    def handle(self, wire: bytes, client: tuple[str, int], transport: serving.Transport) -> Any:
        """Return the reply to one query; an awaitable if a fault switch delays the reply; None if no reply is sent."""
        response = self.responder.respond(wire, udp=transport == "udp")
        if response is None:
            self._dropped.inc(reason="not_a_query")
            return None
        self.queries.add(client[0], transport, wire, response.rcode)
        self._count.inc(transport=transport, rcode=rcode_to_text(response.rcode))
        faults = self.telemetry.faults
        if faults.any_on:
            if faults.hit("drop_answers"):
                self._dropped.inc(reason="fault")
                return None
            answer = self.responder.servfail(wire) if faults.hit("servfail") else response.wire
            if faults.hit("delay_answers"):
                return _later(answer, float((faults.get("delay_answers") or {})["ms"]) / 1000)
            return answer
        return response.wire

    def answers(self) -> serving.Answers | None:
        """Return the finished answers; None while a fault switch is on."""
        return None if self.telemetry.faults.any_on else self.responder.answers

    def answered(self, questions: list[bytes], clients: bytes) -> None:
        """Count and log a batch of queries that received finished answers."""
        self._finished += len(questions)
        self.queries.add_batch(questions, clients)

    async def reload(self, apex: Name) -> Zone:
        """Reload the zone *apex* from its file, in a thread, and return the new zone.

        If the file is invalid, the old zone stays in service, the health check of this zone fails, and the error is
        raised again.
        """
        check = f"zone {apex}"
        try:
            zone = await self._publish(lambda: load(str(apex), self.files[apex]))
        except Exception as error:  # a bad file must not stop this server or the reload of another zone
            serial = self.responder.zones[apex].serial
            self.telemetry.health.set(check, ok=False, detail=f"still serving serial {serial}: {error}")
            logger.error("reload_failed", zone=str(apex), error=str(error))
            raise
        self.telemetry.health.set(check, ok=True, detail=f"serial {zone.serial}")
        logger.info("zone_loaded", zone=str(apex), serial=zone.serial)
        return zone

    async def reload_all(self) -> None:
        """Reload all zones, one after the other; each failure is logged and reported in the health checks."""
        for apex in self.files:
            await asyncio.gather(self.reload(apex), return_exceptions=True)

    def on_hangup(self) -> None:
        """Start `reload_all` as a background task (SIGHUP handler)."""
        task = asyncio.get_running_loop().create_task(self.reload_all())
        self._reloading.add(task)
        task.add_done_callback(self._reloading.discard)

    async def _publish(self, make: Callable[[], Zone]) -> Zone:
        """Build and compile a zone in a thread so that queries are not delayed, then serve it."""

        def compiled() -> Compiled:
            return compile_zone(make())

        async with self._changing:
            done = await asyncio.to_thread(compiled)
            self.responder.put_compiled(done)
        return done.zone

    # --- admin API --------------------------------------------------------------------------------------------------

    def _routes(self) -> None:
        for method, path, handler in (
            ("GET", "/admin/zones", self._zones),
            ("GET", "/admin/zones/{zone}/records", self._records),
            ("PUT", "/admin/zones/{zone}/records", self._put),
            ("DELETE", "/admin/zones/{zone}/records", self._delete),
            ("POST", "/admin/zones/{zone}/reload", self._reload),
            ("GET", "/admin/queries", self._queries),
        ):
            self.telemetry.route(method, path, handler)

    def _zones(self, _: Request) -> list[dict[str, Any]]:
        return [
            {
                "zone": str(apex),
                "serial": zone.serial,
                "rrsets": len(zone),
                "file": str(self.files.get(apex, "")),
            }
            for apex, zone in self.responder.zones.items()
        ]

    def _zone(self, request: Request) -> Zone:
        asked = request.params["zone"]
        zone = self.responder.zones.get(_admin_name(asked if asked.endswith(".") else asked + "."))
        if zone is None:
            known = ", ".join(map(str, self.responder.zones))
            raise AdminError(404, f"expected a zone of {known}; got {asked!r}")
        return zone

    def _records(self, request: Request) -> list[dict[str, Any]]:
        return [
            {"name": str(r.name), "type": rdtypes.to_text(r.rdtype), "ttl": r.ttl, "rdata": r.text()}
            for r in self._zone(request)
        ]

    async def _put(self, request: Request) -> dict[str, Any]:
        zone, body = self._zone(request), _body(request)
        values = body.get("rdata")
        if (
            not isinstance(values, list)
            or not 0 < len(values) <= MAX_RECORDS
            or not all(isinstance(v, str) for v in values)
        ):
            raise AdminError(400, f'expected "rdata": a list of 1 to {MAX_RECORDS} strings, got {values!r}')
        ttl = body.get("ttl", 300)
        if not isinstance(ttl, int) or isinstance(ttl, bool) or not 0 <= ttl <= MAX_TTL:
            raise AdminError(400, f'expected "ttl": seconds from 0 to {MAX_TTL}, got {ttl!r}')
        name, rdtype = _owner(zone, body)
        try:
            data = [_rdata(rdtype, value, zone.apex) for value in values]
        except (LocalError, NameServerError) as error:
            raise AdminError(400, str(error)) from None
        return await self._change(zone.apex, name, rdtype, ttl, data)

    async def _delete(self, request: Request) -> dict[str, Any]:
        zone = self._zone(request)
        name, rdtype = _owner(zone, request.query)
        if rdtype not in (zone.node(name) or {}):
            raise AdminError(404, f"no {rdtypes.to_text(rdtype)} at {name}")
        return await self._change(zone.apex, name, rdtype, 0, [])

    async def _change(self, apex: Name, name: Name, rdtype: int, ttl: int, data: list[bytes]) -> dict[str, Any]:
        try:
            zone = await self._publish(lambda: self.responder.zones[apex].replace(name, rdtype, ttl, data))
        except NameServerError as error:
            raise AdminError(400, str(error)) from None
        logger.info("record_changed", name=str(name), type=rdtypes.to_text(rdtype), serial=zone.serial)
        return {"zone": str(zone.apex), "serial": zone.serial}

    async def _reload(self, request: Request) -> dict[str, Any]:
        try:
            zone = await self.reload(self._zone(request).apex)
        except NameServerError as error:
            raise AdminError(409, str(error)) from None
        return {"zone": str(zone.apex), "serial": zone.serial}

    def _queries(self, request: Request) -> list[dict[str, Any]]:
        limit = request.query.get("limit", "100")
        if not (limit.isascii() and limit.isdigit()):
            raise AdminError(400, f"expected limit=NUMBER, got {limit!r}")
        return self.queries.latest(int(limit))


async def _later(answer: bytes, delay: float) -> bytes:
    await asyncio.sleep(delay)  # the delay of the ``delay_answers`` fault switch
    return answer


def _body(request: Request) -> dict[str, Any]:
    body = request.json()
    if not isinstance(body, dict):
        raise AdminError(400, f'expected {{"name", "type", "ttl", "rdata": […]}}, got {body!r}')
    return body


def _owner(zone: Zone, fields: dict[str, Any]) -> tuple[Name, int]:
    name, mnemonic = fields.get("name"), fields.get("type")
    if not isinstance(name, str) or not isinstance(mnemonic, str):
        raise AdminError(400, f'expected "name" and "type", got {sorted(fields)}')
    owner = _admin_name(name, zone.apex)
    if not owner.is_below(zone.apex):
        raise AdminError(400, f"expected a name in {zone.apex}, got {name!r}")
    try:
        rdtype = rdtypes.from_text(mnemonic)
    except LocalError as error:
        raise AdminError(400, str(error)) from None
    if rdtype in rdtypes.META:
        raise AdminError(400, f"expected a type of data, got {mnemonic}")
    return owner, rdtype


def _rdata(rdtype: int, value: str, origin: Name) -> bytes:
    """Parse one record's RDATA: a TXT value is used as one literal string, other types in master file syntax."""
    if rdtype == rdtypes.TXT:
        return rdatas.from_text(rdtype, [value.replace("\\", "\\\\").encode()], origin)
    return rdatas.from_text(rdtype, words(value), origin)


def _admin_name(text: str, origin: Name | None = None) -> Name:
    try:
        return Name.from_text(text, origin)
    except LocalError as error:
        raise AdminError(400, str(error)) from None
