"""`geography`: distance is paid once per round trip; an edge near the client does not shorten the way, but how often it is gone."""

import ssl
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

import theory
from experiments import Chart, Control, Dots, Experiment, Panel, Quantity, Run, parameter
from experiments.chart import Bars
from scenarios.connection import TRUST, Address, Connection
from stub import Stub
from waterfall.tls import context

#: Milliseconds that servers may take beside the round trips, once their own time is subtracted.
ROOM_MS = 6.0


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the request goes: client to edge, edge to origin."""

    name: str
    host: str
    #: The edge's port: 443 keeps connections to the origin, 444 opens one for each request.
    port: int
    path: str = "/whoami"


NEAR = Placement("near edge, near origin", "www.example.com", 443)
FAR = Placement("far edge, far origin", "far.example.com", 443)
ACROSS = Placement("near edge, far origin", "www.example.com", 443, "/far/whoami")
UNPOOLED = Placement("near edge, far origin, not pooled", "www.example.com", 444, "/far/whoami")
PLACEMENTS = (NEAR, ACROSS, FAR, UNPOOLED)


@dataclass(frozen=True, slots=True)
class Parameters:
    """What can be varied."""

    near_ms: float = parameter(20.0, unit="ms", low=1, high=300, help="round trip, client to near data centre")
    far_ms: float = parameter(120.0, unit="ms", low=2, high=600, help="round trip, client to far data centre")
    repeats: int = parameter(15, quick=5, low=3, high=200, help="of each placement, cold and warm")


class Geography(Experiment[Parameters]):
    """The same request to servers in three placements, cold and warm."""

    name = "geography"
    claim = "Time to the first byte is round trips times distance; an edge near the client saves a far origin's (1+h) round trips of the backhaul."
    says = (
        "The seed: put servers near clients, since no protocol beats the speed of light. More subtle: what counts is distance times round trips. A pooled edge "
        "leaves one long round trip of three; an edge that opens a connection per request saves nothing."
    )
    source = "I. Grigorik, “High Performance Browser Networking”, chapters 1 and 4; RFC 8446 section 2."
    production = (
        "Terminate TCP and TLS near the user and keep warm connections to the origin: half of a CDN's gain, without caching a byte. Check that the pool is "
        "really used (ΔActiveOpens/Δrequests): an edge with a cold pool is slower than none."
    )
    settings = Parameters
    control = Control("the edge opens a connection to the origin for each request", ("near edge, far origin, cold",))
    records = ("edge", "edge-far")
    paths = ("edge", "edge-far")

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.taken: dict[tuple[str, bool], list[float]] = defaultdict(list)

    def duration(self) -> float:
        """Eight requests per repeat, some of three long round trips."""
        return 4 + self.p.repeats * (self.p.far_ms * 14 + self.p.near_ms * 14) / 1000

    @property
    def backhaul_ms(self) -> float:
        """The way from the near edge to the far origin."""
        return self.p.far_ms - self.p.near_ms

    def predict(self) -> Mapping[str, Quantity]:
        """Return milliseconds of each placement, servers not counted."""
        said = {}
        for each in PLACEMENTS:
            for warm in (False, True):
                said[_row(each, warm=warm)] = Quantity(self._expected(each, warm=warm), "ms")
        said["saved by the pooled edge"] = Quantity(theory.geography.edge_saves_ms(self.backhaul_ms), "ms")
        return said

    def _expected(self, each: Placement, *, warm: bool) -> float:
        if each in {ACROSS, UNPOOLED}:
            pooled = each is ACROSS
            return theory.geography.through_edge_ms(self.p.near_ms, self.backhaul_ms, warm=warm, backhaul_warm=pooled)
        return theory.geography.direct_ms(self.p.near_ms if each is NEAR else self.p.far_ms, warm=warm)

    async def measure(self, run: Run) -> None:
        """Ask every placement in turn, cold and then warm on the same connection."""
        await run.link("access", "near", rtt_ms=self.p.near_ms)
        await run.link("access", "far", rtt_ms=self.p.far_ms)
        await run.link("near", "far", rtt_ms=self.backhaul_ms)
        stub, tls = Stub(), context("1.3", TRUST)
        run.phase("the same request, four placements")
        for repeat, placement in run.interleaved(PLACEMENTS, self.p.repeats + 1):
            port = UNPOOLED.port if self.negative and placement is ACROSS else placement.port
            address = (await run.blocking(stub.resolve, placement.host)).rdata[0]
            cold, warm = await run.blocking(_twice, Address(placement.host, address, port), tls, placement.path)
            if repeat:  # the first fills the edge's pool
                self.taken[placement.name, False].append(cold)
                self.taken[placement.name, True].append(warm)

    def conclude(self, run: Run) -> None:
        """Hold every placement against its round trips."""
        run.raw["taken_ms"] = {f"{name}, {'warm' if warm else 'cold'}": v for (name, warm), v in self.taken.items()}
        for each in PLACEMENTS:
            for warm in (False, True):
                row = run.row(_row(each, warm=warm), min(self.taken[each.name, warm]))
                over = row.residual or 0.0
                ok = -1.0 <= over <= ROOM_MS + 0.05 * (row.predicted or 0.0)
                run.check(
                    row.name, f"{row.predicted:g} ms and the servers' own time", f"{row.measured.value:.1f} ms", ok
                )
        saved = min(self.taken[FAR.name, False]) - min(self.taken[ACROSS.name, False])
        run.check_near(run.row("saved by the pooled edge", saved), 0.1)
        run.chart(self._picture())

    def _picture(self) -> Chart:
        marks: list[Bars | Dots] = []
        for k, (warm, label) in enumerate(((False, "new connection"), (True, "kept open"))):
            at = [i - 0.2 + 0.4 * k for i in range(len(PLACEMENTS))]
            bars = [
                (x - 0.18, x + 0.18, self._expected(each, warm=warm)) for x, each in zip(at, PLACEMENTS, strict=True)
            ]
            dots = []
            for x, each in zip(at, PLACEMENTS, strict=True):
                values = self.taken[each.name, warm]
                dots.append((x, min(values), min(values), median(values)))
            marks += [Bars(f"theory, {label}", bars, k), Dots(f"measured, {label}", dots, 2 + k)]
        return Chart(
            "Time to the first byte, by where edge and origin stand",
            [Panel(marks, y="ms", height=280)],
            x="",
            caption=f"Client to near {self.p.near_ms:g} ms, to far {self.p.far_ms:g} ms, near to far {self.backhaul_ms:g} ms. Dots: the shortest of the repeats, "
            "a bar up to their median.",
            categories=[each.name for each in PLACEMENTS],
            name="geography",
        )


def _row(each: Placement, *, warm: bool) -> str:
    return f"{each.name}, {'warm' if warm else 'cold'}"


def _twice(to: Address, tls: ssl.SSLContext, path: str) -> tuple[float, float]:
    """Return the time to the first byte of a new connection's first request, and of its second."""
    with Connection(to, tls) as connection:
        return connection.ask(path).ttfb, connection.ask(path).ttfb
