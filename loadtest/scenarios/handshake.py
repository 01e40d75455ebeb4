"""Scenario `handshake`: measures the cost of TLS authentication in round trips (integer slope), CPU time and bytes."""

import ssl
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from experiments import Chart, Control, Curve, Dots, Experiment, Lesson, Moment, Panel, Quantity, Run, parameter
from hostfiles.layout import TRUST_ANCHOR
from scenarios.instruments import early_data, memory_handshake
from scenarios.instruments.connection import Address, Connection
from scenarios.instruments.handshake_costs import HandshakeCosts
from scenarios.instruments.round_trips import TOLERANCE, check_slope, shortest_to_median
from stub import Stub
from theory import handshake, slow_start
from wireformat.tls import client_context

#: Server names with an ECDSA and with an RSA certificate; all other names of the edge have ECDSA certificates.
ECDSA_NAME, RSA_NAME = "www.example.com", "rsa.example.com"
#: Server name with the padded certificate chain; no other program requests this name.
PADDED_NAME = "example.com"
#: Round-trip time of the path on which padded chains are sent, in milliseconds.
PADDED_RTT_MS = 40.0
#: Rows of the result for early data: round trips, and how often a server executes a request that an attacker replays.
EARLY = "round trips, TLS 1.3 early data (counted in memory)"
REPLAYED, REPLAYED_UNPROTECTED = (
    f"times that a replayed request is executed, {server}"
    for server in ("each ticket accepted once", "no protection against replay")
)
#: Maximum number of handshakes with each padded chain; a few are enough to count whole round trips.
MAX_PADDED_HANDSHAKES = 5


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to connect: protocol, key type, and whether a session or connection is reused."""

    name: str
    protocol: handshake.Protocol
    resumed: bool = False
    pooled: bool = False
    rsa: bool = False

    @property
    def host(self) -> str:
        """Server name (SNI), which selects the certificate."""
        return RSA_NAME if self.rsa else ECDSA_NAME

    @property
    def round_trips(self) -> int:
        """Round trips until the first byte: TCP connect, TLS handshake, request."""
        return 1 if self.pooled else handshake.round_trips(self.protocol, resumed=self.resumed)


ARMS = (
    Arm("kept open", "TLSv1.3", pooled=True),
    Arm("no TLS", "plain"),
    Arm("TLS 1.3", "TLSv1.3"),
    Arm("TLS 1.3 resumed", "TLSv1.3", resumed=True),
    Arm("TLS 1.3, RSA", "TLSv1.3", rsa=True),
    Arm("TLS 1.2", "TLSv1.2"),
    Arm("TLS 1.2 resumed", "TLSv1.2", resumed=True),
    Arm("TLS 1.2, RSA", "TLSv1.2", rsa=True),
)
#: Arms in the lower panel of the chart: arm, colour (the same as its line in the upper panel, if it has one), and
#: horizontal offset of its dots as a share of the axis.
NEW_CONNECTIONS: tuple[tuple[Arm, int | str, float], ...] = (
    (ARMS[2], 2, -0.009), (ARMS[4], "bad", -0.003), (ARMS[5], 4, 0.003), (ARMS[7], 6, 0.009),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters that the user can vary."""

    rtt_ms: tuple[float, ...] = parameter(
        (10.0, 40.0, 80.0, 120.0), quick=(20.0, 60.0, 100.0), unit="ms", low=5, high=500, least=3,
        help="round-trip times between client and edge",
    )  # fmt: skip
    repeats: int = parameter(11, quick=5, low=1, high=100, help="requests of each kind per round-trip time")
    padding: tuple[int, ...] = parameter(
        (4000, 8000, 11_000, 14_000, 20_000, 30_000, 40_000, 44_000, 56_000),
        quick=(8000, 11_000, 14_000, 40_000, 44_000), unit="bytes", low=300, high=65_000,
        help="sizes of a superfluous certificate appended to the server's chain",
    )  # fmt: skip
    handshakes: int = parameter(
        400, quick=120, low=10, high=10_000, help="handshakes of each kind in memory, to measure CPU time and bytes"
    )


