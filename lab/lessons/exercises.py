"""The exercises of the course: tasks with numbers drawn for each student, their model solutions and their checkers.

If an exercise changes the lab, its checker asks the lab's hosts and does not rely on the student's answer.  If the
result is a number, the student types the number, and it is compared with the model in `theory`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol
from urllib.parse import quote, urlencode

from lessons.words import WORDS
from runtime import LabError
from theory import handshake, keepalive, slow_start

ZONE = "example.com."
NAME_SERVERS = ("ns1", "ns2")
#: Hosts whose certificates the exercises use, each with the DNS name in its certificate.
TLS_HOSTS = {"edge": "www.example.com", "edge-far": "far.example.com", "catalog-1": "catalog-1.example.com"}
#: Revocation reasons that exercises ask for, with their codes in RFC 5280.
REASONS = {"superseded": 4, "cessationOfOperation": 5, "affiliationChanged": 3}
#: Part of a cold request's time to first byte that does not depend on the link to the far edge, in ms: the resolver's
#: round trips, the edge's own name resolution and connection to its origin, and the origin's link, as in links.toml.
REST = 182.0
#: Maximum duration of a trace in seconds.
TRACE = 60.0


class Call(Protocol):
    """A request to the admin port of a host, as `runtime.Lab.call` makes it."""

    def __call__(self, host: str, method: str, path: str, body: Any = None, *, timeout: float = 15.0) -> Any:
        """Send a request to the admin port of *host*; raise `LabError` if it fails."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One condition that a checker has examined; if it is not met, the text gives the reason."""

    ok: bool
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A number that the student has to type."""

    value: float
    unit: str
    #: Largest error that is accepted, in *unit*.
    tolerance: float

    def judge(self, given: float | None) -> Finding:
        """Return whether *given* is right; the finding does not reveal the answer."""
        if given is None:
            return Finding(ok=False, text=f"expected an answer in {self.unit}; got none")
        right = abs(given - self.value) <= self.tolerance
        return Finding(right, f"{given:g} {self.unit} is {'right' if right else 'not right'}")


@dataclass(frozen=True, slots=True)
class Exercise:
    """One student's exercise."""

    task: str
    #: Model solution: command lines, run one after the other.
    commands: tuple[str, ...] = ()
    #: Number that the student has to type; None if the exercise asks for no number.
    answer: Answer | None = None
    #: Checker of the lab's state; gets `Call` and the time at which the student began (seconds since 1970).
    inspect: Callable[[Call, float], list[Finding]] | None = None
    #: Command lines that undo what the solution has changed in the lab.
    undo: tuple[str, ...] = ()

    def check(self, given: float | None, call: Call, since: float) -> list[Finding]:
        """Check the typed answer *given* and the lab's state.

        Raises:
            LabError: a host that the checker asks does not answer, although the exercise does not stop it.
        """
        findings = []
        if self.answer is not None:
            findings.append(self.answer.judge(given))
        if self.inspect is not None:
            findings += self.inspect(call, since)
        return findings


def draw(slug: str, student: str) -> Exercise:
    """Return *student*'s exercise for the lesson *slug*; the same student always gets the same numbers."""
    return EXERCISES[slug](Random(f"{student}/{slug}"))


# --- names ------------------------------------------------------------------------------------------------------------


def _names(rng: Random) -> Exercise:
    name, address, ttl = _name(rng), f"198.19.20.{rng.randint(100, 199)}", rng.randrange(30, 300, 10)
    return Exercise(
        f"Publish the name `{name}` with the IPv4 address {address} and a TTL of {ttl} s, on both name servers of "
        f"`example.com`.",
        (f"firstbyte dns set {name} A {ttl} {address}",),
        inspect=lambda call, _: [
            _equal(f"A record of {name} on {host}", (ttl, [address]), _record(call, host, name, "A"))
            for host in NAME_SERVERS
        ],
        undo=(f"firstbyte dns delete {name}",),
    )


def _ttl(rng: Random) -> Exercise:
    name, ratio, rate = _name(rng), rng.choice((1, 3, 4, 9)), rng.choice((0.05, 0.1, 0.2, 0.5))
    ttl = round(ratio / rate)
    share, text = ratio / (1 + ratio), f"hit rate {rng.random():.6f}"
    return Exercise(
        f"A resolver gets {rate:g} queries per second for one name, at random times. Publish a TXT record for `{name}` "
        f"with the text `{text}`, and choose its TTL such that the resolver's cache answers {share:.0%} of these "
        f"queries.",
        (f"firstbyte dns set {name} TXT {ttl} '{text}'",),
        inspect=lambda call, _: _has_ttl(call, name, f'"{text}"', ttl),
        undo=(f"firstbyte dns delete {name}",),
    )


