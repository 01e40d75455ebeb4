"""`geography`: what distance costs, by where the server and the edge stand; what an edge near the client saves."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from experiments import Chart, Control, Curve, Dots, Estimate, Experiment, Line, Panel, Quantity, Run, parameter
from hostfiles.layout import TRUST_ANCHOR
from scenarios.instruments.connection import Address, Connection
from stub import Stub
from theory import geography, handshake
from wireformat.tls import client_context

#: Largest distance between a measured slope and the integer it has to be.
TOLERANCE = 0.1
#: Largest distance between what the edge saves and its round trips of the backhaul, of these.
ROOM = 0.1
#: What links have unless they are what is varied, in ms: links.toml.
NEAR_MS, FAR_MS, BACKHAUL_MS = 20.0, 120.0, 100.0


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the server stands, and what is open before the request."""

    name: str
    #: Whom the client asks, on which port, for what.
    host: str
    port: int
    path: str
    #: The link on which round trips are counted.
    link: tuple[str, str]
    #: Whether the client's connection is open.
    warm: bool
    #: Round trips of that link until the first byte.
    round_trips: int


_COLD = handshake.round_trips("TLSv1.3")
#: Far, and through an edge: the same origin, catalog-3, answers all of them but the first two.
PLACEMENTS = (
    Placement("near, new connection", "www.example.com", 443, "/whoami", ("access", "near"), False, _COLD),
    Placement("near, open connection", "www.example.com", 443, "/whoami", ("access", "near"), True, 1),
    Placement("far, new connection", "far.example.com", 443, "/whoami", ("access", "far"), False, _COLD),
    Placement("far, open connection", "far.example.com", 443, "/whoami", ("access", "far"), True, 1),
    Placement("edge near, origin far, pooled", "www.example.com", 443, "/far/whoami", ("near", "far"), False, 1),
    Placement("edge near, origin far, no pool", "www.example.com", 444, "/far/whoami", ("near", "far"), False, _COLD),
)
#: By what share of the axis the dots of the two servers, which lie on one line, stand aside.
ASIDE = {"www.example.com": -0.006, "far.example.com": 0.006}
BY_NAME = {each.name: each for each in PLACEMENTS}
DIRECT, POOLED = BY_NAME["far, new connection"], BY_NAME["edge near, origin far, pooled"]


@dataclass(frozen=True, slots=True)
class Parameters:
    """What can be varied."""

    rtt_ms: tuple[float, ...] = parameter((20.0, 60.0, 120.0, 180.0), quick=(20.0, 70.0, 120.0), unit="ms", low=5, high=500, least=3, help="round-trip times of the link that is varied")  # fmt: skip
    repeats: int = parameter(11, quick=5, low=1, high=100, help="requests of each kind at each round-trip time")


