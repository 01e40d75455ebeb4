"""`resolution`: a cold name costs the sum of the round trips to every server asked; each cache takes its share away."""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from experiments import Chart, Control, Curve, Dots, Estimate, Experiment, Panel, Quantity, Run, parameter
from stub import Stub
from theory import resolution
from waterfall.lab import WAN, Links, links

RESOLVER = "resolver"
#: Milliseconds that a hop may take beyond its round trip: several processes wake up for each.
PER_HOP_MS = 3.0
#: Name servers whose query logs are read, and their addresses (a test holds them against the compose file).
SERVERS = {
    "root-a": "198.19.10.53",
    "root-b": "198.19.11.53",
    "tld-com": "198.19.12.53",
    "ns1": "198.19.20.53",
    "ns2": "198.19.30.53",
    "ns-news": "198.19.20.54",
}
#: From the root to the deepest zone: round-trip time between the resolver and its nearest server, in ms (links.toml).
CHAIN = {".": 10.0, "com.": 20.0, "example.com.": 16.0, "news.example.com.": 16.0}
#: Of the questions in one state, how many may find other caches than prepared: every host of the lab shares them.
STRAY = 0.1


@dataclass(frozen=True, slots=True)
class State:
    """What is known where before a question."""

    name: str
    qname: str
    #: Closest zone above whose servers the resolver knows; empty: it knows the answer itself.
    known: str
    #: Whether the client remembers the answer.
    client: bool = False

    @property
    def zone(self) -> str:
        """The zone that holds the name."""
        return "news.example.com." if self.qname.startswith("news") else "example.com."

    @property
    def hops(self) -> int:
        """Servers that the resolver has to ask."""
        return resolution.hops(self.zone, self.known) if self.known else 0

    @property
    def shortest(self) -> list[float]:
        """Milliseconds to the nearest of each of them."""
        way = list(CHAIN)[: list(CHAIN).index(self.zone) + 1]
        return [CHAIN[zone] for zone in way[len(way) - self.hops :]]


COLD = State("cold", "www.example.com", ".")
DEEPER = State("cold, one zone deeper", "news.example.com", ".")
STATES = (
    COLD,
    DEEPER,
    State("delegation known", "www.example.com", "example.com."),
    State("delegations known, one zone deeper", "news.example.com", "example.com."),
    State("answer known to the resolver", "www.example.com", ""),
    State("answer known to the client", "www.example.com", "", client=True),
)


@dataclass(frozen=True, slots=True)
class Answered:
    """One question and its path."""

    state: State
    #: Milliseconds that the client waited.
    took: float
    #: Sum of the configured round-trip times of the path that was taken.
    predicted: float
    #: Servers that the resolver asked, by its own account.
    asked: tuple[str, ...]
    #: Epoch seconds of question and answer.
    since: float
    until: float

    def logged(self, logs: Iterable[tuple[float, str, str]]) -> tuple[str, ...]:
        """Return the servers that were asked by their own *logs*: (epoch second, server, qname)."""
        return tuple(sorted(server for at, server, qname in logs if self.since <= at <= self.until and qname == self.state.qname))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Parameters:
    """What can be varied."""

    isp_ms: tuple[float, ...] = parameter((4.0, 20.0, 60.0), quick=(4.0, 20.0), unit="ms", low=1, high=500, help="round-trip times between client and resolver")  # fmt: skip
    repeats: int = parameter(15, quick=7, low=3, high=200, help="questions in each state, at each round-trip time")


