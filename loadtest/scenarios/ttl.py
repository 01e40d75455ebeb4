"""`ttl`: a long time to live delays changes, a short one loads servers and slows answers; both on one axis."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

import theory
from experiments import Chart, Control, Curve, Dots, Estimate, Experiment, Panel, Quantity, Run, Undo, parameter
from generator import Queries, Schedule, constant
from stub import AsyncStub, StubError

RESOLVER = ("198.19.2.53", 53)
#: The zone's servers: the resolver may ask either.
SERVERS = ("ns1", "ns2")
ZONE = "example.com."
OLD, NEW = "198.19.20.10", "198.19.30.10"
#: Seconds between two looks into the servers' query logs, which hold 2,000 each.
LOOK = 2.0
#: Seconds between two questions after the change, each by a client without a cache of its own.
SAMPLE = 0.05
#: Longest TTLs until what was filled together no longer expires together.
WARM_UP = 3
#: Rules of the verdict: hit rate within three points; the stale share, of some two hundred answers, within ten.
HITS, STALE = 0.03, 0.10


@dataclass(frozen=True, slots=True)
class Parameters:
    """What can be varied."""

    ttl_s: tuple[float, ...] = parameter((1.0, 3.0, 10.0, 30.0), quick=(1.0, 2.0, 5.0), unit="s", low=1, high=300, help="times to live, each for names of its own")  # fmt: skip
    names: int = parameter(300, low=10, high=5000, help="names of each kind")
    rate: float = parameter(0.4, unit="questions/s", low=0.01, high=20, help="Poisson, for each name")
    seconds: float = parameter(60.0, quick=16.0, unit="s", low=3, high=600, help="of counting, after three times the longest TTL of warming up")  # fmt: skip


class Ttl(Experiment[Parameters]):
    """Hit rates of one cache by TTL, then a change and who still gives the old answer."""

    name = "ttl"
    claim = "With λ questions per second, a cache answers λT/(1+λT) of them; after a change it gives the old answer for up to T more."
    says = (
        "The seed: a long TTL makes changes slow to arrive, a short one means more load on name servers and slower answers. More subtle: the "
        "gain is in λT, not in T: for names that are asked often even a TTL of seconds saves nearly everything, and for rare ones no TTL helps."
    )
    source = "J. Jung, A. Berger, H. Balakrishnan, “Modeling TTL-based Internet caches”, INFOCOM 2003; G. Moura et al., IMC 2019."
    production = (
        "Choose T from how fast you must be able to move, then look what it costs: λ/(1+λT) questions per second and cache at the authoritative "
        "servers. Lower it one old T ahead of a planned change. After it, expect traffic on the old address for T, and for ever from clients that "
        "look a name up once: keep the old address serving until its last client has gone, not until the TTL says so."
    )
    settings = Parameters
    records = ("resolver", "ns1")
    paths = ("resolver",)

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.asked: Counter[float] = Counter()
        #: Questions at the authoritative servers within the counting window.
        self.upstream: Counter[float] = Counter()
        self.lost = 0
        self.starved: list[str] = []
        #: (seconds since the change, whether the answer was the old one).
        self.answers: list[tuple[float, bool]] = []
        #: Clients that looked the name up once, before the change, and how many of them hold the old address at the end.
        self.pinned = self.pinned_old = 0
        self._seen: set[tuple[str, float, str]] = set()

    control = Control("the resolver's cache is emptied twice a second", ("hit rate, T = 5 s", "hit rate, T = 30 s"))

    @property
    def longest(self) -> float:
        """The longest TTL: it is the one whose record is changed."""
        return max(self.p.ttl_s)

    def duration(self) -> float:
        """Warming up, counting, and the time that a change needs."""
        return (WARM_UP + 1) * self.longest + self.p.seconds + 4

    def predict(self) -> Mapping[str, Quantity]:
        """Return hit rates, and the share of old answers in the time T after a change."""
        said = {f"hit rate, T = {t:g} s": Quantity(theory.hit_rate(self.p.rate, t)) for t in self.p.ttl_s}
        said["old answers within T of the change"] = Quantity(theory.hit_rate(self.p.rate, self.longest) / 2)
        said["old answers later"] = Quantity(0.0)
        said["clients that never ask again, on the old address"] = Quantity(1.0)
        return said

    async def measure(self, run: Run) -> None:
        """Warm up, count, change."""
        for ttl in self.p.ttl_s:
            await self._publish(run, ttl, OLD)
        await run.call("resolver", "POST", "/admin/cache/flush", {"all": True})
        loads = {ttl: self._queries(ttl, run) for ttl in self.p.ttl_s}
        stop = asyncio.Event()
        running = [asyncio.create_task(load.run(stop)) for load in loads.values()]
        if self.negative:
            running.append(asyncio.create_task(_forget(run, stop)))
        try:
            run.phase("warming up")
            pinned = await self._pin(run)
            await asyncio.sleep(WARM_UP * self.longest)
            await self._count(run, loads)
            await self._change(run)
            self.pinned, self.pinned_old = len(pinned), sum(address == OLD for address in pinned)
        finally:
            stop.set()
            await asyncio.gather(*running, return_exceptions=True)
        for ttl, load in loads.items():
            self.lost += load.lost
            self.starved += [f"T = {ttl:g} s: {reason}" for reason in load.starvation().reasons if "CPU" in reason]

    def _queries(self, ttl: float, run: Run) -> Queries:
        names = [_name(i, ttl) for i in range(self.p.names)]
        rate = self.p.names * self.p.rate
        seconds = self.duration() + 30
        return Queries(RESOLVER, names, Schedule(constant(rate, seconds), "exponential", run.result.seed), seed=run.result.seed)  # fmt: skip

    async def _publish(self, run: Run, ttl: float, address: str) -> None:
        for server in SERVERS:
            owner = f"*.ttl-{ttl:g}"
            query = f"?name={quote(owner)}&type=A"
            undo = Undo(f"{owner} of {server}", server, "DELETE", f"/admin/zones/{ZONE}/records{query}")
            body = {"name": owner, "type": "A", "ttl": int(ttl), "rdata": [address]}
            changed = undo if undo not in run.journal.undos else None
            await run.inject(f"{owner} → {address} at {server}", server, "PUT", f"/admin/zones/{ZONE}/records", body, undo=changed)  # fmt: skip

    async def _pin(self, run: Run) -> list[str]:
        """Look up as clients do that never ask again."""
        stub = AsyncStub([RESOLVER])
        chosen = [run.rng.randrange(self.p.names) for _ in range(20)]
        return [(await stub.resolve(_name(i, self.longest))).rdata[0] for i in chosen]

    async def _count(self, run: Run, loads: Mapping[float, Queries]) -> None:
        run.phase(f"counting {sum(load.schedule.shape.rate(1) for load in loads.values()):.0f} questions/s")
        # Every container shares one clock, so questions and what they caused are counted over the same seconds.
        begin, before = time.time(), {ttl: load.answered for ttl, load in loads.items()}
        end = begin + self.p.seconds

        def ended() -> None:
            for ttl, load in loads.items():
                self.asked[ttl] = load.answered - before[ttl]

        # A look into the logs takes a while: it must not lengthen the window.
        asyncio.get_running_loop().call_later(self.p.seconds, ended)
        while time.time() < end:
            await asyncio.sleep(LOOK)
            await self._look(run, begin, end)

    async def _look(self, run: Run, begin: float, end: float) -> None:
        """Read what the authoritative servers were asked since the last look."""
        for server in SERVERS:
            for each in await run.call(server, "GET", "/admin/queries?limit=2000"):
                key = (server, each["time"], each["qname"])
                if key in self._seen or each["qtype"] != "A" or not begin <= each["time"] < end:
                    continue
                self._seen.add(key)
                label = each["qname"].partition(".ttl-")[2].partition(".")[0]
                if label:
                    self.upstream[float(label)] += 1

    async def _change(self, run: Run) -> None:
        run.phase(f"the record with T = {self.longest:g} s changes")
        await self._publish(run, self.longest, NEW)
        began = run.now()
        while (after := run.now() - began) < self.longest + 1.5:
            stub = AsyncStub([RESOLVER])
            try:
                answer = await stub.resolve(_name(run.rng.randrange(self.p.names), self.longest))
            except StubError:
                self.lost += 1
            else:
                self.answers.append((after, answer.rdata[0] == OLD))
            await asyncio.sleep(SAMPLE)

    def conclude(self, run: Run) -> None:
        """Hit rates against theory, then how the old answer fades."""
        total = sum(self.asked.values())
        run.gate("questions without an answer", "<= 0.5 %", f"{self.lost} of {total}", self.lost <= 0.005 * total)
        run.gate("generator", "not starved", "; ".join(self.starved) or "not starved", not self.starved)
        for ttl in self.p.ttl_s:
            hits = Estimate.share(max(0, self.asked[ttl] - self.upstream[ttl]), self.asked[ttl])
            run.check_near(run.row(f"hit rate, T = {ttl:g} s", hits), HITS, absolute=True)
            run.fact(f"questions per second at the authority, T = {ttl:g} s", round(self.upstream[ttl] / self.p.seconds, 2))  # fmt: skip
        within = [old for at, old in self.answers if at <= self.longest]
        # A second: the resolver's own clock, and a fetch that was under way at the change.
        later = [old for at, old in self.answers if at > self.longest + 0.5]
        row = run.row("old answers within T of the change", Estimate.share(sum(within), len(within)))
        run.check_near(row, STALE, absolute=True)
        run.row("old answers later", Estimate.share(sum(later), len(later)))
        run.check("old answers later", "0", f"{sum(later)} of {len(later)}", not any(later))
        if self.pinned:
            row = run.row("clients that never ask again, on the old address", Estimate.share(self.pinned_old, self.pinned))  # fmt: skip
            run.check_near(row, 0.0, absolute=True)
        run.chart(self._axis())
        run.chart(self._fading())

    def _axis(self) -> Chart:
        p = self.p
        grid = [0.3 * (self.longest * 4 / 0.3) ** (i / 80) for i in range(81)]
        load = [(t, p.names * theory.upstream_rate(p.rate, t)) for t in grid]
        stale = [(t, theory.ttl.cost(p.rate, t).stale_s) for t in grid]
        measured = []
        for ttl in p.ttl_s:
            e = Estimate.share(min(self.upstream[ttl], self.asked[ttl]), self.asked[ttl]).scaled(p.names * p.rate)
            measured.append((ttl, e.value, e.low, e.high))
        within = [old for at, old in self.answers if at <= self.longest]
        seconds = Estimate.share(sum(within), len(within)).scaled(self.longest)
        return Chart(
            "What a TTL costs, both ways",
            [
                Panel([Curve("theory: N·λ/(1+λT)", load, 0), Dots("counted at the authority", measured, 1)], y="questions per second", height=170),
                Panel([Curve("theory: occ·T/2", stale, 2), Dots("measured after a change", [(self.longest, seconds.value, seconds.low, seconds.high)], 3)], y="seconds of old answers, mean", height=170),
            ],
            x="time to live T, seconds",
            caption=f"{p.names} names, each asked {p.rate:g} times a second at random. Above: the load that is left for the authoritative servers. Below: "
            "for how long, on average, a cache still gives the old answer after a change.",
            log=True,
            name="ttl",
        )  # fmt: skip

    def _fading(self) -> Chart:
        p, longest = self.p, self.longest
        step = (longest + 1.5) / 10
        dots = []
        for i in range(10):
            inside = [old for at, old in self.answers if i * step <= at < (i + 1) * step]
            if inside:
                e = Estimate.share(sum(inside), len(inside))
                dots.append(((i + 0.5) * step, e.value * 100, e.low * 100, e.high * 100))
        curve = [(at, 100 * theory.stale_share(p.rate, longest, at)) for at in (j * longest / 50 for j in range(51))]
        return Chart(
            f"Old answers after a change, T = {longest:g} s",
            [Panel([
                Curve("theory: occ·(1 − t/T)", [*curve, (longest * 1.15, 0.0)], 0),
                Dots("answers of the resolver", dots, 1),
                Curve("clients that never ask again", [(0, 100), (longest * 1.15, 100)], 6, dashed=True),
            ], y="old answers, %", height=220, high=105)],
            x="seconds since the change",
            caption="A cache that was filled just before the change keeps the old answer longest. Clients that look a name up once stay for ever.",
            name="ttl-fading",
        )  # fmt: skip


def _name(number: int, ttl: float) -> str:
    return f"n{number}.ttl-{ttl:g}.example.com"


async def _forget(run: Run, stop: asyncio.Event) -> None:
    run.note("injection", "the cache is emptied twice a second")
    while not stop.is_set():
        await run.call("resolver", "POST", "/admin/cache/flush", {"all": True})
        await asyncio.sleep(0.5)
