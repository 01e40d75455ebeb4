"""Resolver process: sockets for clients and name servers, cache, counters and the admin API."""

import asyncio
import heapq
import itertools
import random
import resource
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, get_args

import serving
from dnsmessage import Name, NameSyntaxError, Query, RemoteError, decode_query, error_response, rcode_to_text, rdtypes
from dnsmessage import rdata as rdatas
from dnsmessage.message import BADVERS, HEADER, NOERROR, NXDOMAIN, QR, RA, RD, REFUSED, SERVFAIL
from dnsmessage.options import ExtendedError
from resolver.cache import NO_NAME, Cache, Entry
from resolver.local_names import local
from resolver.resolution import MAX_ALIASES, Ask, Failed, Outcome, Resolution, Resolved
from resolver.responses import Encoded, encode, failure, respond
from resolver.upstream import Upstream
from telemetry import AdminError, Request, Telemetry, log

logger = log.get("resolver")

#: Maximum time for resolving one question, in seconds; most clients wait for five seconds.
DEADLINE = 8.0
#: Lifetime of a cached failure, in seconds (RFC 9520: at least 1 s). Caching failures prevents a flood of queries for a
#: popular name whose servers are down.
FAILURE_TTL = 1.0
#: Maximum number of resolutions in progress. While no server answers, each occupies about 18 KiB and one socket until
#: `DEADLINE`. Further questions are answered with SERVFAIL immediately. At most half of the process's descriptors are
#: used.
MAX_RESOLUTIONS = 1024
#: Maximum number of clients that wait for a resolution, at about 5 KiB each; further clients get SERVFAIL.
MAX_WAITING = 4096
#: Time in seconds after which a client gets an expired answer while name servers are still being queried: the client
#: response timer (RFC 8767 section 5).
STALE_AFTER = 1.8
#: Number of resolutions stored for ``GET /admin/resolutions``.
REMEMBERED = 512
#: Maximum number of cached encoded answers, and maximum size of each in bytes; larger answers are rare and are encoded
#: for every query.
MAX_ENCODED, MAX_ENCODED_SIZE = 20_000, 1232
#: Maximum number of stored answers that the listener sends by itself, and number of TTL updates after which such an
#: answer is removed. The next query for the same question stores the answer again.
MAX_HOT, MAX_COUNTDOWNS = 4096, 30

#: Query log fields of the answers that the listener sends without calling `Server.handle`.
_AT_ONCE = {"took_ms": 0.0, "upstream": False}


@dataclass(frozen=True, slots=True)
class Hop:
    """One query to a name server, with its outcome."""

    server: str
    server_name: str
    zone: str
    qname: str
    qtype: str
    kind: Outcome
    rcode: str
    rtt_ms: float
    transport: str
    bytes_sent: int
    bytes_received: int
    cached: bool = False