def _outage(rng: Random) -> Exercise:
    name = _name(rng)
    dead, alive = rng.sample(NAME_SERVERS, 2)
    seconds, share = rng.randrange(20, 90, 5), rng.choice((0.6, 0.75, 0.8, 0.9))
    ttl = seconds / (1 - share)
    return Exercise(
        f"First, a calculation. All name servers of a zone fail at the same moment, and the caches are busy: every "
        f"cache holds the record. With which TTL are {share:.0%} of the queries still answered {seconds} s later? "
        f"Then, in the lab: kill `{dead}`, and look up `{name}`, for example with `firstbyte trace https://{name}/`. "
        f"The name does not exist, but the resolver learns this from `{alive}`. Check while `{dead}` is down.",
        (f"firstbyte kill {dead}", f"firstbyte trace https://{name}/"),
        Answer(ttl, "s", 0.02 * ttl),
        inspect=lambda call, since: _asked_the_other(call, since, dead, alive, name),
        undo=(f"firstbyte start {dead}",),
    )


def _asked_the_other(call: Call, since: float, dead: str, alive: str, name: str) -> list[Finding]:
    try:
        call(dead, "GET", "/admin/zones", timeout=3.0)
        stopped = Finding(ok=False, text=f"expected {dead} to be down; it answers")
    except LabError:
        stopped = Finding(ok=True, text=f"{dead} is down")
    asked = [each for each in call(alive, "GET", "/admin/queries?limit=1000") if each["qname"].lower() == f"{name}."]
    recent = any(each["time"] >= since for each in asked)
    return [stopped, Finding(recent, f"{alive} {'was' if recent else 'was not'} asked for {name}")]


# --- connections ------------------------------------------------------------------------------------------------------


def _handshake(rng: Random) -> Exercise:
    rtt, version = rng.randrange(30, 85, 5), rng.choice(("1.2", "1.3"))
    total = handshake.time_to_first_byte_ms(rtt, "TLSv1.2" if version == "1.2" else "TLSv1.3")
    return Exercise(
        f"A request over a new connection with TLS {version} should take {total:.0f} ms from the first SYN to the "
        f"first byte of the response, excluding name resolution and CPU time. Set the round-trip time of the link "
        f"between the clients (`access`) and the near data centre (`near`) accordingly.",
        (f"firstbyte link access:near --rtt {rtt}ms",),
        inspect=lambda call, _: _link(call, "near", "rtt_ms", rtt, 0.02 * rtt, "ms"),
        undo=("firstbyte link access:near --reset",),
    )


def _time_wait(rng: Random) -> Exercise:
    wanted, rate, ports = rng.randint(3, 6), rng.randrange(100, 1000, 50), rng.randrange(5_000, 28_000, 1000)
    return Exercise(
        f"First, a calculation. A client with {ports:,} ephemeral ports opens {rate} connections per second to one "
        f"server, and is always the first to close. After how many seconds does it have no port left? Then, in the "
        f"lab: bring at least {wanted} sockets of the host `client` to port 443 into TIME-WAIT, which lasts a minute.",
        ("firstbyte trace https://www.example.com/ --cold",) * wanted,
        Answer(ports / rate, "s", 0.02 * ports / rate),
        inspect=lambda call, _: _waiting(call, wanted),
    )


def _waiting(call: Call, wanted: int) -> list[Finding]:
    found = [s for s in call("client", "GET", "/admin/sockets?state=TIME-WAIT") if s["remote"].endswith(":443")]
    return [
        Finding(len(found) >= wanted, f"TIME-WAIT sockets to port 443: expected {wanted} or more, got {len(found)}")
    ]


def _keepalive(rng: Random) -> Exercise:
    timeout, rtt = rng.choice((5, 15, 30, 60, 75)), rng.randrange(20, 320, 20)
    safe = keepalive.safe_client_timeout(timeout, rtt / 1000)
    opened = keepalive.opened_share(0.1, safe)
    return Exercise(
        f"A server closes connections that were idle for {timeout} s, and the round-trip time is {rtt} ms. What is the "
        f"longest idle time-out of a client, in seconds, with which no request is lost? (At one request every 10 s on "
        f"average, a client with this time-out opens a new connection for {opened:.1%} of its requests.)",
        answer=Answer(safe, "s", 0.1 * rtt / 1000),
    )


