"""Scenario `quic`: tests the round trips of HTTP/3, streams that do not block each other, and a change of address."""

import asyncio
import json
import ssl
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module, util
from itertools import chain
from math import isnan, sqrt
from typing import TYPE_CHECKING, Any

from experiments import Bars, Chart, Control, Curve, Dots, Estimate, Experiment, Lesson, Panel, Quantity, Run, parameter
from hostfiles.layout import TRUST_ANCHOR
from scenarios.instruments import ladders, subject
from scenarios.instruments.connection import Address, Connection
from scenarios.instruments.page_loads import Http1Pages, Http2Pages, Pages
from scenarios.instruments.round_trips import TOLERANCE, check_slope_of_rounds
from theory import handshake, quic
from waterfall.lab import own_address
from waterfall.packets import dissect_quic
from wireformat.tls import client_context

if TYPE_CHECKING:
    from scenarios.instruments import quic_client
else:  # aioquic is an optional dependency: without it the scenario is skipped
    quic_client = util.find_spec("aioquic") and import_module("scenarios.instruments.quic_client")

PORT = 443
#: Predicted round trips to the first byte on a new connection, by kind of connection.
ARMS = {
    "TCP and TLS 1.3": handshake.round_trips("TLSv1.3"),
    "QUIC": quic.round_trips(),
    "QUIC, early data": quic.round_trips(early=True),
}
#: Labels of the three ways to load a page.
WAYS = {"quic": "HTTP/3, one connection", "http2": "HTTP/2, one connection", "http1": "HTTP/1.1, six connections"}
#: Number of responses in a page.  Six is also the number of connections that browsers open to one host.
RESPONSES = 6
#: Size of one response in bytes.  With headers, it fits into one QUIC packet and into one TCP segment.
SIZE = 1000
#: Delay in round trips above which a response counts as delayed; a retransmission delays it by at least one round trip.
DELAYED = 0.6
#: Validity gate: maximum share of pages that were delayed without losing a packet, because the machine was busy.
BUSY = 0.1
#: Tolerance of measured shares, in standard errors.  By chance, a correct measurement exceeds it once in 16,000 runs.
ERRORS = 4.0
#: Tolerance of the median number of responses that one lost packet delays, if each has its own stream or connection.
APART = 0.5
#: Minimum number of page loads, per loading method, that are delayed by exactly one lost packet.  If random loss delays
#: fewer, up to twice as many pages are loaded.
ENOUGH = 6
#: Minimum ratio of the responses that one lost packet delays over HTTP/2 to those that it delays over HTTP/3.
FACTOR = 2.0


def _share(way: str, loss: float) -> str:
    return f"responses delayed, {loss:.0%} lost, {WAYS[way]}"


def _by_one(way: str) -> str:
    return f"responses delayed by one lost packet, {WAYS[way]}"


