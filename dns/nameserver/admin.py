"""Admin API of the name server: zones, records and queries as JSON."""

import asyncio
import json
from typing import TYPE_CHECKING, Any

from dnsmessage import LocalError, Name, rdtypes
from dnsmessage import rdata as rdatas
from dnsmessage.message import MAX_TTL
from nameserver.errors import NameServerError, ZoneFileError
from nameserver.journal import JournalError
from nameserver.master_file import words
from nameserver.zone import RRset, Zone
from telemetry import AdminError, Request, Response, Telemetry, log

if TYPE_CHECKING:
    from nameserver.server import Server

logger = log.get("nameserver")

#: Maximum number of records in one RRset that the admin API accepts.
MAX_RECORDS = 100


class Admin:
    """The admin routes of one name server."""

    def __init__(self, server: "Server") -> None:
        self._server, self._started = server, server.telemetry.clock.time()
        #: Whether changes to records are refused, because another process serves the same zones.
        self.frozen = False

    def route(self, telemetry: Telemetry) -> None:
        """Register all routes on the admin port of *telemetry*."""
        for method, path, handler in (
            ("GET", "/admin/zones", self._zones),
            ("POST", "/admin/zones", self._add),
            ("GET", "/admin/zones/{zone}/records", self._records),
            ("PUT", "/admin/zones/{zone}/records", self._put),
            ("DELETE", "/admin/zones/{zone}/records", self._delete),
            ("POST", "/admin/zones/{zone}/reload", self._reload),
            ("GET", "/admin/queries", self._server.queries.page),
        ):
            telemetry.route(method, path, handler)

    def _zones(self, _: Request) -> list[dict[str, Any]]:
        zones, secondaries = self._server.responder.zones, self._server.secondaries.zones
        return [self._described(apex, zones.get(apex)) for apex in dict.fromkeys((*zones, *secondaries))]

    def _described(self, apex: Name, zone: Zone | None) -> dict[str, Any]:
        found: dict[str, Any] = {
            "zone": str(apex),
            "serial": None if zone is None else zone.serial,
            "rrsets": 0 if zone is None else len(zone),
            "published": self._server.published.get(apex, self._started),
        }
        if (secondary := self._server.secondaries.zones.get(apex)) is not None:
            return {**found, "secondary": secondary.describe()}
        return {**found, "file": str(self._server.files.get(apex, ""))}

    def _zone(self, request: Request) -> Zone:
        asked = request.params["zone"]
        apex = _admin_name(asked if asked.endswith(".") else asked + ".")
        zone = self._server.zone(apex)
        if zone is None and apex in self._server.secondaries.zones:
            raise AdminError(409, f"{apex} is a secondary zone without data")
        if zone is None:
            known = ", ".join(map(str, self._server.responder.zones))
            raise AdminError(404, f"expected a zone of {known}; got {asked!r}")
        return zone

    def _primary(self, request: Request) -> Zone:
        """Return the zone that *request* changes; raise `AdminError` if it is a secondary zone."""
        zone = self._zone(request)
        secondary = self._server.secondaries.zones.get(zone.apex)
        if secondary is not None:
            where = " or ".join(map(str, secondary.core.primaries))
            raise AdminError(409, f"{zone.apex} is a secondary zone here: change it on its primary, {where}")
        return zone

    async def _add(self, request: Request) -> dict[str, Any]:
        """Add a primary zone with the content ``text``, or a secondary zone with the primaries of the zone ``like``."""
        body = request.json()
        if (
            not isinstance(body, dict)
            or set(body) - {"source"} not in ({"zone", "text"}, {"zone", "like"})
            or not all(isinstance(each, str) for each in body.values())
        ):
            raise AdminError(400, f'expected {{"zone", "text"}} or {{"zone", "like"}}, got {body!r}'[:200])
        if self.frozen:
            raise AdminError(
                409, "several workers serve this port: give them the zone with --zone and start them again"
            )
        apex = Name(_admin_name(body["zone"].removesuffix(".") + ".").key)
        try:
            if "like" in body:
                self._server.add_secondary(apex, _admin_name(body["like"].removesuffix(".") + "."))
                return {"zone": str(apex), "serial": None}
            zone = await self._server.add_zone(apex, body["text"], body.get("source", str(apex)))
        except ZoneFileError as error:
            raise AdminError(400, str(error)) from None
        except NameServerError as error:
            raise AdminError(409, str(error)) from None
        logger.info("zone_added", zone=str(apex), serial=zone.serial)
        return {"zone": str(apex), "serial": zone.serial}

    async def _records(self, request: Request) -> list[dict[str, Any]] | Response:
        """Return the records of a zone, or only those at ``name`` if the request has this parameter."""
        zone, name = self._zone(request), request.query.get("name")
        if name is not None:
            return [_shown(each) for each in (zone.node(_admin_name(name, zone.apex)) or {}).values()]
        return Response(await asyncio.to_thread(_listing, zone), "application/json")

    async def _put(self, request: Request) -> dict[str, Any]:
        zone, body = self._primary(request), _body(request)
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
        name, rdtype = _owner(zone, body, soa=True)
        try:
            data = [_rdata(rdtype, value, zone.apex) for value in values]
        except (LocalError, NameServerError) as error:
            raise AdminError(400, str(error)) from None
        answer = await self._change(zone.apex, name, rdtype, ttl, data)
        if rdtype == rdtypes.SOA:  # its serial number is not the one in the request
            data = list(self._server.responder.zones[zone.apex].soa.rdata)
        return {**answer, "record": _shown(RRset(name, rdtype, ttl, tuple(dict.fromkeys(data))))}

    async def _delete(self, request: Request) -> dict[str, Any]:
        zone = self._primary(request)
        name, rdtype = _owner(zone, request.query)
        if rdtype not in (zone.node(name) or {}):
            raise AdminError(404, f"no {rdtypes.to_text(rdtype)} at {name}")
        return await self._change(zone.apex, name, rdtype, 0, [])

    async def _change(self, apex: Name, name: Name, rdtype: int, ttl: int, data: list[bytes]) -> dict[str, Any]:
        if self.frozen:
            raise AdminError(
                409,
                "several workers serve this zone, and one that starts again would not have the change: "
                "edit the master file and reload it, or run the server without --workers",
            )
        try:
            zone = await self._server.publish(
                lambda: self._server.responder.zones[apex].replace(name, rdtype, ttl, data)
            )
        except JournalError as error:
            raise AdminError(503, str(error)) from None
        except NameServerError as error:
            raise AdminError(400, str(error)) from None
        logger.info("record_changed", name=str(name), type=rdtypes.to_text(rdtype), serial=zone.serial)
        return {"zone": str(zone.apex), "serial": zone.serial}

    async def _reload(self, request: Request) -> dict[str, Any]:
        asked = _admin_name(request.params["zone"].removesuffix(".") + ".")
        if (secondary := self._server.secondaries.zones.get(asked)) is not None:
            secondary.check_now()
            return {"zone": str(asked), "secondary": secondary.describe()}
        try:
            zone = await self._server.reload(self._zone(request).apex)
        except NameServerError as error:
            raise AdminError(409, str(error)) from None
        return {"zone": str(zone.apex), "serial": zone.serial}


