"""`handshake`: what proving an identity costs, in round trips (an integer slope), in CPU and in bytes."""

import ssl
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from experiments import Chart, Control, Curve, Dots, Estimate, Experiment, Line, Moment, Panel, Quantity, Run, parameter
from hostfiles.layout import TRUST_ANCHOR
from scenarios.instruments.connection import Address, Connection
from scenarios.instruments.handshake_costs import Proofs
from stub import Stub
from theory import handshake, slow_start
from wireformat.tls import client_context

#: Largest distance between a measured slope and the integer it has to be.
TOLERANCE = 0.1
#: The edge has an ECDSA certificate for all of its names but one.
ECDSA_NAME, RSA_NAME = "www.example.com", "rsa.example.com"
#: A name of the edge's that nobody else asks for while its chain is made long.
LONG_NAME = "example.com"
#: Milliseconds: the path on which long chains are sent.
STAIRS_RTT_MS = 40.0
#: Handshakes at most with each long chain: what stands out is whole round trips.
OF_EACH_STAIR = 5


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to ask: what is spoken, and what is there from a request before."""

    name: str
    protocol: handshake.Protocol
    resumed: bool = False
    pooled: bool = False
    rsa: bool = False

    @property
    def host(self) -> str:
        """Whom to ask for: the certificate goes with the name."""
        return RSA_NAME if self.rsa else ECDSA_NAME

    @property
    def round_trips(self) -> int:
        """Until the first byte: connect, TLS, request."""
        return 1 if self.pooled else 2 + handshake.tls_round_trips(self.protocol, resumed=self.resumed)


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
#: Arms whose heights are compared, with their colour (that of their line, where they have one), and by what share of the
#: axis their dots stand aside.
NEW_CONNECTIONS: tuple[tuple[Arm, int | str, float], ...] = (
    (ARMS[2], 2, -0.009), (ARMS[4], "bad", -0.003), (ARMS[5], 4, 0.003), (ARMS[7], 6, 0.009),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Parameters:
    """What can be varied."""

    rtt_ms: tuple[float, ...] = parameter((10.0, 40.0, 80.0, 120.0), quick=(20.0, 60.0, 100.0), unit="ms", low=5, high=500, least=3, help="round-trip times between client and edge")  # fmt: skip
    repeats: int = parameter(11, quick=5, low=1, high=100, help="requests of each kind at each round-trip time")
    ballast: tuple[int, ...] = parameter((4000, 8000, 11_000, 14_000, 20_000, 30_000, 40_000, 44_000, 56_000), quick=(8000, 11_000, 14_000, 40_000, 44_000), unit="octets", low=300, high=65_000, help="that a careless operator's chain holds beside what is needed")  # fmt: skip
    handshakes: int = parameter(400, quick=120, low=10, high=10_000, help="in memory, for CPU and bytes")


class Handshake(Experiment[Parameters]):
    """Time to first byte against round-trip time, by what has to be shaken hands about."""

    name = "handshake"
    claim = "A new connection costs a round trip, TLS 1.3 one more and TLS 1.2 two, whatever the key; a chain that outgrows ten segments costs another."
    says = (
        "The seed: with TLS 1.2 there is a cost of two round trips, reduced to one in TLS 1.3; asymmetric cryptography is slow, "
        "so it is used once, to agree on a symmetric key. More subtle: resuming a session saves TLS 1.2 a round trip, but TLS 1.3 "
        "none: there it saves the signature and the certificate, thus CPU and bytes. And the kind of key changes the height of the line, not its slope, "
        "until the chain no longer fits into the first ten segments: with ML-DSA it hardly does."
    )
    source = (
        "RFC 8446 section 2 (TLS 1.3), RFC 5246 section 7.3 (TLS 1.2), RFC 5077 (tickets), RFC 9293 section 3.5 (TCP), RFC 6928 (ten segments), RFC 8446 sections 4 and 5 "
        "(octets of a flight), FIPS 203 and 204 (sizes of ML-KEM and ML-DSA)."
    )
    production = (
        "Keep connections open: on a 120 ms path that is worth 240 ms per request with TLS 1.3 and 360 ms with TLS 1.2, more than most "
        "servers take to think. Moving to TLS 1.3 saves one round trip per new connection without further work. Prefer ECDSA: the server's "
        "share of a handshake shrinks to about half of RSA's, and the certificate to half of its bytes. Send the intermediates, never the root, and nothing else: "
        "a chain beyond 14 kB costs every new client a round trip, which is where ML-DSA-65 with one intermediate stands. Resumption saves CPU; "
        "remember that a resumed session outlives the certificate that it was proven with."
    )
    settings = Parameters
    control = Control(
        "the client throws its session tickets away, so that nothing is resumed", ("round trips, TLS 1.2 resumed",)
    )
    records = ("edge",)
    paths = ("edge",)

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        #: Times to first byte by arm and round-trip time.
        self.ttfb: dict[tuple[Arm, float], list[float]] = defaultdict(list)
        self.reused: dict[Arm, list[bool]] = defaultdict(list)
        #: By octets of ballast: octets of the server's flight, and milliseconds of handshakes.
        self.flights: dict[int, int] = {}
        self.stairs: dict[int, list[float]] = {}
        self.proofs = Proofs()

    def duration(self) -> float:
        """Every arm asks once per repeat, after the tickets were fetched."""
        trips = sum(arm.round_trips for arm in ARMS) * self.p.repeats + 12
        stairs = 3 * STAIRS_RTT_MS / 1000 * self._times * (1 + len(self.p.ballast))
        return 4 + sum(self.p.rtt_ms) / 1000 * trips + stairs + 0.03 * self.p.handshakes

    @property
    def _times(self) -> int:
        return min(self.p.repeats, OF_EACH_STAIR)

    def predict(self) -> Mapping[str, Quantity]:
        """Return the slope of each arm."""
        return {f"round trips, {arm.name}": Quantity(arm.round_trips) for arm in ARMS}

    async def measure(self, run: Run) -> None:
        """Change the link, then let every arm ask in turn; then grow the chain; then leave the network out."""
        address = (await run.blocking(Stub().resolve, ECDSA_NAME)).rdata[0]
        contexts = {version: client_context(TRUST_ANCHOR, version) for version in ("1.2", "1.3")}
        for rtt in self.p.rtt_ms:
            await run.lab.link("access", "near", rtt_ms=rtt)
            run.phase(f"round trip {rtt:g} ms")
            asker = _Asker(address, contexts, keep_tickets=not self.negative)
            await run.blocking(asker.prepare)
            for _, arm in run.interleaved(ARMS, self.p.repeats):
                taken, resumed = await run.blocking(asker.ask, arm)
                self.ttfb[arm, rtt].append(taken)
                self.reused[arm].append(resumed)
            asker.close()
        await run.lab.link("access", "near", rtt_ms=STAIRS_RTT_MS)
        run.phase("a chain that grows")
        to = Address(LONG_NAME, address, 443)
        await self._climb(run, to, contexts["1.3"], 0)
        for octets in run.rng.sample(self.p.ballast, len(self.p.ballast)):
            async with run.lab.fault_on("edge", "long_chain", octets=octets, sni=LONG_NAME):
                await self._climb(run, to, contexts["1.3"], octets)
        run.phase("handshakes in memory, for CPU and bytes")

        def said(name: str, octets: int) -> None:
            run.result.prediction[name] = Quantity(octets, "octets")

        await run.blocking(self.proofs.shake, self.p.handshakes, said)

    async def _climb(self, run: Run, to: Address, chosen: ssl.SSLContext, octets: int) -> None:
        """Shake hands with one more or less long chain; what its round trips must be is known once its octets are."""
        self.flights[octets], _ = await run.blocking(_opened, to, chosen)
        if octets:
            trips = handshake.tls_round_trips("TLSv1.3", server_flight=self.flights[octets])
            run.result.prediction[_stair(octets)] = Quantity(trips)
        self.stairs[octets] = [(await run.blocking(_opened, to, chosen))[1] for _ in range(self._times)]

    def conclude(self, run: Run) -> None:
        """Fit a line through each arm."""
        run.raw["ttfb_ms"] = {f"{arm.name} at {rtt:g} ms": values for (arm, rtt), values in self.ttfb.items()}
        heights: dict[Arm, float] = {}
        for arm in ARMS:
            # A busy machine only ever adds: the smallest of the repeats stands for the round trips.
            points = [(rtt, min(self.ttfb[arm, rtt])) for rtt in self.p.rtt_ms]
            line = Line.through(points)
            heights[arm] = median(value - arm.round_trips * rtt for rtt, value in points)
            slope = Estimate(line.slope, line.slope - line.half, line.slope + line.half, len(points))
            row = run.findings.row(f"round trips, {arm.name}", slope)
            low, high = arm.round_trips - TOLERANCE, arm.round_trips + TOLERANCE
            run.findings.check(row.name, f"{arm.round_trips} ± {TOLERANCE:g}", f"{line.slope:.3f}", low <= line.slope <= high, value=line.slope, low=low, high=high)  # fmt: skip
            run.findings.fact(f"time beside the round trips, {arm.name}, ms", round(heights[arm], 2))
        for arm in ARMS:
            if arm.resumed and not self.negative:
                share = sum(self.reused[arm]) / len(self.reused[arm])
                run.findings.gate(f"{arm.name}: sessions resumed", "all", f"{share:.0%}", share == 1.0)
        run.findings.chart(self._lines(heights))
        if 0 in self.stairs:
            self._conclude_stairs(run)
        self.proofs.conclude(run)

    def _conclude_stairs(self, run: Run) -> None:
        """Hold what a longer chain takes beside the usual one, in round trips, against the stairs of slow start."""
        usual = min(self.stairs[0])
        climbed = {octets: 1 + (min(taken) - usual) / STAIRS_RTT_MS for octets, taken in sorted(self.stairs.items())}
        for octets, trips in climbed.items():
            run.findings.fact(f"octets of the server's flight, {octets} of ballast", self.flights[octets])
            if octets:  # the usual chain is the yardstick, whose round trip the slopes above have checked
                run.findings.check_near(run.findings.row(_stair(octets), trips), TOLERANCE, absolute=True)
        run.raw["stairs_ms"] = {str(octets): taken for octets, taken in self.stairs.items()}
        spread = {octets: 1 + (median(taken) - usual) / STAIRS_RTT_MS for octets, taken in self.stairs.items()}
        run.findings.chart(self._stairs(climbed, spread))

    def _stairs(self, climbed: Mapping[int, float], spread: Mapping[int, float]) -> Chart:
        end = max(self.flights.values()) * 1.05
        edges = [0.0, *(float(slow_start.bytes_within(r)) for r in (1, 2, 3)), end]
        inside = [at for at in edges if at <= end]
        steps = [(at, i + 1.0) for i, at in enumerate(inside[:-1])] + [(end, float(len(inside) - 1))]
        dots = [(float(self.flights[o]), trips, trips, max(trips, spread[o])) for o, trips in climbed.items()]
        return Chart(
            "A server's flight beyond ten segments costs the handshake a round trip more",
            [Panel([Curve("theory: slow start from ten segments", steps, 0, steps=True), Dots("measured", dots, 1)], y="round trips", height=200, high=max(4.0, steps[-1][1] + 0.5))],
            x="octets of the server's first flight",
            caption=f"A certificate that nobody needs grows behind the edge's chain, on a path of {STAIRS_RTT_MS:g} ms. Dots: the shortest of the repeats, with a bar "
            "up to their median; the first, without ballast, is the yardstick of the others.",
            moments=[Moment(edges[1], "10 segments"), *([Moment(edges[2], "10 + 20")] if end > edges[2] else [])],
            low=0,
            high=end,
            name="handshake-stairs",
        )  # fmt: skip

    def _lines(self, heights: dict[Arm, float]) -> Chart:
        far = max(self.p.rtt_ms) * 1.05
        ways = [arm for arm in ARMS if not arm.rsa]
        marks: list[Curve | Dots] = []
        for i, arm in enumerate(ways):
            ends = [(at, heights[arm] + arm.round_trips * at) for at in (0.0, far)]
            marks.append(Curve(arm.name, ends, i, dashed=arm.resumed))
        for i, arm in enumerate(ways):
            every = [(rtt, self.ttfb[arm, rtt]) for rtt in self.p.rtt_ms]
            marks.append(Dots(arm.name, [(rtt, min(v), min(v), median(v)) for rtt, v in every], i))
        beside: list[Curve | Dots] = []
        for arm, colour, aside in NEW_CONNECTIONS:
            beside.append(Curve(arm.name, [(0.0, heights[arm]), (far, heights[arm])], colour, dashed=arm.rsa))
            least = [(rtt, min(self.ttfb[arm, rtt]) - arm.round_trips * rtt) for rtt in self.p.rtt_ms]
            beside.append(Dots(arm.name, [(rtt + aside * far, left, left, left) for rtt, left in least], colour))
        return Chart(
            "Before the first byte, TLS 1.3 adds one round trip and TLS 1.2 two",
            [
                Panel(marks, y="time to first byte, ms", height=360),
                Panel(beside, y="time beside the round trips, ms", height=150),
            ],
            x="round-trip time between client and edge, ms",
            caption="Above, lines: theory, (1 + h + 1) round trips per request; only their height at 0 ms, the servers' own time, is taken from "
            "the measurement. Dots: the smallest of the repeats, with a bar up to their median. Dashed: resumed; for TLS 1.3 it lies on the full handshake's line. "
            "Below: what the smallest holds beside its round trips, by version and key, side by side: flat means that the slope is right; RSA (dashed) stands "
            "higher, and above would lie on ECDSA's lines.",
            low=0,
            high=far,
            name="handshake",
        )


def _stair(octets: int) -> str:
    return f"round trips of the handshake, {octets:,} octets of ballast"


def _opened(to: Address, chosen: ssl.SSLContext) -> tuple[int, float]:
    """Open a connection; return octets of the server's flight and milliseconds of the TLS handshake."""
    with Connection(to, chosen) as connection:
        return connection.handshake_bytes[1], connection.opening.tls


