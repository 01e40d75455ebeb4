"""The rows of a plan: each applies one model of `theory` to the inputs.

Each row contains its formula.  Each topic contains the assumptions, and the command that checks the models in the lab.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

from planner.calibration import Costs
from planner.inputs import Inputs
from theory import encryption, handshake, keepalive, outage, queueing, slow_start, time_wait, ttl

DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Row:
    """One quantity of a plan."""

    key: str
    what: str
    #: Unit of the value: ``duration`` (seconds), ``share``, ``bit/s``, or a word that follows the number.
    unit: str
    formula: str
    #: Computes the value; None if the model has no value for these inputs (``never``, ``no limit``).
    value: Callable[[Inputs, Costs], float | None]
    #: Text to show in place of a missing value.
    none: str = "never"
    #: Whether the value is a count of independent events, which has a Poisson distribution.
    poisson: bool = False


@dataclass(frozen=True, slots=True)
class Topic:
    """Rows with common assumptions, and the experiment that checks them."""

    name: str
    #: Meaning of the symbols in the formulas.
    symbols: str
    assumes: str
    #: Arguments of ``firstbyte`` that check the models in the lab.
    verify: tuple[str, ...]
    rows: tuple[Row, ...]


def _lookups(i: Inputs) -> float:
    return i.clients * ttl.upstream_rate(i.rps / i.clients, i.ttl)


def _per_resolver(i: Inputs) -> float:
    return _lookups(i) / i.resolvers


@functools.cache
def pool_size(i: Inputs) -> int:
    """Return the number of connections in the pool: as given, or the smallest number with an acceptable mean wait."""
    return i.pool or queueing.smallest_pool(i.rps, i.backhaul + i.hold, i.pool_wait)


@functools.cache
def _quantile_size(i: Inputs) -> float:
    return queueing.smallest_pool(i.rps, i.backhaul + i.hold, i.pool_wait, quantile=0.99)


def safe_idle(i: Inputs) -> float:
    """Return the longest idle time-out of the edge with which no request loses the keep-alive race."""
    return keepalive.safe_client_timeout(i.idle_timeout, i.backhaul)


def _race_share(i: Inputs) -> float:
    return keepalive.race_share(i.rps / pool_size(i), i.idle_timeout, i.backhaul)


def _first_byte(i: Inputs, *, resumed: bool) -> float:
    origin = i.backhaul + i.hold
    return origin + handshake.time_to_first_byte_ms(1000 * i.rtt, i.protocol, resumed=resumed) / 1000


def _cycle(i: Inputs) -> float:
    return i.lifetime * i.renew_at


def _full(i: Inputs) -> float:
    return 0.0 if i.tls == "none" else i.opened * (1 - i.resumed)


def _resumed(i: Inputs) -> float:
    return 0.0 if i.tls == "none" else i.opened * i.resumed


def _expired(i: Inputs) -> float:
    return min(1.0, max(0.0, i.ca_outage - i.lifetime + _cycle(i)) / _cycle(i))


TOPICS = (
    Topic(
        "names",
        "C clients, R resolvers, T the TTL, t seconds since the change; occ: share of caches that hold the record",
        "every client and every resolver keeps an answer for its TTL; lookups are Poisson and spread evenly",
        ("run", "ttl"),
        (
            Row("lookups", "queries at resolvers", "queries/s", "C · r/(1 + r·T), r = rps/C", lambda i, _: _lookups(i)),
            Row(
                "authority",
                "queries at the zone's servers",
                "queries/s",
                "R · λ/(1 + λT), λ = queries per resolver",
                lambda i, _: i.resolvers * ttl.upstream_rate(_per_resolver(i), i.ttl),
            ),
            Row(
                "hits",
                "hits in a resolver's cache",
                "share",
                "λT/(1 + λT)",
                lambda i, _: ttl.hit_rate(_per_resolver(i), i.ttl),
            ),
            Row(
                "stale",
                "caches with the old address after a change",
                "share",
                "occ · (1 - t/T), occ = λT/(1 + λT)",
                lambda i, _: ttl.stale_share(_per_resolver(i), i.ttl, i.change_after),
            ),
        ),
    ),
    Topic(
        "outage of the name servers",
        "λ queries/s at a resolver, T the TTL, t seconds into the outage; occ = λT/(1 + λT): share of caches that hold "
        "the record",
        "no name server of the zone answers during the outage; before it, lookups are Poisson and spread evenly",
        ("run", "dns-outage"),
        (
            Row(
                "stranded",
                "queries that fail at the end of a DNS outage",
                "share",
                "1 - occ · (1 - t/T)",
                lambda i, _: 1 - outage.answered_share(_per_resolver(i), i.ttl, i.outage),
            ),
            Row(
                "serve_stale",
                "the same if resolvers serve stale answers",
                "share",
                "1 - occ",
                lambda i, _: 1 - outage.answered_share(_per_resolver(i), i.ttl, i.outage, serve_stale=True),
            ),
        ),
    ),
    Topic(
        "connections",
        "λ requests/s, k share on open connections, W duration of TIME-WAIT, P source ports per address",
        "arrivals are Poisson; TIME-WAIT lasts 60 to 64 s on Linux and stays with the side that closes first",
        ("run", "time-wait"),
        (
            Row("opened", "new client connections", "connections/s", "λ · (1 - k)", lambda i, _: i.opened),
            Row(
                "waiting",
                "TIME-WAIT sockets at the edge if it closes first",
                "sockets",
                "λ(1 - k) · W",
                lambda i, c: time_wait.sockets_waiting(i.opened, c.wait, c.wait),
                poisson=True,
            ),
            Row(
                "unpooled",
                "TIME-WAIT sockets towards origins, without a pool",
                "sockets",
                "min(λW, P · sources · destinations)",
                lambda i, c: min(i.rps * c.wait, i.ports * i.sources * i.destinations),
            ),
            Row(
                "exhausted",
                "ports run out without a pool after",
                "duration",
                "P · sources · destinations / λ",
                lambda i, c: time_wait.exhausted_at(i.rps, int(i.ports * i.sources * i.destinations), c.wait),
            ),
            Row(
                "sources",
                "source addresses needed without a pool",
                "addresses",
                "⌈λW / (P · destinations)⌉",
                lambda i, c: math.ceil(i.rps * c.wait / (i.ports * i.destinations)),
            ),
        ),
    ),
    Topic(
        "pool",
        "λ requests/s, S time that a request holds a connection (backhaul + hold), L = λS, c connections, "
        "C(c, L) Erlang's waiting probability",
        "requests are Poisson, holding times exponential (constant ones wait half as long), first come, first served",
        ("run", "pool"),
        (
            Row(
                "in_use",
                "connections to origins in use",
                "connections",
                "L = λ · (RTT + S)",
                lambda i, _: i.in_use,
                poisson=True,
            ),
            Row(
                "pool",
                "pool size for the mean wait",
                "connections",
                "smallest c: C(c, L)/(c/S - λ) ≤ wait (Erlang C)",
                lambda i, _: pool_size(i),
            ),
            Row(
                "pool_p99",
                "pool size for the wait at p99",
                "connections",
                "smallest c: ln(C/0.01)/(c/S - λ) ≤ wait",
                lambda i, _: _quantile_size(i),
            ),
            Row(
                "wait",
                "mean wait with that pool",
                "duration",
                "C(c, L)/(c/S - λ)",
                lambda i, _: queueing.mm_c_wait(i.rps, i.backhaul + i.hold, pool_size(i)),
            ),
        ),
    ),
    Topic(
        "keep-alive",
        "Ts idle time-out of the origin, RTT the backhaul, λ' requests/s on one pooled connection",
        "requests are spread evenly over the pool; only the origin closes idle connections",
        ("run", "keepalive-race"),
        (
            Row(
                "race_share",
                "requests that lose the keep-alive race",
                "share",
                "e^(-λ'Ts) · (e^(λ'RTT) - 1)",
                lambda i, _: _race_share(i),
            ),
            Row("races", "lost races", "races/day", "λ · share · 86,400", lambda i, _: i.rps * _race_share(i) * DAY),
            Row(
                "safe_idle",
                "the edge should close idle connections after",
                "duration",
                "Ts - RTT",
                lambda i, _: safe_idle(i),
            ),
        ),
    ),
    Topic(
        "first byte",
        "h round trips of the TLS handshake (1 for TLS 1.3, 2 for a full handshake of TLS 1.2), S hold, n "
        "segments of 1,448 bytes (MSS)",
        "no loss; processing in the edge takes no time; a new TCP connection sends ten segments first",
        ("run", "handshake"),
        (
            Row(
                "ttfb_new",
                "time to first byte, new connection",
                "duration",
                "RTT · (1 + h + 1) + backhaul + S",
                lambda i, _: _first_byte(i, resumed=False),
            ),
            Row(
                "ttfb_resumed",
                "the same, TLS session resumed",
                "duration",
                "h = 1 for TLS 1.2 and 1.3",
                lambda i, _: None if i.tls == "none" else _first_byte(i, resumed=True),
                "no TLS",
            ),
            Row(
                "ttfb_open",
                "the same, open connection",
                "duration",
                "RTT + backhaul + S",
                lambda i, _: i.rtt + i.backhaul + i.hold,
            ),
            Row(
                "rounds",
                "round trips to deliver a response",
                "round trips",
                "⌈log2(n/10 + 1)⌉",
                lambda i, _: slow_start.rounds(int(i.response)),
            ),
            Row(
                "first_rate",
                "bandwidth during the first round trip",
                "bit/s",
                "10 · MSS / RTT",
                lambda i, _: 8 * slow_start.bytes_within(1) / i.rtt if i.rtt else None,
                "no limit",
            ),
        ),
    ),
    Topic(
        "encryption",
        "λ requests/s, k share on open connections, cost: CPU time on this machine",
        "CPU time of OpenSSL alone on one core of this machine; the server's own work comes on top",
        ("run", "handshake"),
        (
            Row("full", "full TLS handshakes", "handshakes/s", "λ(1 - k)(1 - resumed)", lambda i, _: _full(i)),
            Row("resumed", "resumed TLS handshakes", "handshakes/s", "λ(1 - k) · resumed", lambda i, _: _resumed(i)),
            Row(
                "cores_handshakes",
                "cores for handshakes",
                "cores",
                "full · cost + resumed · cost",
                lambda i, c: encryption.cores(_full(i), 0, c.full, 0) + encryption.cores(_resumed(i), 0, c.resumed, 0),
            ),
            Row(
                "cores_bytes",
                "cores for encryption of responses",
                "cores",
                "λ · size · cost per byte",
                lambda i, c: 0.0 if i.tls == "none" else encryption.cores(0, i.rps * i.response, 0, c.per_byte),
            ),
            Row(
                "one_percent",
                "bytes per connection where the handshake is 1 %",
                "bytes",
                "99 · handshake / cost per byte",
                lambda i, c: None if i.tls == "none" else encryption.bytes_where_handshake_is(0.01, c.full, c.per_byte),
                "no TLS",
            ),
        ),
    ),
    Topic(
        "identity",
        "N certificates, cycle: time between two renewals of a certificate (lifetime · renew at)",
        "renewals are spread evenly; after an outage of the CA, clients spread their orders evenly",
        ("drill", "ca-outage"),
        (
            Row(
                "renewals",
                "renewals",
                "per day",
                "N / (lifetime · renew at)",
                lambda i, _: i.certificates * DAY / _cycle(i),
                poisson=True,
            ),
            Row(
                "storm",
                "orders after the CA's outage",
                "orders/s",
                "N · min(1, outage/cycle) / spread",
                lambda i, _: i.certificates * min(1.0, i.ca_outage / _cycle(i)) / i.spread,
            ),
            Row(
                "expired",
                "certificates that expire during the outage",
                "share",
                "(outage - lifetime + cycle)⁺ / cycle",
                lambda i, _: _expired(i),
            ),
        ),
    ),
)