def _slow_start(rng: Random) -> Exercise:
    trips, mss, window = rng.randint(2, 5), rng.choice((1220, 1380, 1400, 1448, 1460)), rng.choice((4, 10, 16, 32))
    size = slow_start.bytes_within(trips, mss, window)
    return Exercise(
        f"What is the largest web page, in bytes, that a new TCP connection without TLS can deliver within {trips} "
        f"round trips? Segments carry {mss:,} bytes, and the server starts with a window of {window} segments. "
        f"An answer that is wrong by at most one segment counts.",
        answer=Answer(size, "bytes", mss),
    )


def _loss(rng: Random) -> Exercise:
    lost = rng.randrange(20, 200, 10)
    each_way = 1 - math.sqrt(1 - lost / 1000)
    return Exercise(
        f"Requests and responses of one packet each cross the link between the clients (`access`) and the far data "
        f"centre (`far`). Set its loss, the same in both directions, such that on average {lost} of 1,000 exchanges "
        f"lose a packet.",
        (f"firstbyte link access:far --loss {each_way:.6f}",),
        inspect=lambda call, _: _link(call, "far", "loss", each_way, 0.02 * each_way, ""),
        undo=("firstbyte link access:far --reset",),
    )


# --- identity ---------------------------------------------------------------------------------------------------------


def _identity(rng: Random) -> Exercise:
    host = rng.choice(list(TLS_HOSTS))
    name = _name(rng)
    serial = f"firstbyte pki show {TLS_HOSTS[host]} | awk '/^serial/ {{print $2}}'"
    return Exercise(
        f"An impostor cannot get a certificate from a CA that both sides trust. You can, because you control the zone: "
        f"obtain one for `{name}` with `firstbyte pki request`. Then publish the serial number of "
        f"the certificate of `{TLS_HOSTS[host]}` as a TXT record of `{name}` (TTL 60), so that a client could compare "
        f"it with the certificate that it gets. `firstbyte pki show NAME` prints the serial number.",
        (
            f"firstbyte pki request {name} > /dev/null",
            f"firstbyte dns set {name} TXT 60 $({serial})",
        ),
        inspect=lambda call, since: _pinned(call, since, host, name),
        undo=(f"firstbyte dns delete {name}",),
    )


def _pinned(call: Call, since: float, host: str, name: str) -> list[Finding]:
    serial = call(host, "GET", "/admin/certificate")["serial"]
    mine = [each for each in _issued(call, name) if each["not_after"] > since]
    ttl, values = _record(call, "ns1", name, "TXT")
    return [
        Finding(bool(mine), f"a certificate for {name} {'exists' if mine else 'was expected; there is none'}"),
        _equal(f"TXT record of {name}", (60, [f'"{serial}"']), (ttl, values)),
    ]


def _renewal(rng: Random) -> Exercise:
    host = rng.choice(list(TLS_HOSTS))
    return Exercise(
        f"A key of `{host}` may have leaked. Make the host obtain a new certificate with a new key, without a restart.",
        (f"firstbyte pki renew {host}",),
        inspect=lambda call, since: _renewed(call, since, host),
    )


def _renewed(call: Call, since: float, host: str) -> list[Finding]:
    held = call(host, "GET", "/admin/certificate")
    new = held["issued"] >= since
    return [
        Finding(new, f"certificate {held['serial'][:8]}… of {host} is {'new' if new else 'older than this exercise'}")
    ]


def _revocation(rng: Random) -> Exercise:
    name, reason = _name(rng), rng.choice(list(REASONS))
    return Exercise(
        f"Obtain a certificate for `{name}`, and revoke it with the reason {reason}.",
        (f"firstbyte pki request {name} > /dev/null", f"firstbyte pki revoke {name} --reason {reason}"),
        inspect=lambda call, _: _revoked(call, name, reason),
    )


