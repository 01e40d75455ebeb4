"""Scenario `dns-privacy`: what an observer can read of DNS over UDP, TCP, TLS and HTTPS, and what encryption costs."""

import base64
import shutil
import socket
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import Chart, Control, Curve, Dots, Estimate, Experiment, Lesson, Panel, Quantity, Run, Undo, parameter
from hostfiles.layout import TRUST_ANCHOR
from scenarios.instruments.dns_clients import PORTS, Client, Observed
from scenarios.instruments.round_trips import check_slope
from scenarios.instruments.subject import CLIENTS, find
from theory import privacy
from theory.privacy import Transport
from wireformat import pcap

TRANSPORTS: dict[Transport, str] = {"udp": "UDP", "tcp": "TCP", "dot": "DoT", "doh": "DoH"}
#: Option of `kdig` that selects each transport.
KDIG: dict[Transport, str] = {"udp": "+notcp", "tcp": "+tcp", "dot": "+tls", "doh": "+https"}
#: The zone, a label in it, and its primary server.  While the scenario runs, every name below the label exists.
ZONE, PARENT, PRIMARY = "example.com.", "private", "ns1"
ADDRESS = "192.0.2.54"
#: A name whose response is larger than a datagram.
LARGE = "big.example.com"
#: Lengths of the labels in the queries whose message sizes are compared.
LENGTHS = (4, 9, 14, 19, 24, 29)
#: Block sizes to whose multiples queries and responses are padded, in bytes (RFC 8467 section 4.1).
QUERY_BLOCK, RESPONSE_BLOCK = 128, 468
#: Maximum duration of the capture in seconds; normally the scenario stops it earlier.
CAPTURE = 60.0
#: Size in bytes of a TLS record with an alert, such as the one that closes a connection.
ALERT = 24
PROGRAM_TIMEOUT = 20.0
#: Largest difference between a slope and the whole number of round trips that it is compared with.
TOLERANCE = 0.25


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters that the user can vary."""

    rtt_ms: tuple[float, ...] = parameter(
        (20.0, 60.0, 120.0), quick=(10.0, 60.0), unit="ms", low=5, high=500, least=2,
        help="round-trip times between client and resolver",
    )  # fmt: skip
    queries: tuple[int, ...] = parameter((1, 5, 20), low=1, high=100, help="consecutive queries on one connection")
    repeats: int = parameter(5, quick=3, low=2, high=50, help="connections of each kind")
    resolver: str = parameter("resolver.example.com", help="name of the resolver, in its certificate")


class DnsPrivacy(Experiment[Parameters]):
    """Sends the same queries over four transports, times them at the client, and captures the packets in transit."""

    name = "dns-privacy"
    claim = (
        "An observer on the path reads every name over UDP and TCP and none over TLS and HTTPS, which cost 1 + 2/N "
        "round trips per query, for N queries on a connection."
    )
    says = (
        "The textbook says that DNS sends queries in plain text, so that anyone on the path can read which names a "
        "client looks up, and that DNS over TLS hides them. In practice the cost is two round trips per connection, "
        "not per query, the size of messages gives names away unless they are padded, and the resolver still reads "
        "everything: encryption moves the trust from the path to the resolver."
    )
    source = "RFC 7858 (DNS over TLS), RFC 8484 (DNS over HTTPS), RFC 7830 and 8467 (padding), RFC 9076 (privacy)."
    production = (
        "Use DNS over TLS or HTTPS with an authenticated resolver between clients and resolver, keep the connection "
        "open, and pad. Do not use opportunistic TLS where someone may be on the path: it falls back to plain DNS. "
        "Remember who still knows the names: the resolver, the name servers that it asks in plain text, and everyone "
        "who sees the server name in the TLS handshake that follows."
    )
    settings = Parameters
    control = Control("the queries over TLS are sent over TCP instead", ("names that the observer reads, DoT",))
    paths = ("resolver",)
    lessons = (
        Lesson(
            "A client sends one query over a new DNS-over-TLS connection (TLS 1.3). How many round trips does it wait?",
            "round trips per query, DoT, N = 1", "round trips", 0.2,
        ),
        Lesson(
            "And per query, if 20 consecutive queries share the connection?",
            "round trips per query, DoT, N = 20", "round trips", 0.05,
        ),
        Lesson(
            "Queries for names of six different lengths are padded to blocks of 128 bytes. How many sizes does an "
            "observer see?",
            "sizes of queries over DoT, padded", "sizes", 0.5,
        ),
    )  # fmt: skip

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        #: Durations in milliseconds of N consecutive queries on a new connection, keyed by transport, N and round-trip
        #: time.
        self.times: dict[tuple[Transport, int], dict[float, list[list[float]]]] = defaultdict(lambda: defaultdict(list))
        #: Durations in milliseconds of queries whose response is larger than a datagram, keyed by round-trip time.
        self.large: dict[float, list[list[float]]] = defaultdict(list)
        #: Labels that the lab's clients sent over each transport while packets were captured.
        self.labels: dict[Transport, list[str]] = {each: [] for each in TRANSPORTS}
        #: Labels that kdig sent over each transport while packets were captured.
        self.by_kdig: dict[Transport, list[str]] = {each: [] for each in TRANSPORTS}
        self.capture = b""
        #: Names for which tshark shows a query or response in the capture; None if tshark is not installed.
        self.tshark: str | None = None
        #: Sizes of TLS records with queries and with responses in bytes, keyed by whether they were padded.
        self.sizes: dict[bool, tuple[list[int], list[int]]] = {}

    def duration(self) -> float:
        """Return the expected duration in seconds, computed from the round trips of all queries."""
        trips = sum(n + 2 for n in self.p.queries) * 3 + 5
        return 8 + self.p.repeats * sum(self.p.rtt_ms) / 1000 * trips

    def predict(self) -> Mapping[str, Quantity]:
        """Predict round trips, readable names, and sizes of TLS records."""
        predicted: dict[str, Quantity] = {}
        for transport, words in TRANSPORTS.items():
            for n in self.p.queries:
                trips = privacy.round_trips(transport, n)
                predicted[f"round trips of N = {n}, {words}"] = Quantity(n * trips)
                predicted[f"round trips per query, {words}, N = {n}"] = Quantity(trips, "round trips")
            readable = float(privacy.readable(transport))
            predicted[f"names that the observer reads, {words}"] = Quantity(readable, "of names")
        trips = privacy.question_ms("udp", 1.0, size=privacy.DATAGRAM + 1)
        predicted["round trips, UDP with a response larger than a datagram"] = Quantity(trips)
        predicted["sizes of queries over DoT, padded"] = Quantity(1, "sizes")
        predicted["sizes of queries over DoT, not padded"] = Quantity(len(LENGTHS), "sizes")
        for what, block in (("query", QUERY_BLOCK), ("response", RESPONSE_BLOCK)):
            predicted[f"record of a padded {what}"] = Quantity(privacy.record_bytes(privacy.padded(60, block)), "bytes")
        return predicted

    # --- measurement ------------------------------------------------------------------------------------------------

    async def measure(self, run: Run) -> None:
        """Time queries over each transport, then repeat them while packets are captured at `wan`."""
        subject = await find(run, self.p.resolver)
        self.address, region = subject.address, subject.region
        path = f"/admin/zones/{ZONE}/records"
        undo = Undo(f"*.{PARENT} of {PRIMARY}", PRIMARY, "DELETE", f"{path}?name=%2A.{PARENT}&type=A")
        body = {"name": f"*.{PARENT}", "type": "A", "ttl": 300, "rdata": [ADDRESS]}
        await run.lab.inject(f"*.{PARENT} at {PRIMARY}", PRIMARY, "PUT", path, body, undo=undo)
        await run.blocking(self._ask, "udp", [self._name("timed")])
        await run.blocking(self._ask, "udp", [LARGE], "TXT")
        arms = [(transport, n) for transport in TRANSPORTS for n in self.p.queries]
        for rtt in self.p.rtt_ms:
            run.phase(f"resolver at {rtt:g} ms")
            await run.lab.link(CLIENTS, region, rtt_ms=rtt)
            for _, (transport, n) in run.interleaved(arms, self.p.repeats):
                took = await run.blocking(self._ask, transport, [self._name("timed")] * n)
                self.times[transport, n][rtt].append(took)
            for _ in range(self.p.repeats):
                self.large[rtt].append(await run.blocking(self._ask, "udp", [LARGE], "TXT"))
        await run.lab.link(CLIENTS, region, rtt_ms=min(self.p.rtt_ms))
        await self._observe(run)

    def _name(self, label: str) -> str:
        return f"{label}.{PARENT}.{ZONE}"

    def _ask(self, transport: Transport, names: list[str], rdtype: str = "A", *, pads: bool = True) -> list[float]:
        """Send consecutive queries on one new connection; return the milliseconds that each of them takes."""
        if self.negative and transport == "dot":
            transport = "tcp"
        taken = []
        with closing(Client(transport, self.address, self.p.resolver, TRUST_ANCHOR, pads=pads)) as asking:
            for name in names:
                began = time.perf_counter()
                asking.ask(name, rdtype)
                taken.append((time.perf_counter() - began) * 1000)
        return taken

    async def _observe(self, run: Run) -> None:
        run.phase("what an observer reads")
        for number in range(8):
            for transport in TRANSPORTS:
                self.labels[transport].append(f"s{run.rng.getrandbits(32):08x}{transport}{number}")
        kdig = shutil.which("kdig")
        if kdig is None:
            run.findings.leave_out("queries by kdig: not installed here")
        else:
            self.by_kdig = {each: [f"k{run.rng.getrandbits(32):08x}{each}"] for each in TRANSPORTS}
        same = [self._name("x" * length) for length in LENGTHS]
        for name in same:  # cached, so that no response waits for a name server
            await run.blocking(self._ask, "udp", [name])
        self.capture = await self._captured(run, self._everything, kdig)
        if shutil.which("tshark"):
            self.tshark = await run.blocking(_tshark, self.capture)
        else:
            run.findings.leave_out("tshark as a second observer: not installed here")
        for pads in (True, False):
            taken = Observed(pcap.packets(await self._captured(run, self._ask, "dot", same, pads=pads)))
            port = (self.address, PORTS["dot"])
            sent, received = taken.records(None, port).values(), taken.records(port, None).values()
            # Omit the client's first encrypted record, which ends its handshake, and the server's tickets.
            self.sizes[pads] = (
                [size for sizes in sent for size in sizes[1 : 1 + len(LENGTHS)]],
                [size for sizes in received for size in [each for each in sizes if each != ALERT][-len(LENGTHS) :]],
            )

    async def _captured(self, run: Run, send: Callable[..., object], *arguments: Any, **named: Any) -> bytes:
        """Call *send* in a thread while `wan` captures the packets of this host; return the pcap file."""
        with socket.socket(type=socket.SOCK_DGRAM) as probe:
            probe.connect((self.address, PORTS["udp"]))
            here = probe.getsockname()[0]
        body = {"seconds": CAPTURE, "filter": {"host": here}}
        stop = Undo("packet capture", "wan", "DELETE", "/admin/pcap")
        await run.lab.inject("wan: packets of this host are captured", "wan", "POST", "/admin/pcap", body, undo=stop)
        await run.blocking(send, *arguments, **named)
        await run.lab.undo(stop)
        return base64.b64decode((await run.lab.call("wan", "GET", "/admin/pcap"))["pcap"])

    def _everything(self, kdig: str | None) -> None:
        """Send the labels over each transport, by the lab's clients and by kdig."""
        for transport, labels in self.labels.items():
            self._ask(transport, [self._name(each) for each in labels])
        for transport, labels in self.by_kdig.items():
            for label in labels:
                _kdig(str(kdig), transport, self.address, self.p.resolver, self._name(label))

    # --- conclusions ------------------------------------------------------------------------------------------------

    def conclude(self, run: Run) -> None:
        """Check the round trips per query, the names that observers can read, and the sizes of TLS records."""
        found = run.findings
        run.raw["times, ms"] = {f"{t}, N = {n}": dict(each) for (t, n), each in self.times.items()}
        trips = {}
        for transport, n in sorted(self.times, key=lambda arm: (list(TRANSPORTS).index(arm[0]), arm[1])):
            words = TRANSPORTS[transport]
            name, expected = f"round trips of N = {n}, {words}", round(n * privacy.round_trips(transport, n))
            samples = [(rtt, [self._shortest(transport, n, rtt)]) for rtt in self.times[transport, n]]
            check_slope(found, name, expected, samples, TOLERANCE)
            slope = found.result.rows[-1].measured
            trips[transport, n] = found.row(f"round trips per query, {words}, N = {n}", slope.scaled(1 / n)).measured
        name = "round trips, UDP with a response larger than a datagram"
        expected = round(privacy.question_ms("udp", 1.0, size=privacy.DATAGRAM + 1))
        samples = [(rtt, [min(taken for (taken,) in every)]) for rtt, every in self.large.items()]
        check_slope(found, name, expected, samples, TOLERANCE)
        self._names(run)
        self._record_sizes(run)
        found.chart(self._per_query(trips))
        found.chart(self._by_length())

    def _shortest(self, transport: Transport, n: int, rtt: float) -> float:
        """Return the shortest time of *n* queries on a new connection in ms: the best estimate of pure network time.

        A busy machine can only add time, so the shortest of all first and of all later queries are used.
        """
        first = [each[0] for (of, _), times in self.times.items() if of == transport for each in times[rtt]]
        later = [taken for each in self.times[transport, n][rtt] for taken in each[1:]]
        return min(first) + (n - 1) * min(later, default=0.0)

    def _names(self, run: Run) -> None:
        """Check which names can be read in the capture, by this scenario's observer and by tshark."""
        found, seen = run.findings, Observed(pcap.packets(self.capture))
        for transport, words in TRANSPORTS.items():
            labels = [*self.labels[transport], *self.by_kdig[transport]]
            read = [seen.reads(label) for label in labels]
            row = found.row(f"names that the observer reads, {words}", Estimate.share(sum(read), len(read)))
            expected = len(labels) if privacy.readable(transport) else 0
            found.check(
                row.name, f"{expected} of {len(labels)}", f"{sum(read)} of {len(labels)}", sum(read) == expected
            )
            if self.tshark is not None:
                shown = sum(label in self.tshark for label in labels)
                found.check(f"names that tshark shows, {words}", str(expected), str(shown), shown == expected)
        found.fact("the observer reads the name of the resolver over DoT and DoH", seen.reads(self.p.resolver))

    def _record_sizes(self, run: Run) -> None:
        """Check how many different sizes queries over TLS have, with and without padding."""
        found = run.findings
        for pads, expected in ((True, 1), (False, len(LENGTHS))):
            distinct = sorted(set(self.sizes.get(pads, ([], []))[0]))
            row = found.row(f"sizes of queries over DoT, {'' if pads else 'not '}padded", len(distinct))
            found.check(row.name, str(expected), f"{len(distinct)}: {distinct} bytes", len(distinct) == expected)
        for what, sizes, block in zip(("query", "response"), self.sizes.get(True, ([], [])), (128, 468), strict=True):
            size = sizes[0] if len(set(sizes)) == 1 else float("nan")
            row = found.row(f"record of a padded {what}", size)
            expected = privacy.record_bytes(block)
            found.check(row.name, f"{expected} bytes", f"{sorted(set(sizes))} bytes", size == expected)

    def _per_query(self, trips: Mapping[tuple[Transport, int], Estimate]) -> Chart:
        top = max(self.p.queries)
        grid = [1 + (top - 1) * i / 100 for i in range(101)]
        marks: list[Curve | Dots] = []
        for colour, words in enumerate(("UDP: 1", "TCP: 1 + 1/N", "DoT and DoH: 1 + 2/N")):
            marks.append(Curve(f"theory, {words}", [(n, 1 + colour / n) for n in grid], colour))
        for colour, transport in enumerate(TRANSPORTS):
            dots = [(n, e.value, e.value, e.value) for (of, n), e in trips.items() if of == transport]
            marks.append(Dots(f"measured, {TRANSPORTS[transport]}", dots, colour))
        return Chart(
            "Encryption costs two round trips per connection, not per query",
            [Panel(marks, y="round trips per query", height=280, high=3.3)],
            x="N, consecutive queries on one connection",
            caption="Each dot is the slope of the time of N queries against the round-trip time, divided by N. DoT and "
            "DoH have the same number of round trips: TCP handshake, TLS 1.3 handshake, query.",
            log=True,
            low=1.0,
            high=float(top),
            name="dns-privacy",
        )

    def _by_length(self) -> Chart:
        marks = []
        for colour, (pads, words) in enumerate(((False, "not padded"), (True, "padded"))):
            sizes = self.sizes.get(pads, ([], []))[0]
            marks.append(Dots(words, [(x, y, y, y) for x, y in zip(LENGTHS, sizes, strict=False)], colour))
        return Chart(
            "Without padding, the size of an encrypted query gives the length of the name away",
            [Panel(marks, y="TLS record, bytes", height=200)],
            x="length of the first label of the name, bytes",
            caption="Each dot is one query over DNS over TLS, as captured at the router. Padding to blocks of 128 "
            "bytes makes all of them equal.",
            name="dns-privacy-sizes",
        )


def _kdig(program: str, transport: Transport, address: str, resolver: str, name: str) -> None:
    """Send one query with kdig; raise `OSError` if the output lacks the expected address."""
    tls = [f"+tls-ca={TRUST_ANCHOR}", f"+tls-hostname={resolver}"] if transport in {"dot", "doh"} else []
    words = [program, f"@{address}", KDIG[transport], *tls, name, "A", "+short"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PROGRAM_TIMEOUT, check=False)
    if ADDRESS not in done.stdout:
        raise OSError(f"kdig {KDIG[transport]} {name}: {(done.stderr or done.stdout).strip()[:200]}")


def _tshark(capture: bytes) -> str:
    """Return the names in all DNS messages that tshark finds in a pcap file."""
    with tempfile.TemporaryDirectory(prefix="capture-") as folder:
        file = Path(folder) / "wan.pcap"
        file.write_bytes(capture)
        words = ["tshark", "-r", str(file), "-T", "fields", "-e", "dns.qry.name", "-Y", "dns"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=PROGRAM_TIMEOUT, check=False, cwd=folder)
    if done.returncode:
        raise OSError(f"tshark: {done.stderr.strip()[:200]}")
    return done.stdout
