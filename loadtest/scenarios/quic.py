"""Scenario `quic`: round trips of HTTP/3, streams that do not block each other, and a change of address."""

import asyncio
import json
import ssl
import time
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module, util
from itertools import chain
from typing import TYPE_CHECKING, Any

from experiments import Bars, Chart, Control, Curve, Dots, Estimate, Experiment, Lesson, Panel, Quantity, Run, parameter
from hostfiles.layout import TRUST_ANCHOR
from scenarios.instruments.connection import Address, Connection
from scenarios.instruments.http2_client import Http2Connection
from scenarios.instruments.round_trips import TOLERANCE, check_slope, shortest_to_median
from stub import Stub
from theory import handshake, quic
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
#: Ways to fetch a page, each with its label.
WAYS = {"quic": "HTTP/3, one connection", "http2": "HTTP/2, one connection", "http1": "HTTP/1.1, six connections"}
#: Number of responses in a page.  Six is also the number of connections that browsers open to one host.
RESPONSES = 6
#: Size of one response in bytes.  With headers, it fits into one QUIC packet and into one TCP segment.
SIZE = 1000
#: Delay in round trips above which a response counts as delayed; a retransmission delays it by at least one round trip.
DELAYED = 0.6
#: Largest absolute error of a measured share of delayed responses.
SHARE = 0.05
#: Largest share of delayed responses on a link without loss; if there are more, the machine is too busy.
BUSY = 0.02