@dataclass(slots=True)
class Trail:
    """Log entry for one resolved question, with the queries it needed."""

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
        hints: dict[Name, str],
        *,
        port: int = 53,
        stale: float = 0.0,
        minimise: bool = True,
        mixed_case: bool = True,
        ipv6: bool = False,
        policy: serving.Settings | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create a resolver.

        Args:
            telemetry: counters, fault switches and admin port.
            hints: root servers' addresses, keyed by name.
            port: destination port for all name servers; differs from 53 only on loopback.
            stale: how long an expired answer may still be returned if no server replies, in seconds (RFC 8767); 0:
                never.
            minimise: whether each name server is sent only the labels that it needs (QNAME minimisation, RFC 9156).
            mixed_case: whether names are sent to name servers in random case, which a reply must repeat (0x20).
            ipv6: whether name servers are also queried at their IPv6 addresses.
            policy: access control, rate limit, cookies and identity.
            now: returns the monotonic time in seconds, used for expiry.
        """
        self.telemetry, self.hints, self._now = telemetry, hints, now
        self._minimise, self._ipv6 = minimise, ipv6
        self.policy = serving.Policy(policy or serving.Settings(), telemetry, RA, now)
        self.cache = Cache(stale=stale)
        self.upstream = Upstream(port, now, mixed_case=mixed_case)
        self.queries = serving.QueryLog(batch=_AT_ONCE)
        self.trails: deque[Trail] = deque(maxlen=REMEMBERED)
        self._in_flight: dict[tuple[Name, int], asyncio.Task[Resolved | Failed]] = {}
        self._waiting = 0
        self._most = min(MAX_RESOLUTIONS, max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2))
        self._warnings = log.bounded("resolver")
        #: Cached failures, keyed by question, with the time when each expires.
        self._failures: dict[tuple[Name, int], tuple[float, Failed]] = {}
        #: Encoded answers, keyed by name and type.
        self._encoded: dict[tuple[bytes, int], Encoded] = {}
        #: Answers that the listener sends without calling `handle`.
        self._hot = serving.Answers(QR | RA)
        #: Heap of the answers in `_hot`: time of the next TTL update, question, number of updates so far, answer.
        self._due: list[tuple[float, bytes, int, Encoded]] = []
        #: Number of answers sent from `_hot` but not yet added to the metrics.
        self._finished: dict[serving.Transport, int] = dict.fromkeys(get_args(serving.Transport), 0)
        self._rng = random.Random()
        metrics = telemetry.metrics
        self._queries = metrics.counter(
            "firstbyte_resolver_queries_total", "Clients' queries by transport and rcode", "transport", "rcode"
        )
        self._hits = metrics.counter("firstbyte_resolver_cache_hits_total", "Queries answered from the cache")
        self._misses = metrics.counter("firstbyte_resolver_cache_misses_total", "Queries that had to ask a name server")
        self._stale_answers = metrics.counter(
            "firstbyte_resolver_stale_answers_total", "Expired answers given because no server answered"
        )
        self._asked = metrics.counter("firstbyte_resolver_upstream_queries_total", "Queries to name servers", "kind")
        entries = metrics.gauge("firstbyte_resolver_cache_entries", "RRsets and negative answers in the cache")

        def refresh() -> None:
            self._count_finished()
            entries.set(len(self.cache))

        metrics.before_render(refresh)
        telemetry.faults.declare("servfail", "Answer SERVFAIL with this probability", probability=1.0, seed=0)
        telemetry.faults.declare("drop_answers", "Drop answers with this probability", probability=1.0, seed=0)
        telemetry.route("GET", "/admin/cache", self._cache)
        telemetry.route("POST", "/admin/cache/flush", self._flush)
        telemetry.route("GET", "/admin/queries", self.queries.page)
        telemetry.route("GET", "/admin/resolutions", self._resolutions)
        telemetry.route("GET", "/admin/servers", self._servers)
        telemetry.health.set("hints", ok=True, detail=f"{len(hints)} root servers")

    async def start(self, endpoint: tuple[str, int], *, shared: bool = False) -> serving.Listener:
        """Listen on *endpoint*; raise `OSError` if the address is in use. *shared* enables SO_REUSEPORT."""
        finished = None if self.policy.per_query else self
        listener = await serving.start(endpoint, self.handler(), finished=finished, shared=shared)
        self.telemetry.health.set("listener", ok=True, detail=f"{listener.address[0]}:{listener.address[1]}")
        return listener

    def handler(self) -> serving.Handler:
        """Return the handler for all transports: it sends a prebuilt answer or calls the policy and `handle`."""
        guarded = self.policy.guard(self.handle)

        def handle(
            wire: bytes, client: tuple[str, int], transport: serving.Transport
        ) -> serving.Reply | Awaitable[serving.Reply]:
            answers = None if self.policy.per_query or len(wire) < HEADER.size else self.answers()
            if answers is not None and (finished := answers.respond(wire)) is not None:
                self._finished[transport] += 1
                self.queries.add(client[0], transport, wire, NOERROR, _AT_ONCE)
                return finished
            began = time.perf_counter()
            reply = guarded(wire, client, transport)
            if isinstance(reply, Awaitable):
                return serving.Later(reply, lambda ready: later(ready, wire, client[0], transport, began))
            logged(reply, wire, client[0], transport, began, upstream=False)
            return reply

        def later(
            reply: serving.Reply, wire: bytes, client: str, transport: serving.Transport, began: float
        ) -> serving.Reply:
            logged(reply, wire, client, transport, began, upstream=True)
            return reply

        def logged(
            reply: serving.Reply,
            wire: bytes,
            client: str,
            transport: serving.Transport,
            began: float,
            *,
            upstream: bool,
        ) -> None:
            if isinstance(reply, (bytes, bytearray)) and len(reply) >= HEADER.size:
                took = round(1000 * (time.perf_counter() - began), 3)
                self.queries.add(client, transport, wire, reply[3] & 0xF, {"took_ms": took, "upstream": upstream})

        return handle

    def handle(
        self, wire: bytes, client: tuple[str, int], transport: serving.Transport
    ) -> bytes | Awaitable[bytes] | None:
        """Return the reply from the cache, or an awaitable if name servers must be queried; None drops the query."""
        if len(wire) < 12 or wire[2] & 0x80:
            return None
        faults = self.telemetry.faults
        if faults.any_on and faults.hit("drop_answers"):
            return None
        try:
            query = decode_query(wire)
            if query.qclass != rdtypes.IN:
                raise RemoteError("expected class IN", REFUSED)
            if query.edns is not None and query.edns.version:
                raise RemoteError("expected EDNS version 0", BADVERS)
        except RemoteError as error:
            self._queries.inc(transport=transport, rcode=rcode_to_text(error.rcode))
            return error_response(wire, error.rcode, RA)
        if faults.any_on and faults.hit("servfail"):
            return self._fail(query, transport, Failed("a fault switch is on", ExtendedError.OTHER))
        if query.qtype in rdtypes.META or query.qtype == 0:
            return self._fail(
                query, transport, Failed("this type is not resolved", ExtendedError.NOT_SUPPORTED), REFUSED
            )
        now = self._now()
        encoded = self._known(query, now)
        if encoded is not None:
            self._hits.inc()
            self._lend(query, encoded)
            return self._respond(query, transport, encoded)
        if not query.flags & RD:  # the answer is not cached, and without RD no name server may be queried
            reason = "not in the cache, and recursion was not asked for"
            return self._fail(query, transport, Failed(reason, ExtendedError.NOT_AUTHORITATIVE), REFUSED)
        self._misses.inc()
        key = (Name(query.qname.key), query.qtype)
        if self._waiting >= MAX_WAITING or (len(self._in_flight) >= self._most and key not in self._in_flight):
            return self._unresolved(query, transport, client, Failed("too many names are being resolved"))
        task = self._in_flight.get(key)
        if task is None:
            task = self._in_flight[key] = asyncio.create_task(self.resolve(*key))
            task.add_done_callback(lambda _: self._in_flight.pop(key, None))
        return self._later(query, transport, client, task)

    def answers(self) -> serving.Answers | None:
        """Return the answers that the listener may send by itself, with current TTLs; None while a fault is active."""
        now, due = self._now(), self._due
        while due and due[0][0] <= now:
            _, question, count, encoded = heapq.heappop(due)
            if count < MAX_COUNTDOWNS and now < encoded.expires:
                encoded.refresh(now)
                self._hot.refresh(question)
                heapq.heappush(due, (min(encoded.until, encoded.expires), question, count + 1, encoded))
            else:
                self._hot.discard(question)
        return None if self.telemetry.faults.any_on else self._hot

    def answered(self, questions: list[bytes], clients: bytes) -> None:
        """Count and log a batch of answers that the listener sent without calling `handle`."""
        self._finished["udp"] += len(questions)
        self.queries.add_batch(questions, clients)

    def _count_finished(self) -> None:
        for transport, count in self._finished.items():
            self._hits.inc(count)
            if count:
                self._queries.inc(count, transport=transport, rcode="NOERROR")
            self._finished[transport] = 0

    def _lend(self, query: Query, encoded: Encoded) -> None:
        """Let the listener answer further queries for the same question without calling `handle`."""
        question = query.qname.key + query.question[-4:]
        if encoded.rcode or encoded.until <= self._now() or question in self._hot.entries or len(self._due) >= MAX_HOT:
            return
        if self._hot.lend(question, (encoded.answers, encoded.authorities, 0), encoded.body):
            heapq.heappush(self._due, (min(encoded.until, encoded.expires), question, 0, encoded))

    def _known(self, query: Query, now: float) -> Encoded | None:
        """Return the encoded local or cached answer with its remaining TTLs; None if name servers must be queried."""
        key = (query.qname.key, query.qtype)
        encoded = self._encoded.get(key)
        if encoded is not None and now < encoded.expires:
            encoded.refresh(now)
            return encoded
        step = local(query.qname, query.qtype, now) or self._resolution(query.qname, query.qtype).step(now)
        if not isinstance(step, Resolved):
            return None
        self.trails.append(
            Trail(
                time.time(),
                str(Name(query.qname.key)),
                rdtypes.to_text(query.qtype),
                rcode_to_text(step.rcode),
                cached=True,
            )
        )
        encoded = encode(query, step, now)
        if len(encoded.body) <= MAX_ENCODED_SIZE:
            if len(self._encoded) >= MAX_ENCODED:
                self._encoded.clear()
            self._encoded[key] = encoded
        return encoded

    def _resolution(self, qname: Name, qtype: int) -> Resolution:
        return Resolution(
            qname,
            qtype,
            self.cache,
            self.hints,
            self.upstream.servers,
            self._rng,
            minimise=self._minimise,
            ipv6=self._ipv6,
        )

    async def _later(
        self,
        query: Query,
        transport: serving.Transport,
        client: tuple[str, int],
        task: asyncio.Task[Resolved | Failed],
    ) -> bytes:
        # If a stale answer exists, wait at most STALE_AFTER seconds; the resolution continues (RFC 8767 section 5).
        stale = self._stale(Name(query.qname.key), query.qtype, self._now())
        self._waiting += 1
        try:
            done, _ = await asyncio.wait({task}, timeout=None if stale is None else STALE_AFTER)
        finally:
            self._waiting -= 1
        outcome = task.result() if done else Failed("no server has answered yet", ExtendedError.STALE_ANSWER)
        if isinstance(outcome, Resolved):
            return self._respond(query, transport, encode(query, outcome, self._now()))
        return self._unresolved(query, transport, client, outcome)

    def _unresolved(self, query: Query, transport: serving.Transport, client: tuple[str, int], failed: Failed) -> bytes:
        """Return an expired answer, or SERVFAIL if there is none."""
        qname, qtype = str(query.qname), rdtypes.to_text(query.qtype)
        found = self._stale(Name(query.qname.key), query.qtype, self._now())
        if found is not None:
            self._stale_answers.inc()
            encoded = encode(query, found, self._now())
            self._queries.inc(transport=transport, rcode=rcode_to_text(encoded.rcode))
            code = ExtendedError.STALE_NXDOMAIN if encoded.rcode == NXDOMAIN else ExtendedError.STALE_ANSWER
            return respond(query, encoded, udp=transport == "udp", stale=replace(failed, code=code))
        self._warnings.warning("servfail", qname=qname, qtype=qtype, client=client[0], reason=failed.reason)
        return self._fail(query, transport, failed)

    def _stale(self, qname: Name, qtype: int, now: float) -> Resolved | None:
        """Return an expired answer, following expired CNAMEs; None if it is too old or stale answers are disabled."""
        chain: list[Entry] = []
        while len(chain) <= MAX_ALIASES:
            entry = self.cache.get_stale(qname, qtype, now) or self.cache.get_stale(qname, NO_NAME, now)
            if entry is not None and entry.negative is not None:
                return Resolved(entry.negative.rcode, tuple(chain), entry)
            if entry is not None:
                return Resolved(NOERROR, (*chain, entry))
            alias = self.cache.get_stale(qname, rdtypes.CNAME, now)
            if alias is None or alias.negative is not None:
                break
            chain.append(alias)
            qname = Name(alias.records[0].rdata)
        return None

    def _respond(self, query: Query, transport: serving.Transport, encoded: Encoded) -> bytes:
        self._queries.inc(transport=transport, rcode=rcode_to_text(encoded.rcode))
        return respond(query, encoded, udp=transport == "udp")

    def _fail(self, query: Query, transport: serving.Transport, failed: Failed, rcode: int = SERVFAIL) -> bytes:
        self._queries.inc(transport=transport, rcode=rcode_to_text(rcode))
        return failure(query, failed, rcode)

    async def resolve(self, qname: Name, qtype: int) -> Resolved | Failed:
        """Resolve one question by querying name servers, within `DEADLINE` seconds."""
        key = (qname, qtype)
        began = self._now()
        until, failed = self._failures.get(key, (0.0, None))
        if failed is not None and until > began:
            return Failed(f"failed a moment ago: {failed.reason}", ExtendedError.CACHED_ERROR)
        trail = Trail(time.time(), str(qname), rdtypes.to_text(qtype))
        outcome: Resolved | Failed
        try:
            async with asyncio.timeout(DEADLINE):
                outcome = await self._drive(key, trail)
        except TimeoutError:
            outcome = Failed(f"no answer within {DEADLINE:g} s")
        trail.took_ms = (self._now() - began) * 1000
        if isinstance(outcome, Failed):
            trail.rcode = "SERVFAIL"
            while self._failures and (first := next(iter(self._failures))) and self._failures[first][0] <= began:
                del self._failures[first]
            self._failures.pop(key, None)  # remove an older failure, so that the failures stay in order of expiry
            self._failures[key] = self._now() + FAILURE_TTL, outcome
        else:
            trail.rcode = rcode_to_text(outcome.rcode)
        self.trails.append(trail)
        return outcome

    async def _drive(self, key: tuple[Name, int], trail: Trail) -> Resolved | Failed:
        resolution = self._resolution(*key)
        while True:
            step = resolution.step(self._now())
            if not isinstance(step, Ask):
                return step
            began = time.perf_counter()
            try:
                reply = await self.upstream.ask(step.address, step.qname, step.qtype, step.tries)
            except RemoteError as error:
                kind = resolution.unusable(step, f"malformed reply: {error}")
                hop = _hop(step, kind, "", (time.perf_counter() - began) * 1000)
            except OSError as error:
                resolution.fail(step)
                kind = Outcome.TIMEOUT if isinstance(error, TimeoutError) else Outcome.ERROR
                hop = _hop(step, kind, "", (time.perf_counter() - began) * 1000)
            else:
                kind = resolution.receive(reply.message, step, self._now())
                rcode = rcode_to_text(reply.message.rcode)
                hop = _hop(step, kind, rcode, reply.rtt_ms, reply.transport, reply.bytes_sent, reply.bytes_received)
            trail.hops.append(hop)
            self._asked.inc(kind=hop.kind)

    # --- admin API --------------------------------------------------------------------------------------------------

    def _cache(self, request: Request) -> dict[str, Any]:
        now = self._now()
        limit = _limit(request, 1000)
        entries = [
            {
                "name": str(Name(key)),
                "type": "*" if rdtype == NO_NAME else rdtypes.to_text(rdtype),
                "rank": entry.rank.name.lower(),
                "ttl": round(entry.expires - now, 3),
                "rdata": [rdatas.to_text(rdtype, record.rdata) for record in entry.records],
                "negative": rcode_to_text(entry.negative.rcode) if entry.negative is not None else None,
            }
            for (key, rdtype), entry in itertools.islice(self.cache.entries(now), limit)
        ]
        self._count_finished()
        hits, misses = self._hits.value(), self._misses.value()
        return {"entries": entries, "size": sum(1 for _ in self.cache.entries(now)), "hits": hits, "misses": misses}

    def _flush(self, request: Request) -> dict[str, int]:
        body = request.json()
        name = body.get("name") if isinstance(body, dict) else None
        if not (isinstance(body, dict) and (body.get("all") is True) != isinstance(name, str)):
            raise AdminError(400, f'expected {{"name": "www.example.com"}} or {{"all": true}}, got {body!r}')
        try:
            owner = None if name is None else Name.from_text(name.rstrip(".") + ".")
        except NameSyntaxError as error:
            raise AdminError(400, str(error)) from None
        flushed = self.cache.flush(owner)
        self._encoded.clear()
        self._hot, self._due = serving.Answers(QR | RA), []
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
                "timeouts": known.timeouts,
                "ejected_s": round(max(0.0, known.ejected_until - now), 3),
                "edns": known.edns,
                "mixed_case": known.copies_case,
                "cookies": bool(known.server_cookie),
            }
            for address, known in sorted(self.upstream.servers.known.items())
        ]


def _hop(
    ask: Ask, kind: Outcome, rcode: str, rtt_ms: float, transport: str = "udp", sent: int = 0, received: int = 0
) -> Hop:
    names = (str(ask.server), str(ask.zone), str(ask.qname), rdtypes.to_text(ask.qtype))
    return Hop(ask.address, *names, kind, rcode, round(rtt_ms, 3), transport, sent, received)


def _limit(request: Request, default: int) -> int:
    text = request.query.get("limit", str(default))
    if not (text.isascii() and text.isdigit()):
        raise AdminError(400, f"expected limit=NUMBER, got {text!r}")
    return int(text)