class Handshake(Experiment[Parameters]):
    """Measures time to first byte against round-trip time, for each protocol, key type and form of resumption."""

    name = "handshake"
    claim = (
        "A new connection costs one round trip, TLS 1.3 one more and TLS 1.2 two more, whatever the key; a server "
        "flight longer than ten segments costs another."
    )
    says = (
        "The textbook says that the TLS handshake takes two round trips with TLS 1.2 and one with TLS 1.3, and that "
        "slow asymmetric cryptography is used once, to agree on a symmetric key. In practice resuming a session "
        "saves a round trip with TLS 1.2 but none with TLS 1.3, where it saves certificate and signature, and so CPU "
        "time and bytes. The kind of key changes the height of the line, not its slope, until the chain outgrows the "
        "first ten segments, as long ML-DSA chains do. "
        "Early data (0-RTT) saves the last round trip of TLS 1.3, but an attacker who records it can send it again."
    )
    source = (
        "RFC 8446 section 2 (TLS 1.3), RFC 5246 section 7.3 (TLS 1.2), RFC 5077 (tickets), RFC 9293 section 3.5 "
        "(TCP), RFC 6928 (ten segments), RFC 8446 sections 4 and 5 (bytes of a flight) "
        "and 8 (replay of early data), FIPS 203 and 204 (sizes of "
        "ML-KEM and ML-DSA)."
    )
    production = (
        "Keep connections open: on a 120 ms path this saves 240 ms per request with TLS 1.3 and 360 ms with TLS 1.2, "
        "more than most servers need to respond. Moving to TLS 1.3 saves one round trip per new connection at no "
        "further cost. Prefer ECDSA: the server's CPU time per handshake and the size of the certificate are about "
        "half of RSA's. Send the intermediates, never the root, and nothing else: a flight beyond 14 kB costs every "
        "new client a round trip, and ML-DSA-65 with one intermediate exceeds it. Resumption saves CPU time, but a "
        "resumed session outlives the certificate that authenticated it."
    )
    settings = Parameters
    control = Control(
        "the client discards its session tickets, so that nothing is resumed", ("round trips, TLS 1.2 resumed",)
    )
    records = ("edge",)
    paths = ("edge",)
    lessons = (
        Lesson(
            "How many round trips does a request over a new connection with TLS 1.3 take, until the first byte of "
            "the response?",
            "round trips, TLS 1.3", "", 0.2,
        ),
        Lesson(
            "And with TLS 1.2?",
            "round trips, TLS 1.2", "", 0.2,
        ),
        Lesson(
            "How many with TLS 1.3 if the session is resumed?",
            "round trips, TLS 1.3 resumed", "", 0.2,
        ),
    )  # fmt: skip

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        #: Milliseconds to the first byte, keyed by arm and round-trip time.
        self.ttfb: dict[tuple[Arm, float], list[float]] = defaultdict(list)
        self.reused: dict[Arm, list[bool]] = defaultdict(list)
        #: Size of the server's first flight in bytes, keyed by bytes of padding.
        self.flights: dict[int, int] = {}
        #: Duration of each handshake in milliseconds, keyed by bytes of padding.
        self.padded: dict[int, list[float]] = {}
        self.costs = HandshakeCosts()
        self.early: early_data.Found | None = None

    def duration(self) -> float:
        """Return the expected duration in seconds: requests of all arms, padded chains, and in-memory handshakes."""
        trips = sum(arm.round_trips for arm in ARMS) * self.p.repeats + 12
        padded = 3 * PADDED_RTT_MS / 1000 * self._times * (1 + len(self.p.padding))
        return 4 + sum(self.p.rtt_ms) / 1000 * trips + padded + 0.03 * self.p.handshakes

    @property
    def _times(self) -> int:
        return min(self.p.repeats, MAX_PADDED_HANDSHAKES)

    def predict(self) -> Mapping[str, Quantity]:
        """Predict the slope of each arm, in round trips."""
        return {
            **{f"round trips, {arm.name}": Quantity(arm.round_trips) for arm in ARMS},
            EARLY: Quantity(handshake.round_trips("TLSv1.3", resumed=True, early_data=True)),
            REPLAYED: Quantity(1),
            REPLAYED_UNPROTECTED: Quantity(2),
        }

    async def measure(self, run: Run) -> None:
        """Vary the link and measure all arms in turn, then pad the certificate chain, then run handshakes in memory."""
        address = (await run.blocking(Stub().resolve, ECDSA_NAME)).rdata[0]
        contexts = {version: client_context(TRUST_ANCHOR, version) for version in ("1.2", "1.3")}
        for rtt in self.p.rtt_ms:
            await run.lab.link("access", "near", rtt_ms=rtt)
            run.phase(f"round trip {rtt:g} ms")
            client = _Client(address, contexts, keep_tickets=not self.negative)
            await run.blocking(client.prepare)
            for _, arm in run.interleaved(ARMS, self.p.repeats):
                taken, resumed = await run.blocking(client.ask, arm)
                self.ttfb[arm, rtt].append(taken)
                self.reused[arm].append(resumed)
            client.close()
        await run.lab.link("access", "near", rtt_ms=PADDED_RTT_MS)
        run.phase("chains with growing padding")
        to = Address(PADDED_NAME, address, 443)
        await self._pad(run, to, contexts["1.3"], 0)
        for size in run.rng.sample(self.p.padding, len(self.p.padding)):
            async with run.lab.fault_on("edge", "long_chain", bytes=size, sni=PADDED_NAME):
                await self._pad(run, to, contexts["1.3"], size)
        run.phase("handshakes in memory, for CPU time, bytes and early data")
        self.early = await run.blocking(early_data.measure, memory_handshake.key_and_chain(memory_handshake.KEYS[0]))

        def predicted(name: str, size: int) -> None:
            run.result.prediction[name] = Quantity(size, "bytes")

        await run.blocking(self.costs.measure, self.p.handshakes, predicted)

    async def _pad(self, run: Run, to: Address, tls: ssl.SSLContext, size: int) -> None:
        """Time handshakes with one padded chain, and predict their round trips from the server's flight size."""
        self.flights[size], _ = await run.blocking(_connect, to, tls)
        if size:
            trips = handshake.tls_round_trips("TLSv1.3", server_flight=self.flights[size])
            run.result.prediction[padded_row(size)] = Quantity(trips)
        self.padded[size] = [(await run.blocking(_connect, to, tls))[1] for _ in range(self._times)]

    def conclude(self, run: Run) -> None:
        """Fit a line through the results of each arm, then evaluate padded chains and in-memory handshakes."""
        run.raw["ttfb_ms"] = {f"{arm.name} at {rtt:g} ms": values for (arm, rtt), values in self.ttfb.items()}
        heights: dict[Arm, float] = {}
        for arm in ARMS:
            samples = [(rtt, self.ttfb[arm, rtt]) for rtt in self.p.rtt_ms]
            heights[arm] = check_slope(run.findings, f"round trips, {arm.name}", arm.round_trips, samples)
            run.findings.fact(f"time on top of the round trips, {arm.name}, ms", round(heights[arm], 2))
        for arm in ARMS:
            if arm.resumed and not self.negative:
                share = sum(self.reused[arm]) / len(self.reused[arm])
                run.findings.gate(f"{arm.name}: sessions resumed", "all", f"{share:.0%}", share == 1.0)
        run.findings.chart(self._lines(heights))
        if 0 in self.padded:
            self._conclude_padded(run)
        self.costs.conclude(run)
        if self.early is not None:
            trips = 1 + self.early.round_trips  # the additional round trip is the TCP handshake
            for name, measured in (
                (EARLY, trips),
                (REPLAYED, self.early.executed),
                (REPLAYED_UNPROTECTED, self.early.executed_unprotected),
            ):
                run.findings.check_near(run.findings.row(name, float(measured)), 0.0, absolute=True)

    def _conclude_padded(self, run: Run) -> None:
        """Compare the additional round trips caused by padding with the prediction of slow start."""
        base = min(self.padded[0])  # the unpadded handshake takes one round trip, as the fitted slopes show
        trips = {
            size: [1 + (each - base) / PADDED_RTT_MS for each in taken] for size, taken in sorted(self.padded.items())
        }
        for size, measured in trips.items():
            run.findings.fact(f"bytes of the server's flight with {size:,} bytes of padding", self.flights[size])
            if size:
                row = run.findings.row(padded_row(size), min(measured))
                run.findings.check_near(row, TOLERANCE, absolute=True)
        run.raw["padded_ms"] = {str(size): taken for size, taken in self.padded.items()}
        run.findings.chart(self._stairs(trips))

    def _stairs(self, trips: Mapping[int, Sequence[float]]) -> Chart:
        end = max(self.flights.values()) * 1.05
        edges = [0.0, *(float(slow_start.bytes_within(r)) for r in (1, 2, 3)), end]
        inside = [at for at in edges if at <= end]
        steps = [(at, i + 1.0) for i, at in enumerate(inside[:-1])] + [(end, float(len(inside) - 1))]
        dots = []
        for size, measured in trips.items():
            least = min(measured)
            dots.append((float(self.flights[size]), least, least, max(least, median(measured))))
        theory = Curve("theory: slow start from ten segments", steps, 0, steps=True)
        top = max(4.0, steps[-1][1] + 0.5)
        return Chart(
            "A server flight longer than ten segments costs the handshake another round trip",
            [Panel([theory, Dots("measured", dots, 1)], y="round trips", height=200, high=top)],
            x="bytes of the server's first flight",
            caption=f"A superfluous certificate pads the edge's chain, on a path of {PADDED_RTT_MS:g} ms. Dots are "
            "the shortest of the repeats, with a bar up to the median; the first one, without padding, is the "
            "reference for the others.",
            moments=[Moment(edges[1], "10 segments"), *([Moment(edges[2], "10 + 20")] if end > edges[2] else [])],
            low=0,
            high=end,
            name="handshake-stairs",
        )

    def _lines(self, heights: dict[Arm, float]) -> Chart:
        far = max(self.p.rtt_ms) * 1.05
        shown = [arm for arm in ARMS if not arm.rsa]
        marks: list[Curve | Dots] = []
        for i, arm in enumerate(shown):
            ends = [(at, heights[arm] + arm.round_trips * at) for at in (0.0, far)]
            marks.append(Curve(arm.name, ends, i, dashed=arm.resumed))
        trips, resumed = handshake.round_trips("TLSv1.3", resumed=True, early_data=True), ARMS[3]
        ends = [(at, heights[resumed] + trips * at) for at in (0.0, far)]
        marks.append(Curve("TLS 1.3 early data", ends, "mark", dashed=True))
        for i, arm in enumerate(shown):
            dots = [shortest_to_median(rtt, self.ttfb[arm, rtt]) for rtt in self.p.rtt_ms]
            marks.append(Dots(arm.name, dots, i))
        rest: list[Curve | Dots] = []
        for arm, colour, offset in NEW_CONNECTIONS:
            rest.append(Curve(arm.name, [(0.0, heights[arm]), (far, heights[arm])], colour, dashed=arm.rsa))
            least = [(rtt, min(self.ttfb[arm, rtt]) - arm.round_trips * rtt) for rtt in self.p.rtt_ms]
            rest.append(Dots(arm.name, [(rtt + offset * far, left, left, left) for rtt, left in least], colour))
        return Chart(
            "Before the first byte, TLS 1.3 adds one round trip and TLS 1.2 two",
            [
                Panel(marks, y="time to first byte, ms", height=360),
                Panel(rest, y="time on top of the round trips, ms", height=150),
            ],
            x="round-trip time between client and edge, ms",
            caption="Upper panel: lines are theory, one round trip for TCP, h for TLS (0, 1 or 2) and one for the "
            "request; only their height at 0 ms is taken from the measurement. Dots are the shortest of the repeats, "
            "with a bar up to the median. Dashed: resumed sessions; with TLS 1.3 they share the line of the full "
            "handshake, and with early data they need as many round trips as without TLS (theory; counted in memory). "
            "Lower panel: the shortest time minus its round trips, by version and key. Flat means that "
            "the slope is right. RSA (dashed) is higher; in the upper panel it would coincide with ECDSA.",
            low=0,
            high=far,
            name="handshake",
        )


