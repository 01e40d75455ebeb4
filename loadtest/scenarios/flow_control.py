"""Scenario `flow-control`: a reader that stops also stops the sender; otherwise window / RTT limits the rate."""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import linear_regression, median
from typing import Any

from experiments import (
    Chart,
    Control,
    Curve,
    Dots,
    Estimate,
    Experiment,
    Lesson,
    Moment,
    Panel,
    Quantity,
    Run,
    parameter,
)
from experiments.recorders import HERE
from linuxnet.recorder import Watch
from scenarios.instruments import ladders
from scenarios.instruments.connection import Address, Connection
from stub import Stub
from theory import flow_control
from theory.slow_start import MSS
from waterfall.lab import own_address

HOST = "www.example.com"
PORT = 80
#: Receive buffer of a reader that pauses, in bytes (SO_RCVBUF).  The kernel doubles it and announces 50 to 85 % of the
#: result: 70 to 150 segments, so that with every kernel the sender fills the buffer in round trip `ROUNDS`.
BUFFER = 128 << 10
ROUNDS = 4
#: Delay of an acknowledgement while the application does not read and the window does not grow, in seconds (Linux:
#: TCP_DELACK_MIN; RFC 9293 section 3.8.6.3).
DELAYED_ACK = 0.04
#: Size of a response to a reader that pauses, in bytes: one to two times what the buffer holds.
LONG = 240_000
#: For a reader that never pauses: response size in bytes, reading time in seconds, and share of this time after which
#: the sender's slow start is over.
ENDLESS, READING, STEADY = 16 << 20, 2.5, 0.3
#: Rate of the slow link in bit/s, and a receive buffer in bytes of about twice the bandwidth-delay product.
SLOW_BPS, SLOW_BUFFER = 8_000_000, 128 << 10
#: Share of the link's bits that carry data: each packet has 52 bytes of IP and TCP headers.
PAYLOAD = MSS / (MSS + 52)
#: Largest relative error of a measured throughput, and of the time for which the receive window limited the sender.
EXACT = 0.05
#: For the ladder diagram: receive buffer and response size in bytes, and duration of the reader's pause in seconds.
DRAWN_BUFFER, DRAWN, DRAWN_PAUSE = 4096, 12_000, 1.0
#: Seconds for which a connection stays open after its response, so that the sender's final state can be recorded.
LINGER = 1.3


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters that the user can vary."""

    rtt_ms: float = parameter(100.0, unit="ms", low=40, high=300, help="round-trip time between client and edge")
    pauses_s: tuple[float, ...] = parameter(
        (1.0, 2.0, 4.0, 8.0), quick=(1.5, 4.0), unit="s", low=1.0, high=20, help="how long the reader does not read"
    )
    buffers: tuple[int, ...] = parameter(
        (16_384, 24_576, 32_768, 65_536), quick=(16_384, 65_536), unit="bytes", low=16_384, high=98_304,
        help="receive buffers (SO_RCVBUF) of readers that never pause",
    )  # fmt: skip
    repeats: int = parameter(5, quick=2, low=2, high=50, help="connections of each kind")


@dataclass(slots=True)
class Transfer:
    """One response: arrival times of its bytes at the client, and readings of the sender's kernel."""

    #: Pairs of (milliseconds since the request, total bytes received).
    arrivals: list[tuple[float, int]]
    #: The client's address and port, the key of the sender's readings.
    client: str
    #: Time of the request, in seconds since the start of the run.
    began: float
    #: Pairs of (seconds since the request, TCP_INFO fields of the sender's socket).
    readings: list[tuple[float, dict[str, int]]] = field(default_factory=list)

    @property
    def limited(self) -> float:
        """Seconds for which the receive window stopped the sender."""
        return max((info.get("rwnd_limited_us", 0) for _, info in self.readings), default=0) / 1e6

    @property
    def window(self) -> float:
        """Median receive window that the sender saw, in bytes; NaN without readings."""
        seen = [info["snd_wnd"] for _, info in self.readings if info.get("snd_wnd")]
        return median(seen) if seen else float("nan")

    @property
    def rate(self) -> float:
        """Bytes per second after slow start, by linear regression."""
        end = self.arrivals[-1][0]
        steady = [(at / 1000, total) for at, total in self.arrivals if at >= STEADY * end]
        return linear_regression(*zip(*steady, strict=True)).slope if len(steady) > 2 else float("nan")


