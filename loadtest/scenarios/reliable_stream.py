"""Scenario `reliable-stream`: which network faults UDP and TCP applications see, and how long TCP needs for repairs."""

import math
import re
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments import (
    Bars,
    Chart,
    Control,
    Curve,
    Dots,
    Estimate,
    Experiment,
    Lesson,
    Panel,
    ParameterError,
    Quantity,
    Run,
    parameter,
)  # fmt: skip
from experiments.recorders import HERE
from experiments.undo_log import Undo
from linuxnet import counters
from scenarios.instruments import ladders, subject
from scenarios.instruments.connection import Address, Connection
from scenarios.instruments.corruption import body
from scenarios.instruments.datagrams import Ledger, exchange
from theory import recovery
from theory.slow_start import MSS
from waterfall.lab import own_address

PORT = 80
#: Kinds of faults: the name of the link's setting, and what happens to a packet.
FAULTS = {"loss": "dropped", "duplicate": "duplicated", "reorder": "reordered", "corrupt_bitflip": "corrupted"}
#: Milliseconds for which a reordered packet is delayed, and seconds between two datagrams.  More than ten datagrams
#: overtake each delayed one.
HELD_MS, SPACING = 45.0, 0.004
#: Minimum distance between two lost messages of a stream, in seconds and in messages; a loss delays later messages for
#: less than this time.
RECOVERED, BETWEEN = 0.3, 5
#: Maximum number of messages in one stream of the server under test.
MOST = 1000
#: Minimum number of faults of each kind for a meaningful result.
ENOUGH = 5
#: Largest relative and absolute error (ms) of the delay of a lost message; the larger one applies.  Timers of a kernel
#: with 250 ticks per second expire up to 8 ms late (above 252 ms, up to 32 ms), and a busy machine delays messages.
EXACT, EXACT_MS = 0.1, 12.0
_EVENT = re.compile(rb'"event": (\d+), "of": \d+, "time": ([\d.]+)')


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters that the user can vary."""

    host: str = parameter("www.example.com", help="HTTP server under test, with the paths /bytes and /events")
    name_server: str = parameter("ns1.example.com", help="DNS server under test, in the same region")
    rtt_ms: float = parameter(40.0, unit="ms", low=20, high=200, help="round-trip time between client and server")
    share: float = parameter(0.03, low=0.005, high=0.2, help="probability that a packet is dropped, duplicated, …")
    packets: int = parameter(
        2000, quick=400, low=100, high=20_000, help="datagrams, and segments, sent while the link has one kind of fault"
    )
    intervals_ms: tuple[int, ...] = parameter(
        (10, 20, 50, 100, 150, 300, 600), quick=(20, 100, 300), unit="ms", low=5, high=5000,
        help="interval between the messages of a stream",
    )  # fmt: skip
    losses: int = parameter(9, quick=4, low=3, high=100, help="lost messages for each interval")

    def __post_init__(self) -> None:
        longest = max((self.losses + 1) * between(each) for each in self.intervals_ms)
        if longest >= MOST:
            raise ParameterError(f"expected streams of less than {MOST} messages, got {longest}: fewer losses fit")


@dataclass(frozen=True, slots=True)
class Account:
    """Faults injected and seen in one exchange, during which the link had one kind of fault."""

    #: Number of faults that `wan` injected.
    injected: int
    #: Number of faults that the application saw.
    seen: int
    #: Increase of the client's kernel counters during the exchange.
    kernel: Mapping[str, int]
    #: Start of the exchange, in seconds since the start of the run.
    begin: float = 0.0
    #: End of the exchange, in seconds since the start of the run.
    end: float = 0.0


class ReliableStream(Experiment[Parameters]):
    """Sends datagrams and a TCP stream over a link with each kind of fault, and streams that lose single messages."""

    name = "reliable-stream"
    claim = "UDP delivers every fault of the network; TCP delivers none, but a lost segment arrives late."
    says = (
        "The textbook says that TCP gives the application a stream without gaps, duplicates or corruption: segments "
        "are numbered and acknowledged, and a timer starts for each; if it fires before the acknowledgement arrives, "
        "the segment is sent again. In practice the timer is the last resort. The acknowledgements of later segments "
        "reveal a loss after about a round trip; only if nothing follows, as at the end of a response, does the "
        "stream wait for the timer, which on Linux is never shorter than the round trip plus 200 ms."
    )
    source = (
        "RFC 9293 section 3.4 (sequence numbers), RFC 8985 (RACK, tail loss probes), RFC 6298 (the timer), "
        "RFC 2018 and 2883 (SACK, and reports of duplicates)."
    )
    production = (
        "TCPTimeouts and TCPLossProbes next to TCPFastRetrans in `nstat` say how losses are repaired: many of the "
        "former mean short responses or rare messages, whose losses cost 200 ms more. If a small message must arrive "
        "in time, send it twice or over UDP with your own repair. A protocol on UDP must number its datagrams: it "
        "will see losses, copies and late ones. InCsumErrors above zero means corruption on the path."
    )
    settings = Parameters
    control = Control(
        "TCP: the stream of responses is replaced by datagrams", ("faults that the application sees over TCP",)
    )
    paths = ("edge",)
    lessons = (
        Lesson(
            "A server sends a message every 20 ms over a path of 40 ms, and one is lost. How late does it arrive?",
            "delay of a lost message, one every 20 ms", "ms", 12,
        ),
        Lesson(
            "The same, with one message every 300 ms?", "delay of a lost message, one every 300 ms", "ms", 30,
        ),
        Lesson(
            "A router corrupts, copies, drops and delays dozens of segments of a download. How many of these faults "
            "does the application see?",
            "faults that the application sees over TCP", "faults", 0.5,
        ),
    )  # fmt: skip

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.rtt = parameters.rtt_ms / 1000
        self.udp: dict[str, Account] = {}
        self.tcp: dict[str, Account] = {}
        #: Ages on arrival of all messages of one stream in milliseconds, in order, keyed by interval between messages.
        self.ages: dict[int, list[float]] = {}
        #: Additional delay of each lost message in milliseconds, keyed by interval between messages.
        self.delays: dict[int, list[float]] = defaultdict(list)
        #: Start and end of the streams, in seconds since the start of the run, keyed by interval between messages.
        self.spans: dict[int, tuple[float, float]] = {}
        #: Packets of one stream in which one message is lost.
        self.packets: dict[str, Any] = {}
        self.server = ""

    def duration(self) -> float:
        """Return the expected duration in seconds: the sum for datagrams, transfers, and all streams."""
        streams = sum((1 + self.p.losses) * between(each) * each / 1000 + 1 for each in self.p.intervals_ms)
        return 4 + len(FAULTS) * (self.p.packets * (SPACING + 0.002) + 2) + streams

    def predict(self) -> Mapping[str, Quantity]:
        """Predict the faults that the application sees over UDP and TCP, and the delay that a lost message causes."""
        return {
            **{f"{what}: seen over UDP": Quantity(1.0, "of injected faults") for what in FAULTS.values()},
            "faults that the application sees over TCP": Quantity(0, "faults"),
            **{
                _delay(each): Quantity(1000 * recovery.lost_message_s(self.rtt, each / 1000), "ms")
                for each in self.p.intervals_ms
            },
        }

    async def measure(self, run: Run) -> None:
        """Exchange datagrams and a stream with each kind of fault, then drop single messages of other streams."""
        to = await subject.find(run, self.p.host)
        names = await subject.find(run, self.p.name_server)
        self.server = to.host
        await run.lab.link(subject.CLIENTS, to.region, rtt_ms=self.p.rtt_ms)
        await run.recorders.start(HERE, *[to.host] * bool(to.host))
        client = _Client(run, to, names)
        for fault, what in FAULTS.items():
            run.phase(f"packets that are {what}: UDP, then TCP")
            stream = client.datagrams if self.negative else client.stream
            self.udp[fault] = await self._with(run, to.region, fault, client.datagrams, client)
            self.tcp[fault] = await self._with(run, to.region, fault, stream, client)
        clear = Undo("rules that drop single segments", "wan", "DELETE", "/admin/drops")
        await run.lab.inject("wan: single segments are dropped", "wan", "DELETE", "/admin/drops", undo=clear)
        for interval in self.p.intervals_ms:
            run.phase(f"a message every {interval} ms, {self.p.losses} of them lost")
            begin = run.now()
            self.ages[interval], self.delays[interval] = await run.blocking(client.lose, interval, self.p.losses)
            self.spans[interval] = (begin, run.now())
        here = own_address(to.address)
        with ladders.capturing(run, here) as frames:
            await run.blocking(client.lose, min(self.p.intervals_ms), 1)
        self.packets = ladders.tcp_packets(frames, (here, client.port), (to.address, PORT))

    async def _with(
        self, run: Run, region: str, fault: str, transfer: Callable[[int], int], client: "_Client"
    ) -> Account:
        """Run *transfer* while the link from the server to the client has one kind of fault."""
        client.prepare()
        off: dict[str, Any] = dict.fromkeys(FAULTS, 0.0)
        link = (region, subject.CLIENTS)
        before = await run.blocking(subject.settled, run.lab.admin, *link)
        await run.lab.link(*link, one_way=True, **{**off, fault: self.p.share}, reorder_ms=HELD_MS)
        own, begin = counters.protocols(), run.now()
        seen = await run.blocking(transfer, self.p.packets)
        after, end = await run.blocking(subject.settled, run.lab.admin, *link), run.now()
        kernel = {name: value - own.get(name, 0) for name, value in counters.protocols().items()}
        await run.lab.link(*link, one_way=True, **off)
        return Account(_injected(after, fault) - _injected(before, fault), seen, kernel, begin, end)

    # --- conclusions ------------------------------------------------------------------------------------------------

    def conclude(self, run: Run) -> None:
        """Check that every fault injected by `wan` is accounted for, and compare the delays with the prediction."""
        found = run.findings
        run.raw["delays, ms"] = {str(each): values for each, values in self.delays.items()}
        for fault, what in FAULTS.items():
            if (udp := self.udp.get(fault)) is None:
                continue
            found.enough(f"packets {what} over UDP", udp.injected, ENOUGH)
            row = found.row(f"{what}: seen over UDP", udp.seen / (udp.injected or 1))
            # A delayed datagram is seen out of order only if a later datagram was not delayed as well.
            room = 0 if fault != "reorder" else 1 + udp.injected // 20
            found.check(row.name, f"{udp.injected} ± {room}", str(udp.seen), abs(udp.seen - udp.injected) <= room)
        self._over_tcp(run)
        for interval, delays in self.delays.items():
            found.enough(f"messages lost, one every {interval} ms", len(delays), min(3, self.p.losses))
            row = found.row(_delay(interval), Estimate.of(delays))
            found.check_near(row, max(EXACT_MS, EXACT * (row.predicted or 0.0)), absolute=True)
        self._repaired(run)
        found.chart(self._times())
        found.chart(self._accounts())
        ladders.add(
            run,
            self.packets,
            f"A message every {min(self.p.intervals_ms)} ms, one of them lost, packet by packet",
            "The segments after the lost one arrive ahead of a gap. Their acknowledgements still name the missing byte "
            "and report what has arrived (SACK), so the server sends the lost segment again after a round trip.",
            "reliable-stream-ladder",
        )

    def _over_tcp(self, run: Run) -> None:
        found = run.findings
        for fault, each in self.tcp.items():
            found.enough(f"packets {FAULTS[fault]} over TCP", each.injected, ENOUGH)
        seen = sum(each.seen for each in self.tcp.values())
        injected = sum(each.injected for each in self.tcp.values())
        row = found.row("faults that the application sees over TCP", float(seen))
        found.check(row.name, f"0 of {injected} injected", str(seen), seen == 0)
        server = run.recorders.series.get(self.server)
        for protocol, accounts in (("UDP", self.udp), ("TCP", self.tcp)):
            if protocol == "TCP" and self.negative:
                continue
            if corrupted := accounts.get("corrupt_bitflip"):
                got = corrupted.kernel.get(f"{protocol.title()}.InCsumErrors", 0)
                name = f"corrupted {protocol} packets that the client's kernel refused"
                found.check(name, str(corrupted.injected), str(got), got == corrupted.injected)
        if self.negative:
            return
        if copied := self.tcp.get("duplicate"):
            got = copied.kernel.get("TcpExt.TCPDSACKOldSent", 0) + copied.kernel.get("TcpExt.TCPDSACKOfoSent", 0)
            # The kernel does not report copies of segments without data, and the server sends a few such segments.
            low = copied.injected - 2
            expected = f"{low} to {copied.injected}"
            found.check("copies that the client's kernel reported", expected, str(got), low <= got <= copied.injected)
        if held := self.tcp.get("reorder"):
            got = held.kernel.get("TcpExt.TCPOFOQueue", 0)
            name = "segments that the client's kernel kept for an earlier one"
            found.check(name, f">= {held.injected}", str(got), got >= held.injected)
        for fault in ("loss", "corrupt_bitflip"):
            if server is not None and (hit := self.tcp.get(fault)):
                again = int(server.rise("Tcp.RetransSegs", hit.begin, hit.end))
                name = f"segments that the server sent again, packets {FAULTS[fault]}"
                found.check(name, f">= {hit.injected}", str(again), again >= hit.injected)

    def _repaired(self, run: Run) -> None:
        """Check by the server's counters how losses were repaired: by acknowledgements of later data, or by a timer."""
        if (server := run.recorders.series.get(self.server)) is None:
            run.findings.leave_out(f"the server's counters: {self.p.host} has no recorder")
            return
        for interval, (begin, end) in self.spans.items():
            by_timer = interval / 1000 > recovery.MIN_RTO
            names = ("TcpExt.TCPTimeouts", "TcpExt.TCPLossProbes") if by_timer else ("TcpExt.TCPFastRetrans",)
            count, lost = sum(int(server.rise(name, begin, end)) for name in names), len(self.delays[interval])
            name = f"repaired by {'a timer' if by_timer else 'fast retransmit'}, one message every {interval} ms"
            run.findings.check(name, f">= {lost}", str(count), count >= lost)

    def _times(self) -> Chart:
        top = 1.1 * max(self.p.intervals_ms)
        line = [(x, 1000 * recovery.lost_message_s(self.rtt, x / 1000)) for x in (top * i / 200 for i in range(1, 201))]
        dots = [(float(each), d, d, d) for each, delays in self.delays.items() for d in delays]
        return Chart(
            "A lost message is late by a round trip and the time until the next message, at most by the timer",
            [
                Panel(
                    [
                        Curve("theory: round trip + min(interval, 200 ms)", line, 0),
                        Curve("one round trip", [(0, self.p.rtt_ms), (top, self.p.rtt_ms)], 3, dashed=True),
                        Dots("lost messages", dots, 1),
                    ],
                    y="additional delay, ms",
                    height=280,
                )
            ],
            x="interval between messages, ms",
            caption=f"One dot per lost message; the round-trip time is {self.p.rtt_ms:g} ms. While messages follow, "
            "the acknowledgement of the next one reveals the loss (fast retransmit). After 200 ms, the timer expires.",
            low=0.0,
            high=top,
            name="reliable-stream",
        )

    def _accounts(self) -> Chart:
        places = list(enumerate(FAULTS))
        marks = []
        for label, offset, colour, values in (
            ("injected over UDP", -0.3, 0, {f: a.injected for f, a in self.udp.items()}),
            ("seen over UDP", -0.1, 1, {f: a.seen for f, a in self.udp.items()}),
            ("injected over TCP", 0.1, 2, {f: a.injected for f, a in self.tcp.items()}),
            ("seen over TCP", 0.3, 3, {f: a.seen for f, a in self.tcp.items()}),
        ):
            bars = [(i + offset - 0.09, i + offset + 0.09, float(values.get(fault, 0))) for i, fault in places]
            marks.append(Bars(label, bars, colour))
        return Chart(
            "UDP shows the application every fault that the network makes, TCP none",
            [Panel(marks, y="packets", height=240)],
            x="what the router did to packets from the server",
            caption="Bars in groups of four. Faults that an application sees are datagrams that are missing, arrive "
            "again or are overtaken, and segments of the stream with missing or wrong bytes. The fourth bar is absent: "
            "TCP shows no fault.",
            categories=list(FAULTS.values()),
            name="reliable-stream-accounts",
        )