def _listing(zone: Zone) -> bytes:
    """Return all records of *zone* as JSON, encoding one RRset at a time so that other threads are not delayed."""
    return b"[" + b", ".join(json.dumps(_shown(each)).encode() for each in zone) + b"]\n"


def _shown(rrset: RRset) -> dict[str, Any]:
    return {
        "name": str(rrset.name), "type": rdtypes.to_text(rrset.rdtype), "ttl": rrset.ttl, "rdata": rrset.text(),
    }  # fmt: skip


def _body(request: Request) -> dict[str, Any]:
    body = request.json()
    if not isinstance(body, dict):
        raise AdminError(400, f'expected {{"name", "type", "ttl", "rdata": […]}}, got {body!r}')
    try:
        json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:  # JSON strings can contain lone surrogates, which are not characters
        raise AdminError(400, f"expected Unicode text, got {error.object[error.start]!r}") from None
    return body


def _owner(zone: Zone, fields: dict[str, Any], *, soa: bool = False) -> tuple[Name, int]:
    """Return the name and type in *fields*; with *soa*, they may be the SOA record of the zone."""
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
    if rdtype == rdtypes.SOA and not (soa and owner == zone.apex):
        raise AdminError(400, "expected any type but SOA: its serial is counted here")
    return owner, rdtype


def _rdata(rdtype: int, value: str, origin: Name) -> bytes:
    """Parse one record's RDATA in master file syntax; a TXT value that does not begin with a quote is literal text."""
    if rdtype == rdtypes.TXT and value[:1] != '"':
        return rdatas.from_text(rdtype, [value.replace("\\", "\\\\").encode()], origin)
    return rdatas.from_text(rdtype, words(value, rdtype), origin)


def _admin_name(text: str, origin: Name | None = None) -> Name:
    try:
        return Name.from_text(text, origin)
    except LocalError as error:
        raise AdminError(400, str(error)) from None
