"""`slow-start`: how much fits into each round trip of a new connection, to the segment; and what a warm one has left of it."""

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments import (
    Chart,
    Control,
    Curve,
    Dots,
    Estimate,
    Experiment,
    Panel,
    Quantity,
    Run,
    parameter,
)
from scenarios.instruments.connection import Address, Connection
from stub import Stub
from theory import slow_start
from theory.slow_start import MSS

HOST = "www.example.com"
#: Rounds that are looked at: with more, 256 KiB of receive buffer could be what decides.
ROUNDS = 4
#: Octets of each long answer: a fifth round, so that the fourth is not cut short by its end.
LONG = 300_000
#: Of the receive buffer: room for every round, so that the congestion window alone decides.
BUFFER = 4 << 20
#: Of the control's: below the first windows.
SMALL_BUFFER = 16 << 10
#: Silence that tells two rounds apart, in round-trip times.
GAP = 0.5
#: Seconds of silence after which a warm connection is asked again: several RTOs, each of which halves the window.
IDLE = 3.0
PORT = 80
#: Connections whose window is read at the sender, and how often per second.
WATCHED, WATCH_HZ = 3, 20


@dataclass(frozen=True, slots=True)
class Parameters:
    """What can be varied."""

    rtt_ms: float = parameter(120.0, quick=100.0, unit="ms", low=40, high=500, help="round-trip time between client and edge")  # fmt: skip
    repeats: int = parameter(11, quick=5, low=3, high=100, help="new connections")
    octets: tuple[int, ...] = parameter((5_000, 13_000, 14_480, 30_000, 41_000, 43_440, 70_000, 99_000, 101_360, 200_000), quick=(13_000, 14_480, 41_000, 43_440, 99_000, 101_360), low=1, high=200_000, help="lengths of answers on connections of their own")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Round:
    """What came between two silences."""

    #: Milliseconds since the request, of its last octet.
    at: float
    #: Octets until then.
    octets: int


