"""Scenario `geography`: measures latency by distance to the server or edge, and how much a nearby edge saves."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from experiments import Chart, Control, Curve, Dots, Estimate, Experiment, Lesson, Panel, Quantity, Run, parameter
from hostfiles.layout import TRUST_ANCHOR
from scenarios.instruments.connection import Address, Connection
from scenarios.instruments.round_trips import check_slope, shortest_to_median
from stub import Stub
from theory import geography, handshake
from wireformat.tls import client_context

#: Largest relative error of the latency saved by the edge.
TOLERANCE = 0.1
#: Round-trip times of links at their default delay, in milliseconds (links.toml).
NEAR_MS, FAR_MS, BACKHAUL_MS = 20.0, 120.0, 100.0


@dataclass(frozen=True, slots=True)
class Placement:
    """Location of the server, and the connections that are open before the request."""

    name: str
    #: Host name that the client connects to.
    host: str
    #: Port that the client connects to.
    port: int
    #: Path of the request.
    path: str
    #: Names of the two ends of the link whose delay is varied.
    link: tuple[str, str]
    #: Whether the client already has an open connection.
    warm: bool
    #: Round trips on the varied link until the first byte.
    round_trips: int


_COLD = handshake.round_trips("TLSv1.3")
#: All placements.  Apart from the first two, the same origin (catalog-3) responds, directly or through an edge.
PLACEMENTS = (
    Placement("near, new connection", "www.example.com", 443, "/whoami", ("access", "near"), False, _COLD),
    Placement("near, open connection", "www.example.com", 443, "/whoami", ("access", "near"), True, 1),
    Placement("far, new connection", "far.example.com", 443, "/whoami", ("access", "far"), False, _COLD),
    Placement("far, open connection", "far.example.com", 443, "/whoami", ("access", "far"), True, 1),
    Placement("edge near, origin far, pooled", "www.example.com", 443, "/far/whoami", ("near", "far"), False, 1),
    Placement("edge near, origin far, no pool", "www.example.com", 444, "/far/whoami", ("near", "far"), False, _COLD),
)
#: Horizontal offset of the dots of the two servers, whose lines coincide, as a share of the axis.
OFFSETS = {"www.example.com": -0.006, "far.example.com": 0.006}
BY_NAME = {each.name: each for each in PLACEMENTS}
DIRECT, POOLED = BY_NAME["far, new connection"], BY_NAME["edge near, origin far, pooled"]


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters that the user can vary."""

    rtt_ms: tuple[float, ...] = parameter(
        (20.0, 60.0, 120.0, 180.0), quick=(20.0, 70.0, 120.0), unit="ms", low=5, high=500, least=3,
        help="round-trip times of the link that is varied",
    )  # fmt: skip
    repeats: int = parameter(11, quick=5, low=1, high=100, help="requests per placement and round-trip time")