class _Asker:
    """Asks the edge as each arm does; blocking."""

    def __init__(self, address: str, contexts: Mapping[str, ssl.SSLContext], *, keep_tickets: bool) -> None:
        self._address, self._contexts, self._keep = address, contexts, keep_tickets
        self._tickets: dict[str, ssl.SSLSession | None] = {}
        self._kept: Connection | None = None

    def prepare(self) -> None:
        """Fetch a ticket of each version, and open the connection that is kept."""
        versions: Sequence[handshake.Protocol] = ("TLSv1.2", "TLSv1.3")
        for version in versions:
            with self._open(Arm("", version)) as connection:
                connection.ask("/whoami")
                self._tickets[version] = connection.session
        self._kept = self._open(Arm("", "TLSv1.3"))
        self._kept.ask("/whoami")

    def ask(self, arm: Arm) -> tuple[float, bool]:
        """Return the time to first byte, and whether a session was resumed."""
        if arm.pooled and self._kept is not None:
            return self._kept.ask("/whoami").ttfb, False
        session = self._tickets.get(arm.protocol) if arm.resumed and self._keep else None
        with self._open(arm, session) as connection:
            times = connection.ask("/whoami")
            if arm.resumed and connection.session is not None:
                self._tickets[arm.protocol] = connection.session  # a TLS 1.3 ticket is for one use (RFC 8446 C.4)
            return times.ttfb, connection.resumed

    def close(self) -> None:
        """Let the kept connection go."""
        if self._kept is not None:
            self._kept.close()

    def _open(self, arm: Arm, session: ssl.SSLSession | None = None) -> Connection:
        to = Address(arm.host, self._address, 80 if arm.protocol == "plain" else 443)
        chosen = None if arm.protocol == "plain" else self._contexts[arm.protocol.removeprefix("TLSv")]
        return Connection(to, chosen, session)
