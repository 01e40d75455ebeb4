"""`resolution`: a cold name costs a round trip to each server on its way down; caches at every layer hide that."""

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

import theory
from experiments import Chart, Control, Dots, Experiment, Panel, Quantity, Run, parameter
from experiments.chart import Bars
from stub import Stub
from waterfall.lab import Links, links
from waterfall.predict import hops_of

RESOLVER = "198.19.2.53"
#: What is asked, and how many servers are on its way from the root when nothing is known.
NAMES = {"www.example.com": 3, "news.example.com": 4}
LAYERS = ("nothing known", "resolver knows", "client knows")


@dataclass(frozen=True, slots=True)
class Parameters:
    """What can be varied."""

    repeats: int = parameter(21, quick=9, low=3, high=200, help="of each name at each layer")


class Resolution(Experiment[Parameters]):
    """Time to resolve, by what is known where."""

    name = "resolution"
    claim = "A cold name costs a round trip to the resolver and one to each server from the root down; a warm resolver leaves one, a warm client none."
    says = (
        "The seed: resolving takes several round trips at worst, and caching at every layer hides it. More subtle: even cold, the resolver's own cache "
        "of the root and the top-level domain is warm in practice; and a resolver asks the server that answered fastest, so the price is the path that it learned."
    )
    source = "RFC 1034 section 5.3.3; P. Mockapetris, K. Dunlap, “Development of the Domain Name System”, 1988."
    production = (
        "Names are paid for once per TTL and client, so they rarely show in means and often in the tail: look at p99 after a deployment or a failover. "
        "Keep name servers near the resolvers of your users, zones shallow, and avoid chains of aliases into zones that nobody has in a cache."
    )
    settings = Parameters
    control = Control(
        "the resolver's cache is emptied before each question to it", ("www.example.com, resolver knows",)
    )
    records = ("resolver",)
    paths = ("resolver",)

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.taken: dict[tuple[str, str], list[float]] = defaultdict(list)
        #: What the hops that were really asked cost by the links, of each cold question.
        self.path: dict[str, list[float]] = defaultdict(list)
        self.hops: dict[str, list[int]] = defaultdict(list)
        self.to_resolver = 4.0

    def duration(self) -> float:
        """A cold question takes a fifth of a second."""
        return 3 + self.p.repeats * len(NAMES) * 0.5

    def predict(self) -> Mapping[str, Quantity]:
        """Return round trips: the milliseconds of a cold question depend on the servers that the resolver chose."""
        said: dict[str, Quantity] = {}
        for name, servers in NAMES.items():
            said[f"servers asked for {name}"] = Quantity(servers)
            said[f"{name}, resolver knows"] = Quantity(theory.resolver_path_ms(self.to_resolver), "ms")
            said[f"{name}, client knows"] = Quantity(0.0, "ms")
        return said

    async def measure(self, run: Run) -> None:
        """Ask cold, warm at the resolver, warm at the client, in turn."""
        configured = await run.blocking(links)
        if configured is None:
            run.skip("wan does not say how long its links are")
            return
        run.phase("questions, cold and warm")
        for _, name in run.interleaved(tuple(NAMES), self.p.repeats):
            await run.call("resolver", "POST", "/admin/cache/flush", {"all": True})
            stub = Stub([(RESOLVER, 53)])
            since = time.time()
            self.taken[name, LAYERS[0]].append(await run.blocking(_ask, stub, name))
            await self._trail(run, configured, name, since)
            stub.flush()
            if self.negative:
                await run.call("resolver", "POST", "/admin/cache/flush", {"all": True})
            self.taken[name, LAYERS[1]].append(await run.blocking(_ask, stub, name))
            self.taken[name, LAYERS[2]].append(await run.blocking(_ask, stub, name))

    async def _trail(self, run: Run, configured: Links, name: str, since: float) -> None:
        """Ask the resolver which servers it asked, and add up their links."""
        body = await run.call("resolver", "GET", "/admin/resolutions?limit=20")
        hops = hops_of([each for each in reversed(body) if each["time"] >= since - 1], name)
        times = [configured.rtt_ms(RESOLVER, hop.server) or 0.0 for hop in hops]
        self.path[name].append(theory.cold_ms(self.to_resolver, times))
        self.hops[name].append(len(hops))

    def conclude(self, run: Run) -> None:
        """Compare each layer with the sum of its links."""
        run.raw["taken_ms"] = {f"{name}, {layer}": values for (name, layer), values in self.taken.items()}
        for name in NAMES:
            row = run.row(f"servers asked for {name}", median(self.hops[name]))
            run.check_near(row, 0, absolute=True)
            # Repeats differ in the root server that was asked: each is held against its own path.
            rest = [t - p for t, p in zip(self.taken[name, LAYERS[0]], self.path[name], strict=True)]
            run.result.prediction[f"{name}, nothing known"] = Quantity(median(self.path[name]), "ms")
            row = run.row(f"{name}, nothing known", median(self.path[name]) + min(rest))
            run.check_near(row, 0.1)
            for layer in LAYERS[1:]:
                row = run.row(f"{name}, {layer}", min(self.taken[name, layer]))
                run.check_near(row, 1.0, absolute=True)
        run.chart(self._picture())

    def _picture(self) -> Chart:
        cases = [(name, layer) for name in NAMES for layer in LAYERS]
        theory_ = [
            (i - 0.3, i + 0.3, median(self.path[n]) if layer == LAYERS[0] else self.to_resolver if layer == LAYERS[1] else 0.0)
            for i, (n, layer) in enumerate(cases)
        ]  # fmt: skip
        dots = [(i, min(self.taken[c]), min(self.taken[c]), median(self.taken[c])) for i, c in enumerate(cases)]
        return Chart(
            "Time to resolve a name, by what is known where",
            [Panel([Bars("theory: round trips to each server", theory_, 0), Dots("measured: shortest, bar up to the median", dots, 1)], y="ms", height=260)],
            x="",
            caption="Cold: the resolver, then root, top-level domain, the zone, and for news.example.com one delegation more.",
            categories=[f"{name}: {layer}" for name, layer in cases],
            name="resolution",
        )  # fmt: skip


def _ask(stub: Stub, name: str) -> float:
    began = time.perf_counter()
    stub.resolve(name)
    return (time.perf_counter() - began) * 1000
