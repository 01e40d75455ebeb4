"""`slow-start`: the first bytes of a connection come ten segments at a time, then twenty, then forty."""

import socket
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import theory
from experiments import Chart, Control, Curve, Dots, Experiment, Panel, Quantity, Run, parameter
from stub import Stub
from telemetry.recorder import Watch

HOST, PORT = "www.example.com", 80
#: The response's head travels in a segment of its own, before the body: one segment more than the body has.
HEAD = theory.slow_start.MSS
#: Octets that our receive buffer takes, so that the sender's window is what limits (the kernel may grant less).
BUFFER = 1 << 20
#: What a warm connection has carried before.
CARRIED = 100_000
TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Parameters:
    """What can be varied."""

    octets: tuple[int, ...] = parameter(
        (10_000, 13_000, 14_000, 30_000, 41_000, 43_000, 70_000, 98_000, 101_000, 150_000, 210_000),
        quick=(10_000, 13_000, 14_000, 41_000, 43_000, 98_000, 101_000, 200_000),
        unit="bytes", low=100, high=400_000, help="bodies of the responses",
    )  # fmt: skip
    rtt_ms: float = parameter(150.0, unit="ms", low=40, high=1000, help="round trip between client and edge")
    repeats: int = parameter(7, quick=3, low=1, high=50, help="of each size, cold and warm")


@dataclass(frozen=True, slots=True)
class Transfer:
    """One response as it arrived."""

    #: Octets with the response's head.
    octets: int
    #: Round trips: stretches of arriving octets with a pause before each.
    rounds: int
    #: Seconds since the first octet, and octets until then.
    arrivals: tuple[tuple[float, int], ...]


