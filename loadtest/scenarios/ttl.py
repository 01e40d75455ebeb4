"""Scenario `ttl`: a long TTL delays changes, and a short TTL increases server load and latency.

This module measures the caches; `instruments.ttl_move` measures the clients of a name whose address changes.
"""

import asyncio
import math
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from experiments import (
    Chart,
    Control,
    Curve,
    Dots,
    Estimate,
    Experiment,
    Lesson,
    Moment,
    Panel,
    Quantity,
    Run,
    Undo,
    parameter,
)
from experiments.estimate import trials
from generator import Queries, Schedule, constant
from hostfiles.layout import lab_address
from scenarios.instruments.ttl_move import OTHERS, REMAIN, ROUNDED, STALE, Move
from stub import AsyncStub, StubError
from theory import ttl as theory

RESOLVER = (lab_address("2.53"), 53)
#: Authoritative servers of the zone, the primary first; the resolver may query either of them.
PRIMARY, SECONDARY = SERVERS = ("ns1", "ns2")
#: Seconds within which a change must reach the secondary, and polling interval in seconds. A change takes three and a
#: half round trips of 100 ms: half for NOTIFY, the others for a TCP connection and the transfer.
ARRIVES, POLL = 5.0, 0.05
ZONE = "example.com."
OLD, NEW = lab_address("20.10"), lab_address("30.10")
#: Interval in seconds at which the servers' query logs are read; each log holds 2,000 entries.
LOG_INTERVAL = 2.0
#: Maximum number of queries for each name within T after the change, and minimum interval between two queries in
#: seconds, so that the resolver has time for other work.
ROUNDS, SPACING = 2, 0.004
#: Parent of the names that `instruments.ttl_move` uses.  Each client queries its own name below this parent, and
#: therefore has its own record in the resolver's cache.
MOVING = "move"
#: Seconds within which all clients are started, at even intervals.
START = 5.0
#: Largest absolute error of a measured hit rate.
HITS = 0.03


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters that the user can vary."""

    ttl_s: tuple[float, ...] = parameter(
        (1.0, 3.0, 10.0, 30.0), quick=(1.0, 2.0, 4.0), unit="s", low=1, high=300,
        help="times to live, each for a set of names of its own",
    )  # fmt: skip
    names: int = parameter(300, low=10, high=5000, help="names per TTL")
    rate: float = parameter(0.4, unit="queries/s", low=0.01, high=20, help="rate of Poisson queries for each name")
    seconds: float = parameter(
        60.0, quick=14.0, unit="s", low=6, high=600, help="how long hits are counted, before the change"
    )
    changes_s: float = parameter(
        100.0, quick=5.0, unit="s", low=1, high=100_000,
        help="assumed time between two changes of a record, to weigh both costs of a TTL",
    )  # fmt: skip
    clients: int = parameter(300, quick=100, low=10, high=1000, help="clients of each kind")
    requests: float = parameter(
        0.1, quick=0.3, unit="requests/s", low=0.01, high=5, help="rate of Poisson requests of each client"
    )
    answer_s: float = parameter(
        60.0, quick=6.0, unit="s", low=2, high=600, help="least time for which one kind of client keeps an answer"
    )
    connection_s: float = parameter(
        45.0, quick=5.0, unit="s", low=2, high=600, help="time for which another kind of client keeps a connection"
    )


class Ttl(Experiment[Parameters]):
    """Measures cache hit rates by TTL, then the share of answers and requests with the old address after a change."""

    name = "ttl"
    claim = (
        "With λ queries per second and a TTL of T, a cache answers λT/(1+λT) of them; after a change old answers "
        "last for T, and some clients keep the old address for longer."
    )
    says = (
        "The textbook says that with a long TTL clients see changes late, and that a short one increases the load on "
        "name servers and the response time. In practice the gain depends on λT, not on T: for names with many "
        "queries a TTL of seconds saves nearly all of them, and for rare names no TTL helps. And if a TTL is "
        "ignored, it is often by the client and not by the resolver: it has a minimum of its own, keeps a "
        "connection, or looked the name up only once."
    )
    source = (
        "J. Jung, A. Berger, H. Balakrishnan, “Modeling TTL-based Internet caches”, INFOCOM 2003; G. Moura et al., "
        "IMC 2019."
    )
    production = (
        "Choose T by how fast you must be able to move, then check the price: λ/(1+λT) queries per second and cache "
        "at the authoritative servers. If a record changes once in C seconds and an old answer is as bad as a cache "
        "miss, T = (√(1 + 2λC) − 1)/λ has the lowest total cost. Before a planned change, lower T at least one old T "
        "in advance. After the change, expect traffic on the old address for T plus the longest time for which a "
        "client keeps an answer or a connection, and for ever from clients that never ask again: give pools a "
        "maximum age, and keep the old address serving until its requests have stopped. New connections are no "
        "measure of that, because clients with an open connection make none."
    )
    settings = Parameters
    control = Control("the resolver's cache is flushed twice a second", ("hit rate, T = 4 s", "hit rate, T = 30 s"))
    records = ("resolver", "ns1", "edge", "edge-far")
    paths = ("resolver", "edge", "edge-far")
    lessons = (
        Lesson(
            "A name is queried 0.4 times per second and has a TTL of 1 s. Which share of the queries does the "
            "cache answer?",
            "hit rate, T = 1 s", "", 0.05,
        ),
        Lesson(
            "Which share of the answers in the second after a change is old?",
            "old answers within T of the change, T = 1 s", "", 0.07,
        ),
    )  # fmt: skip

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        #: Number of queries sent while hits were counted, by TTL.
        self.asked: Counter[float] = Counter()
        #: Number of queries that reached the authoritative servers while hits were counted, by TTL.
        self.upstream: Counter[float] = Counter()
        self.lost = 0
        self.starved: list[str] = []
        #: Answers by TTL: (seconds since the change, whether the answer was the old address).
        self.answers: dict[float, list[tuple[float, bool]]] = defaultdict(list)
        #: Longest TTL in seconds; the names of the clients in `move` have the same TTL.
        self.longest = max(parameters.ttl_s)
        p = parameters
        self.move = Move(self.longest, p.requests, p.clients, p.answer_s, p.connection_s)
        #: Seconds from each change until the secondary had it; infinite if the transfer took longer than `ARRIVES`.
        self.arrivals: list[float] = []
        self._seen: set[tuple[str, float, str]] = set()

    def duration(self) -> float:
        """Return the expected duration in seconds: filling caches, counting hits, and waiting for the last client."""
        return 2 + self.longest + 1 / self.p.rate + self.p.seconds + self.move.gone + REMAIN

    def predict(self) -> Mapping[str, Quantity]:
        """Predict hit rates, the share of old answers, and the share of requests to the old server."""
        p, predicted = self.p, {}
        for ttl in p.ttl_s:
            hits = theory.hit_rate(p.rate, ttl)
            predicted[f"hit rate, T = {ttl:g} s"] = Quantity(hits)
            predicted[f"old answers within T of the change, T = {ttl:g} s"] = Quantity(hits / 2)
            predicted[f"misses and old answers, T = {ttl:g} s"] = Quantity(self._total(ttl), "of all requests")
        predicted["old answers later"] = Quantity(0.0)
        return {**predicted, **self.move.predict()}

    def _total(self, ttl: float) -> float:
        """Return the share of requests that miss the cache or get the old answer."""
        return 1 - theory.hit_rate(self.p.rate, ttl) + theory.wrong_share(self.p.rate, ttl, self.p.changes_s)

    async def measure(self, run: Run) -> None:
        """Fill the caches, count hits, change the records, and sample the answers."""
        for ttl in self.p.ttl_s:
            await self._publish(run, f"*.ttl-{ttl:g}", ttl, OLD)
        await self._arrival(run, await self._publish(run, f"*.{MOVING}", self.longest, OLD))
        await run.lab.call("resolver", "POST", "/admin/cache/flush", {"all": True})
        run.phase("filling the resolver's cache with records of every age")
        moving = [f"c{i}.{MOVING}.example.com" for i in range(self.p.clients)]
        await self._fill(moving)
        loads = {ttl: self._queries(self._names(ttl), self.p.rate, run) for ttl in self.p.ttl_s}
        self.move.populate(moving, run.rng, RESOLVER)
        stop = asyncio.Event()
        others = self._queries(moving, OTHERS, run)
        running = [asyncio.create_task(load.run(stop)) for load in (*loads.values(), others)]
        living = [asyncio.create_task(crowd.run(START)) for crowd in self.move.crowds]
        if self.negative:
            running.append(asyncio.create_task(_flush_repeatedly(run, stop)))
        try:
            await self._count(run, loads)
            await self._change(run)
        finally:
            for task in living:
                task.cancel()
            stop.set()
            await asyncio.gather(*running, *living, return_exceptions=True)
        for ttl, load in loads.items():
            self.lost += load.lost
            # Queries may be late by a twentieth of the shortest TTL, because the measurement has to resolve this TTL.
            starved = load.starvation(min(self.p.ttl_s)).reasons
            self.starved += [f"T = {ttl:g} s: {reason}" for reason in starved if "CPU" in reason]

    async def _fill(self, moving: Sequence[str]) -> None:
        """Query every name once, so that its record has a random age, as in a cache that has run for a long time.

        The queries are spread evenly over the mean time between two fetches of a name.  Otherwise, all records would
        expire at the same time.
        """
        kinds = [(self._names(ttl), ttl + 1 / self.p.rate) for ttl in self.p.ttl_s]
        kinds.append((list(moving), self.longest + 1 / self.move.others))
        longest = max(cycle for _, cycle in kinds)
        async with asyncio.TaskGroup() as group:
            for names, cycle in kinds:
                for i, name in enumerate(names):
                    group.create_task(_resolve(name, longest - cycle + cycle * i / len(names)))

    def _names(self, ttl: float) -> list[str]:
        return [f"n{number}.ttl-{ttl:g}.example.com" for number in range(self.p.names)]

    def _queries(self, names: Sequence[str], rate: float, run: Run) -> Queries:
        shape = constant(len(names) * rate, self.duration() + 30)
        # Each load has its own seed, so that the random errors of different loads are independent.
        schedule = Schedule(shape, "exponential", run.rng.getrandbits(32))
        return Queries(RESOLVER, names, schedule, seed=run.rng.getrandbits(32))

    async def _publish(self, run: Run, owner: str, ttl: float, address: str) -> int:
        """Change a record at the primary and return the new serial number."""
        path = f"/admin/zones/{ZONE}/records"
        undo = Undo(f"{owner} of {PRIMARY}", PRIMARY, "DELETE", f"{path}?name={quote(owner)}&type=A")
        body = {"name": owner, "type": "A", "ttl": int(ttl), "rdata": [address]}
        new = undo if undo not in run.lab.undo_log.undos else None
        answer = await run.lab.inject(f"{owner} → {address} at {PRIMARY}", PRIMARY, "PUT", path, body, undo=new)
        return int(answer["serial"])

    async def _arrival(self, run: Run, serial: int) -> None:
        """Wait until the secondary has *serial*, and record how long the secondary served the old version."""
        end = run.now() + ARRIVES
        while run.now() < end:
            primary, secondary = [await self._state(run, server) for server in SERVERS]
            if secondary["serial"] == primary["serial"] >= serial:
                self.arrivals.append(secondary["published"] - primary["published"])
                return
            await asyncio.sleep(POLL)  # polling interval
        self.arrivals.append(math.inf)

    @staticmethod
    async def _state(run: Run, server: str) -> Any:
        zones = await run.lab.call(server, "GET", "/admin/zones")
        return next(each for each in zones if each["zone"] == ZONE)

    async def _count(self, run: Run, loads: Mapping[float, Queries]) -> None:
        run.phase(f"counting hits, {sum(load.schedule.shape.rate(1) for load in loads.values()):.0f} queries/s")
        # All containers share one clock, so queries are counted over the same interval here and at the servers.
        begin, before = time.time(), {ttl: load.answered for ttl, load in loads.items()}
        end = begin + self.p.seconds

        def ended() -> None:
            for ttl, load in loads.items():
                self.asked[ttl] = load.answered - before[ttl]

        # A timer ends the interval, because reading the logs takes time and must not lengthen the interval.
        asyncio.get_running_loop().call_later(self.p.seconds, ended)
        while time.time() < end:
            await asyncio.sleep(LOG_INTERVAL)  # polling interval
            await self._read_logs(run, begin, end)

    async def _read_logs(self, run: Run, begin: float, end: float) -> None:
        """Count the queries that the authoritative servers have logged since the last call."""
        for server in SERVERS:
            for each in await run.lab.call(server, "GET", "/admin/queries?limit=2000"):
                key = (server, each["time"], each["qname"])
                if key in self._seen or each["qtype"] != "A" or not begin <= each["time"] < end:
                    continue
                self._seen.add(key)
                label = each["qname"].partition(".ttl-")[2].partition(".")[0]
                if label:
                    self.upstream[float(label)] += 1

    async def _change(self, run: Run) -> None:
        run.phase(f"every record changes; the last client moves within {self.move.gone:.0f} s")
        async with asyncio.TaskGroup() as group:
            await self._publish(run, f"*.{MOVING}", self.longest, NEW)
            self.move.loop_time, self.move.moved = asyncio.get_running_loop().time(), run.now()
            for ttl in self.p.ttl_s:
                serial = await self._publish(run, f"*.ttl-{ttl:g}", ttl, NEW)
                group.create_task(self._sample(run, ttl))
            await self._arrival(run, serial)
            await run.until(self.move.moved + self.move.end)

    async def _sample(self, run: Run, ttl: float) -> None:
        """Query repeatedly until no cache may return the old answer; a slow answer does not delay other queries.

        Names are queried at even intervals within T; random intervals would increase the scatter by half.
        """
        began, step = run.now(), max(SPACING, ttl / (ROUNDS * self.p.names))
        names = self._names(ttl)
        run.rng.shuffle(names)

        async def query(number: int) -> None:
            await run.until(began + number * step)
            at = run.now() - began
            answer = await _resolve(names[number % len(names)])
            if answer:
                self.answers[ttl].append((at, answer == OLD))
            else:
                self.lost += 1

        async with asyncio.TaskGroup() as group:
            for i in range(math.ceil((ttl + 2 * ROUNDED + 0.5) / step)):
                group.create_task(query(i))

    # --- conclusions ------------------------------------------------------------------------------------------------

    def conclude(self, run: Run) -> None:
        """Check hit rates, the share of old answers over time, and the clients."""
        found, total = run.findings, sum(self.asked.values())
        run.raw["answers after the change"] = {
            f"T = {ttl:g} s": [(round(at, 3), old) for at, old in answers] for ttl, answers in self.answers.items()
        }
        got = f"{self.lost} of {total}"
        found.gate("queries without an answer", "<= 0.5 %", got, self.lost <= 0.005 * total)
        slowest = max(self.arrivals, default=math.inf)
        got = f"{slowest:.2f} s" if slowest < ARRIVES else "not in time"
        found.gate(f"changes at {SECONDARY}", f"within {ARRIVES:g} s of {PRIMARY}", got, slowest < ARRIVES)
        found.gate("generator", "not starved", "; ".join(self.starved) or "not starved", not self.starved)
        for ttl in self.p.ttl_s:
            which = f"T = {ttl:g} s"
            found.enough(f"queries, {which}", self.asked[ttl], trials(HITS))
            early = sum(at <= ttl for at, _ in self.answers[ttl])
            found.enough(f"answers within T of the change, {which}", early, trials(STALE))
            hits = Estimate.share(max(0, self.asked[ttl] - self.upstream[ttl]), self.asked[ttl])
            found.check_near(found.row(f"hit rate, {which}", hits), HITS, absolute=True)
            rate = round(self.upstream[ttl] / self.p.seconds, 2)
            found.fact(f"queries per second at the authoritative servers, {which}", rate)
            misses, old = self._misses(ttl), self._old(ttl)
            row = found.row(f"old answers within T of the change, {which}", old)
            found.check_near(row, STALE, absolute=True)
            found.row(f"misses and old answers, {which}", misses.value + old.value * ttl / self.p.changes_s)
        found.fact("the TTL with the fewest of both, s", round(theory.best(self.p.rate, self.p.changes_s), 1))
        later = [old for ttl, answers in self.answers.items() for at, old in answers if at > ttl + ROUNDED]
        found.row("old answers later", Estimate.share(sum(later), len(later)))
        found.check("old answers later", "0", f"{sum(later)} of {len(later)}", not any(later))
        found.chart(self._costs())
        self.move.conclude(run)
        found.chart(self._fading())

    def _misses(self, ttl: float) -> Estimate:
        """Return the share of queries that reached the authoritative servers."""
        return Estimate.share(min(self.upstream[ttl], self.asked[ttl]), self.asked[ttl])

    def _old(self, ttl: float) -> Estimate:
        """Return the share of old answers in the first T seconds after the change."""
        within = [old for at, old in self.answers[ttl] if at <= ttl]
        return Estimate.share(sum(within), len(within))

    def _costs(self) -> Chart:
        p = self.p
        best = theory.best(p.rate, p.changes_s)
        low, high = min(p.ttl_s) / 3, min(p.changes_s, max(self.longest, best) * 3)
        grid = [low * (high / low) ** (i / 80) for i in range(81)]
        misses = [self._misses(t).scaled(100) for t in p.ttl_s]
        old = [self._old(t).scaled(100 * t / p.changes_s) for t in p.ttl_s]
        both = [Estimate(x.value + y.value, x.low + y.low, x.high + y.high) for x, y in zip(misses, old, strict=True)]
        marks: list[Curve | Dots] = []
        for label, curve, measured, colour in (
            ("cache misses: 1/(1+λT)", [1 - theory.hit_rate(p.rate, t) for t in grid], misses, 0),
            ("old answers: occ·T/2C", [theory.wrong_share(p.rate, t, p.changes_s) for t in grid], old, 1),
            ("both", [self._total(t) for t in grid], both, 3),
        ):
            points = [(t, 100 * share) for t, share in zip(grid, curve, strict=True)]
            dots = [(t, e.value, e.low, e.high) for t, e in zip(p.ttl_s, measured, strict=True)]
            marks += [Curve(label, points, colour, dashed=label == "both"), Dots(label, dots, colour)]
        return Chart(
            "A short TTL costs cache misses, a long one old answers",
            [Panel(marks, y="of all requests, %", height=300)],
            x="time to live T, seconds",
            moments=[Moment(best, f"fewest of both: T = {best:.3g} s")],
            caption=f"Lines are theory, dots are measured, with 95 % intervals. Each name has λ = {p.rate:g} queries "
            f"per second and changes once in C = {p.changes_s:g} s; occ = λT/(1+λT) is the share of caches that hold "
            "it. A miss waits for the authoritative server; an old answer leads to the old address. If the latter is "
            "k times as bad, read C/k for C.",
            log=True,
            low=low,
            high=high,
            name="ttl",
        )

    def _fading(self) -> Chart:
        p, ttl = self.p, self.longest
        end = ttl + 1.5
        bins: dict[int, list[bool]] = defaultdict(list)
        for at, old in self.answers[ttl]:
            bins[int(at / (end / 10))].append(old)
        dots = []
        for i in sorted(each for each in bins if each < 10):
            share = Estimate.share(sum(bins[i]), len(bins[i])).scaled(100)
            dots.append(((i + 0.5) * end / 10, share.value, share.low, share.high))
        curve = [(at, 100 * theory.stale_share(p.rate, ttl, at)) for at in (j * ttl / 50 for j in range(51))]
        line = Curve("theory: occ·(1 − t/T)", [*curve, (end, 0.0)], 0)
        return Chart(
            f"After a change, old answers fade for as long as the TTL, T = {ttl:g} s",
            [Panel([line, Dots("answers of the resolver", dots, 1)], y="old answers, %", height=220, high=105)],
            x="seconds since the change",
            caption="A cache that was filled just before the change keeps the old answer longest. Dots have 95 % "
            "intervals.",
            low=0.0,
            high=end,
            name="ttl-fading",
        )


async def _resolve(name: str, after: float = 0.0) -> str:
    """Wait *after* seconds, resolve *name* without a cache, and return its address; empty if there is no answer."""
    await asyncio.sleep(after)  # delay given by the caller
    try:
        return (await AsyncStub([RESOLVER]).resolve(name)).rdata[0]
    except StubError:
        return ""


async def _flush_repeatedly(run: Run, stop: asyncio.Event) -> None:
    run.note("injection", "the cache is flushed twice a second")
    while not stop.is_set():
        await run.lab.call("resolver", "POST", "/admin/cache/flush", {"all": True})
        await asyncio.sleep(0.5)  # interval between two flushes