@dataclass(frozen=True, slots=True)
class Page:
    """One loaded page."""

    #: Milliseconds that each response took.
    times: list[float]
    #: Packets to the client during the load that reached the link, and how many of them the link dropped.
    sent: int
    lost: int


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters that the user can vary."""

    host: str = parameter("quic.example.com", help="HTTP/3 server under test: /whoami and /bytes/N")
    tcp_host: str = parameter("www.example.com", help="server for HTTP/1.1 and HTTP/2 in the same region")
    rtt_ms: tuple[float, ...] = parameter(
        (20.0, 60.0, 100.0, 140.0), quick=(30.0, 60.0, 100.0), unit="ms", low=10, high=300, least=3,
        help="round-trip times between client and servers",
    )  # fmt: skip
    repeats: int = parameter(11, quick=6, low=2, high=100, help="requests of each kind per round-trip time")
    losses: tuple[float, ...] = parameter(
        (0.01, 0.03, 0.05), quick=(0.05,), low=0.005, high=0.1, least=1,
        help="shares of the packets to the client that the link drops",
    )  # fmt: skip
    page_rtt_ms: float = parameter(50.0, unit="ms", low=30, high=300, help="round-trip time while pages are loaded")
    pages: int = parameter(90, quick=50, low=20, high=1000, help="pages per protocol and share of lost packets")
    moves: int = parameter(10, quick=4, low=1, high=100, help="changes of the client's address")


class Quic(Experiment[Parameters]):
    """Measures new connections at several round-trip times, pages on a lossy link, and a change of address."""

    name = "quic"
    claim = (
        "QUIC needs one round trip less than TCP with TLS, early data none at all; a lost packet delays only its own "
        "stream, and a new address no request."
    )
    says = (
        "The textbook says that UDP is the basis on which custom protocols can offer some of TCP's guarantees and "
        "leave out others. QUIC is the one that prevailed: it leaves out the order between streams, and combines the "
        "handshakes of transport and TLS. In practice every page waits for its last packet, so that loss delays as "
        "many pages as before, but far fewer responses; and early data can be replayed by an attacker."
    )
    source = (
        "RFC 9000 (QUIC; section 9 on migration), RFC 9001 section 4.6 (0-RTT), RFC 9114 (HTTP/3), RFC 8470 (early "
        "data in HTTP), RFC 9113 (HTTP/2)."
    )
    production = (
        "Offer HTTP/3 where clients are far away, change networks, or lose packets: mobile clients. Announce it with "
        "Alt-Svc or an HTTPS record, and keep HTTP/2 for networks that block UDP. Accept early data for safe requests "
        "only, answer others with 425 (Too Early), and accept each ticket once. HTTP/2 on a lossy link is worse than "
        "six HTTP/1.1 connections. Measure CPU time: QUIC runs in user space."
    )
    settings = Parameters
    control = Control(
        "the client discards its session tickets, so that nothing is sent early", (f"round trips, {list(ARMS)[2]}",)
    )
    paths = ("edge",)
    lessons = (
        Lesson(
            "After how many round trips does the first byte of a response arrive on a new QUIC connection?",
            "round trips, QUIC", "", 0.3,
        ),
        Lesson(
            "Six responses of one packet each share a QUIC connection, and one of the six packets is lost. How many of "
            "the responses are delayed?",
            _by_one("quic"), "responses", 0.5,
        ),
        Lesson(
            "A client with an open QUIC connection changes its address. After how many round trips is its next request "
            "answered?",
            "round trips of a request from a new address", "", 0.3,
        ),
    )  # fmt: skip

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        #: Milliseconds to the first byte, keyed by kind of connection and round-trip time.
        self.ttfb: dict[tuple[str, float], list[float]] = defaultdict(list)
        self.early: list[bool] = []
        #: Page loads, keyed by loading method and fraction of lost packets.
        self.pages: dict[tuple[str, float], list[Page]] = defaultdict(list)
        #: Decoded packets of a new connection, and of a connection resumed with early data.
        self.packets: list[dict[str, Any]] = []
        #: For each change of address: milliseconds of the next request, and whether the server saw a new address.
        self.moved: list[tuple[float, bool]] = []

    def duration(self) -> float:
        """Return the expected duration of the measurement in seconds."""
        opening = sum(self.p.rtt_ms) / 1000 * self.p.repeats * (sum(ARMS.values()) + 1)
        loading = self.p.pages * 3 * 1.4 * (self.p.page_rtt_ms + 10) / 1000
        return 3 + opening + len(self.p.losses) * (3 + loading) + 0.4 * self.p.moves

    def predict(self) -> Mapping[str, Quantity]:
        """Predict slopes, delayed responses, and the round trips after a change of address."""
        rows = {f"round trips, {name}": Quantity(trips) for name, trips in ARMS.items()}
        for way in WAYS:
            delayed = quic.delayed_by_one(RESPONSES, in_order=way == "http2")
            rows[_by_one(way)] = Quantity(delayed, "responses")
        for loss in self.p.losses:
            rows.update({_share(way, loss): Quantity(100 * _predicted(way, loss), "%") for way in WAYS})
        return {**rows, "round trips of a request from a new address": Quantity(quic.round_trips(moved=True))}

    async def measure(self, run: Run) -> None:
        """Open connections at each round-trip time, load pages on a lossy link, then change the address."""
        if util.find_spec("aioquic") is None:
            run.skip("the library aioquic is not installed: pip install 'firstbyte[quic]'")
        found = await subject.find(run, self.p.host)
        to = Address(found.name, found.address, PORT)
        tcp = Address(self.p.tcp_host, (await subject.find(run, self.p.tcp_host)).address, PORT)
        try:
            async with quic_client.connect(to, TRUST_ANCHOR):
                pass
        except OSError:
            run.skip(f"{self.p.host} does not answer: start it with `firstbyte up --quic`")
        await self._open_connections(run, to, tcp, found.region)
        await run.lab.link(subject.CLIENTS, found.region, rtt_ms=self.p.page_rtt_ms)
        await self._capture(run, to)
        for loss in self.p.losses:
            await self._load_pages(run, to, tcp, found.region, loss)
        run.phase("a client that changes its address")
        await self._move(to)

    async def _open_connections(self, run: Run, to: Address, tcp: Address, region: str) -> None:
        """Open one connection of each kind at each round-trip time, `repeats` times."""
        tls, tickets = client_context(TRUST_ANCHOR, "1.3"), list[Any]()
        # A connection with early data uses a ticket from an earlier connection without, so it never waits for a ticket.
        for _ in self.p.rtt_ms:
            await self._open(to, tickets, wait=True)
        for repeat in range(self.p.repeats):
            run.phase(f"new connections, round {repeat + 1} of {self.p.repeats}")
            for _, rtt in run.interleaved(self.p.rtt_ms, 1):
                await run.lab.link(subject.CLIENTS, region, rtt_ms=rtt)
                for _, arm in run.interleaved(list(ARMS), 1):
                    if arm == "TCP and TLS 1.3":
                        self.ttfb[arm, rtt].append(await run.blocking(_over_tcp, tcp, tls))
                    elif "early" in arm:
                        taken, accepted = await self._open(to, tickets, early=not self.negative)
                        self.ttfb[arm, rtt].append(taken)
                        self.early.append(accepted)
                    else:
                        taken, _ = await self._open(to, tickets, wait=True)
                        self.ttfb[arm, rtt].append(taken)

    async def _capture(self, run: Run, to: Address) -> None:
        """Capture the packets of a new connection, and of one with early data, for the ladder diagrams."""
        here, tickets = own_address(to.address), list[Any]()
        for early in (False, True):
            with ladders.capturing(run, here) as frames:
                async with quic_client.connect(to, TRUST_ANCHOR, tickets, early=early) as client:
                    await client.get(to.host, "/whoami")
                    await client.ping()  # when it is answered, the ticket has arrived
                    port = client.port
                await asyncio.sleep(self.p.page_rtt_ms / 1000)  # until the CONNECTION_CLOSE frame has arrived
            self.packets.append(dissect_quic(frames.recording, (here, port), (to.address, to.port)))

    @staticmethod
    async def _open(to: Address, tickets: list[Any], *, early: bool = False, wait: bool = False) -> tuple[float, bool]:
        """Open a connection and send a request; with *wait*, also wait for a session ticket.

        Returns:
            The time to the first byte in milliseconds, and whether the server received the request as early data.
        """
        had = len(tickets)
        async with quic_client.connect(to, TRUST_ANCHOR, tickets, early=early) as client:
            response = await client.get(to.host, "/whoami")
            taken = 1000 * (response.first - client.began)
            while wait and len(tickets) == had:  # the server sends the ticket after the handshake
                await client.ping()
            return taken, bool(json.loads(bytes(response.body))["early_data"])

    async def _load_pages(self, run: Run, to: Address, tcp: Address, region: str, loss: float) -> None:
        """Load `pages` pages or more in each way, one at a time, because concurrent loads would delay each other."""
        run.phase(f"opening connections for pages of {RESPONSES} responses")
        ways: dict[str, Pages[Any]] = {
            "quic": quic_client.QuicPages(to, RESPONSES, SIZE, self._limit),
            "http2": Http2Pages(tcp, RESPONSES, SIZE, self._limit),
            "http1": Http1Pages(tcp, RESPONSES, SIZE, self._limit),
        }
        try:
            for way, pages in ways.items():
                retired = self.p.pages * (loss * RESPONSES if way == "http1" else quic.delayed_pages(loss, RESPONSES))
                await pages.open(round(retired + ERRORS * sqrt(retired)) + 1)
            await run.lab.link(region, subject.CLIENTS, one_way=True, loss=loss)
            run.phase(f"loading pages, {loss:.1%} of the packets lost")
            for count, way in run.interleaved(list(ways), 2 * self.p.pages):
                if ways[way].ready and (count < self.p.pages or self._one_lost(way).n < ENOUGH):
                    before = await self._counted(run, region)
                    times = await ways[way].load()
                    after = await self._counted(run, region)
                    self.pages[way, loss].append(Page(times, after[0] - before[0], after[1] - before[1]))
            await run.lab.link(region, subject.CLIENTS, one_way=True, loss=0.0)
        finally:
            for pages in ways.values():
                await pages.close()

    @staticmethod
    async def _counted(run: Run, region: str) -> tuple[int, int]:
        """Return the numbers of packets to the client that the link has received and dropped so far."""
        links = (await run.lab.call("wan", "GET", "/admin/counters"))["links"]
        way = (region, subject.CLIENTS)
        link = next(each for each in links if (each["from"], each["to"]) == way)
        return link["packets"], link["dropped_loss"]

    @property
    def _limit(self) -> float:
        """Duration in milliseconds above which a response counts as delayed."""
        return (1 + DELAYED) * self.p.page_rtt_ms

    async def _move(self, to: Address) -> None:
        """Change the client's address between requests on one connection, `moves` times."""
        async with quic_client.connect(to, TRUST_ANCHOR) as client:
            before = json.loads(bytes((await client.get(to.host, "/whoami")).body))["peer"]
            for _ in range(self.p.moves):
                await client.move()
                response = await client.get(to.host, "/whoami")
                after = json.loads(bytes(response.body))["peer"]
                self.moved.append((response.first_byte_ms, after != before))
                before = after
                await client.ping()  # wait until the path is validated before the next change

    # --- conclusions ------------------------------------------------------------------------------------------------

    def conclude(self, run: Run) -> None:
        """Check the round trips, the delayed responses, and the changes of address."""
        found = run.findings
        run.raw["pages"] = {
            f"{way}, {loss:.1%} lost": [{"ms": page.times, "sent": page.sent, "lost": page.lost} for page in pages]
            for (way, loss), pages in self.pages.items()
        }
        run.raw["ttfb_ms"] = {f"{arm} at {rtt:g} ms": values for (arm, rtt), values in self.ttfb.items()}
        heights = {}
        for arm, trips in ARMS.items():
            samples = [(rtt, self.ttfb[arm, rtt]) for rtt in self.p.rtt_ms]
            heights[arm] = check_slope_of_rounds(found, f"round trips, {arm}", trips, samples)
            found.fact(f"time on top of the round trips, {arm}, ms", round(heights[arm], 2))
        if not self.negative:
            share = sum(self.early) / max(1, len(self.early))
            found.gate("requests that the server received as early data", "all", f"{share:.0%}", share == 1.0)
        self._check_one_lost(run)
        for loss in self.p.losses:
            for way in WAYS:
                self._check_share(run, way, loss)
        self._check_moves(run)
        found.chart(self._lines(heights))
        found.chart(self._blocking())
        found.chart(self._shares())
        for packets, words, name in zip(
            self.packets, ("new connection", "connection with early data"), ("", "-early"), strict=False
        ):
            caption = (
                "Labels show what an observer can read: the types of the QUIC packets in each datagram. "
                "1-RTT packets carry requests and responses; 0-RTT packets carry early data."
            )
            ladders.add(run, packets, f"A {words} over QUIC, packet by packet", caption, f"quic-ladder{name}")

    def _delayed(self, page: Page) -> int:
        """Return the number of delayed responses; 0 if no packet was lost, because such delays are noise."""
        return sum(each > self._limit for each in page.times) if page.lost else 0

    def _one_lost(self, way: str) -> Estimate:
        """Estimate the median number of delayed responses in pages that were delayed by exactly one lost packet.

        The median is not affected by the few pages in which a busy machine also delayed other responses.  If a page was
        not delayed although a packet was lost, that packet contained only an acknowledgement; such pages do not count.
        """
        pages = chain.from_iterable(self.pages[way, loss] for loss in self.p.losses)
        return Estimate.of(self._delayed(page) for page in pages if page.lost == 1 and self._delayed(page))

    def _check_one_lost(self, run: Run) -> None:
        found = run.findings
        for way, label in WAYS.items():
            quiet = [page for loss in self.p.losses for page in self.pages[way, loss] if not page.lost]
            busy = sum(max(page.times) > self._limit for page in quiet) / max(1, len(quiet))
            name = f"pages that take long without a lost packet, {label}"
            found.gate(name, f"<= {BUSY:.0%}", f"{busy:.1%}", busy <= BUSY)
            row = found.row(_by_one(way), self._one_lost(way))
            found.enough(f"pages delayed by one lost packet, {label}", row.measured.n, ENOUGH)
            if way != "http2":
                found.check_near(row, APART, absolute=True)
        ratio = self._one_lost("http2").value / self._one_lost("quic").value
        name = "responses delayed by one lost packet, HTTP/2 / HTTP/3"
        found.check(name, f"> {FACTOR:g}", f"{ratio:.2f}", ratio > FACTOR, value=ratio, low=FACTOR)

    def _check_share(self, run: Run, way: str, loss: float) -> None:
        pages = self.pages[way, loss]
        row = run.findings.row(_share(way, loss), _mean([100 * self._delayed(page) / RESPONSES for page in pages]))
        seen = sum(page.lost for page in pages) / max(1, sum(page.sent for page in pages))
        run.findings.fact(f"packets that the router dropped, {loss:.0%} lost, {WAYS[way]}, %", round(100 * seen, 2))
        if way != "http2":  # theory is a lower bound there: the edge puts several responses into one TLS record
            # Chance decides which of the dropped packets carried responses, but not how many were dropped.
            room = 100 * ERRORS * quic.page_deviation(seen, RESPONSES, in_order=False) / sqrt(max(1, len(pages)))
            off, expected = (
                row.measured.value - 100 * _predicted(way, seen),
                f"{100 * _predicted(way, seen):.2f} ± {room:.2f} %",
            )
            got = f"{row.measured.value:.2f} %"
            run.findings.check(row.name, expected, got, abs(off) <= room, value=off, low=-room, high=room)
        late = sum(self._delayed(page) > 0 for page in pages) / max(1, len(pages))
        theory = 100 * quic.delayed_pages(loss, RESPONSES)
        name = f"pages delayed, {loss:.0%} lost, {WAYS[way]}, %"
        run.findings.fact(name, f"{100 * late:.1f} (theory {theory:.1f})")

    def _check_moves(self, run: Run) -> None:
        seen = sum(new for _, new in self.moved)
        name = "changes of address that the server saw, without a new connection"
        run.findings.check(name, str(self.p.moves), str(seen), seen == self.p.moves)
        trips = min((taken / self.p.page_rtt_ms for taken, _ in self.moved), default=float("nan"))
        row = run.findings.row("round trips of a request from a new address", trips)
        run.findings.check_near(row, 2 * TOLERANCE, absolute=True)

    def _lines(self, heights: Mapping[str, float]) -> Chart:
        far = max(self.p.rtt_ms) * 1.05
        marks: list[Curve | Dots] = []
        for colour, (arm, trips) in enumerate(ARMS.items()):
            marks.append(Curve(arm, [(0.0, heights[arm]), (far, heights[arm] + trips * far)], colour))
        for colour, arm in enumerate(ARMS):
            estimates = [(rtt, Estimate.of(self.ttfb[arm, rtt])) for rtt in self.p.rtt_ms]
            marks.append(Dots(arm, [(rtt, each.value, each.low, each.high) for rtt, each in estimates], colour))
        return Chart(
            "QUIC saves a round trip, early data another",
            [Panel(marks, y="time to first byte, ms", height=300)],
            x="round-trip time between client and server, ms",
            caption="Lines are theory: three round trips for TCP, TLS 1.3 and the request, two for QUIC, one for early "
            "data; only their height at 0 ms, the CPU time, is taken from the measurement. Dots are medians with "
            "intervals of 95 %. QUIC runs in Python here, at both ends.",
            low=0,
            high=far,
            name="quic",
        )

    def _blocking(self) -> Chart:
        means = [self._one_lost(way).value for way in WAYS]
        theory = [quic.delayed_by_one(RESPONSES, in_order=way == "http2") for way in WAYS]
        marks: list[Bars | Curve] = [
            Bars("measured", [(i - 0.3, i + 0.3, mean) for i, mean in enumerate(means) if not isnan(mean)], 0),
            *(Curve("theory", [(i - 0.4, each), (i + 0.4, each)], "mark") for i, each in enumerate(theory)),
        ]
        return Chart(
            "A lost packet delays one stream of QUIC, but every later response on a TCP connection",
            [Panel(marks, y="delayed responses", height=220)],
            x=f"pages of {RESPONSES} responses of one packet each, in which one packet was lost",
            caption=f"Median number of responses that took more than {1 + DELAYED:g} round trips. The router counts "
            "the dropped packets of each page. For HTTP/2 theory is a lower bound, as responses share TLS records.",
            categories=list(WAYS.values()),
            name="quic-blocking",
        )

    def _shares(self) -> Chart:
        far = 1.1 * max(self.p.losses)
        steps = [far * i / 40 for i in range(41)]
        marks: list[Curve | Dots] = []
        for way, label in (("quic", "theory: its own packet"), ("http2", "theory: all packets before it, too")):
            theory = [(100 * loss, 100 * _predicted(way, loss)) for loss in steps]
            marks.append(Curve(label, theory, list(WAYS).index(way)))
        for colour, (way, label) in enumerate(WAYS.items()):
            dots = []
            for loss in self.p.losses:
                each = _mean([100 * self._delayed(page) / RESPONSES for page in self.pages[way, loss]])
                shift = far if way == "http1" else 0.0  # 1 % of the axis, so that the dots do not cover those of HTTP/3
                dots.append((100 * loss + shift, each.value, each.low, each.high))
            marks.append(Dots(label, dots, colour))
        return Chart(
            "Responses that wait for a retransmission",
            [Panel(marks, y="responses delayed, %", height=260)],
            x="packets lost, %",
            caption=f"Pages of {RESPONSES} responses. A response waits for its own packet (HTTP/3, and HTTP/1.1 with a "
            "connection per response), or for all packets before it as well (HTTP/2; theory is a lower bound). "
            "Dots of HTTP/1.1 are moved a little to the right.",
            low=0,
            high=100 * far,
            name="quic-shares",
        )


def _predicted(way: str, loss: float) -> float:
    """Return the predicted share of delayed responses."""
    return quic.delayed_in_order(loss, RESPONSES) if way == "http2" else quic.delayed_alone(loss)


def _mean(values: Sequence[float]) -> Estimate:
    """Return the mean of independent values with its 95 % confidence interval (normal approximation)."""
    if not values:
        return Estimate.of(())
    mean = sum(values) / len(values)
    half = 1.96 * sqrt(sum((each - mean) ** 2 for each in values)) / len(values)
    return Estimate(mean, max(0.0, mean - half), mean + half, len(values))


def _over_tcp(to: Address, tls: ssl.SSLContext) -> float:
    with Connection(to, tls) as connection:
        return connection.ask("/whoami").ttfb
