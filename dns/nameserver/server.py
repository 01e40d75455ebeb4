"""The shell: sockets, counters, fault switches and the admin API of a name server."""

import asyncio
import time
from collections import deque
from pathlib import Path
from typing import Any

import dnslib

import serving
from nameserver import name as names
from nameserver import rdata
from nameserver.errors import NameServerError, QueryError
from nameserver.master_file import load
from nameserver.message import Responder, Response, parse
from nameserver.name import Name
from nameserver.zone import Zone
from telemetry import AdminError, Request, Telemetry, log

logger = log.get("nameserver")

#: Queries remembered for ``GET /admin/queries``: enough to see who asked during an experiment's last seconds.
QUERY_LOG = 2000
#: Records of one RRset that the admin API accepts.
MAX_RECORDS = 100


class Server:
    """A set of zones on one address."""

    def __init__(self, telemetry: Telemetry, files: dict[str, Path]) -> None:
        """Load every zone of *files* (origin to path).

        Raises:
            ZoneFileError: a file is not a zone.
        """
        self.telemetry = telemetry
        self.files = {names.from_text(origin): path for origin, path in files.items()}
        self.responder = Responder({apex: load(names.to_text(apex), path) for apex, path in self.files.items()})
        self.queries: deque[tuple[float, str, str, bytes, Response]] = deque(maxlen=QUERY_LOG)
        metrics = telemetry.metrics
        self._count = metrics.counter(
            "firstbyte_nameserver_queries_total", "Queries by transport and rcode", "transport", "rcode"
        )
        self._dropped = metrics.counter("firstbyte_nameserver_dropped_total", "Queries without an answer", "reason")
        serials = metrics.gauge("firstbyte_nameserver_zone_serial", "Serial of each zone", "zone")

        def refresh() -> None:
            for apex, zone in self.responder.zones.items():
                serials.set(zone.serial, zone=names.to_text(apex))

        metrics.before_render(refresh)
        telemetry.faults.declare("drop_answers", "Drop answers with this probability", probability=1.0, seed=0)
        telemetry.faults.declare("delay_answers", "Answer this many milliseconds late", ms=1000.0)
        telemetry.faults.declare("servfail", "Answer SERVFAIL with this probability", probability=1.0, seed=0)
        self._routes()
        telemetry.health.set("zones", ok=True, detail=", ".join(map(names.to_text, self.responder.zones)))

    async def start(self, endpoint: tuple[str, int]) -> serving.Listener:
        """Listen; raise `OSError` when the address is taken."""
        listener = await serving.start(endpoint, self.handle)
        self.telemetry.health.set("listener", ok=True, detail=f"{listener.address[0]}:{listener.address[1]}")
        return listener

    def handle(self, wire: bytes, client: tuple[str, int], transport: serving.Transport) -> Any:
        """Answer one query, or not, as zones and fault switches say."""
        response = self.responder.respond(wire, udp=transport == "udp")
        if response is None:
            self._dropped.inc(reason="not_a_query")
            return None
        self.queries.append((time.time(), client[0], transport, wire, response))
        self._count.inc(transport=transport, rcode=_rcode(response.rcode))
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

    def reload(self, apex: Name) -> Zone:
        """Read the zone's file again.  When it is wrong the zone that is being served stays, and health says so."""
        check = f"zone {names.to_text(apex)}"
        try:
            zone = load(names.to_text(apex), self.files[apex])
        except NameServerError as error:
            self.telemetry.health.set(
                check, ok=False, detail=f"still serving serial {self.responder.zones[apex].serial}: {error}"
            )
            logger.error("reload_failed", zone=names.to_text(apex), error=str(error))
            raise
        self.responder.put(zone)
        self.telemetry.health.set(check, ok=True, detail=f"serial {zone.serial}")
        logger.info("zone_loaded", zone=names.to_text(apex), serial=zone.serial)
        return zone

    def reload_all(self) -> None:
        """Read every file again (SIGHUP)."""
        for apex in self.files:
            try:
                self.reload(apex)
            except NameServerError:
                continue  # logged, and in health; the others still reload

    # --- admin ------------------------------------------------------------------------------------------------------

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
                "zone": names.to_text(apex),
                "serial": zone.serial,
                "rrsets": len(list(zone)),
                "file": str(self.files.get(apex, "")),
            }
            for apex, zone in self.responder.zones.items()
        ]

    def _zone(self, request: Request) -> Zone:
        asked = request.params["zone"]
        zone = self.responder.zones.get(_admin_name(asked if asked.endswith(".") else asked + "."))
        if zone is None:
            known = ", ".join(map(names.to_text, self.responder.zones))
            raise AdminError(404, f"expected a zone of {known}; got {asked!r}")
        return zone

    def _records(self, request: Request) -> list[dict[str, Any]]:
        return [
            {"name": names.to_text(r.name), "type": r.rtype, "ttl": r.ttl, "rdata": r.text()}
            for r in self._zone(request)
        ]

    def _put(self, request: Request) -> dict[str, Any]:
        zone, body = self._zone(request), _body(request)
        values = body.get("rdata")
        if (
            not isinstance(values, list)
            or not 0 < len(values) <= MAX_RECORDS
            or not all(isinstance(v, str) for v in values)
        ):
            raise AdminError(400, f'expected "rdata": a list of 1 to {MAX_RECORDS} strings, got {values!r}')
        ttl = body.get("ttl", 300)
        if not isinstance(ttl, int) or isinstance(ttl, bool) or not 0 <= ttl <= rdata.MAX_TTL:
            raise AdminError(400, f'expected "ttl": seconds from 0 to {rdata.MAX_TTL}, got {ttl!r}')
        name, rtype = _owner(zone, body)
        try:
            # A TXT value is one text; everything else is words, as in a master file.
            data = [rdata.build(rtype, [rdata.escape(v)] if rtype == "TXT" else v.split(), zone.apex) for v in values]
            changed = zone.replace(name, rtype, ttl, data)
        except NameServerError as error:
            raise AdminError(400, str(error)) from None
        return self._changed(changed, name, rtype)

    def _delete(self, request: Request) -> dict[str, Any]:
        zone = self._zone(request)
        name, rtype = _owner(zone, request.query)
        if rtype not in (zone.node(name) or {}):
            raise AdminError(404, f"no {rtype} at {names.to_text(name)}")
        try:
            return self._changed(zone.replace(name, rtype, 0, ()), name, rtype)
        except NameServerError as error:
            raise AdminError(400, str(error)) from None

    def _changed(self, zone: Zone, name: Name, rtype: str) -> dict[str, Any]:
        self.responder.put(zone)
        logger.info("record_changed", name=names.to_text(name), type=rtype, serial=zone.serial)
        return {"zone": names.to_text(zone.apex), "serial": zone.serial}

    def _reload(self, request: Request) -> dict[str, Any]:
        try:
            zone = self.reload(self._zone(request).apex)
        except NameServerError as error:
            raise AdminError(409, str(error)) from None
        return {"zone": names.to_text(zone.apex), "serial": zone.serial}

    def _queries(self, request: Request) -> list[dict[str, Any]]:
        limit = request.query.get("limit", "100")
        if not (limit.isascii() and limit.isdigit()):
            raise AdminError(400, f"expected limit=NUMBER, got {limit!r}")
        answer = []
        for at, client, transport, wire, response in list(self.queries)[-int(limit) :][::-1]:
            try:
                query = parse(wire)
                qname, qtype = names.to_text(query.qname), query.qtype
            except QueryError:
                qname, qtype = "?", "?"
            rcode = _rcode(response.rcode)
            answer.append(
                {"time": at, "client": client, "transport": transport, "qname": qname, "qtype": qtype, "rcode": rcode}
            )
        return answer


async def _later(answer: bytes, delay: float) -> bytes:
    await asyncio.sleep(delay)  # the fault itself
    return answer


def _rcode(value: int) -> str:
    return str(dnslib.RCODE.forward.get(value, f"RCODE{value}"))


def _body(request: Request) -> dict[str, Any]:
    body = request.json()
    if not isinstance(body, dict):
        raise AdminError(400, f'expected {{"name", "type", "ttl", "rdata": […]}}, got {body!r}')
    return body


def _owner(zone: Zone, fields: dict[str, Any]) -> tuple[Name, str]:
    name, rtype = fields.get("name"), fields.get("type")
    if not isinstance(name, str) or not isinstance(rtype, str):
        raise AdminError(400, f'expected "name" and "type", got {sorted(fields)}')
    owner = _admin_name(name, zone.apex)
    if not names.is_below(owner, zone.apex):
        raise AdminError(400, f"expected a name in {names.to_text(zone.apex)}, got {name!r}")
    return owner, rtype.upper()


def _admin_name(text: str, origin: Name | None = None) -> Name:
    try:
        return names.from_text(text, origin)
    except names.BadNameError as error:
        raise AdminError(400, str(error)) from None