class Geography(Experiment[Parameters]):
    """Measures the time to first byte of one request by distance, in six placements."""

    name = "geography"
    claim = (
        "Time to first byte is a line in the round-trip time; an edge near the client with a pool of connections "
        "saves all but one round trip on the path behind it."
    )
    says = (
        "The textbook says that a shorter round-trip time makes connections faster to establish and uses bandwidth "
        "better, so servers should be geographically close to the clients. In practice distance is paid once per "
        "round trip, so the number of round trips matters most. An edge does not shorten the path to the origin; it "
        "shortens the client's handshakes, and its own took place earlier. Without a connection pool behind it, the "
        "edge only moves the handshakes to the backhaul and saves nothing."
    )
    source = (
        "I. Grigorik, “High Performance Browser Networking”, chapter 1 (light in fibre: 200 km per millisecond); RFC "
        "9293, RFC 8446. theory.geography: direct (2 + h) · RTT; through an edge (2 + h) · near + 1 · backhaul; the "
        "edge saves (1 + h) · backhaul, with h = 1 for TLS 1.3."
    )
    production = (
        "Terminate TLS near the users and keep connections to the origin open: with a 100 ms backhaul this saves "
        "every new client 200 ms with TLS 1.3 and 300 ms with TLS 1.2, before anything is cached. Measure the share "
        "of requests that find a pooled connection: an edge with a cold pool costs a hop and saves nothing. A cache "
        "at the edge saves the last round trip as well. Count round trips before you move servers: halving the "
        "distance of three round trips is worth more than halving that of one."
    )
    settings = Parameters
    control = Control(
        "the edge's connection pool is bypassed: it opens a connection to the origin for every request",
        ("round trips, edge near, origin far, pooled", "what a pooled edge saves"),
    )
    records = ("edge", "edge-far")
    paths = ("edge", "edge-far")
    lessons = (
        Lesson(
            "A server is 120 ms away. How long does a new connection with TLS 1.3 take until the first byte?",
            "time to first byte, far", "ms", 40,
        ),
        Lesson(
            "How long through an edge 20 ms away, with open connections over the remaining 100 ms?",
            "time to first byte, through the edge", "ms", 20,
        ),
    )  # fmt: skip

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        #: Milliseconds to the first byte, keyed by placement and round-trip time of the varied link.
        self.ttfb: dict[tuple[Placement, float], list[float]] = defaultdict(list)
        #: Milliseconds to the first byte of two consecutive requests: one directly to the far server, one through the
        #: edge.
        self.pairs: list[tuple[float, float]] = []

    def duration(self) -> float:
        """Return the expected duration in seconds: placements at each round-trip time, and the pairs of requests."""
        spent = sum(
            place.round_trips * rtt + (_COLD * NEAR_MS if place.link == ("near", "far") else 0.0)
            for place in PLACEMENTS
            for rtt in self.p.rtt_ms
        )
        return 4 + self.p.repeats * (spent + 2 * _COLD * FAR_MS) / 1000

    def predict(self) -> Mapping[str, Quantity]:
        """Predict the slope of each placement, and the milliseconds saved by the edge."""
        through = geography.through_edge_ms(NEAR_MS, BACKHAUL_MS)
        return {
            **{f"round trips, {place.name}": Quantity(place.round_trips) for place in PLACEMENTS},
            "time to first byte, far": Quantity(geography.direct_ms(FAR_MS), "ms"),
            "time to first byte, through the edge": Quantity(through, "ms"),
            "what a pooled edge saves": Quantity(geography.edge_saves_ms(BACKHAUL_MS), "ms"),
        }

    async def measure(self, run: Run) -> None:
        """Vary one link at a time, then restore the links and compare both paths to the far origin."""
        stub = Stub()
        addresses = {}
        for host in dict.fromkeys(place.host for place in PLACEMENTS):
            addresses[host] = (await run.blocking(stub.resolve, host)).rdata[0]
        client = _Client(addresses, pool=not self.negative)
        for rtt in self.p.rtt_ms:
            run.phase(f"one link at a time at {rtt:g} ms")
            for link in dict.fromkeys(place.link for place in PLACEMENTS):
                undo = await run.lab.link(*link, rtt_ms=rtt)
                places = [place for place in PLACEMENTS if place.link == link]
                for place in places:
                    await run.blocking(client.prepare, place)
                for _, place in run.interleaved(places, self.p.repeats):
                    self.ttfb[place, rtt].append(await run.blocking(client.ask, place))
                await run.lab.undo(undo)
        run.phase("the far server directly and through the edge, in turn")
        await run.blocking(client.prepare, POOLED)
        for _ in range(self.p.repeats):
            direct = await run.blocking(client.ask, DIRECT)
            self.pairs.append((direct, await run.blocking(client.ask, POOLED)))
        client.close()

    def conclude(self, run: Run) -> None:
        """Fit a line through the results of each placement, then compare both paths."""
        found = run.findings
        run.raw["ttfb_ms"] = {f"{place.name} at {rtt:g} ms": values for (place, rtt), values in self.ttfb.items()}
        heights = {}
        for place in PLACEMENTS:
            samples = [(rtt, self.ttfb[place, rtt]) for rtt in self.p.rtt_ms]
            heights[place] = check_slope(found, f"round trips, {place.name}", place.round_trips, samples)
            found.fact(f"time on top of the round trips of the varied link, {place.name}, ms", round(heights[place], 2))
        direct, through = ([pair[i] for pair in self.pairs] for i in (0, 1))
        found.row("time to first byte, far", Estimate.of(direct))
        found.row("time to first byte, through the edge", Estimate.of(through))
        saved = Estimate.of([one - other for one, other in self.pairs])
        found.check_near(found.row("what a pooled edge saves", saved), TOLERANCE)
        floor = geography.floor_ms(10_000)
        found.fact("shortest possible round trip over 10,000 km of fibre, ms", round(floor, 1))
        found.chart(self._lines(heights))

    def _lines(self, heights: dict[Placement, float]) -> Chart:
        far = max(self.p.rtt_ms) * 1.05
        marks: list[Curve | Dots] = []
        for i, place in enumerate(PLACEMENTS):
            ends = [(at, heights[place] + place.round_trips * at) for at in (0.0, far)]
            marks.append(Curve(place.name, ends, i, dashed=place.link == ("near", "far")))
        for i, place in enumerate(PLACEMENTS):
            offset = OFFSETS.get(place.host, 0.0) * far if place.link[0] == "access" else 0.0
            measured = [(rtt, self.ttfb[place, rtt]) for rtt in self.p.rtt_ms if self.ttfb[place, rtt]]
            marks.append(Dots(place.name, [shortest_to_median(rtt + offset, values) for rtt, values in measured], i))
        return Chart(
            "A new connection pays the distance three times, an open one once, whichever server it goes to",
            [Panel(marks, y="time to first byte, ms", height=380)],
            x="round-trip time of the link that is varied, ms",
            caption="Solid lines: the client's own link is varied. The near and the far server share one line, "
            "because only the round-trip time counts; their dots are drawn side by side. Dashed lines: the client "
            "stays 20 ms from the edge, and the link behind the edge is varied. Lines are theory; only their height "
            "at 0 ms is taken from the measurement. Dots are the shortest of the repeats, with a bar up to the "
            "median.",
            low=0.0,
            high=far,
            name="geography",
        )


class _Client:
    """Blocking client that sends the requests of all placements."""

    def __init__(self, addresses: Mapping[str, str], *, pool: bool) -> None:
        self._addresses, self._pool = addresses, pool
        self._context = client_context(TRUST_ANCHOR, "1.3")
        self._open: dict[tuple[str, int], Connection] = {}

    def prepare(self, place: Placement) -> None:
        """Open the client's connection, or make the edge open a connection to each of its origins."""
        if place.warm:
            self._kept(place).ask(place.path)
        else:
            for _ in range(2):  # two requests, because the edge alternates between the two origins of `/`
                self.ask(place)

    def ask(self, place: Placement) -> float:
        """Send the request and return the milliseconds to the first byte."""
        if place.warm:
            return self._kept(place).ask(place.path).ttfb
        with self._new(place) as connection:
            return connection.ask(place.path).ttfb

    def close(self) -> None:
        """Close all open connections."""
        for connection in self._open.values():
            connection.close()

    def _kept(self, place: Placement) -> Connection:
        key = (place.host, place.port)
        if key not in self._open:
            self._open[key] = self._new(place)
        return self._open[key]

    def _new(self, place: Placement) -> Connection:
        port = 444 if place is POOLED and not self._pool else place.port
        return Connection(Address(place.host, self._addresses[place.host], port), self._context)
