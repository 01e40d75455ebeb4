"""The shell: clients on one side, name servers on the other, the cache between; counters and the admin API."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import serving
from resolver.cache import Cache
from resolver.message import (
    BADVERS,
    REFUSED,
    SERVFAIL,
    ClientQuery,
    MalformedError,
    Record,
    error,
    parse_query,
    rcode_name,
    response,
)
from resolver.resolution import Ask, Failed, Resolution, Resolved
from resolver.upstream import Upstream
from telemetry import AdminError, Request, Telemetry, log

logger = log.get("resolver")

#: Seconds that one question may take; clients give up after five.
DEADLINE = 8.0
#: Seconds that a failure is remembered, so that a hot name whose servers are down does not become a flood
#: (RFC 9520 asks for 1 s at least).
FAILURE_TTL = 1.0
#: Resolutions remembered for ``GET /admin/resolutions``.
REMEMBERED = 512
#: Encoded responses kept; each is good until one of its TTLs has counted down.
MAX_ENCODED = 20_000
RD = 0x0100


@dataclass(frozen=True, slots=True)
class Hop:
    """One query to one server, and what came of it."""

    server: str
    server_name: str
    zone: str
    qname: str
    qtype: str
    #: answer, alias, referral, nxdomain, nodata, lame, timeout or error.
    kind: str
    rcode: str
    rtt_ms: float
    transport: str
    bytes_sent: int
    bytes_received: int
    cached: bool = False


@dataclass(slots=True)
class Trail:
    """How one question was answered."""

    time: float
    qname: str
    qtype: str
    rcode: str = ""
    took_ms: float = 0.0
    cached: bool = False
    hops: list[Hop] = field(default_factory=list)


class Server:
    """A recursive resolver on one address."""

    def __init__(
        self,
        telemetry: Telemetry,
        hints: dict[str, str],
        *,
        port: int = 53,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make one.

        Args:
            telemetry: counters, switches, admin port.
            hints: root servers' names and addresses.
            port: of every name server; 53 but on loopback.
            now: seconds that never go back, by which what is known ends.
        """
        self.telemetry, self.hints, self._now = telemetry, hints, now
        self.cache = Cache()
        self.upstream = Upstream(port, now)
        self.trails: deque[Trail] = deque(maxlen=REMEMBERED)
        self._under_way: dict[tuple[str, str], asyncio.Task[Resolved | Failed]] = {}
        self._failures: dict[tuple[str, str], float] = {}
        self._encoded: dict[tuple[bytes, str], tuple[float, bytes]] = {}
        self._rng = random.Random()
        metrics = telemetry.metrics
        self._queries = metrics.counter(
            "firstbyte_resolver_queries_total", "Clients' queries by transport and rcode", "transport", "rcode"
        )
        self._hits = metrics.counter("firstbyte_resolver_cache_hits_total", "Queries answered from the cache")
        self._misses = metrics.counter("firstbyte_resolver_cache_misses_total", "Queries that made others necessary")
        self._asked = metrics.counter("firstbyte_resolver_upstream_queries_total", "Queries to name servers", "kind")
        entries = metrics.gauge("firstbyte_resolver_cache_entries", "RRsets and refusals in the cache")
        metrics.before_render(lambda: entries.set(len(self.cache)))
        telemetry.faults.declare("servfail", "Answer SERVFAIL with this probability", probability=1.0, seed=0)
        telemetry.faults.declare("drop_answers", "Drop answers with this probability", probability=1.0, seed=0)
        telemetry.route("GET", "/admin/cache", self._cache)
        telemetry.route("POST", "/admin/cache/flush", self._flush)
        telemetry.route("GET", "/admin/resolutions", self._resolutions)
        telemetry.route("GET", "/admin/servers", self._servers)
        telemetry.health.set("hints", ok=True, detail=f"{len(hints)} root servers")

    async def start(self, endpoint: tuple[str, int]) -> serving.Listener:
        """Listen; raise `OSError` when the address is taken."""
        listener = await serving.start(endpoint, self.handle)
        self.telemetry.health.set("listener", ok=True, detail=f"{listener.address[0]}:{listener.address[1]}")
        return listener

    def handle(
        self, wire: bytes, client: tuple[str, int], transport: serving.Transport
    ) -> serving.Reply | Awaitable[serving.Reply]:
        """Answer at once from the cache, or later."""
        if len(wire) < 12 or wire[2] & 0x80:
            return None
        faults = self.telemetry.faults
        if faults.any_on and faults.hit("drop_answers"):
            return None
        now = self._now()
        hit = self._encoded.get((wire[2:], transport))
        if hit is not None and now < hit[0] and not faults.any_on:
            self._hits.inc()
            self._queries.inc(transport=transport, rcode=rcode_name(hit[1][3] & 0xF))
            return wire[:2] + hit[1][2:]
        try:
            query = parse_query(wire)
        except MalformedError as malformed:
            self._queries.inc(transport=transport, rcode=rcode_name(malformed.rcode))
            return error(wire, malformed.rcode if malformed.rcode != BADVERS else BADVERS)
        if faults.any_on and faults.hit("servfail"):
            return self._respond(query, transport, Failed("fault"))
        if query.qtype in {"AXFR", "IXFR", "ANY"}:
            return self._respond(query, transport, Resolved(REFUSED, ()))
        trail = Trail(time.time(), query.qname, query.qtype)
        resolution = Resolution(query.qname, query.qtype, self.cache, self.hints, self.upstream.servers, self._rng)
        step = resolution.step(now)
        if isinstance(step, Resolved):
            self._hits.inc()
            trail.cached, trail.rcode = True, rcode_name(step.rcode)
            self.trails.append(trail)
            reply = self._respond(query, transport, step)
            if len(self._encoded) >= MAX_ENCODED:
                self._encoded.clear()
            self._encoded[wire[2:], transport] = (step.until, reply)
            return reply
        if not query.flags & RD and query.qname != ".":  # only what is known, and that is nothing
            return self._respond(query, transport, Resolved(REFUSED, ()))
        self._misses.inc()
        return self._later(query, transport, client)

    async def _later(self, query: ClientQuery, transport: serving.Transport, client: tuple[str, int]) -> bytes:
        key = (query.qname, query.qtype)
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(self.resolve(*key))
            task.add_done_callback(lambda _: self._under_way.pop(key, None))
        outcome = await asyncio.shield(task)
        if isinstance(outcome, Failed):
            logger.warning("servfail", qname=query.qname, qtype=query.qtype, client=client[0], reason=outcome.reason)
        return self._respond(query, transport, outcome)

    def _respond(self, query: ClientQuery, transport: serving.Transport, outcome: Resolved | Failed) -> bytes:
        rcode = SERVFAIL
        answer: tuple[Record, ...] = ()
        authority: tuple[Record, ...] = ()
        if isinstance(outcome, Resolved):
            rcode, answer, authority = outcome.rcode, outcome.answer, outcome.authority
        self._queries.inc(transport=transport, rcode=rcode_name(rcode))
        return response(query, rcode, answer, authority, udp=transport == "udp")

    async def resolve(self, qname: str, qtype: str) -> Resolved | Failed:
        """Resolve one question, asking as many servers as it takes."""
        key = (qname, qtype)
        began = self._now()
        if self._failures.get(key, 0) > began:
            return Failed("failed a moment ago")
        trail = Trail(time.time(), qname, qtype)
        outcome: Resolved | Failed
        try:
            async with asyncio.timeout(DEADLINE):
                outcome = await self._drive(key, trail)
        except TimeoutError:
            outcome = Failed(f"no answer within {DEADLINE:g} s")
        trail.took_ms = (self._now() - began) * 1000
        if isinstance(outcome, Failed):
            trail.rcode = "SERVFAIL"
            self._failures = {k: until for k, until in self._failures.items() if until > began}
            self._failures[key] = self._now() + FAILURE_TTL
        else:
            trail.rcode = rcode_name(outcome.rcode)
        self.trails.append(trail)
        return outcome

    async def _drive(self, key: tuple[str, str], trail: Trail) -> Resolved | Failed:
        resolution = Resolution(*key, self.cache, self.hints, self.upstream.servers, self._rng)
        while True:
            step = resolution.step(self._now())
            if not isinstance(step, Ask):
                return step
            began = time.perf_counter()
            try:
                reply = await self.upstream.ask(step.address, step.qname, step.qtype, step.tries)
            except (OSError, MalformedError) as failure:
                resolution.fail(step)
                kind = "timeout" if isinstance(failure, TimeoutError) else "error"
                waited = (time.perf_counter() - began) * 1000
                trail.hops.append(_hop(step, kind, "", waited, "udp", 0, 0))
            else:
                kind = resolution.receive(reply.message, step, self._now())
                rcode = rcode_name(reply.message.rcode)
                hop = _hop(step, kind, rcode, reply.rtt_ms, reply.transport, reply.bytes_sent, reply.bytes_received)
                trail.hops.append(hop)
            self._asked.inc(kind=kind)

    # --- admin ------------------------------------------------------------------------------------------------------

    def _cache(self, request: Request) -> dict[str, Any]:
        now = self._now()
        limit = _limit(request, 1000)
        entries = [
            {
                "name": name,
                "type": rtype or "*",
                "rank": entry.rank.name.lower(),
                "ttl": round(entry.expires - now, 3),
                "rdata": [record.text for record in entry.records],
                "negative": rcode_name(entry.negative.rcode) if entry.negative is not None else None,
            }
            for (name, rtype), entry in self.cache.entries(now)
        ]
        hits, misses = self._hits.value(), self._misses.value()
        return {"entries": entries[:limit], "size": len(entries), "hits": hits, "misses": misses}

    def _flush(self, request: Request) -> dict[str, int]:
        body = request.json()
        name = body.get("name") if isinstance(body, dict) else None
        if not (isinstance(body, dict) and (body.get("all") is True) != isinstance(name, str)):
            raise AdminError(400, f'expected {{"name": "www.example.com"}} or {{"all": true}}, got {body!r}')
        flushed = self.cache.flush(None if name is None else name.lower().rstrip(".") + ".")
        self._encoded.clear()
        self._failures.clear()
        if name is None:
            self.upstream.servers.forgive()
        logger.info("cache_flushed", name=name or "*", entries=flushed)
        return {"flushed": flushed}

    def _resolutions(self, request: Request) -> list[dict[str, Any]]:
        qname = request.query.get("qname")
        wanted = None if qname is None else qname.lower().rstrip(".") + "."
        found = [trail for trail in reversed(self.trails) if wanted in {None, trail.qname}]
        return [asdict(trail) for trail in found[: _limit(request, 20)]]

    def _servers(self, _: Request) -> list[dict[str, Any]]:
        now = self._now()
        return [
            {
                "address": address,
                "srtt_ms": None if known.srtt_ms is None else round(known.srtt_ms, 3),
                "unanswered": known.unanswered,
                "silent_s": round(max(0.0, known.silent_until - now), 3),
            }
            for address, known in sorted(self.upstream.servers.known.items())
        ]


def _hop(ask: Ask, kind: str, rcode: str, rtt_ms: float, transport: str, sent: int, received: int) -> Hop:
    return Hop(
        ask.address,
        ask.server,
        ask.zone,
        ask.qname,
        ask.qtype,
        kind,
        rcode,
        round(rtt_ms, 3),
        transport,
        sent,
        received,
    )


def _limit(request: Request, default: int) -> int:
    text = request.query.get("limit", str(default))
    if not (text.isascii() and text.isdigit()):
        raise AdminError(400, f"expected limit=NUMBER, got {text!r}")
    return int(text)