class SlowStart(Experiment[Parameters]):
    """Answers over plain TCP, cut into round trips at the client; the sender's window read beside it."""

    name = "slow-start"
    claim = (
        "A new connection brings 10, 30, 70, then 150 segments within 1, 2, 3, 4 round trips, however fast the link is."
    )
    says = (
        "The seed: when a connection is new, the congestion window has the system's default size and grows with every segment acknowledged, "
        "exponentially; Bandwidth = WinSize / RTT. So the link's full capacity can not be used right away, and the shorter the round trip, the sooner. "
        "More subtle: the growth belongs to the connection. One that has carried data has a larger window, until it has been idle for some retransmission "
        "time-outs: then it starts anew, and what is left of a warm connection is the handshake it saves."
    )
    source = (
        "RFC 5681 section 3.1 (slow start) and 4.1 (restart after idleness), RFC 6928 (initial window of ten segments). Plain TCP with Reno on every route: "
        "TLS flights would grow the window first, CUBIC's HyStart can end it early, BBR paces."
    )
    production = (
        "What must appear first belongs into the first 14 kB, head included: each doubling beyond costs one round trip, whatever the bandwidth. "
        "Keep connections open and in use; for long-lived ones between your own machines turn net.ipv4.tcp_slow_start_after_idle off. Serve from nearby: "
        "ten megabytes take ten round trips to get up to speed, at 20 ms a fifth of a second, at 200 ms two seconds. Announce buffers "
        "that are large enough: a receiver with a small one caps all of this (the control of this experiment)."
    )
    settings = Parameters
    control = Control(
        "the client has room for 16 kB only: now flow control decides, not the congestion window",
        ("octets after 3 round trips", "octets after 4 round trips"),
    )
    paths = ("edge",)

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.cold: list[list[Round]] = []
        self.warm: list[list[Round]] = []
        self.idle: list[list[Round]] = []
        self.by_length: dict[int, list[list[Round]]] = defaultdict(list)
        #: Of each connection that was watched at the sender: (octets acknowledged, window in segments).
        self.windows: set[tuple[int, int]] = set()
        #: Milliseconds that the sender waited for the receiver's window, at most.
        self.limited = 0.0

    def duration(self) -> float:
        """Rounds, and the silence before the last request."""
        trips = self.p.repeats * (3 * (ROUNDS + 2) + 2 + sum(slow_start.rounds(n) + 2 for n in self.p.octets))
        return 3 + trips * self.p.rtt_ms / 1000 + self.p.repeats * IDLE

    def predict(self) -> Mapping[str, Quantity]:
        """Return octets by round; rounds by length."""
        predicted = {
            f"octets after {n} round trip{'s' if n > 1 else ''}": Quantity(slow_start.bytes_within(n), "octets")
            for n in range(1, ROUNDS + 1)
        }
        for octets in self.p.octets:
            predicted[f"round trips of {octets:,} octets"] = Quantity(_rounds(octets), "round trips")
        carried = slow_start.window_after(LONG)
        predicted["round trips on a warm connection"] = Quantity(_rounds(LONG, window=carried), "round trips")
        predicted["round trips after a silence"] = Quantity(_rounds(LONG), "round trips")
        predicted["sender's window / (10 + segments acknowledged)"] = Quantity(1.0)
        return predicted

    async def measure(self, run: Run) -> None:
        """Ask on new connections, twice on some of them; and for answers of each length."""
        address = (await run.blocking(Stub().resolve, HOST)).rdata[0]
        await run.lab.link("access", "near", rtt_ms=self.p.rtt_ms)
        asker = _Asker(Address(HOST, address, PORT), SMALL_BUFFER if self.negative else BUFFER)
        await self._watch(run, asker, f"{address}:{PORT}")
        await run.recorders.start("edge")
        gap = GAP * self.p.rtt_ms
        for repeat in range(self.p.repeats):
            run.phase(f"new, warm and idle connections, {repeat + 1} of {self.p.repeats}")
            first, second, third = await run.blocking(asker.thrice, LONG, IDLE)
            self.cold.append(rounds(first, gap))
            self.warm.append(rounds(second, gap))
            self.idle.append(rounds(third, gap))
        run.phase("answers of several lengths")
        for _, octets in run.interleaved(self.p.octets, self.p.repeats):
            self.by_length[octets].append(rounds(await run.blocking(asker.once, octets), gap))

    async def _watch(self, run: Run, asker: "_Asker", local: str) -> None:
        """Read the windows of some connections at the sender; apart, since that costs more CPU than counters do."""
        run.phase("the sender's window")
        watch = {"hz": WATCH_HZ, "seconds": 60, "sockets": {"local_port": PORT}}
        await run.lab.call("edge", "POST", "/admin/recorder", watch)
        for _ in range(WATCHED):
            await run.blocking(asker.once, LONG)
        recording = await run.lab.call("edge", "DELETE", "/admin/recorder")
        for _, name, info in recording.get("sockets", ()):
            if name.startswith(local) and "bytes_acked" in info:
                self.windows.add((info["bytes_acked"], info["cwnd"]))
                self.limited = max(self.limited, info.get("rwnd_limited_us", 0) / 1000)

    def conclude(self, run: Run) -> None:
        """Compare octet by octet."""
        run.raw["cold"] = [[(round(r.at, 2), r.octets) for r in found] for found in self.cold]
        for n in range(1, ROUNDS + 1):
            # The head travels alone: a whole segment to the window, but not in octets.
            came = [found[n - 1].octets + MSS - (found[-1].octets - LONG) for found in self.cold if len(found) >= n]
            self._exact(run, f"octets after {n} round trip{'s' if n > 1 else ''}", came)
        for octets in self.p.octets:
            self._exact(run, f"round trips of {octets:,} octets", [len(found) for found in self.by_length[octets]])
        self._exact(run, "round trips on a warm connection", [len(found) for found in self.warm])
        self._exact(run, "round trips after a silence", [len(found) for found in self.idle])
        if edge := run.recorders.series.get("edge"):
            for name in ("TcpExt.TCPHystartTrainDetect", "TcpExt.TCPHystartDelayDetect"):
                risen = int(edge.rise(name))
                run.findings.gate(f"{name} at the edge", "0", str(risen), risen == 0)
            # Whoever watches the edge is so near that an acknowledgement a few milliseconds late brings a loss probe (RFC 8985
            # section 7.2).  On our own connections one takes a round trip of silence, and a loss takes rounds: those are checked.
            again = int(edge.rise("Tcp.RetransSegs")) - int(edge.rise("TcpExt.TCPLossProbes"))
            run.findings.gate("retransmissions at the edge, but for loss probes", "0", str(max(0, again)), again <= 0)
        run.findings.chart(self._staircase())
        run.findings.chart(self._lengths())
        self._at_the_sender(run)

    @staticmethod
    def _exact(run: Run, name: str, values: Sequence[int]) -> None:
        """Most repeats have to agree on exactly what theory says."""
        row = run.findings.row(name, _most_common(values))
        expected = int(row.predicted or 0)
        agree = sum(value == expected for value in values)
        run.findings.check(name, f"{expected:,} in most of {len(values)}", f"{row.measured.value:,.0f}, {expected:,} in {agree}", 2 * agree > len(values))  # fmt: skip

    def _at_the_sender(self, run: Run) -> None:
        """The window as TCP_INFO has it, against what was acknowledged when it was read."""
        run.findings.fact("longest time that a watched sender waited for the receiver's window, ms", self.limited)
        last = slow_start.bytes_within(ROUNDS)
        seen = sorted((acked, window) for acked, window in self.windows if acked < last)
        if len(seen) < 3:
            run.findings.leave_out(f"the sender's window: {len(seen)} readings of TCP_INFO are too few")
            return
        shares = [window / slow_start.window_after(acked) for acked, window in seen]
        run.findings.check_near(
            run.findings.row("sender's window / (10 + segments acknowledged)", Estimate.of(shares)), 0.1
        )
        run.findings.chart(self._window(seen))

    def _staircase(self) -> Chart:
        longest = max((found[-1].at for found in self.cold if found), default=1.0) / self.p.rtt_ms
        head = self.cold[0][-1].octets - LONG if self.cold and self.cold[0] else 0
        whole = (LONG + head) / 1000
        marks: list[Curve | Dots] = [
            Curve("theory: 10 · (2ⁿ - 1) segments after n round trips", _steps(LONG + head), 0, steps=True),
            Curve("theory, warm", [(0, 0), (1, whole), (2, whole)], 2, dashed=True, steps=True),
        ]  # fmt: skip
        for label, every, colour in (("new connection", self.cold, 1), ("warm: asked again at once", self.warm, 2)):
            marks.append(Dots(label, [(each.at / self.p.rtt_ms, each.octets / 1000, each.octets / 1000, each.octets / 1000) for found in every for each in found], colour))  # fmt: skip
        return Chart(
            "A new connection brings 10, 20, 40, 80 … segments per round trip, a warm one all at once",
            [Panel(marks, y="arrived, kB", height=340)],
            x=f"round trips since the request ({self.p.rtt_ms:g} ms each)",
            caption=f"Each dot: the end of a burst, after which nothing came for half a round trip; every one of {len(self.cold)} connections is drawn. A busy "
            "machine moves dots to the right, never up: how much a round trip brings is fixed. The head's own segment makes theory 1.1 kB higher.",
            low=0.0,
            high=max(6.0, min(10.0, longest * 1.02)),
            name="slow-start",
        )

    def _lengths(self) -> Chart:
        top = max(self.p.octets)
        curve = [(n / 1000, float(_rounds(n))) for n in range(1, round(top * 1.05), max(1, top // 400))]
        dots = []
        for octets in sorted(self.p.octets):
            counts = [len(found) for found in self.by_length[octets]] or [0]
            dots.append((octets / 1000, float(_most_common(counts).value), float(min(counts)), float(max(counts))))
        return Chart(
            "A few octets more can cost a round trip more",
            [
                Panel(
                    [
                        Curve("theory: ⌈log₂(n / 10 + 1)⌉ for n segments", curve, 0, steps=True),
                        Dots("measured", dots, 1),
                    ],
                    y="round trips",
                    height=230,
                )
            ],
            x="length of the answer, kB",
            caption="The steps lie at 13.0, 42.0, 99.9 kB of body: 14,480, 43,440 and 101,360 octets, less the segment that carries the head.",
            low=0.0,
            name="slow-start-lengths",
        )

    def _window(self, seen: Sequence[tuple[int, int]]) -> Chart:
        far = slow_start.bytes_within(ROUNDS)
        curve = [(n / 1000, float(slow_start.window_after(n))) for n in range(0, far, MSS)]
        return Chart(
            "The window grows by what is acknowledged, and so doubles each round trip",
            [
                Panel(
                    [
                        Curve("theory: 10 + segments acknowledged", curve, 0),
                        Dots(
                            "TCP_INFO of the edge's sockets",
                            [(a / 1000, float(w), float(w), float(w)) for a, w in seen],
                            1,
                        ),
                    ],
                    y="window, segments",
                    height=230,
                )
            ],
            x="acknowledged, kB",
            caption="Read by sock_diag on the edge, twenty times a second: every acknowledged segment adds one, so the window doubles with each round trip.",
            low=0.0,
            name="slow-start-window",
        )


class _Asker:
    """Asks over plain TCP, and notes when each piece came; blocking."""

    def __init__(self, to: Address, buffer: int) -> None:
        self._to, self._buffer = to, buffer

    def once(self, octets: int) -> list[tuple[float, int]]:
        """Return the arrivals of one answer on a connection of its own."""
        with Connection(self._to, None, receive_buffer=self._buffer) as connection:
            return self._arrivals(connection, octets)

    def thrice(self, octets: int, idle: float) -> tuple[list[tuple[float, int]], ...]:
        """Return the arrivals on one connection: new, asked again at once, and after *idle* seconds."""
        with Connection(self._to, None, receive_buffer=self._buffer) as connection:
            first, second = self._arrivals(connection, octets), self._arrivals(connection, octets)
            time.sleep(idle)  # the silence that is measured
            return first, second, self._arrivals(connection, octets)

    @staticmethod
    def _arrivals(connection: Connection, octets: int) -> list[tuple[float, int]]:
        return [(at, len(data)) for at, data in connection.arrivals(f"/bytes/{octets}")]


def rounds(arrivals: Sequence[tuple[float, int]], gap: float) -> list[Round]:
    """Cut arrivals (milliseconds, octets) into rounds: after a silence of *gap* milliseconds begins the next."""
    found: list[Round] = []
    octets, before = 0, 0.0
    for at, came in arrivals:
        octets += came
        if not found or at - before >= gap:
            found.append(Round(at, octets))
        else:
            found[-1] = Round(at, octets)
        before = at
    return found


def _rounds(octets: int, window: int = slow_start.INITIAL_WINDOW) -> int:
    """Return the round trips of an answer of *octets* and a head in a segment of its own."""
    return slow_start.rounds(octets + MSS, window=window)


def _steps(octets: float) -> list[tuple[float, float]]:
    """Return what has arrived (kB) after each round trip, until all *octets* have."""
    points, n = [(0.0, 0.0)], 0
    while points[-1][1] * 1000 < octets:
        n += 1
        points.append((float(n), min(octets, slow_start.bytes_within(n)) / 1000))
    return [*points, (n + 1.0, octets / 1000)]


def _most_common(values: Sequence[int]) -> Estimate:
    """Return the value that most repeats agree on, with the range of all."""
    if not values:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    value, _ = Counter(values).most_common(1)[0]
    return Estimate(value, min(values), max(values), len(values))