class Resolution(Experiment[Parameters]):
    """The same names, asked with caches filled to different depths; the servers' logs as witnesses."""

    name = "resolution"
    claim = "A cold name costs one round trip to each server from the root down, one more per delegation; a warm resolver one, a warm client none."
    says = (
        "The seed: resolving a name takes several round trips at worst, to the root, the top-level domain's and the zone's own server; caching at every layer, "
        "in the resolver as in the client, hides it. More subtle: hardly anybody pays the whole sum. Delegations live for hours where "
        "addresses live for seconds, so what expires is mostly the last hop; and a delegated subdomain costs its round trip only until it is known."
    )
    source = "RFC 1034 sections 4.3.1 and 5.3.3, RFC 2181 section 5.4.1; J. Jung, E. Sit, H. Balakrishnan, R. Morris, “DNS performance and the effectiveness of caching” (2002). theory.resolution."
    production = (
        "Put a resolver near the clients and share it: its cache is what makes names cheap. Keep names in as few zones as ownership allows; each cut is a round trip for "
        "whoever comes first. Give NS records and the addresses of name servers long TTLs even where the addresses of services are short. Resolve before the "
        "request that needs it (pools, prefetch), and cache in the client for as long as the TTL says, not a second longer."
    )
    settings = Parameters
    control = Control("the client forgets: it asks the resolver anew each time", ("time, answer known to the client",))
    paths = ("resolver",)

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.answered: dict[tuple[State, float], list[Answered]] = defaultdict(list)
        #: What the name servers logged: (epoch second, server, qname).
        self.logs: list[tuple[float, str, str]] = []

    def duration(self) -> float:
        """Each question takes its path, and a dozen admin requests before and after."""
        return 3 + len(self.p.isp_ms) * self.p.repeats * (sum(each.hops for each in STATES) * 0.025 + len(STATES) * 0.12)  # fmt: skip

    def predict(self) -> Mapping[str, Quantity]:
        """Return hops, and times on the shortest path as links.toml has it."""
        predicted = {f"servers asked, {each.name}": Quantity(each.hops, "servers") for each in STATES}
        for each in STATES:
            predicted[f"time, {each.name}"] = Quantity(0.0 if each.client else resolution.cold_ms(self.p.isp_ms[0], each.shortest), "ms")  # fmt: skip
        return predicted

    async def measure(self, run: Run) -> None:
        """Prepare the caches, ask, and read who was asked."""
        configured = await run.blocking(links, WAN)
        if configured is None:
            run.skip("wan does not say how its links are set")
            return
        asker = _Asker(run, configured, forgets=self.negative)
        await run.blocking(asker.acquaint)
        for rtt in self.p.isp_ms:
            await run.lab.link("access", "isp", rtt_ms=rtt)
            run.phase(f"resolver {rtt:g} ms away")
            for _, state in run.interleaved(STATES, self.p.repeats):
                self.answered[state, rtt].append(await run.blocking(asker.ask, state, rtt))
        run.phase("query logs of the name servers")
        self.logs = await run.blocking(asker.logs)

    def conclude(self, run: Run) -> None:
        """Hold times against paths, and the resolver's account against the servers' logs."""
        run.raw["answered"] = {f"{state.name} at {rtt:g} ms": [(a.took, a.predicted, a.asked) for a in found] for (state, rtt), found in self.answered.items()}  # fmt: skip
        for state in STATES:
            every = [a for (of, _), found in self.answered.items() if of is state for a in found]
            asked = [len(a.asked) for a in every]
            row = run.findings.row(f"servers asked, {state.name}", Estimate.of(asked))
            right = sum(n == state.hops for n in asked)
            run.findings.check(row.name, f"{state.hops} in {1 - STRAY:.0%} at least", f"{state.hops} in {right} of {len(asked)}", right >= (1 - STRAY) * len(asked) > 0)  # fmt: skip
        for state in STATES:
            self._time(run, state)
        every = [a for found in self.answered.values() for a in found]
        agree = sum(a.asked == a.logged(self.logs) for a in every)
        name = "servers' query logs agree with the resolver"
        run.findings.check(name, f"{len(every)} of {len(every)}", f"{agree} of {len(every)}", agree == len(every))
        run.findings.chart(self._diagonal())
        run.findings.chart(self._by_layer())

    def _time(self, run: Run, state: State) -> None:
        """The row is for the declared link; the check for every round-trip time, against the path really taken."""
        found = self.answered[state, self.p.isp_ms[0]]
        run.findings.row(f"time, {state.name}", Estimate.of([a.took for a in found]))
        # A busy machine only ever adds: the smallest of the repeats stands for the round trips.
        rest = [min(a.took - a.predicted for a in each) for (of, _), each in self.answered.items() if of is state]
        room = 0.5 if state.client else PER_HOP_MS * (1 + state.hops)
        worst = max(rest, key=abs, default=float("nan"))
        run.findings.check(f"time, {state.name}", f"sum of round trips, + 0 to {room:g} ms", f"{worst:+.2f} ms", -0.5 <= worst <= room)  # fmt: skip

    def _diagonal(self) -> Chart:
        marks: list[Curve | Dots] = []
        top = max((a.predicted for found in self.answered.values() for a in found), default=10.0) * 1.08
        marks.append(Curve("theory: what the round trips of the path add up to", [(0.0, 0.0), (top, top)], 6))
        for i, state in enumerate(STATES):
            dots = []
            for rtt in self.p.isp_ms:
                by_path: dict[float, list[float]] = defaultdict(list)
                for a in self.answered[state, rtt]:
                    by_path[a.predicted].append(a.took)
                dots += [(at, *_middle(values)) for at, values in by_path.items()]
            marks.append(Dots(state.name, dots, i))
        return Chart(
            "A name costs what the round trips of its path add up to",
            [Panel(marks, y="measured, ms", height=380)],
            x="sum of the configured round-trip times, ms",
            caption="Each dot: the median of the repeats that took the same path, with a bar from the smallest to the largest. The resolver's distance "
            "is varied, too, so each state has several dots.",
            low=0.0,
            high=top,
            name="resolution",
        )

    def _by_layer(self) -> Chart:
        rtt = self.p.isp_ms[0]
        panels = []
        for state in STATES:
            found = sorted(self.answered[state, rtt], key=lambda a: a.took)
            if found:
                panels.append((state, found[len(found) // 2]))
        bars = [Dots("measured: smallest, median, largest", [(float(i), *_middle([a.took for a in self.answered[state, rtt]])) for i, (state, _) in enumerate(panels)], 1)]  # fmt: skip
        theory = [Curve("theory" if not i else "", [(i - 0.4, a.predicted), (i + 0.4, a.predicted)], 0) for i, (_, a) in enumerate(panels)]  # fmt: skip
        return Chart(
            "Each cache that remembers spares the round trips behind it",
            [Panel([*theory, *bars], y="until the answer, ms", height=230)],
            x=f"resolver {rtt:g} ms away",
            caption="Who knows what when the question comes; the line is the sum of the round trips that are left.",
            categories=[state.name for state, _ in panels],
            name="resolution-layers",
        )


class _Asker:
    """Asks as a client does, after the caches were prepared; blocking."""

    def __init__(self, run: Run, configured: Links, *, forgets: bool) -> None:
        self._lab, self._links, self._forgets = run.lab.admin, configured, forgets
        self._stub = Stub()
        self._resolver = self._stub.servers[0][0]
        self._hosts = {address: server for server, address in SERVERS.items()}

    def acquaint(self) -> None:
        """Let the resolver measure how far each server is, so that it prefers the near ones."""
        for _ in range(6):
            for state in (COLD, DEEPER):
                self._flush(all=True)
                self._stub.flush()
                self._stub.resolve(state.qname)

    def ask(self, state: State, rtt: float) -> Answered:
        """Prepare, ask, and read who was asked."""
        self._prepare(state)
        since, began = time.time(), time.perf_counter()
        answer = self._stub.resolve(state.qname)
        took, until = (time.perf_counter() - began) * 1000, time.time()
        trail = [] if answer.cached else self._trail(state, since)
        path = [self._links.rtt_ms(self._resolver, address) or 0.0 for address in trail]
        predicted = 0.0 if state.client else resolution.cold_ms(rtt, path)
        asked = tuple(sorted(self._hosts.get(address, address) for address in trail))
        return Answered(state, took, predicted, asked, since, until)

    def _prepare(self, state: State) -> None:
        self._stub.flush()
        if state.known == ".":
            self._flush(all=True)
            return
        self._flush(all=True)
        self._stub.resolve(COLD.qname)
        if state.known:
            self._flush(name=state.qname)
        if not state.client or self._forgets:
            self._stub.flush()

    def _flush(self, **what: object) -> None:
        self._lab.call(RESOLVER, "POST", "/admin/cache/flush", what)

    def _trail(self, state: State, since: float) -> list[str]:
        """Return whom the resolver asked for our last question: nobody when it knew."""
        found = self._lab.call(RESOLVER, "GET", f"/admin/resolutions?qname={state.qname}&limit=1")
        return [str(hop["server"]) for hop in found[0]["hops"]] if found and found[0]["time"] >= since else []

    def logs(self) -> list[tuple[float, str, str]]:
        """Return what the name servers have logged: (epoch second, server, qname)."""
        return [
            (float(query["time"]), server, str(query["qname"]).rstrip("."))
            for server in SERVERS
            for query in self._lab.call(server, "GET", "/admin/queries?limit=1000")
        ]


def _middle(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the median, the smallest and the largest."""
    return median(values), min(values), max(values)
