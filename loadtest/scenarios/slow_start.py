"""Scenario `slow-start`: counts the bytes delivered in each round trip on new and warm TCP connections."""

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments import Chart, Control, Curve, Dots, Estimate, Experiment, Lesson, Panel, Quantity, Run, parameter
from scenarios.instruments.connection import Address, Connection
from stub import Stub
from theory import slow_start
from theory.slow_start import MSS

HOST = "www.example.com"
#: Number of round trips that are checked; later, a receive buffer of 256 KiB could be the limit.
ROUNDS = 4
#: Body size of each long response in bytes; it takes five round trips, so that the fourth carries a full window.
LONG = 300_000
#: Approximate size of a response's head in bytes; the body follows in the same segment.
HEAD = 330
#: The client's receive buffer in bytes, large enough that only the congestion window limits the sender.
BUFFER = 4 << 20
#: The negative control's receive buffer in bytes, smaller than the first congestion windows.
SMALL_BUFFER = 16 << 10
#: Minimum silence between two round trips, as a share of the round-trip time.
GAP = 0.5
#: Seconds of silence before a warm connection is used again: several RTOs, each of which halves the window.
IDLE = 3.0
PORT = 80
#: Number of connections whose congestion window is read at the sender, and readings per second.
WATCHED, WATCH_HZ = 3, 20


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters that the user can vary."""

    rtt_ms: float = parameter(
        120.0, quick=100.0, unit="ms", low=40, high=500, help="round-trip time between client and edge"
    )
    repeats: int = parameter(11, quick=5, low=3, high=100, help="new connections of each kind")
    sizes: tuple[int, ...] = parameter(
        (5_000, 13_000, 14_480, 30_000, 41_000, 43_440, 70_000, 99_000, 101_360, 200_000),
        quick=(13_000, 14_480, 41_000, 43_440, 99_000, 101_360), unit="bytes", low=1, high=200_000,
        help="sizes of the responses that are each fetched over a new connection",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Round:
    """Data received in one round trip, that is, between two silences."""

    #: Milliseconds from the request to the last byte of this round trip.
    at: float
    #: Total bytes received up to and including this round trip.
    received: int


class SlowStart(Experiment[Parameters]):
    """Fetches responses over plain TCP, divides them into round trips, and reads the sender's window."""

    name = "slow-start"
    claim = (
        "A new connection delivers 10, 30, 70, then 150 segments within 1, 2, 3, 4 round trips, however fast the link."
    )
    says = (
        "The textbook says that the congestion window of a new connection starts at a system default and grows "
        "exponentially with every acknowledged segment, and that bandwidth = window / RTT: a new connection cannot "
        "use the full capacity, and short round trips get there sooner. In practice the window belongs to the "
        "connection. One that has carried data has a larger window until it has been idle for a few retransmission "
        "timeouts; then it starts over, and all that a warm connection still saves is the handshake."
    )
    source = (
        "RFC 5681 section 3.1 (slow start) and 4.1 (restart after idle), RFC 6928 (initial window of ten segments). "
        "Plain TCP with Reno on every route: TLS flights would grow the window first, CUBIC's HyStart can end the "
        "growth early, and BBR paces."
    )
    production = (
        "Put what the user needs first into the first 14 kB, headers included: each doubling beyond costs a round "
        "trip, whatever the bandwidth. Keep connections open and in use; for long-lived connections between your own "
        "machines disable net.ipv4.tcp_slow_start_after_idle. Serve from nearby: ten megabytes need ten round trips "
        "to reach full speed, a fifth of a second at 20 ms and two seconds at 200 ms. Give receivers large buffers, "
        "because a small one caps all of this (see the control)."
    )
    settings = Parameters
    control = Control(
        "the client's receive buffer holds only 16 kB, so that flow control limits instead of the congestion window",
        ("bytes after 3 round trips", "bytes after 4 round trips"),
    )
    paths = ("edge",)
    lessons = (
        Lesson(
            "How many bytes does a new connection deliver in its first round trip, in segments of 1,448 bytes?",
            "bytes after 1 round trip", "bytes", 1500,
        ),
        Lesson(
            "How many has it delivered after three?",
            "bytes after 3 round trips", "bytes", 10000,
        ),
        Lesson(
            "How many round trips do 99,000 bytes take?",
            "round trips for 99,000 bytes", "round trips", 0.5,
        ),
    )  # fmt: skip

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.cold: list[list[Round]] = []
        self.warm: list[list[Round]] = []
        self.idle: list[list[Round]] = []
        self.by_size: dict[int, list[list[Round]]] = defaultdict(list)
        #: Readings at the sender: pairs of (bytes acknowledged, congestion window in segments).
        self.windows: set[tuple[int, int]] = set()
        #: Longest time for which the receive window stopped the sender, in milliseconds.
        self.limited = 0.0

    def duration(self) -> float:
        """Return the expected duration in seconds: all round trips, and the silence before the last request."""
        trips = self.p.repeats * (3 * (ROUNDS + 2) + 2 + sum(slow_start.rounds(n) + 2 for n in self.p.sizes))
        return 3 + trips * self.p.rtt_ms / 1000 + self.p.repeats * IDLE

    def predict(self) -> Mapping[str, Quantity]:
        """Predict the bytes received after each round trip, and the round trips for each response size."""
        warm = _rounds(LONG, window=slow_start.window_after(LONG))
        return {
            **{_after(n): Quantity(slow_start.bytes_within(n), "bytes") for n in range(1, ROUNDS + 1)},
            **{f"round trips for {size:,} bytes": Quantity(_rounds(size), "round trips") for size in self.p.sizes},
            "round trips on a warm connection": Quantity(warm, "round trips"),
            "round trips after a silence": Quantity(_rounds(LONG), "round trips"),
            "sender's window / (10 + segments acknowledged)": Quantity(1.0),
        }

    async def measure(self, run: Run) -> None:
        """Fetch long responses over new, warm and idle connections, and responses of each size over new connections."""
        address = (await run.blocking(Stub().resolve, HOST)).rdata[0]
        await run.lab.link("access", "near", rtt_ms=self.p.rtt_ms)
        client = _Client(Address(HOST, address, PORT), SMALL_BUFFER if self.negative else BUFFER)
        await self._watch(run, client, f"{address}:{PORT}")
        await run.recorders.start("edge")
        gap = GAP * self.p.rtt_ms
        for repeat in range(self.p.repeats):
            run.phase(f"new, warm and idle connections, {repeat + 1} of {self.p.repeats}")
            first, second, third = await run.blocking(client.thrice, LONG, IDLE)
            self.cold.append(rounds(first, gap))
            self.warm.append(rounds(second, gap))
            self.idle.append(rounds(third, gap))
        run.phase("responses of several sizes")
        for _, size in run.interleaved(self.p.sizes, self.p.repeats):
            self.by_size[size].append(rounds(await run.blocking(client.once, size), gap))

    async def _watch(self, run: Run, client: "_Client", local: str) -> None:
        """Read the congestion window of some connections at the sender.

        These connections are separate from the measured ones, because reading TCP_INFO takes more CPU than counters.
        """
        run.phase("reading the sender's window")
        watch = {"hz": WATCH_HZ, "seconds": 60, "sockets": {"local_port": PORT}}
        await run.lab.call("edge", "POST", "/admin/recorder", watch)
        for _ in range(WATCHED):
            await run.blocking(client.once, LONG)
        recording = await run.lab.call("edge", "DELETE", "/admin/recorder")
        for _, name, info in recording.get("sockets", ()):
            if name.startswith(local) and "bytes_acked" in info:
                self.windows.add((info["bytes_acked"], info["cwnd"]))
                self.limited = max(self.limited, info.get("rwnd_limited_us", 0) / 1000)

    def conclude(self, run: Run) -> None:
        """Compare received bytes and round trips with the prediction, exactly."""
        found = run.findings
        run.raw["cold"] = [[(round(r.at, 2), r.received) for r in each] for each in self.cold]
        for n in range(1, ROUNDS + 1):
            self._exact(run, _after(n), [each[n - 1].received for each in self.cold if len(each) >= n])
        for size in self.p.sizes:
            self._exact(run, f"round trips for {size:,} bytes", [len(each) for each in self.by_size[size]])
        self._exact(run, "round trips on a warm connection", [len(each) for each in self.warm])
        self._exact(run, "round trips after a silence", [len(each) for each in self.idle])
        if edge := run.recorders.series.get("edge"):
            for name in ("TcpExt.TCPHystartTrainDetect", "TcpExt.TCPHystartDelayDetect"):
                risen = int(edge.rise(name))
                found.gate(f"{name} at the edge", "0", str(risen), risen == 0)
            # Loss probes are subtracted: on the connection that reads the edge's counters, the round-trip time is so
            # short that a slightly late acknowledgement triggers a probe (RFC 8985 section 7.2).  On a measured
            # connection, a probe needs a round trip of silence, and a real loss would be visible in the round trips.
            again = int(edge.rise("Tcp.RetransSegs")) - int(edge.rise("TcpExt.TCPLossProbes"))
            found.gate("retransmissions at the edge, except loss probes", "0", str(max(0, again)), again <= 0)
        found.chart(self._staircase())
        found.chart(self._sizes())
        self._at_the_sender(run)

    @staticmethod
    def _exact(run: Run, name: str, values: Sequence[int]) -> None:
        """Check that more than half of the repeats give exactly the predicted number."""
        row = run.findings.row(name, _most_common(values))
        expected = int(row.predicted or 0)
        agree = sum(value == expected for value in values)
        got = f"most often {row.measured.value:,.0f}; {expected:,} in {agree}"
        run.findings.check(name, f"{expected:,} in most of {len(values)}", got, 2 * agree > len(values))

    def _at_the_sender(self, run: Run) -> None:
        """Check that the window in TCP_INFO matches the bytes acknowledged at the same moment."""
        name = "longest time for which the receive window stopped a watched sender, ms"
        run.findings.fact(name, self.limited)
        last = slow_start.bytes_within(ROUNDS)
        seen = sorted((acked, window) for acked, window in self.windows if acked < last)
        if len(seen) < 3:
            run.findings.leave_out(f"the sender's window: {len(seen)} readings of TCP_INFO are too few")
            return
        shares = [window / slow_start.window_after(acked) for acked, window in seen]
        row = run.findings.row("sender's window / (10 + segments acknowledged)", Estimate.of(shares))
        run.findings.check_near(row, 0.1)
        run.findings.chart(self._window(seen))

    def _staircase(self) -> Chart:
        longest = max((each[-1].at for each in self.cold if each), default=1.0) / self.p.rtt_ms
        head = self.cold[0][-1].received - LONG if self.cold and self.cold[0] else 0
        whole = (LONG + head) / 1000
        marks: list[Curve | Dots] = [
            Curve("theory: 10 · (2ⁿ - 1) segments after n round trips", _steps(LONG + head), 0, steps=True),
            Curve("theory, warm connection", [(0, 0), (1, whole), (2, whole)], 2, dashed=True, steps=True),
        ]
        for label, every, colour in (("new connection", self.cold, 1), ("warm connection", self.warm, 2)):
            points = [(r.at / self.p.rtt_ms, r.received / 1000) for each in every for r in each]
            marks.append(Dots(label, [(x, y, y, y) for x, y in points], colour))
        return Chart(
            "A new connection delivers 10, 20, 40, 80 … segments per round trip, a warm one everything at once",
            [Panel(marks, y="received, kB", height=340)],
            x=f"round trips since the request ({self.p.rtt_ms:g} ms each)",
            caption=f"Each dot is the end of a burst, followed by silence for half a round trip; all {len(self.cold)} "
            "connections are drawn. A busy machine moves dots to the right but never up, because the amount per "
            "round trip is fixed.",
            low=0.0,
            high=max(6.0, min(10.0, longest * 1.02)),
            name="slow-start",
        )

    def _sizes(self) -> Chart:
        top = max(self.p.sizes)
        curve = [(n / 1000, float(_rounds(n))) for n in range(1, round(top * 1.05), max(1, top // 400))]
        dots = []
        for size in sorted(self.p.sizes):
            counts = [len(each) for each in self.by_size[size]] or [0]
            dots.append((size / 1000, float(_most_common(counts).value), float(min(counts)), float(max(counts))))
        theory = Curve("theory: ⌈log₂(n / 10 + 1)⌉ for n segments", curve, 0, steps=True)
        return Chart(
            "A few more bytes can cost a round trip",
            [Panel([theory, Dots("measured", dots, 1)], y="round trips", height=230)],
            x="size of the response body, kB",
            caption="The steps are at 14.1, 43.1 and 101.0 kB of body: 14,480, 43,440 and 101,360 bytes, less the "
            "head.",
            low=0.0,
            name="slow-start-lengths",
        )

    def _window(self, seen: Sequence[tuple[int, int]]) -> Chart:
        far = slow_start.bytes_within(ROUNDS)
        curve = [(n / 1000, float(slow_start.window_after(n))) for n in range(0, far, MSS)]
        readings = [(acked / 1000, float(w), float(w), float(w)) for acked, w in seen]
        marks: list[Curve | Dots] = [
            Curve("theory: 10 + segments acknowledged", curve, 0),
            Dots("TCP_INFO of the edge's sockets", readings, 1),
        ]
        return Chart(
            "The window grows by every acknowledged segment, and so doubles each round trip",
            [Panel(marks, y="window, segments", height=230)],
            x="acknowledged, kB",
            caption=f"Read through sock_diag on the edge, {WATCH_HZ} times a second.",
            low=0.0,
            name="slow-start-window",
        )


class _Client:
    """Blocking client that sends requests over plain TCP and records when each piece of the response arrives."""

    def __init__(self, to: Address, buffer: int) -> None:
        self._to, self._buffer = to, buffer

    def once(self, size: int) -> list[tuple[float, int]]:
        """Return the arrivals (milliseconds, bytes) of one response on a new connection."""
        with Connection(self._to, None, receive_buffer=self._buffer) as connection:
            return self._arrivals(connection, size)

    def thrice(self, size: int, idle: float) -> tuple[list[tuple[float, int]], ...]:
        """Return the arrivals of three requests on one connection; the third follows after *idle* seconds."""
        with Connection(self._to, None, receive_buffer=self._buffer) as connection:
            first, second = self._arrivals(connection, size), self._arrivals(connection, size)
            time.sleep(idle)  # the idle period under test
            return first, second, self._arrivals(connection, size)

    @staticmethod
    def _arrivals(connection: Connection, size: int) -> list[tuple[float, int]]:
        return [(at, len(data)) for at, data in connection.arrivals(f"/bytes/{size}")]


def rounds(arrivals: Sequence[tuple[float, int]], gap: float) -> list[Round]:
    """Divide arrivals (milliseconds, bytes) into round trips separated by at least *gap* milliseconds of silence."""
    found: list[Round] = []
    received, before = 0, 0.0
    for at, size in arrivals:
        received += size
        if not found or at - before >= gap:
            found.append(Round(at, received))
        else:
            found[-1] = Round(at, received)
        before = at
    return found


def _after(n: int) -> str:
    return f"bytes after {n} round trip{'s' if n > 1 else ''}"


def _rounds(size: int, window: int = slow_start.INITIAL_WINDOW) -> int:
    """Return the predicted round trips for a head and a body of *size* bytes."""
    return slow_start.rounds(HEAD + size, window=window)


def _steps(size: float) -> list[tuple[float, float]]:
    """Return the step curve (round trip, kilobytes received) until all *size* bytes have arrived."""
    points, n = [(0.0, 0.0)], 0
    while points[-1][1] * 1000 < size:
        n += 1
        points.append((float(n), min(size, slow_start.bytes_within(n)) / 1000))
    return [*points, (n + 1.0, size / 1000)]


def _most_common(values: Sequence[int]) -> Estimate:
    """Return the most common value; the interval spans all values."""
    if not values:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    value, _ = Counter(values).most_common(1)[0]
    return Estimate(value, min(values), max(values), len(values))