def padded_row(size: int) -> str:
    """Return the name of the row for a chain with *size* bytes of padding."""
    return f"round trips of the handshake, {size:,} bytes of padding"


def _connect(to: Address, tls: ssl.SSLContext) -> tuple[int, float]:
    """Open a connection; return the bytes of the server's flight and the duration of the TLS handshake in ms."""
    with Connection(to, tls) as connection:
        return connection.handshake_bytes[1], connection.opening.tls


class _Client:
    """Blocking client that sends the requests of all arms to the edge."""

    def __init__(self, address: str, contexts: Mapping[str, ssl.SSLContext], *, keep_tickets: bool) -> None:
        self._address, self._contexts, self._keep = address, contexts, keep_tickets
        self._tickets: dict[str, ssl.SSLSession | None] = {}
        self._kept: Connection | None = None

    def prepare(self) -> None:
        """Fetch a session ticket for each TLS version, and open the persistent connection."""
        versions: Sequence[handshake.Protocol] = ("TLSv1.2", "TLSv1.3")
        for version in versions:
            with self._open(Arm("", version)) as connection:
                connection.ask("/whoami")
                self._tickets[version] = connection.session
        self._kept = self._open(Arm("", "TLSv1.3"))
        self._kept.ask("/whoami")

    def ask(self, arm: Arm) -> tuple[float, bool]:
        """Send one request; return the milliseconds to the first byte, and whether the TLS session was resumed."""
        if arm.pooled and self._kept is not None:
            return self._kept.ask("/whoami").ttfb, False
        session = self._tickets.get(arm.protocol) if arm.resumed and self._keep else None
        with self._open(arm, session) as connection:
            times = connection.ask("/whoami")
            if arm.resumed and connection.session is not None:
                self._tickets[arm.protocol] = connection.session  # each TLS 1.3 ticket is used once (RFC 8446 C.4)
            return times.ttfb, connection.resumed

    def close(self) -> None:
        """Close the persistent connection."""
        if self._kept is not None:
            self._kept.close()

    def _open(self, arm: Arm, session: ssl.SSLSession | None = None) -> Connection:
        to = Address(arm.host, self._address, 80 if arm.protocol == "plain" else 443)
        tls = None if arm.protocol == "plain" else self._contexts[arm.protocol.removeprefix("TLSv")]
        return Connection(to, tls, session)
