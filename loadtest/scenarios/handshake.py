"""`handshake`: what proving an identity costs, in round trips (an integer slope), in CPU and in bytes."""

import ssl
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

import theory
from experiments import Chart, Control, Curve, Dots, Estimate, Experiment, Line, Panel, Quantity, Run, parameter
from experiments.chart import Bars
from scenarios import in_memory
from scenarios.connection import TRUST, Address, Connection
from stub import Stub
from waterfall.tls import context

#: Largest distance between a measured slope and the integer it has to be.
TOLERANCE = 0.1


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to ask: what is spoken, and what is there from a request before."""

    name: str
    protocol: theory.Protocol
    resumed: bool = False
    pooled: bool = False

    @property
    def round_trips(self) -> int:
        """Until the first byte: connect, TLS, request."""
        return 1 if self.pooled else 2 + theory.tls_round_trips(self.protocol, resumed=self.resumed)


ARMS = (
    Arm("kept open", "TLSv1.3", pooled=True),
    Arm("no TLS", "plain"),
    Arm("TLS 1.3", "TLSv1.3"),
    Arm("TLS 1.3 resumed", "TLSv1.3", resumed=True),
    Arm("TLS 1.2", "TLSv1.2"),
    Arm("TLS 1.2 resumed", "TLSv1.2", resumed=True),
)


@dataclass(frozen=True, slots=True)
class Parameters:
    """What can be varied."""

    rtt_ms: tuple[float, ...] = parameter((10.0, 40.0, 80.0, 120.0), quick=(20.0, 70.0, 120.0), unit="ms", low=5, high=500, help="round-trip times between client and edge")  # fmt: skip
    repeats: int = parameter(11, quick=5, low=1, high=100, help="requests of each kind at each round-trip time")
    handshakes: int = parameter(400, quick=120, low=10, high=10_000, help="in memory, for CPU and bytes")


class Handshake(Experiment[Parameters]):
    """Time to first byte against round-trip time, by what has to be shaken hands about."""

    name = "handshake"
    claim = "A new connection costs a round trip, TLS 1.3 one more and TLS 1.2 two: the line through the measurements has that slope."
    says = (
        "The seed: with TLS 1.2 there is a cost of two round trips, reduced to one in TLS 1.3; asymmetric cryptography is slow, "
        "so it is used once, to agree on a symmetric key. More subtle: resuming a session saves TLS 1.2 a round trip, but TLS 1.3 "
        "none: there it saves the signature and the certificate, thus CPU and bytes."
    )
    source = (
        "RFC 8446 section 2 (TLS 1.3), RFC 5246 section 7.3 (TLS 1.2), RFC 5077 (tickets), RFC 9293 section 3.5 (TCP)."
    )
    production = (
        "Keep connections open: on a 120 ms path that is worth 240 ms per request with TLS 1.3 and 360 ms with TLS 1.2, more than most "
        "servers take to think. Moving to TLS 1.3 saves one round trip per new connection without further work. Prefer ECDSA: the server's "
        "share of a handshake shrinks to about half of RSA's, and the certificate to half of its bytes. Resumption saves CPU; "
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
        self.costs: dict[str, in_memory.Cost] = {}

    def duration(self) -> float:
        """Every arm asks once per repeat, after the tickets were fetched."""
        trips = sum(arm.round_trips for arm in ARMS) + 6
        return 4 + sum(self.p.rtt_ms) / 1000 * trips * self.p.repeats + 0.005 * self.p.handshakes

    def predict(self) -> Mapping[str, Quantity]:
        """Return the slope of each arm."""
        return {f"round trips, {arm.name}": Quantity(arm.round_trips) for arm in ARMS}

    async def measure(self, run: Run) -> None:
        """Change the link, then let every arm ask in turn."""
        host = "www.example.com"
        address = (await run.blocking(Stub().resolve, host)).rdata[0]
        contexts = {version: context(version, TRUST) for version in ("1.2", "1.3")}
        for rtt in self.p.rtt_ms:
            await run.link("access", "near", rtt_ms=rtt)
            run.phase(f"round trip {rtt:g} ms")
            asker = _Asker(host, address, contexts, keep_tickets=not self.negative)
            await run.blocking(asker.prepare)
            for _, arm in run.interleaved(ARMS, self.p.repeats):
                taken, resumed = await run.blocking(asker.ask, arm)
                self.ttfb[arm, rtt].append(taken)
                self.reused[arm].append(resumed)
            asker.close()
        run.phase("handshakes in memory, for CPU and bytes")
        for key in in_memory.KEYS:
            for version in in_memory.VERSIONS:
                ends = in_memory.Ends(key, version)
                for resumed in (False, True):
                    name = f"{version.replace('TLSv', 'TLS ')}, {key}{', resumed' if resumed else ''}"
                    self.costs[name] = await run.blocking(ends.cost, self.p.handshakes, resumed=resumed)
        await self._post_quantum(run)

    async def _post_quantum(self, run: Run) -> None:
        """OpenSSL 3.5 agrees on X25519MLKEM768 unless the server will not."""
        if ssl.OPENSSL_VERSION_INFO < (3, 5):
            run.leave_out(f"X25519MLKEM768: needs OpenSSL 3.5, this is {ssl.OPENSSL_VERSION}")
            return
        for name, curve in (("X25519MLKEM768", None), ("X25519", "X25519")):
            ends = in_memory.Ends("ECDSA P-256", "TLSv1.3", curve=curve)
            self.costs[name] = await run.blocking(ends.cost, self.p.handshakes)

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
            row = run.row(f"round trips, {arm.name}", slope)
            low, high = arm.round_trips - TOLERANCE, arm.round_trips + TOLERANCE
            run.check(row.name, f"{arm.round_trips} ± {TOLERANCE:g}", f"{line.slope:.3f}", low <= line.slope <= high, value=line.slope, low=low, high=high)  # fmt: skip
            run.fact(f"time beside the round trips, {arm.name}, ms", round(heights[arm], 2))
        for arm in ARMS:
            if arm.resumed and not self.negative:
                share = sum(self.reused[arm]) / len(self.reused[arm])
                run.gate(f"{arm.name}: sessions resumed", "all", f"{share:.0%}", share == 1.0)
        self._conclude_costs(run)
        run.chart(self._lines(heights))
        run.chart(self._cpu())

    def _conclude_costs(self, run: Run) -> None:
        for name, cost in self.costs.items():
            run.row(f"server CPU, {name}", cost.server_ms, "ms")
            run.fact(f"bytes to and from the server, {name}", f"{cost.sent} / {cost.received}")
        rsa, ecdsa = self.costs["TLS 1.3, RSA 2048"], self.costs["TLS 1.3, ECDSA P-256"]
        resumed = self.costs["TLS 1.3, ECDSA P-256, resumed"]
        run.check("an RSA signature costs the server more than ECDSA's", "> 1.5 ×", f"{rsa.server_ms / ecdsa.server_ms:.2f} ×", rsa.server_ms > 1.5 * ecdsa.server_ms)  # fmt: skip
        saved = ecdsa.received - resumed.received
        run.check("TLS 1.3 resumed saves the certificate", f">= {ecdsa.certificate} bytes", f"{saved} bytes", saved >= ecdsa.certificate)  # fmt: skip
        if "X25519MLKEM768" in self.costs:
            hybrid, classic = self.costs["X25519MLKEM768"], self.costs["X25519"]
            # FIPS 203: a ciphertext of 1,088 octets.  An ECDSA signature in DER varies by a few.
            more = hybrid.received - classic.received
            run.check("X25519MLKEM768 adds its ciphertext", "1,088 ± 4 bytes", f"{more:,} bytes", abs(more - 1088) <= 4)

    def _lines(self, heights: dict[Arm, float]) -> Chart:
        far = max(self.p.rtt_ms) * 1.05
        marks: list[Curve | Dots] = []
        for i, arm in enumerate(ARMS):
            ends = [(at, heights[arm] + arm.round_trips * at) for at in (0.0, far)]
            marks.append(Curve(arm.name, ends, i, dashed=arm.resumed))
        for i, arm in enumerate(ARMS):
            every = [(rtt, self.ttfb[arm, rtt]) for rtt in self.p.rtt_ms]
            marks.append(Dots(arm.name, [(rtt, min(v), min(v), median(v)) for rtt, v in every], i))
        return Chart(
            "Time to first byte against round-trip time",
            [Panel(marks, y="time to first byte, ms", height=380)],
            x="round-trip time between client and edge, ms",
            caption="Lines: theory, (1 + h + 1) round trips per request; only their height at 0 ms, the servers' own time, is taken from "
            "the measurement. Dots: the smallest of the repeats, with a bar up to their median. Dashed: resumed; for TLS 1.3 it lies on the full handshake's line.",
            low=0,
            high=far,
            name="handshake",
        )

    def _cpu(self) -> Chart:
        names = [name for name in self.costs if name.startswith("TLS")]
        bars = [[(i - 0.38 + 0.38 * k, i + 0.38 * k, value) for i, value in enumerate(values)] for k, values in enumerate((
            [self.costs[name].server_ms for name in names], [self.costs[name].client_ms for name in names],
        ))]  # fmt: skip
        return Chart(
            "CPU of one handshake",
            [Panel([Bars("server", bars[0], 0), Bars("client", bars[1], 1)], y="CPU per handshake, ms", height=220)],
            x="both ends in memory, on one core",
            caption="The signature is what RSA makes dear, for the server; verifying is dear in ECDSA, for the client. Resumed: no certificate, no "
            "signature. TLS 1.3 still agrees on a fresh key.",
            categories=names,
            name="handshake-cpu",
        )


class _Asker:
    """Asks the edge as each arm does; blocking."""

    def __init__(self, host: str, address: str, contexts: dict[str, ssl.SSLContext], *, keep_tickets: bool) -> None:
        self._contexts, self._keep = contexts, keep_tickets
        self._to = {"plain": Address(host, address, 80)}
        self._to |= {version: Address(host, address, 443) for version in ("TLSv1.2", "TLSv1.3")}
        self._tickets: dict[str, ssl.SSLSession | None] = {}
        self._kept: Connection | None = None

    def prepare(self) -> None:
        """Fetch a ticket of each version, and open the connection that is kept."""
        for version in ("TLSv1.2", "TLSv1.3"):
            with self._open(version) as connection:
                connection.ask("/whoami")
                self._tickets[version] = connection.session
        self._kept = self._open("TLSv1.3")
        self._kept.ask("/whoami")

    def ask(self, arm: Arm) -> tuple[float, bool]:
        """Return the time to first byte, and whether a session was resumed."""
        if arm.pooled and self._kept is not None:
            return self._kept.ask("/whoami").ttfb, False
        session = self._tickets.get(arm.protocol) if arm.resumed and self._keep else None
        with self._open(arm.protocol, session) as connection:
            times = connection.ask("/whoami")
            if arm.resumed and connection.session is not None:
                self._tickets[arm.protocol] = connection.session  # a TLS 1.3 ticket is for one use (RFC 8446 C.4)
            return times.ttfb, connection.resumed

    def close(self) -> None:
        """Let the kept connection go."""
        if self._kept is not None:
            self._kept.close()

    def _open(self, protocol: theory.Protocol | str, session: ssl.SSLSession | None = None) -> Connection:
        chosen = None if protocol == "plain" else self._contexts[protocol.removeprefix("TLSv")]
        return Connection(self._to[protocol], chosen, session)