def _revoked(call: Call, name: str, reason: str) -> list[Finding]:
    found = _issued(call, name)
    gone = [each for each in found if each["revoked"]]
    said = [call("ca", "GET", f"/admin/certificates/{each['serial']}")["reason"] for each in gone]
    return [
        Finding(bool(found), f"a certificate for {name} {'was issued' if found else 'was expected; there is none'}"),
        Finding(len(gone) == len(found) > 0, f"revoked: {len(gone)} of {len(found)} certificates"),
        Finding(REASONS[reason] in said, f"reason: expected {reason} ({REASONS[reason]}), got {said or 'none'}"),
    ]


# --- all together -----------------------------------------------------------------------------------------------------


def _together(rng: Random) -> Exercise:
    wanted = rng.randrange(260, 520, 20)
    return Exercise(
        f"A first visit to https://far.example.com/ with cold caches should take {wanted} ms until the first byte, "
        f"including name resolution (within 3 %). Set the round-trip time of `access:far` accordingly. `firstbyte "
        f"trace` shows each phase; the checker runs its own trace, and judges the predicted time.",
        (f"firstbyte link access:far --rtt {(wanted - REST) / 3:.0f}ms",),
        inspect=lambda call, _: _traced(call, wanted),
        undo=("firstbyte link access:far --reset",),
    )


def _traced(call: Call, wanted: int) -> list[Finding]:
    """Trace a request; judge the predicted time to first byte, because a busy machine delays the measured one."""
    body = {"url": "https://far.example.com/", "tls": None, "dns": "udp", "warm": False, "resume": False}
    cold = call("client", "POST", "/admin/trace", body, timeout=TRACE)["cold"]
    got, measured = cold["ttfb_predicted_ms"], cold["ttfb_ms"]
    text = f"first byte: expected {wanted} ms, predicted for these links {got:.0f} ms, measured {measured:.0f} ms"
    return [Finding(abs(got - wanted) <= 0.03 * wanted, text)]


EXERCISES: Mapping[str, Callable[[Random], Exercise]] = {
    "names": _names, "ttl": _ttl, "outage": _outage,
    "handshake": _handshake, "time-wait": _time_wait, "keep-alive": _keepalive, "slow-start": _slow_start,
    "loss": _loss,
    "identity": _identity, "renewal": _renewal, "revocation": _revocation,
    "together": _together,
}  # fmt: skip


# --- what the checkers ask --------------------------------------------------------------------------------------------


def _name(rng: Random) -> str:
    """Return a new name below the zone, such as ``amber-417.example.com``."""
    return f"{rng.choice(WORDS)}-{rng.randint(100, 999)}.{ZONE.removesuffix('.')}"


def _record(call: Call, host: str, name: str, rdtype: str) -> tuple[int | None, list[str]]:
    """Return the TTL and the data of a record on *host*; (None, []) if there is none."""
    found = call(host, "GET", f"/admin/zones/{quote(ZONE)}/records?{urlencode({'name': f'{name}.'})}")
    return next(((each["ttl"], each["rdata"]) for each in found if each["type"] == rdtype), (None, []))


def _has_ttl(call: Call, name: str, data: str, ttl: int) -> list[Finding]:
    got, values = _record(call, NAME_SERVERS[0], name, "TXT")
    near = got is not None and abs(got - ttl) <= max(1, 0.05 * ttl)
    return [
        _equal(f"TXT record of {name}", [data], values),
        Finding(near, f"TTL: {got} s is right" if near else f"TTL: {got} s is not right"),
    ]


def _link(call: Call, region: str, key: str, wanted: float, tolerance: float, unit: str) -> list[Finding]:
    """Compare a setting of the link between `access` and *region*, in both directions."""
    ends = {("access", region), (region, "access")}
    found = [each for each in call("wan", "GET", "/admin/links")["links"] if (each["from"], each["to"]) in ends]
    return [
        Finding(
            abs((got := each[key]) - wanted) <= tolerance,
            f"{each['from']} to {each['to']}: {key.removesuffix('_ms')} {got:g} {unit}".rstrip()
            + (" is right" if abs(got - wanted) <= tolerance else " is not right"),
        )
        for each in found
    ]


def _issued(call: Call, name: str) -> list[dict[str, Any]]:
    """Return every certificate that the CA issued for *name*, including revoked and expired ones."""
    found = call("ca", "GET", "/admin/certificates?all=1")["certificates"]
    return [each for each in found if name in each["names"]]


def _equal(what: str, wanted: Any, got: Any) -> Finding:
    return Finding(wanted == got, f"{what}: {got}" if wanted == got else f"{what}: expected {wanted}, got {got}")