class _Client:
    """Blocking client of the servers under test."""

    def __init__(self, run: Run, to: subject.Subject, names: subject.Subject) -> None:
        self._admin, self._to, self._names = run.lab.admin, to, names
        self._connection: Connection | None = None
        #: Source port of the last stream of messages.
        self.port = 0

    def prepare(self) -> None:
        """Open the connection for the next stream, while the link has no faults."""
        self.close()
        self._connection = Connection(Address(self._to.name, self._to.address, PORT), None, timeout=30)

    def close(self) -> None:
        """Close the connection, if one is open."""
        if self._connection is not None:
            self._connection.close()

    def datagrams(self, count: int) -> int:
        """Exchange *count* datagrams; return the number of faults among the responses."""
        ledger: Ledger = exchange(self._names.address, self._to.name, count, SPACING)
        return ledger.faults

    def stream(self, segments: int) -> int:
        """Fetch *segments* full segments; return the number of segments with missing or wrong bytes."""
        if self._connection is None:
            raise ConnectionError("expected an open connection: call prepare() first")
        size = segments * MSS
        got = b"".join(data for _, data in self._connection.arrivals(f"/bytes/{size}"))
        return wrong_segments(got.partition(b"\r\n\r\n")[2], body(size))

    def lose(self, interval: int, losses: int) -> tuple[list[float], list[float]]:
        """Receive a stream of messages while single messages are dropped at regular distances.

        Args:
            interval: milliseconds between messages.
            losses: number of messages to lose.

        Returns:
            The age of each message on arrival, and the additional delay of each lost message, in milliseconds.
        """
        self.prepare()
        connection, distance = self._connection, between(interval)
        count = distance * (losses + 1) + 1
        assert connection is not None  # noqa: S101 - prepare() opened the connection
        self.port = connection.sock.getsockname()[1]
        ages: list[float] = []
        dropping = {"source": self._to.address, "port": self.port, "flags": "ack"}
        for _, data in connection.arrivals(f"/events?count={count}&interval={interval}"):
            now = time.time()
            # Otherwise the client delays acknowledgements by up to 40 ms, which prolongs the server's timer.
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            for number, sent in _EVENT.findall(data):
                ages.append(1000 * (now - float(sent)))
                if int(number) % distance == 0 and int(number) < count - distance:
                    self._admin.call("wan", "DELETE", "/admin/drops")
                    self._admin.call("wan", "POST", "/admin/drops", dropping)
        self.close()
        return ages, extra(ages, distance)


def between(interval: int) -> int:
    """Return the distance in messages between lost messages if a message is sent every *interval* milliseconds."""
    return max(BETWEEN, math.ceil(1000 * RECOVERED / interval))


def extra(ages: Sequence[float], distance: int) -> list[float]:
    """Return each lost message's age minus the smallest age; every *distance*-th message is lost."""
    usual = min(ages, default=0.0)
    windows = [ages[at : at + distance] for at in range(distance, len(ages) - distance, distance)]
    return [max(window) - usual for window in windows]


def wrong_segments(received: bytes, expected: bytes) -> int:
    """Return the number of segments in which *received* differs from *expected*, including missing and extra ones."""
    length = max(len(received), len(expected))
    return sum(received[at : at + MSS] != expected[at : at + MSS] for at in range(0, length, MSS))


def _injected(link: Mapping[str, object], fault: str) -> int:
    counts = {"loss": "dropped_loss", "duplicate": "duplicated", "reorder": "reordered"}
    value = link["corrupted"] if fault not in counts else link[counts[fault]]
    return int(value["bitflip"]) if isinstance(value, Mapping) else int(str(value))


def _delay(interval: int) -> str:
    return f"delay of a lost message, one every {interval} ms"