class FlowControl(Experiment[Parameters]):
    """Sends responses over plain TCP to readers that pause, to readers with small buffers, and over a slow link."""

    name = "flow-control"
    claim = "A receiver that does not read stops the sender for as long; otherwise min(bandwidth, window / RTT) flows."
    says = (
        "The textbook says that the receiver announces how much its buffer still holds, and that the sender never "
        "sends more: like a rate limit per connection, not per user. In practice the buffer is part of the kernel: "
        "it fills although the application does not read, so a short pause stops no one, and a window that is too "
        "small for the path limits a connection for its whole life without any sign of congestion."
    )
    source = "RFC 9293 sections 3.8.6 and 3.8.6.1 (window, zero-window probes); RFC 7323 (window scaling)."
    production = (
        "If a transfer is slower than the link, look at rwnd_limited and snd_wnd in `ss -ti` on the sender first: "
        "they tell a slow reader from a slow network. Give receive buffers of at least bandwidth × RTT, or leave them "
        "to the kernel's autotuning: setting SO_RCVBUF turns it off. A server must bound how long a reader may stop, "
        "because each one holds memory and a connection: the lab's edge aborts after 30 s without progress."
    )
    settings = Parameters
    control = Control("no reader pauses: each reads as data arrives", ("sender limited / (pause - time to fill)",))
    records = ("edge",)
    paths = ("edge",)
    lessons = (
        Lesson(
            "A reader with a receive buffer of 128 KiB pauses for 4 s on a path of 100 ms. For how long is the sender "
            "stopped?",
            "sender limited, pause of 4 s", "s", 0.2,
        ),
        Lesson(
            "A reader with a large window downloads over a link of 8 Mbit/s. How much of that is data?",
            "throughput of the slow link", "Mbit/s", 0.2,
        ),
    )  # fmt: skip

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.rtt = parameters.rtt_ms / 1000
        self.paused: dict[float, list[Transfer]] = defaultdict(list)
        self.read: dict[int, list[Transfer]] = defaultdict(list)
        self.slow: list[Transfer] = []
        #: Packets of one connection with a paused reader.
        self.packets: dict[str, Any] = {}

    def duration(self) -> float:
        """Return the expected duration in seconds of all transfers, which run one after the other."""
        steady = (len(self.p.buffers) + 1) * (READING + LINGER)
        return 3 + self.p.repeats * (steady + sum(each + LINGER + 5 * self.rtt for each in self.p.pauses_s))

    def predict(self) -> Mapping[str, Quantity]:
        """Predict how long the receive window limits the sender, and the throughput."""
        return {
            **{_limited(pause): Quantity(self._limited(pause), "s") for pause in self.p.pauses_s},
            "sender limited / (pause - time to fill)": Quantity(1.0),
            **{f"bytes per RTT / window, SO_RCVBUF {each:,}": Quantity(1.0) for each in self.p.buffers},
            "throughput of the slow link": Quantity(SLOW_BPS * PAYLOAD / 1e6, "Mbit/s"),
        }

    def _limited(self, pause: float) -> float:
        """Return the seconds for which the window stops the sender if the reader pauses for *pause* seconds.

        The sender fills the buffer in slow start: it sends the last segments that fit (`ROUNDS` - 1) round trips and
        one delayed acknowledgement after the first segments.  The request and the announcement of the open window each
        take half a round trip to the sender.
        """
        return pause - (ROUNDS - 1) * self.rtt - DELAYED_ACK

    async def measure(self, run: Run) -> None:
        """Fetch responses with pausing readers, with small buffers, and over a slow link."""
        address = (await run.blocking(Stub().resolve, HOST)).rdata[0]
        to = Address(HOST, address, PORT)
        await run.lab.link("access", "near", rtt_ms=self.p.rtt_ms)
        await run.recorders.start("edge", sockets=Watch(local_port=PORT))
        await run.recorders.start(HERE)
        for repeat, pause in run.interleaved(self.p.pauses_s, self.p.repeats):
            run.phase(f"a reader that pauses for {pause:g} s, {repeat + 1} of {self.p.repeats}")
            wait = 0.0 if self.negative else pause
            self.paused[pause].append(await run.blocking(_fetch, to, run.now(), BUFFER, LONG, wait))
        await run.blocking(self._one, run, to)
        for repeat, buffer in run.interleaved(self.p.buffers, self.p.repeats):
            run.phase(f"a reader with a buffer of {buffer:,} bytes, {repeat + 1} of {self.p.repeats}")
            self.read[buffer].append(await run.blocking(_fetch, to, run.now(), buffer, ENDLESS))
        await run.lab.link("access", "near", rtt_ms=self.p.rtt_ms, rate_bps=SLOW_BPS)
        for repeat in range(self.p.repeats):
            run.phase(f"a slow link, {repeat + 1} of {self.p.repeats}")
            self.slow.append(await run.blocking(_fetch, to, run.now(), SLOW_BUFFER, ENDLESS))

    def _one(self, run: Run, to: Address) -> None:
        """Capture all packets of one connection with a paused reader, for the ladder diagram."""
        here = own_address(to.address)
        with (
            ladders.capturing(run, here) as frames,
            Connection(to, None, receive_buffer=DRAWN_BUFFER) as connection,
        ):
            port = connection.sock.getsockname()[1]
            for _ in connection.arrivals(f"/bytes/{DRAWN}", wait=DRAWN_PAUSE):
                pass
        self.packets = ladders.tcp_packets(frames, (here, port), (to.address, PORT))

    # --- conclusions ------------------------------------------------------------------------------------------------

    def conclude(self, run: Run) -> None:
        """Compare the sender's readings, the throughput, and the counters of both kernels with the prediction."""
        self._attach_readings(run)
        found = run.findings
        run.raw["limited, s"] = {f"{pause:g}": [t.limited for t in each] for pause, each in self.paused.items()}
        ratios = []
        for pause, each in self.paused.items():
            found.row(_limited(pause), Estimate.of([t.limited for t in each]))
            ratios += [t.limited / self._limited(pause) for t in each]
        found.check_near(found.row("sender limited / (pause - time to fill)", Estimate.of(ratios)), EXACT)
        for buffer, each in self.read.items():
            shares = _fastest([t.rate * self.rtt / (t.window // MSS * MSS) for t in each])
            found.check_near(found.row(f"bytes per RTT / window, SO_RCVBUF {buffer:,}", shares), EXACT)
        megabits = _fastest([8 * t.rate / 1e6 for t in self.slow])
        found.check_near(found.row("throughput of the slow link", megabits), EXACT)
        self._counters(run)
        found.chart(self._stopped())
        found.chart(self._rates())
        ladders.add(
            run,
            self.packets,
            f"A reader that pauses for {DRAWN_PAUSE:g} s, packet by packet",
            f"The client's receive buffer is small (SO_RCVBUF {DRAWN_BUFFER:,}), so the window closes after the first "
            "segments. The server probes the closed window, with growing intervals, until the reader resumes.",
            "flow-control-ladder",
        )

    def _attach_readings(self, run: Run) -> None:
        """Store with each transfer the readings of its socket at the edge."""
        series = run.recorders.series.get("edge")
        by_client: dict[str, list[tuple[float, dict[str, int]]]] = defaultdict(list)
        for at, name, info in series.sockets if series else ():
            by_client[name.rpartition(" ")[2]].append((at, info))
        transfers = [t for each in (*self.paused.values(), *self.read.values(), self.slow) for t in each]
        for transfer in transfers:
            transfer.readings = [(at - transfer.began, info) for at, info in by_client[transfer.client]]
        without = sum(not t.readings for t in transfers)
        run.findings.gate("transfers without a reading at the sender", "0", str(without), without == 0)

    def _counters(self, run: Run) -> None:
        """Check that both kernels counted one closed window per pause, and that the sender sent window probes."""
        pauses = sum(map(len, self.paused.values()))
        for host, name, what in (
            (HERE, "TcpExt.TCPToZeroWindowAdv", "windows that the client closed"),
            ("edge", "TcpExt.TCPWinProbe", "zero-window probes of the edge"),
        ):
            if (series := run.recorders.series.get(host)) is not None:
                risen = int(series.rise(name))
                run.findings.check(what, f">= {pauses}, one for each pause", str(risen), risen >= pauses)

    def _stopped(self) -> Chart:
        pause = max(self.paused, default=0.0)
        transfer = self.paused[pause][0] if self.paused.get(pause) else None
        end = pause + 1.0
        readings = [(at, info) for at, info in (transfer.readings if transfer else []) if at <= end]
        acked = [(0.0, 0.0), *((at, info.get("bytes_acked", 0) / 1000) for at, info in readings)]
        taken = [(0.0, 0.0), *((at / 1000, total / 1000) for at, total in (transfer.arrivals if transfer else []))]
        limited = [(at, info.get("rwnd_limited_us", 0) / 1e6) for at, info in readings]
        full, opens = (ROUNDS - 0.5) * self.rtt + DELAYED_ACK, pause + self.rtt / 2
        theory = [(full, 0.0), (opens, opens - full), (end, opens - full)]
        return Chart(
            f"A reader that pauses for {pause:g} s stops the sender once its buffer is full",
            [
                Panel(
                    [
                        Curve("acknowledged by the client's kernel", acked, 0, measured=True, steps=True),
                        Curve("read by the application", taken, 1, measured=True, steps=True),
                    ],
                    y="kB",
                    height=240,
                ),
                Panel(
                    [
                        Curve("theory: the sender is stopped, so far", theory, 3, dashed=True),
                        Curve("measured", limited, 2, measured=True),
                    ],
                    y="seconds",
                    height=150,
                ),
            ],
            x="seconds since the request",
            caption="Above: what the client's kernel has acknowledged, as the edge's socket reports it, and what the "
            "application has read; the difference is in the receive buffer. Below: rwnd_limited of the edge's socket, "
            "which grows while the sender has data that the window does not admit.",
            moments=[Moment(pause, "the application reads")],
            low=0.0,
            high=end,
            name="flow-control",
        )

    def _rates(self) -> Chart:
        every = [t for each in self.read.values() for t in each]
        top = 1.1 * max((t.window for t in (*every, *self.slow) if t.readings), default=1.0)
        line = [(w / 1000, flow_control.throughput_bps(round(w), self.rtt) / 1e6) for w in (1.0, top)]
        slowest = SLOW_BPS * PAYLOAD
        bounded = [(at / 1000, slowest / 1e6) for at in (flow_control.window_for(slowest, self.rtt), top)]
        return Chart(
            "Throughput is the window divided by the round-trip time, unless the link is slower",
            [
                Panel(
                    [
                        Curve("theory: window / RTT", line, 0),
                        Curve("theory: the link's rate", bounded, 3, dashed=True),
                        Dots("measured", [_dot(t) for t in every], 1),
                        Dots(f"measured, link of {SLOW_BPS / 1e6:g} Mbit/s", [_dot(t) for t in self.slow], 2),
                    ],
                    y="Mbit/s",
                    height=260,
                )
            ],
            x="receive window that the sender saw, kB",
            caption=f"One dot per connection; the round-trip time is {self.p.rtt_ms:g} ms. On the slow link the window "
            "admits more than the link carries, and the rest waits in the router's queue.",
            low=0.0,
            high=top / 1000,
            name="flow-control-rates",
        )


def _fastest(values: Sequence[float]) -> Estimate:
    """Return the largest of *values*, because a busy machine only slows transfers; the interval spans all values."""
    return Estimate(max(values), min(values), max(values), len(values))


def _dot(transfer: Transfer) -> tuple[float, float, float, float]:
    megabits = 8 * transfer.rate / 1e6
    return transfer.window / 1000, megabits, megabits, megabits


def _limited(pause: float) -> str:
    return f"sender limited, pause of {pause:g} s"


def _fetch(to: Address, began: float, buffer: int, size: int, pause: float | None = None) -> Transfer:
    """Fetch one response over a new connection.

    Args:
        to: server.
        began: start of the run on the monotonic clock, in seconds.
        buffer: the client's receive buffer in bytes.
        size: bytes of the body.
        pause: seconds before the first byte is read; None to read for `READING` seconds without a pause, then stop.
    """
    opened = time.monotonic()
    with Connection(to, None, receive_buffer=buffer, timeout=(pause or 0.0) + 10) as connection:
        client = "{}:{}".format(*connection.sock.getsockname())
        sent = time.monotonic()
        transfer = Transfer([], client, began + sent - opened)
        total = 0
        for at, data in connection.arrivals(f"/bytes/{size}", wait=pause or 0.0):
            total += len(data)
            transfer.arrivals.append((at, total))
            if pause is None and at > 1000 * READING:
                return transfer
        time.sleep(LINGER)  # keep the socket open until the sender's recorder has read its final state
        return transfer
