"""Scenario `resolution`: resolving an uncached name takes one round trip per name server; caches save round trips."""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from experiments import Chart, Control, Curve, Dots, Estimate, Experiment, Lesson, Panel, Quantity, Run, parameter
from hostfiles.layout import lab_address
from stub import Stub
from theory import resolution
from waterfall.lab import WAN, Links, links

RESOLVER = "resolver"
#: Largest time in milliseconds that a hop takes beyond its round-trip time, because several processes have to wake up.
PER_HOP_MS = 3.0
#: Name servers whose query logs are read, by address (a test compares them with the compose file).
SERVERS = {
    "root-a": lab_address("10.53"),
    "root-b": lab_address("11.53"),
    "tld-com": lab_address("12.53"),
    "ns1": lab_address("20.53"),
    "ns2": lab_address("30.53"),
    "ns-news": lab_address("20.54"),
}
#: Round-trip time in ms between the resolver and the nearest server of each zone, from the root to the deepest zone
#: (links.toml).
CHAIN = {".": 10.0, "com.": 20.0, "example.com.": 16.0, "news.example.com.": 16.0}
#: Largest share of queries that may find the caches in a state other than the prepared one.  This happens because all
#: hosts of the lab share the resolver.
STRAY = 0.1


@dataclass(frozen=True, slots=True)
class State:
    """Contents of the resolver's and the client's cache before a query."""

    name: str
    qname: str
    #: Closest enclosing zone whose servers are in the resolver's cache; empty if the answer itself is cached.
    known: str
    #: Whether the answer is in the client's own cache.
    client: bool = False

    @property
    def zone(self) -> str:
        """The zone that contains the queried name."""
        return "news.example.com." if self.qname.startswith("news") else "example.com."

    @property
    def hops(self) -> int:
        """Number of name servers that the resolver has to query."""
        return resolution.hops(self.zone, self.known) if self.known else 0

    @property
    def shortest(self) -> list[float]:
        """Round-trip times in ms from the resolver to the nearest server of each zone that it has to query."""
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
    """One query, its response time, and the servers that were queried for it."""

    state: State
    #: Milliseconds until the response.
    took: float
    #: Sum of the configured round-trip times to the client's resolver and to the servers queried, in milliseconds.
    predicted: float
    #: Pairs of (server, name) that the resolver reports to have queried. Servers above the zone are sent only the
    #: labels that they need (QNAME minimisation, RFC 9156).
    asked: tuple[tuple[str, str], ...]
    #: Time of the query, in epoch seconds.
    since: float
    #: Time of the response, in epoch seconds.
    until: float

    def logged(self, logs: Iterable[tuple[float, str, str]]) -> tuple[tuple[str, str], ...]:
        """Return the servers and names of this query in *logs*, a list of (epoch second, server, qname).

        An ancestor of the name counts only if the resolver reports that it was sent to this server, because names that
        other hosts query have the same ancestors.
        """
        mine = {(server, qname) for at, server, qname in logs if self.since <= at <= self.until}
        return tuple(sorted(each for each in mine if each[1] == self.state.qname or each in self.asked))


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters that the user can vary."""

    isp_ms: tuple[float, ...] = parameter(
        (4.0, 20.0, 60.0), quick=(4.0, 20.0), unit="ms", low=1, high=500,
        help="round-trip times between client and resolver",
    )  # fmt: skip
    repeats: int = parameter(15, quick=7, low=3, high=200, help="queries per state and round-trip time")


class Resolution(Experiment[Parameters]):
    """Queries the same names with caches in six states, and checks the results against the name servers' query logs."""

    name = "resolution"
    claim = (
        "A cold name costs one round trip to each server from the root down, and one more per delegation; "
        "with a warm resolver it costs one, with a warm client none."
    )
    says = (
        "The textbook says that resolving a name takes several round trips in the worst case, to the root, the "
        "top-level domain and the zone's own server, and that caches at every layer hide this cost. In practice "
        "hardly any query pays the whole sum: delegations live for hours and addresses for seconds, so mostly the "
        "last hop expires, and a delegated subdomain costs its additional round trip only until the delegation is "
        "cached."
    )
    source = (
        "RFC 1034 sections 4.3.1 and 5.3.3, RFC 2181 section 5.4.1; J. Jung, E. Sit, H. Balakrishnan, R. Morris, “DNS "
        "performance and the effectiveness of caching” (2002). theory.resolution."
    )
    production = (
        "Put a shared resolver near the clients: its cache is what makes names cheap. Keep names in as few zones as "
        "ownership allows, because the first query pays a round trip for each zone cut. Give NS records and the "
        "addresses of name servers long TTLs even if service addresses have short ones. Resolve before the request "
        "that needs the address (pools, prefetching), and cache in the client for exactly as long as the TTL allows."
    )
    settings = Parameters
    control = Control(
        "the client's cache is disabled: every query goes to the resolver", ("time, answer known to the client",)
    )
    paths = ("resolver",)
    lessons = (
        Lesson(
            "A resolver with empty caches resolves www.example.com. How many name servers does it ask?",
            "servers asked, cold", "servers", 0.5,
        ),
        Lesson(
            "Its client is 4 ms away, and the servers of the root, com. and example.com. are 10, 20 and 16 ms "
            "away from the resolver. How long does the client wait?",
            "time, cold", "ms", 10,
        ),
        Lesson(
            "How long does it wait if the resolver knows the servers of example.com., but not the address?",
            "time, delegation known", "ms", 6,
        ),
    )  # fmt: skip

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.answered: dict[tuple[State, float], list[Answered]] = defaultdict(list)
        #: Query log entries of all name servers: (epoch second, server, qname).
        self.logs: list[tuple[float, str, str]] = []

    def duration(self) -> float:
        """Return the expected duration in seconds: per query, the round trips on its path and some admin requests."""
        per_repeat = sum(each.hops for each in STATES) * 0.025 + len(STATES) * 0.12
        return 3 + len(self.p.isp_ms) * self.p.repeats * per_repeat

    def predict(self) -> Mapping[str, Quantity]:
        """Predict hops, and times on the shortest path in links.toml, for each cache state."""
        predicted = {f"servers asked, {each.name}": Quantity(each.hops, "servers") for each in STATES}
        for each in STATES:
            ms = 0.0 if each.client else resolution.cold_ms(self.p.isp_ms[0], each.shortest)
            predicted[f"time, {each.name}"] = Quantity(ms, "ms")
        return predicted

    async def measure(self, run: Run) -> None:
        """Prepare the caches, send the queries, and record the servers that the resolver queried."""
        configured = await run.blocking(links, WAN)
        if configured is None:
            run.skip("wan does not report how its links are configured")
            return
        client = _Client(run, configured, forgets=self.negative)
        await run.blocking(client.learn_distances)
        for rtt in self.p.isp_ms:
            await run.lab.link("access", "isp", rtt_ms=rtt)
            run.phase(f"resolver at {rtt:g} ms")
            for _, state in run.interleaved(STATES, self.p.repeats):
                self.answered[state, rtt].append(await run.blocking(client.ask, state, rtt))
        run.phase("reading the query logs of the name servers")
        self.logs = await run.blocking(client.logs)

    def conclude(self, run: Run) -> None:
        """Compare times with predicted paths, and the resolver's reports with the query logs of the servers."""
        found = run.findings
        run.raw["answered"] = {
            f"{state.name} at {rtt:g} ms": [(a.took, a.predicted, a.asked) for a in every]
            for (state, rtt), every in self.answered.items()
        }
        for state in STATES:
            asked = [len(a.asked) for (of, _), every in self.answered.items() if of is state for a in every]
            row = found.row(f"servers asked, {state.name}", Estimate.of(asked))
            right = sum(n == state.hops for n in asked)
            expected = f"{state.hops} in at least {1 - STRAY:.0%} of the queries"
            enough = right >= (1 - STRAY) * len(asked) > 0
            found.check(row.name, expected, f"{state.hops} in {right} of {len(asked)}", enough)
        for state in STATES:
            self._time(run, state)
        every = [a for answered in self.answered.values() for a in answered]
        agree = sum(tuple(sorted(set(a.asked))) == a.logged(self.logs) for a in every)
        name = "the servers' query logs agree with the resolver"
        found.check(name, f"{len(every)} of {len(every)} queries", f"{agree} of {len(every)}", agree == len(every))
        found.chart(self._diagonal())
        found.chart(self._by_layer())

    def _time(self, run: Run, state: State) -> None:
        """Add a row for the first round-trip time, and check every query against its own path."""
        shown = self.answered[state, self.p.isp_ms[0]]
        run.findings.row(f"time, {state.name}", Estimate.of([a.took for a in shown]))
        # A busy machine can only add time, so the shortest of the repeats is used.
        rest = [min(a.took - a.predicted for a in every) for (of, _), every in self.answered.items() if of is state]
        room = 0.5 if state.client else PER_HOP_MS * (1 + state.hops)
        worst = max(rest, key=abs, default=float("nan"))
        expected = f"sum of the round trips, plus 0 to {room:g} ms"
        run.findings.check(f"time, {state.name}", expected, f"{worst:+.2f} ms", -0.5 <= worst <= room)

    def _diagonal(self) -> Chart:
        top = max((a.predicted for every in self.answered.values() for a in every), default=10.0) * 1.08
        marks: list[Curve | Dots] = [Curve("theory: sum of the round trips", [(0.0, 0.0), (top, top)], 6)]
        for i, state in enumerate(STATES):
            dots = []
            for rtt in self.p.isp_ms:
                by_path: dict[float, list[float]] = defaultdict(list)
                for a in self.answered[state, rtt]:
                    by_path[a.predicted].append(a.took)
                dots += [(at, *_middle(values)) for at, values in by_path.items()]
            marks.append(Dots(state.name, dots, i))
        return Chart(
            "A name costs the sum of the round trips on its path",
            [Panel(marks, y="measured, ms", height=380)],
            x="sum of the configured round-trip times, ms",
            caption="Each dot is the median of the repeats that took the same path; its bar runs from the smallest "
            "to the largest. The distance to the resolver varies as well, so each state has several dots.",
            low=0.0,
            high=top,
            name="resolution",
        )

    def _by_layer(self) -> Chart:
        rtt = self.p.isp_ms[0]
        shown = [state for state in STATES if self.answered[state, rtt]]
        times = [[a.took for a in self.answered[state, rtt]] for state in shown]
        typical = [sorted(self.answered[s, rtt], key=lambda a: a.took)[len(self.answered[s, rtt]) // 2] for s in shown]
        lines = [
            Curve("theory" if not i else "", [(i - 0.4, a.predicted), (i + 0.4, a.predicted)], 0)
            for i, a in enumerate(typical)
        ]
        dots = Dots("measured: smallest, median, largest", [(float(i), *_middle(t)) for i, t in enumerate(times)], 1)
        return Chart(
            "Each cache that holds the answer saves the round trips behind it",
            [Panel([*lines, dots], y="time to the answer, ms", height=230)],
            x=f"resolver at {rtt:g} ms",
            caption="The columns say what is cached when the query is sent; the line is the sum of the remaining "
            "round trips.",
            categories=[state.name for state in shown],
            name="resolution-layers",
        )


class _Client:
    """Blocking client that prepares the caches and then sends ordinary queries."""

    def __init__(self, run: Run, configured: Links, *, forgets: bool) -> None:
        self._admin, self._links, self._forgets = run.lab.admin, configured, forgets
        self._stub = Stub()
        self._resolver = self._stub.servers[0][0]
        self._hosts = {address: server for server, address in SERVERS.items()}

    def learn_distances(self) -> None:
        """Let the resolver measure its round-trip time to each server, so that it prefers the nearest ones."""
        for _ in range(6):
            for state in (COLD, DEEPER):
                self._flush(all=True)
                self._stub.flush()
                self._stub.resolve(state.qname)

    def ask(self, state: State, rtt: float) -> Answered:
        """Prepare the caches, send one query, and return its result with the servers that the resolver queried."""
        self._prepare(state)
        since, began = time.time(), time.perf_counter()
        answer = self._stub.resolve(state.qname)
        took, until = (time.perf_counter() - began) * 1000, time.time()
        hops = [] if answer.cached else self._asked(state, since)
        path = [self._links.rtt_ms(self._resolver, address) or 0.0 for address, _ in hops]
        predicted = 0.0 if state.client else resolution.cold_ms(rtt, path)
        asked = tuple((self._hosts.get(address, address), qname) for address, qname in hops)
        return Answered(state, took, predicted, asked, since, until)

    def _prepare(self, state: State) -> None:
        self._stub.flush()
        self._flush(all=True)
        if state.known == ".":
            return
        self._stub.resolve(COLD.qname)
        if state.known:
            self._flush(name=state.qname)
        if not state.client or self._forgets:
            self._stub.flush()

    def _flush(self, **what: object) -> None:
        self._admin.call(RESOLVER, "POST", "/admin/cache/flush", what)

    def _asked(self, state: State, since: float) -> list[tuple[str, str]]:
        """Return the (address, name) pairs that the resolver queried for our last query; empty if it was cached."""
        found = self._admin.call(RESOLVER, "GET", f"/admin/resolutions?qname={state.qname}&limit=1")
        if not found or found[0]["time"] < since:
            return []
        return [(str(hop["server"]), str(hop["qname"]).rstrip(".")) for hop in found[0]["hops"]]

    def logs(self) -> list[tuple[float, str, str]]:
        """Return the query logs of all name servers: (epoch second, server, qname)."""
        return [
            (float(query["time"]), server, str(query["qname"]).rstrip("."))
            for server in SERVERS
            for query in self._admin.call(server, "GET", "/admin/queries?limit=1000")
        ]


def _middle(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the median, the smallest and the largest value."""
    return median(values), min(values), max(values)