class SlowStart(Experiment[Parameters]):
    """Bodies of growing size over plain TCP, on new connections and on one that has carried data."""

    name = "slow-start"
    claim = (
        "A new connection delivers n segments in ⌈log2(n/10 + 1)⌉ round trips; one that has carried data needs fewer."
    )
    says = (
        "The seed: bandwidth is near zero at the start, and bandwidth = window / RTT. More subtle: since 2013 the start is ten segments, "
        "so 14 kB come in one round trip; what a connection has carried stays in its window, which is one more reason to keep it open."
    )
    source = "RFC 5681 section 3.1 (slow start), RFC 6928 (initial window of ten segments)."
    production = (
        "Keep what a page needs first below 14 kB with its headers. On a 150 ms path, 100 kB over a new connection take three round trips more "
        "than its bandwidth would need. Pool connections; and know that Linux forgets a window after an idle RTO (tcp_slow_start_after_idle)."
    )
    settings = Parameters
    control = Control("the connection is warm: it has carried 100 kB before", ("round trips as predicted, cold",))
    records = ("edge",)
    paths = ("edge",)

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.cold: dict[int, list[Transfer]] = defaultdict(list)
        self.warm: dict[int, list[Transfer]] = defaultdict(list)

    def duration(self) -> float:
        """Connect, request and rounds; then once more on the warm connection."""
        trips = sum(2 + theory.rounds(n) + 6 for n in self.p.octets)
        return 3 + trips * self.p.repeats * self.p.rtt_ms / 1000

    def predict(self) -> Mapping[str, Quantity]:
        """Return rounds by size."""
        return {f"round trips for {n:,} bytes": Quantity(theory.rounds(n + HEAD)) for n in self.p.octets}

    async def measure(self, run: Run) -> None:
        """Fetch every size, in an order that the seed shuffles."""
        await run.link("access", "near", rtt_ms=self.p.rtt_ms)
        await run.record("edge", sockets=Watch(local_port=PORT))
        address = (await run.blocking(Stub().resolve, HOST)).rdata[0]
        run.phase(f"{len(self.p.octets)} sizes, new connections and warm ones")
        for _, octets in run.interleaved(self.p.octets, self.p.repeats):
            first, second = await run.blocking(_fetch, address, octets, self.p.rtt_ms / 1000, already=self.negative)
            self.cold[octets].append(first)
            self.warm[octets].append(second)

    def conclude(self, run: Run) -> None:
        """Count round trips; a busy machine only adds pauses, so the fewest of the repeats stand."""
        wrong: list[str] = []
        dots: list[tuple[float, float, float, float]] = []
        warm_dots: list[tuple[float, float, float, float]] = []
        for octets in self.p.octets:
            rounds = min(t.rounds for t in self.cold[octets])
            row = run.row(f"round trips for {octets:,} bytes", rounds)
            if row.residual:
                wrong.append(f"{octets:,} bytes: {rounds} instead of {row.predicted:g}")
            dots.append((octets / 1000, float(rounds), float(rounds), float(rounds)))
            warm = min(t.rounds for t in self.warm[octets])
            warm_dots.append((octets / 1000, float(warm), float(warm), float(warm)))
        run.check("round trips as predicted, cold", f"in all {len(self.p.octets)} sizes", "; ".join(wrong) or "in all", not wrong)  # fmt: skip
        window = theory.slow_start.window_after(CARRIED)
        off = [n for n in self.p.octets if min(t.rounds for t in self.warm[n]) > theory.rounds(n + HEAD, window=window)]
        run.check(f"a warm connection needs no more than a window of {window} segments says", "in all sizes", f"not at {off}" if off else "in all sizes", not off)  # fmt: skip
        control = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text(encoding="ascii").strip()
        run.fact("congestion control of this namespace (the lab's routes say reno)", control)
        limited = [info.get("rwnd_limited_us", 0) for _, _, info in run.series["edge"].sockets] if "edge" in run.series else []  # fmt: skip
        run.fact("limited by the receiver's window, at most, ms", max(limited, default=0) / 1000)
        run.chart(self._staircase(dots, warm_dots, window))
        run.chart(self._arrivals())

    def _staircase(
        self, dots: list[tuple[float, float, float, float]], warm: list[tuple[float, float, float, float]], window: int
    ) -> Chart:
        most = max(self.p.octets) * 1.05
        grid = [most * i / 400 for i in range(1, 401)]
        return Chart(
            "Round trips until the last byte, by size",
            [Panel([
                Curve("theory, new connection: ⌈log2(n/10 + 1)⌉", [(n / 1000, theory.rounds(int(n) + HEAD)) for n in grid], 0, steps=True),
                Dots("counted, new connection", dots, 0),
                Curve(f"theory, window of {window} segments", [(n / 1000, theory.rounds(int(n) + HEAD, window=window)) for n in grid], 1, dashed=True, steps=True),
                Dots("counted, warm connection", warm, 1),
            ], y="round trips", height=240, high=6)],
            x="size of the response, kB",
            caption="Plain TCP with Reno. Counted: stretches of arriving octets with a pause of half a round trip before each.",
            low=0,
            name="slow-start",
        )  # fmt: skip

    def _arrivals(self) -> Chart:
        largest = max(self.p.octets)
        best = min(self.cold[largest], key=lambda t: t.rounds)
        warm = min(self.warm[largest], key=lambda t: t.rounds)
        marks = [
            Curve(label, [(at * 1000, n / 1000) for at, n in each.arrivals], i, measured=True, steps=True)
            for i, (label, each) in enumerate((("new connection", best), ("warm connection", warm)))
        ]
        return Chart(
            f"How {largest:,} bytes arrive",
            [Panel(marks, y="kB received", height=220)],
            x="ms since the first octet",
            caption="Each stair is one round trip, twice as high as the one before.",
            low=0,
            name="slow-start-arrivals",
        )


def _fetch(address: str, octets: int, rtt: float, *, already: bool) -> tuple[Transfer, Transfer]:
    """Fetch a body over a new connection, then once more over the same after it has carried `CARRIED` octets."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        sock.settimeout(TIMEOUT)
        sock.connect((address, PORT))
        if already:
            _ask(sock, CARRIED, rtt)
        first = _ask(sock, octets, rtt)
        _ask(sock, CARRIED, rtt)
        return first, _ask(sock, octets, rtt)


def _ask(sock: socket.socket, octets: int, rtt: float) -> Transfer:
    sock.sendall(f"GET /bytes/{octets} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode("ascii"))
    data, arrivals = bytearray(), []
    began = last = 0.0
    rounds = 0
    while True:
        piece = sock.recv(1 << 18)
        now = time.perf_counter()
        if not piece:
            raise ConnectionError(f"{HOST}: closed after {len(data)} octets of {octets}")
        began = began or now
        if now - last > rtt / 2:
            rounds += 1
        last = now
        data += piece
        arrivals.append((now - began, len(data)))
        head, found, _ = bytes(data[:4096]).partition(b"\r\n\r\n")
        if found and len(data) - len(head) - 4 >= octets:
            return Transfer(len(data), rounds, tuple(arrivals))