def _share(way: str) -> str:
    return f"responses delayed by loss, {WAYS[way]}"


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters that the user can vary."""

    host: str = parameter("quic.example.com", help="HTTP/3 server under test: /whoami and /bytes/N")
    tcp_host: str = parameter("www.example.com", help="server for HTTP/1.1 and HTTP/2 in the same region")
    rtt_ms: tuple[float, ...] = parameter(
        (20.0, 60.0, 100.0, 140.0), quick=(30.0, 60.0, 90.0), unit="ms", low=10, high=300, least=3,
        help="round-trip times between client and servers",
    )  # fmt: skip
    repeats: int = parameter(11, quick=6, low=2, high=100, help="requests of each kind per round-trip time")
    loss: float = parameter(0.03, low=0.005, high=0.05, help="share of the packets to the client that the link drops")
    page_rtt_ms: float = parameter(50.0, unit="ms", low=30, high=300, help="round-trip time while pages are fetched")
    pages: int = parameter(300, quick=80, low=20, high=10_000, help="pages per protocol")
    moves: int = parameter(10, quick=4, low=1, high=100, help="changes of the client's address")


class Quic(Experiment[Parameters]):
    """Measures new connections by round-trip time, pages on a lossy link, and a client that changes its address."""

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
            "Six responses of one packet each share a QUIC connection, and 3 % of the packets are lost. Which share of "
            "the responses is delayed?",
            _share("quic"), "%", 3.0,
        ),
        Lesson(
            "A client with an open QUIC connection changes its address. After how many round trips is its next request "
            "answered?",
            "round trips of a request from a new address", "", 0.3,
        ),
    )  # fmt: skip

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        #: Milliseconds to the first byte, by kind of connection and round-trip time.
        self.ttfb: dict[tuple[str, float], list[float]] = defaultdict(list)
        self.early: list[bool] = []
        #: Milliseconds that each response took, one list per page, by way of fetching and loss rate.
        self.pages: dict[tuple[str, float], list[list[float]]] = defaultdict(list)
        #: For each change of address: milliseconds of the next request, and whether the server saw a new address.
        self.moved: list[tuple[float, bool]] = []

    def duration(self) -> float:
        """Return the expected duration of the measurement in seconds."""
        opening = sum(self.p.rtt_ms) / 1000 * self.p.repeats * (sum(ARMS.values()) + 3)
        return 4 + opening + self.p.pages * 3.4 * self.p.page_rtt_ms / 1000 * 1.3 + 0.4 * self.p.moves

    def predict(self) -> Mapping[str, Quantity]:
        """Predict slopes, shares of delayed responses, and the round trips after a change of address."""
        alone = 100 * quic.delayed_alone(self.p.loss)
        return {
            **{f"round trips, {name}": Quantity(trips) for name, trips in ARMS.items()},
            _share("quic"): Quantity(alone, "%"),
            _share("http2"): Quantity(100 * quic.delayed_in_order(self.p.loss, RESPONSES), "%"),
            _share("http1"): Quantity(alone, "%"),
            "round trips of a request from a new address": Quantity(quic.round_trips(moved=True)),
        }

    async def measure(self, run: Run) -> None:
        """Open connections at each round-trip time, fetch pages with and without loss, then change the address."""
        if util.find_spec("aioquic") is None:
            run.skip("the library aioquic is not installed: pip install 'firstbyte[quic]'")
        found = await run.blocking(Stub().resolve, self.p.host)
        to = Address(self.p.host, found.rdata[0], PORT)
        tcp = Address(self.p.tcp_host, (await run.blocking(Stub().resolve, self.p.tcp_host)).rdata[0], PORT)
        try:
            async with quic_client.connect(to, TRUST_ANCHOR):
                pass
        except OSError:
            run.skip(f"{self.p.host} does not answer: start it with `firstbyte up --quic`")
        tls = client_context(TRUST_ANCHOR, "1.3")
        for rtt in self.p.rtt_ms:
            await run.lab.link("access", "near", rtt_ms=rtt)
            run.phase(f"new connections, round trip {rtt:g} ms")
            tickets: list[Any] = []
            await self._open(to, tickets)
            for _, arm in run.interleaved(list(ARMS), self.p.repeats):
                if arm == "TCP and TLS 1.3":
                    self.ttfb[arm, rtt].append(await run.blocking(_over_tcp, tcp, tls))
                else:
                    early = "early" in arm
                    taken, accepted = await self._open(to, tickets, early=early and not self.negative)
                    self.ttfb[arm, rtt].append(taken)
                    if early:
                        self.early.append(accepted)
        await run.lab.link("access", "near", rtt_ms=self.p.page_rtt_ms)
        for loss, pages in ((0.0, max(10, self.p.pages // 8)), (self.p.loss, self.p.pages)):
            run.phase(f"pages of {RESPONSES} responses, {loss:.1%} of the packets lost")
            await run.lab.link("near", "access", one_way=True, loss=loss)
            await self._fetch_pages(to, tcp, loss, pages)
        await run.lab.link("near", "access", one_way=True, loss=0.0)
        run.phase("a client that changes its address")
        await self._move(to)

    @staticmethod
    async def _open(to: Address, tickets: list[Any], *, early: bool = False) -> tuple[float, bool]:
        """Open a connection and send a request; return the ms to first byte, and whether 0-RTT was accepted."""
        async with quic_client.connect(to, TRUST_ANCHOR, tickets, early=early) as client:
            response = await client.get(to.host, "/whoami")
            taken = 1000 * (response.first - client.began)
            while not tickets:  # the server sends the ticket after the handshake
                await client.ping()
            return taken, bool(json.loads(bytes(response.body))["early_data"])

    async def _fetch_pages(self, to: Address, tcp: Address, loss: float, pages: int) -> None:
        """Fetch pages in one way at a time, because concurrent fetches would delay each other on one core."""
        self.pages["quic", loss] += await self._fetch_over_quic(to, pages)
        for way in ("http2", "http1"):
            self.pages[way, loss] += await asyncio.to_thread(_fetch_pages, way, tcp, pages, self._limit)

    @property
    def _limit(self) -> float:
        """Duration in milliseconds above which a response counts as delayed."""
        return (1 + DELAYED) * self.p.page_rtt_ms

    async def _fetch_over_quic(self, to: Address, pages: int) -> list[list[float]]:
        found: list[list[float]] = []
        while len(found) < pages:
            async with quic_client.connect(to, TRUST_ANCHOR) as client:
                await client.ping()  # completes the handshake, whose last packets would delay the first page
                while len(found) < pages:
                    responses = await quic_client.gather(client.ask(to.host, [f"/bytes/{SIZE}"] * RESPONSES))
                    found.append([each.first_byte_ms for each in responses])
                    if max(found[-1]) > self._limit:
                        break  # the loss has reduced the congestion window, so continue on a new connection
        return found

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
        """Check the round trips, the shares of delayed responses, and the changes of address."""
        found = run.findings
        run.raw["pages, ms"] = {f"{way}, {loss:.1%} lost": each for (way, loss), each in self.pages.items()}
        run.raw["ttfb_ms"] = {f"{arm} at {rtt:g} ms": values for (arm, rtt), values in self.ttfb.items()}
        heights = {}
        for arm, trips in ARMS.items():
            samples = [(rtt, self.ttfb[arm, rtt]) for rtt in self.p.rtt_ms]
            heights[arm] = check_slope(found, f"round trips, {arm}", trips, samples)
            found.fact(f"time on top of the round trips, {arm}, ms", round(heights[arm], 2))
        if not self.negative:
            share = sum(self.early) / max(1, len(self.early))
            found.gate("requests that the server received as early data", "all", f"{share:.0%}", share == 1.0)
        for way, label in WAYS.items():
            slow = self._delayed(way, 0.0).value
            name = f"responses that take long without loss, {label}"
            found.gate(name, f"<= {BUSY:.0%}", f"{slow:.1%}", slow <= BUSY)
            row = found.row(_share(way), self._delayed(way, self.p.loss).scaled(100))
            if way != "http2":  # for a response in two segments, theory is only a lower bound
                found.check_near(row, 100 * SHARE, absolute=True)
            late = [max(page) > self._limit for page in self.pages[way, self.p.loss]]
            found.fact(f"pages delayed, {label}, %", round(100 * sum(late) / max(1, len(late)), 1))
        expected = 100 * quic.delayed_pages(self.p.loss, RESPONSES)
        found.fact("pages delayed, theory for all protocols, %", round(expected, 1))
        ratio = self._delayed("http2", self.p.loss).value / max(1e-9, self._delayed("quic", self.p.loss).value)
        name = "responses delayed over HTTP/2 / over HTTP/3"
        found.check(name, "> 1.5", f"{ratio:.2f}", ratio > 1.5, value=ratio, low=1.5)
        self._check_moves(run)
        found.chart(self._lines(heights))
        found.chart(self._bars())

    def _delayed(self, way: str, loss: float) -> Estimate:
        times = list(chain.from_iterable(self.pages[way, loss]))
        return Estimate.share(sum(each > self._limit for each in times), len(times))

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
            dots = [shortest_to_median(rtt, self.ttfb[arm, rtt]) for rtt in self.p.rtt_ms]
            marks.append(Dots(arm, dots, colour))
        return Chart(
            "QUIC saves a round trip, early data another",
            [Panel(marks, y="time to first byte, ms", height=300)],
            x="round-trip time between client and server, ms",
            caption="Lines are theory: three round trips for TCP, TLS 1.3 and the request, two for QUIC, one for early "
            "data; only their height at 0 ms, the CPU time, is taken from the measurement. Dots are the shortest of "
            "the repeats, with a bar up to the median. QUIC runs in Python here, at both ends.",
            low=0,
            high=far,
            name="quic",
        )

    def _bars(self) -> Chart:
        shares = [100 * self._delayed(way, self.p.loss).value for way in WAYS]
        theory = [
            100 * quic.delayed_in_order(self.p.loss, RESPONSES)
            if way == "http2"
            else 100 * quic.delayed_alone(self.p.loss)
            for way in WAYS
        ]
        marks: list[Bars | Curve] = [
            Bars("measured", [(i - 0.3, i + 0.3, share) for i, share in enumerate(shares)], 0),
            *(Curve("theory", [(i - 0.4, each), (i + 0.4, each)], "mark") for i, each in enumerate(theory)),
        ]
        return Chart(
            "A lost packet delays one stream of QUIC, but every later response on a TCP connection",
            [Panel(marks, y="responses delayed, %", height=220)],
            x=f"{RESPONSES} responses of one packet each, {self.p.loss:.0%} of the packets lost",
            caption=f"Share of the responses that took more than {1 + DELAYED:g} round trips, because a packet had to "
            "be sent again.",
            categories=list(WAYS.values()),
            name="quic-blocking",
        )


def _over_tcp(to: Address, tls: ssl.SSLContext) -> float:
    with Connection(to, tls) as connection:
        return connection.ask("/whoami").ttfb


def _fetch_pages(way: str, to: Address, pages: int, limit: float) -> list[list[float]]:
    """Fetch pages over TCP; after each delayed page, open new connections, whose congestion windows are not reduced."""
    found: list[list[float]] = []
    tls = client_context(TRUST_ANCHOR, "1.3")
    if way == "http2":
        tls.set_alpn_protocols(["h2"])
    path = f"/bytes/{SIZE}"
    with ThreadPoolExecutor(RESPONSES) as threads:
        while len(found) < pages:
            if way == "http2":
                with Http2Connection(to, tls) as connection:
                    # Before the first page, wait for the server's settings and tickets, and let the edge open as many
                    # connections to origins as a page needs.
                    connection.ask([path] * RESPONSES)
                    while len(found) < pages:
                        found.append(connection.ask([path] * RESPONSES))
                        if max(found[-1]) > limit:
                            break
            else:
                connections = list(threads.map(lambda _: Connection(to, tls), range(RESPONSES)))
                try:
                    list(threads.map(lambda each: each.ask(path), connections))
                    while len(found) < pages:
                        found.append(list(threads.map(lambda each: _time(each, path), connections)))
                        if max(found[-1]) > limit:
                            break
                finally:
                    for each in connections:
                        each.close()
    return found


def _time(connection: Connection, path: str) -> float:
    began = time.perf_counter()
    connection.ask(path)
    return (time.perf_counter() - began) * 1000