class Geography(Experiment[Parameters]):
    """Time to first byte of one request against the distance, in six placements."""

    name = "geography"
    claim = "Time to the first byte is a line in the round-trip time; a pooled edge near the client saves all but one round trip of the way behind it."
    says = (
        "The seed: the lower the round-trip time, the faster a connection is established and the better its bandwidth is used; so put servers "
        "geographically close to the clients. More subtle: distance by itself is paid once per round trip, so what matters is how often the way is gone. "
        "An edge does not shorten the way to the origin; it makes the client's handshakes short, and its own were made before. Without a "
        "pool behind it an edge only moves the handshakes to the backhaul, and saves nothing."
    )
    source = (
        "I. Grigorik, “High Performance Browser Networking”, chapter 1 (light in fibre: 200 km per millisecond); RFC 9293, RFC 8446. "
        "theory.geography: direct (2 + h) · RTT; through an edge (2 + h) · near + 1 · backhaul; the edge saves (1 + h) · backhaul."
    )
    production = (
        "Terminate TLS near the users and keep connections to the origin open: on a 100 ms backhaul that is worth 200 ms for every new client with TLS 1.3, "
        "300 ms with 1.2, before anything is cached. Measure the share of requests that find a pooled connection: an edge whose pool is cold costs a hop "
        "and saves nothing. A cache at the edge saves the last round trip, too. Before moving anything, count round trips: halving three of them "
        "is worth more than halving the distance of one."
    )
    settings = Parameters
    control = Control(
        "the edge's pool is taken away: it opens a connection to the origin for every request",
        ("round trips, edge near, origin far, pooled", "what a pooled edge saves"),
    )
    records = ("edge", "edge-far")
    paths = ("edge", "edge-far")

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        #: Milliseconds to the first byte, by placement and round-trip time of its link.
        self.ttfb: dict[tuple[Placement, float], list[float]] = defaultdict(list)
        #: Pairs of milliseconds, one after the other: direct to the far server, and through the edge.
        self.pairs: list[tuple[float, float]] = []

    def duration(self) -> float:
        """Each placement at each round-trip time, and then the pairs."""
        fixed = {("near", "far"): _COLD * NEAR_MS}
        spent = sum(
            place.round_trips * rtt + fixed.get(place.link, 0.0) for place in PLACEMENTS for rtt in self.p.rtt_ms
        )
        return 4 + self.p.repeats * (spent + 2 * _COLD * FAR_MS) / 1000

    def predict(self) -> Mapping[str, Quantity]:
        """Return slopes, and what the edge saves."""
        predicted = {f"round trips, {place.name}": Quantity(place.round_trips) for place in PLACEMENTS}
        predicted["time to first byte, far"] = Quantity(geography.direct_ms(FAR_MS), "ms")
        predicted["time to first byte, through the edge"] = Quantity(geography.through_edge_ms(NEAR_MS, BACKHAUL_MS), "ms")  # fmt: skip
        predicted["what a pooled edge saves"] = Quantity(geography.edge_saves_ms(BACKHAUL_MS), "ms")
        return predicted

    async def measure(self, run: Run) -> None:
        """Vary one link at a time, then compare the two ways to the far origin as they are declared."""
        stub = Stub()
        addresses = {}
        for host in dict.fromkeys(place.host for place in PLACEMENTS):
            addresses[host] = (await run.blocking(stub.resolve, host)).rdata[0]
        asker = _Asker(addresses, pool=not self.negative)
        for rtt in self.p.rtt_ms:
            run.phase(f"round trip {rtt:g} ms, one link at a time")
            for link in dict.fromkeys(place.link for place in PLACEMENTS):
                undo = await run.lab.link(*link, rtt_ms=rtt)
                places = [place for place in PLACEMENTS if place.link == link]
                for place in places:
                    await run.blocking(asker.prepare, place)
                for _, place in run.interleaved(places, self.p.repeats):
                    self.ttfb[place, rtt].append(await run.blocking(asker.ask, place))
                await run.lab.undo(undo)
        run.phase("far directly, and through the edge, in turn")
        await run.blocking(asker.prepare, POOLED)
        for _ in range(self.p.repeats):
            direct = await run.blocking(asker.ask, DIRECT)
            self.pairs.append((direct, await run.blocking(asker.ask, POOLED)))
        asker.close()

    def conclude(self, run: Run) -> None:
        """Fit a line through each placement."""
        run.raw["ttfb_ms"] = {f"{place.name} at {rtt:g} ms": values for (place, rtt), values in self.ttfb.items()}
        heights = {}
        for place in PLACEMENTS:
            # A busy machine only ever adds: the smallest of the repeats stands for the round trips.
            points = [(rtt, min(self.ttfb[place, rtt])) for rtt in self.p.rtt_ms if self.ttfb[place, rtt]]
            line = Line.through(points)
            heights[place] = median(value - place.round_trips * rtt for rtt, value in points)
            slope = Estimate(line.slope, line.slope - line.half, line.slope + line.half, len(points))
            row = run.findings.row(f"round trips, {place.name}", slope)
            low, high = place.round_trips - TOLERANCE, place.round_trips + TOLERANCE
            run.findings.check(row.name, f"{place.round_trips} ± {TOLERANCE:g}", f"{line.slope:.3f}", low <= line.slope <= high, value=line.slope, low=low, high=high)  # fmt: skip
            run.findings.fact(
                f"time beside the round trips of the varied link, {place.name}, ms", round(heights[place], 2)
            )
        self._edge(run)
        floor = geography.floor_ms(10_000)
        run.findings.fact("the least that 10,000 km of fibre cost, there and back, ms", round(floor, 1))
        run.findings.chart(self._lines(heights))

    def _edge(self, run: Run) -> None:
        direct, through = ([pair[i] for pair in self.pairs] for i in (0, 1))
        run.findings.row("time to first byte, far", Estimate.of(direct))
        run.findings.row("time to first byte, through the edge", Estimate.of(through))
        saved = Estimate.of([one - other for one, other in self.pairs])
        run.findings.check_near(run.findings.row("what a pooled edge saves", saved), ROOM)

    def _lines(self, heights: dict[Placement, float]) -> Chart:
        far = max(self.p.rtt_ms) * 1.05
        marks: list[Curve | Dots] = []
        for i, place in enumerate(PLACEMENTS):
            ends = [(at, heights[place] + place.round_trips * at) for at in (0.0, far)]
            marks.append(Curve(place.name, ends, i, dashed=place.link == ("near", "far")))
        for i, place in enumerate(PLACEMENTS):
            every = [(rtt, self.ttfb[place, rtt]) for rtt in self.p.rtt_ms if self.ttfb[place, rtt]]
            x = ASIDE.get(place.host, 0.0) * far if place.link[0] == "access" else 0.0
            marks.append(Dots(place.name, [(rtt + x, min(v), min(v), median(v)) for rtt, v in every], i))
        return Chart(
            "A new connection pays the distance three times, an open one once, whichever server it is",
            [Panel(marks, y="time to first byte, ms", height=380)],
            x="round-trip time of the link that is varied, ms",
            caption="Solid: the client's own link is varied. The near and the far server lie on one line, their dots side by side: what counts is the round-trip "
            "time, not the place. Dashed: the client stays 20 ms from the edge, and "
            "the way behind the edge grows. Lines: theory; only their height at 0 ms is taken from the measurement. Dots: the smallest of the repeats, "
            "with a bar up to their median.",
            low=0.0,
            high=far,
            name="geography",
        )


class _Asker:
    """Asks as each placement says; blocking."""

    def __init__(self, addresses: Mapping[str, str], *, pool: bool) -> None:
        self._addresses, self._pool = addresses, pool
        self._context = client_context(TRUST_ANCHOR, "1.3")
        self._open: dict[tuple[str, int], Connection] = {}

    def prepare(self, place: Placement) -> None:
        """Open what has to be open: the client's connection, and the edge's to each of its origins."""
        if place.warm:
            self._kept(place).ask(place.path)
        else:
            for _ in range(2):  # the route / has two origins
                self.ask(place)

    def ask(self, place: Placement) -> float:
        """Return milliseconds to the first byte."""
        if place.warm:
            return self._kept(place).ask(place.path).ttfb
        with self._new(place) as connection:
            return connection.ask(place.path).ttfb

    def close(self) -> None:
        """Let the open connections go."""
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
