"""`ttl`: a long time to live delays changes, a short one loads servers and slows answers; both on one axis."""

import asyncio
import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from experiments import Chart, Control, Curve, Dots, Estimate, Experiment, Moment, Panel, Quantity, Run, Undo, parameter
from experiments.estimate import trials
from experiments.recorders import HZ
from generator import Queries, Schedule, constant
from scenarios.instruments.ttl_clients import Crowd, Habit
from stub import AsyncStub, StubError
from theory import ttl as ttl_theory

RESOLVER = ("198.19.2.53", 53)
#: The zone's servers: the resolver may ask either.
SERVERS = ("ns1", "ns2")
ZONE = "example.com."
OLD, NEW = "198.19.20.10", "198.19.30.10"
#: Seconds between two looks into the servers' query logs, which hold 2,000 each.
LOOK = 2.0
#: Times at most that each name is asked for within T of the change, by clients without a cache of their own.
ROUNDS = 2
#: Seconds between two of those questions at least: a resolver has other work, too.
SPACING = 0.004
#: Seconds after T in which an old answer is forgiven: TTLs are whole seconds on the wire, rounded.
ROUNDED = 0.5
#: The origin behind the edge that the name moves to.
NEW_ORIGIN = "catalog-3.example.com"
#: The name that moves: each client asks one of its own below it, so that each has a resolver's record of its own.
MOVING = "move"
#: Questions per second for each of those names by others than our clients: a resolver is shared.
OTHERS = 1.0
#: Seconds within which clients begin, and for which the old server is watched when all have moved who will.
BEGIN, REMAIN = 5.0, 3.0
#: Rules of the verdict: hit rate within three points; the stale share, of some hundred answers, within ten.
HITS, STALE = 0.03, 0.10
#: Standard errors that a class may be off its curve.
ERRORS = 3.5


@dataclass(frozen=True, slots=True)
class Parameters:
    """What can be varied."""

    ttl_s: tuple[float, ...] = parameter((1.0, 3.0, 10.0, 30.0), quick=(1.0, 2.0, 4.0), unit="s", low=1, high=300, help="times to live, each for names of its own")  # fmt: skip
    names: int = parameter(300, low=10, high=5000, help="names of each kind")
    rate: float = parameter(0.4, unit="questions/s", low=0.01, high=20, help="Poisson, for each name")
    seconds: float = parameter(60.0, quick=14.0, unit="s", low=6, high=600, help="of counting, before the change")
    changes_s: float = parameter(100.0, quick=5.0, unit="s", low=1, high=100_000, help="between two changes of a record, for what a TTL costs altogether")  # fmt: skip
    clients: int = parameter(300, quick=100, low=10, high=1000, help="of each habit")
    requests: float = parameter(0.1, quick=0.3, unit="requests/s", low=0.01, high=5, help="Poisson, of each client")
    answer_s: float = parameter(60.0, quick=6.0, unit="s", low=2, high=600, help="for which one habit keeps an answer at least")  # fmt: skip
    connection_s: float = parameter(45.0, quick=5.0, unit="s", low=2, high=600, help="for which another keeps a connection")  # fmt: skip


class Ttl(Experiment[Parameters]):
    """Hit rates of one cache by TTL, then a change: who still gives the old answer, and who still goes where it led."""

    name = "ttl"
    claim = "With λ questions per second, a cache answers λT/(1+λT) of them; after a change old answers last for T, some clients for longer than that."
    says = (
        "The seed: a long TTL makes changes slow to arrive, a short one means more load on name servers and slower "
        "answers. More subtle: the gain is in λT, not in T: for names that are asked often even a TTL of seconds "
        "saves nearly everything, and for rare ones no TTL helps. Who ignores the TTL is often not the resolver but "
        "the client, by a minimum of its own, a pool, or a process that looked once."
    )
    source = "J. Jung, A. Berger, H. Balakrishnan, “Modeling TTL-based Internet caches”, INFOCOM 2003; G. Moura et al., IMC 2019."
    production = (
        "Choose T from how fast you must be able to move, then look what it costs: λ/(1+λT) questions per second and "
        "cache at the authoritative servers; the sum is least at T = (√(1 + 2λC) − 1)/λ, if the record changes once "
        "in C seconds and an old answer is as bad as a question. Lower it one old T ahead of a planned change. After "
        "it, expect traffic on the old address for T plus the longest that a client holds an answer or a connection, "
        "and for ever from those that never let go: give pools a maximum age, and keep the old address serving until "
        "its requests have gone. Its new connections are no measure of that: clients with a kept connection open "
        "none."
    )
    settings = Parameters
    records = ("resolver", "ns1", "edge", "edge-far")
    paths = ("resolver", "edge", "edge-far")

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.asked: Counter[float] = Counter()
        #: Questions at the authoritative servers within the counting window.
        self.upstream: Counter[float] = Counter()
        self.lost = 0
        self.starved: list[str] = []
        #: By TTL: (seconds since the change, whether the answer was the old one).
        self.answers: dict[float, list[tuple[float, bool]]] = defaultdict(list)
        hold, keep = parameters.answer_s, parameters.connection_s
        self.habits = (
            Habit("honours the TTL"),
            Habit(f"keeps a connection for {keep:g} s", connection_s=keep),
            Habit(f"keeps an answer for {hold:g} s", answer_s=hold),
            Habit("keeps its connection", connection_s=math.inf),
            Habit("never asks again", answer_s=math.inf),
        )
        self.crowds: list[Crowd] = []
        #: When the name moved: on the event loop's clock, and on the run's.
        self.moved_at = self.moved = 0.0
        self._seen: set[tuple[str, float, str]] = set()

    control = Control("the resolver's cache is emptied twice a second", ("hit rate, T = 4 s", "hit rate, T = 30 s"))

    @property
    def longest(self) -> float:
        """The longest TTL; the name that moves has it, too."""
        return max(self.p.ttl_s)

    @property
    def gone(self) -> float:
        """Seconds after the change by which everybody has moved who ever will."""
        return self.longest + max(self.p.answer_s, self.p.connection_s) + ROUNDED

    @property
    def others(self) -> float:
        """Questions per second for one moving name: by others, and by the one client of each habit that has it."""
        return OTHERS + sum(ttl_theory.upstream_rate(self.p.requests, habit.hold) for habit in self.habits if math.isfinite(habit.hold))  # fmt: skip

    def duration(self) -> float:
        """Filling the caches, counting, and the time that clients take to move."""
        return 2 + self.longest + 1 / self.p.rate + self.p.seconds + self.gone + REMAIN

    def predict(self) -> Mapping[str, Quantity]:
        """Return hit rates, old answers, and where clients go."""
        p = self.p
        said = {f"hit rate, T = {t:g} s": Quantity(ttl_theory.hit_rate(p.rate, t)) for t in p.ttl_s}
        for t in p.ttl_s:
            said[f"old answers within T of the change, T = {t:g} s"] = Quantity(ttl_theory.hit_rate(p.rate, t) / 2)
            said[f"questions and old answers, T = {t:g} s"] = Quantity(self._both(t), "of all requests")
        said["old answers later"] = Quantity(0.0)
        for habit in self.habits:
            if math.isinf(habit.hold):
                said[f"on the old address at the end: {habit.name}"] = Quantity(1.0)
            else:
                seconds = ttl_theory.old_seconds(self.longest, habit.hold, p.requests, self.others)
                said[f"on the old address, mean: {habit.name}"] = Quantity(seconds, "s")
        said["all clients on the old address at the end"] = Quantity(sum(math.isinf(h.hold) for h in self.habits) / len(self.habits))  # fmt: skip
        said["connections opened per request, old server, at the end"] = Quantity(0.5)
        return said

    def _both(self, ttl: float) -> float:
        """Return the share of requests that ask upstream or get the old answer."""
        return 1 - ttl_theory.hit_rate(self.p.rate, ttl) + ttl_theory.wrong_share(self.p.rate, ttl, self.p.changes_s)

    async def measure(self, run: Run) -> None:
        """Fill the caches, count, change."""
        for ttl in self.p.ttl_s:
            await self._publish(run, f"*.ttl-{ttl:g}", ttl, OLD)
        await self._publish(run, f"*.{MOVING}", self.longest, OLD)
        await run.lab.call("resolver", "POST", "/admin/cache/flush", {"all": True})
        run.phase("filling the resolver's cache, with records of every age")
        moving = [f"c{i}.{MOVING}.example.com" for i in range(self.p.clients)]
        await self._fill(moving)
        loads = {ttl: self._queries([_name(i, ttl) for i in range(self.p.names)], self.p.rate, run) for ttl in self.p.ttl_s}  # fmt: skip
        self.crowds = [Crowd(habit, moving, self.p.requests, run.rng, RESOLVER) for habit in self.habits]
        stop = asyncio.Event()
        running = [asyncio.create_task(load.run(stop)) for load in (*loads.values(), self._queries(moving, OTHERS, run))]  # fmt: skip
        living = [asyncio.create_task(crowd.run(BEGIN)) for crowd in self.crowds]
        if self.negative:
            running.append(asyncio.create_task(_forget(run, stop)))
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
            # What is measured here happens in seconds: a question may be late by a twentieth of the shortest of them.
            starved = load.starvation(min(self.p.ttl_s)).reasons
            self.starved += [f"T = {ttl:g} s: {reason}" for reason in starved if "CPU" in reason]

    async def _fill(self, moving: Sequence[str]) -> None:
        """Ask for every name once, evenly over the time between two fetches of it, all ending now.

        What was fetched together would expire together; this is how a cache is found that has been asked for long.
        """
        kinds = [([_name(i, ttl) for i in range(self.p.names)], ttl + 1 / self.p.rate) for ttl in self.p.ttl_s]
        kinds.append((list(moving), self.longest + 1 / self.others))
        whole = max(cycle for _, cycle in kinds)
        async with asyncio.TaskGroup() as group:
            for names, cycle in kinds:
                for i, name in enumerate(names):
                    group.create_task(_ask(name, whole - cycle + cycle * i / len(names)))

    def _queries(self, names: Sequence[str], rate: float, run: Run) -> Queries:
        shape = constant(len(names) * rate, self.duration() + 30)
        # Each draws for itself: with one seed for all, the luck of one would be that of every other.
        return Queries(RESOLVER, names, Schedule(shape, "exponential", run.rng.getrandbits(32)), seed=run.rng.getrandbits(32))  # fmt: skip

    async def _publish(self, run: Run, owner: str, ttl: float, address: str, servers: Sequence[str] = SERVERS) -> None:
        for server in servers:
            query = f"?name={quote(owner)}&type=A"
            undo = Undo(f"{owner} of {server}", server, "DELETE", f"/admin/zones/{ZONE}/records{query}")
            body = {"name": owner, "type": "A", "ttl": int(ttl), "rdata": [address]}
            changed = undo if undo not in run.lab.undo_log.undos else None
            await run.lab.inject(f"{owner} → {address} at {server}", server, "PUT", f"/admin/zones/{ZONE}/records", body, undo=changed)  # fmt: skip

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
            await asyncio.sleep(LOOK)  # polls: logs tell nobody that they grow
            await self._look(run, begin, end)

    async def _look(self, run: Run, begin: float, end: float) -> None:
        """Read what the authoritative servers were asked since the last look."""
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
        run.phase(f"every record changes; the last client moves within {self.gone:.0f} s")
        owners = {f"*.ttl-{ttl:g}": ttl for ttl in self.p.ttl_s}
        near, far = SERVERS
        for owner, ttl in owners.items():
            await self._publish(run, owner, ttl, NEW, (far,))
        await self._publish(run, f"*.{MOVING}", self.longest, NEW, (far,))
        # The near one last: it is the one that the resolver asks, once it knows both.
        async with asyncio.TaskGroup() as group:
            await self._publish(run, f"*.{MOVING}", self.longest, NEW, (near,))
            self.moved_at, self.moved = asyncio.get_running_loop().time(), run.now()
            for owner, ttl in owners.items():
                await self._publish(run, owner, ttl, NEW, (near,))
                group.create_task(self._sample(run, ttl))
            await run.until(self.moved + self.gone + REMAIN)

    async def _sample(self, run: Run, ttl: float) -> None:
        """Look how the old answer fades, until it must be gone; a slow answer holds no other up.

        Each name in turn, and evenly over T: with names drawn at random, chance would be half as large again.
        """
        began, step = run.now(), max(SPACING, ttl / (ROUNDS * self.p.names))
        names = [_name(i, ttl) for i in range(self.p.names)]
        run.rng.shuffle(names)

        async def look(number: int) -> None:
            await run.until(began + number * step)
            at = run.now() - began
            answer = await _ask(names[number % len(names)])
            if answer:
                self.answers[ttl].append((at, answer == OLD))
            else:
                self.lost += 1

        async with asyncio.TaskGroup() as group:
            for i in range(math.ceil((ttl + 2 * ROUNDED + 0.5) / step)):
                group.create_task(look(i))

    # --- what came of it --------------------------------------------------------------------------------------------

    def conclude(self, run: Run) -> None:
        """Hit rates against theory, then how the old answer fades."""
        total = sum(self.asked.values())
        run.raw["answers after the change"] = {f"T = {t:g} s": [(round(at, 3), old) for at, old in seen] for t, seen in self.answers.items()}  # fmt: skip
        run.findings.gate(
            "questions without an answer", "<= 0.5 %", f"{self.lost} of {total}", self.lost <= 0.005 * total
        )
        run.findings.gate("generator", "not starved", "; ".join(self.starved) or "not starved", not self.starved)
        for ttl in self.p.ttl_s:
            run.findings.enough(f"questions, T = {ttl:g} s", self.asked[ttl], trials(HITS))
            early = sum(at <= ttl for at, _ in self.answers[ttl])
            run.findings.enough(f"answers within T of the change, T = {ttl:g} s", early, trials(STALE))
            hits = Estimate.share(max(0, self.asked[ttl] - self.upstream[ttl]), self.asked[ttl])
            run.findings.check_near(run.findings.row(f"hit rate, T = {ttl:g} s", hits), HITS, absolute=True)
            run.findings.fact(f"questions per second at the authority, T = {ttl:g} s", round(self.upstream[ttl] / self.p.seconds, 2))  # fmt: skip
            row = run.findings.row(f"old answers within T of the change, T = {ttl:g} s", self._wrong(ttl))
            run.findings.check_near(row, STALE, absolute=True)
            run.findings.row(f"questions and old answers, T = {ttl:g} s", self._asked(ttl).value + self._wrong(ttl).scaled(ttl / self.p.changes_s).value)  # fmt: skip
        run.findings.fact("the TTL with the least of both, s", round(ttl_theory.best(self.p.rate, self.p.changes_s), 1))
        later = [old for ttl, answers in self.answers.items() for at, old in answers if at > ttl + ROUNDED]
        run.findings.row("old answers later", Estimate.share(sum(later), len(later)))
        run.findings.check("old answers later", "0", f"{sum(later)} of {len(later)}", not any(later))
        self._clients(run)
        run.findings.chart(self._axis())
        run.findings.chart(self._leaving(run))
        run.findings.chart(self._fading())

    def _asked(self, ttl: float) -> Estimate:
        """Return the share of questions that reached the authoritative servers."""
        return Estimate.share(min(self.upstream[ttl], self.asked[ttl]), self.asked[ttl])

    def _wrong(self, ttl: float) -> Estimate:
        """Return the share of old answers within T of the change."""
        within = [old for at, old in self.answers[ttl] if at <= ttl]
        return Estimate.share(sum(within), len(within))

    def _clients(self, run: Run) -> None:
        """Hold each habit against its curve, and the old server's sockets against its requests."""
        end = self.gone + REMAIN
        lost, made = sum(len(c.lost) for c in self.crowds), sum(len(c.seen) for c in self.crowds)
        causes = ", ".join(f"{n} × {cause}" for cause, n in Counter(x for c in self.crowds for x in c.lost).most_common(2))  # fmt: skip
        run.findings.gate("requests without an answer", "<= 0.5 %", f"{lost} of {made + lost} {causes}".strip(), lost <= 0.005 * made)  # fmt: skip
        for crowd in self.crowds:
            habit, seen = crowd.habit, self._after(crowd)
            run.raw[f"requests, {habit.name}"] = [(round(at, 3), client, old, opened) for at, client, old, opened in seen]  # fmt: skip
            self._first(run, crowd)
            at_end = [old for at, _, old, _ in seen if at >= self.gone]
            if math.isinf(habit.hold):
                row = run.findings.row(
                    f"on the old address at the end: {habit.name}", Estimate.share(sum(at_end), len(at_end))
                )
                run.findings.check(row.name, "all", f"{sum(at_end)} of {len(at_end)}", bool(at_end) and all(at_end))
                continue
            room = ERRORS * self._error(habit)
            got = self._seconds(seen, end)
            row = run.findings.row(f"on the old address, mean: {habit.name}", Estimate(got, got - room / 2, got + room / 2, len(seen)))  # fmt: skip
            run.findings.check_near(row, round(room, 2), absolute=True)
            run.findings.check(f"gone at the end: {habit.name}", "0 on the old address", f"{sum(at_end)} of {len(at_end)}", bool(at_end) and not any(at_end))  # fmt: skip
        self._sockets(run, end)

    def _after(self, crowd: Crowd) -> list[tuple[float, int, bool, bool]]:
        """Return a crowd's requests after the change: (seconds, client, answered by the old server, opened)."""
        return [(each.at - self.moved_at, each.client, each.origin != NEW_ORIGIN, each.opened) for each in crowd.seen if each.at >= self.moved_at]  # fmt: skip

    def _first(self, run: Run, crowd: Crowd) -> None:
        """Note when clients made their first request on the new address."""
        first: dict[int, float] = {}
        for at, client, old, _ in sorted(self._after(crowd)):
            if not old:
                first.setdefault(client, at)
        if not first:
            words = f"none of {len(crowd.names)} clients within {self.gone + REMAIN:.0f} s"
        else:
            times = sorted(first.values())
            words = f"{times[0]:.1f} s the first, {times[len(times) // 2]:.1f} s half, {times[-1]:.1f} s the last of {len(times)} clients"
        run.findings.fact(f"first request on the new address, {crowd.habit.name}", words)

    def _seconds(self, seen: Iterable[tuple[float, int, bool, bool]], end: float) -> float:
        """Return the area below the share on the old address: requests come at random, so they see time averages."""
        bins: dict[int, list[bool]] = defaultdict(list)
        width = end / 24
        for at, _, old, _ in seen:
            bins[int(at / width)].append(old)
        return sum(sum(each) / len(each) * width for each in bins.values())

    def _error(self, habit: Habit) -> float:
        """Return the standard error of that area: clients move at times of their own, and we see them by requests only."""
        steps, end = 400, self.gone
        mean = second = noise = 0.0
        for i in range(steps):
            at = (i + 0.5) * end / steps
            share = ttl_theory.old_share(at, self.longest, habit.hold, self.p.requests, self.others)
            mean += share * end / steps
            second += 2 * at * share * end / steps
            noise += share * (1 - share) * end / steps
        return math.sqrt((second - mean * mean + noise / self.p.requests) / self.p.clients)

    def _sockets(self, run: Run, end: float) -> None:
        at_end = [each for crowd in self.crowds for each in self._after(crowd) if self.gone <= each[0] < end - 0.2]
        old = [each for each in at_end if each[2]]
        run.findings.enough("requests at the end", len(at_end), trials(STALE))
        row = run.findings.row("all clients on the old address at the end", Estimate.share(len(old), len(at_end)))
        run.findings.check_near(row, STALE, absolute=True)
        if "edge" not in run.recorders.series or not old:
            return
        # By the server's own kernel; two of the exchange's probes may be among them.
        opens = self._opens(run, self.gone, end - 0.2)
        row = run.findings.row("connections opened per request, old server, at the end", opens / len(old))
        # Which of the two kinds that stay made a request is chance.
        run.findings.check_near(row, round(max(STALE, ERRORS * 0.5 / math.sqrt(len(old))), 2), absolute=True)
        after = [each for crowd in self.crowds for each in self._after(crowd) if each[2]]
        run.findings.fact("old server after the change", f"{len(after)} requests, {sum(each[3] for each in after)} of them on a new connection")  # fmt: skip

    def _axis(self) -> Chart:
        p = self.p
        best = ttl_theory.best(p.rate, p.changes_s)
        low, high = min(p.ttl_s) / 3, min(p.changes_s, max(self.longest, best) * 3)
        grid = [low * (high / low) ** (i / 80) for i in range(81)]
        asked = [(t, 100 * (1 - ttl_theory.hit_rate(p.rate, t))) for t in grid]
        wrong = [(t, 100 * ttl_theory.wrong_share(p.rate, t, p.changes_s)) for t in grid]
        both = [(t, 100 * self._both(t)) for t in grid]
        load, stale, total = [], [], []
        for t in p.ttl_s:
            one, other = self._asked(t).scaled(100), self._wrong(t).scaled(100 * t / p.changes_s)
            load.append((t, one.value, one.low, one.high))
            stale.append((t, other.value, other.low, other.high))
            total.append((t, one.value + other.value, one.low + other.low, one.high + other.high))
        return Chart(
            "A short TTL costs questions, a long one old answers",
            [Panel([
                Curve("asked of the authority: 1/(1+λT)", asked, 0), Dots("asked of the authority: 1/(1+λT)", load, 0),
                Curve("old answers: occ·T/2C", wrong, 1), Dots("old answers: occ·T/2C", stale, 1),
                Curve("both", both, 3, dashed=True), Dots("both", total, 3),
            ], y="of all requests, %", height=300)],
            x="time to live T, seconds",
            moments=[Moment(best, f"least of both: T = {best:.3g} s")],
            caption=f"Lines: theory; dots: measured, with 95 % intervals. Each name is asked λ = {p.rate:g} times a "
            f"second and changes once in C = {p.changes_s:g} s. A request counts if it had to wait for the authority, "
            "and if it was sent to the old address. If the second is k times as bad, read C/k for C.",
            log=True,
            low=low,
            high=high,
            name="ttl",
        )  # fmt: skip

    def _leaving(self, run: Run) -> Chart:
        p, end = self.p, self.gone + REMAIN
        width = end / 12
        marks: list[Curve | Dots] = []
        kinds = [
            (crowd.habit.name, crowd.habit.hold, [crowd]) for crowd in self.crowds if math.isfinite(crowd.habit.hold)
        ]
        # Two kinds on one line would hide each other.
        stay = [crowd for crowd in self.crowds if math.isinf(crowd.habit.hold)]
        kinds.append((" or ".join(crowd.habit.name for crowd in stay), math.inf, stay))
        for i, (label, hold, crowds) in enumerate(kinds):
            grid = [end * j / 200 for j in range(201)]
            share = [(t, 100 * ttl_theory.old_share(t, self.longest, hold, p.requests, self.others)) for t in grid]
            marks.append(Curve(label, share, i))
            dots = []
            for j in range(12):
                inside = [old for crowd in crowds for at, _, old, _ in self._after(crowd) if j * width <= at < (j + 1) * width]  # fmt: skip
                if inside:
                    e = Estimate.share(sum(inside), len(inside)).scaled(100)
                    dots.append(((j + 0.5) * width, e.value, e.low, e.high))
            marks.append(Dots(label, dots, i))
        old = [(at, opened) for crowd in self.crowds for at, _, is_old, opened in self._after(crowd) if is_old]
        requests = [(j * width, sum(j * width <= at < (j + 1) * width for at, _ in old) / width) for j in range(12)]
        opens = [(j * width, self._opens(run, j * width, (j + 1) * width) / width) for j in range(12)]
        return Chart(
            "A name moves, and who still goes to the old server",
            [
                Panel(marks, y="requests to the old address, %", height=300, high=104),
                Panel([
                    Curve("requests it served", [*requests, (end, requests[-1][1])], 0, measured=True, steps=True),
                    Curve("connections that its kernel accepted", [*opens, (end, opens[-1][1])], 1, measured=True, steps=True),
                ], y="at the old server, per second", height=150),
            ],
            x="seconds since the change",
            moments=[Moment(self.longest, "T"), Moment(self.gone, "T and the longest hold: the last that ever moves")],
            caption=f"Lines: theory, dots: what {p.clients} clients of each kind did, with 95 % intervals. Below: a "
            "kept connection sends requests, but opens nothing: who counts new connections believes that the old "
            "server is idle sooner than it is.",
            low=0.0,
            high=end,
            name="ttl-ignored",
        )  # fmt: skip

    def _opens(self, run: Run, begin: float, end: float) -> float:
        series = run.recorders.series.get("edge")
        if series is None:
            return math.nan
        # `rise` begins one sample early and ends one late: without the first of them the stretch has its length.
        return series.rise("Tcp.PassiveOpens", self.moved + begin + 1 / HZ, self.moved + end)

    def _fading(self) -> Chart:
        p, longest = self.p, self.longest
        answers = self.answers[longest]
        step = (longest + 1.5) / 10
        dots = []
        for i in range(10):
            inside = [old for at, old in answers if i * step <= at < (i + 1) * step]
            if inside:
                e = Estimate.share(sum(inside), len(inside))
                dots.append(((i + 0.5) * step, e.value * 100, e.low * 100, e.high * 100))
        curve = [
            (at, 100 * ttl_theory.stale_share(p.rate, longest, at)) for at in (j * longest / 50 for j in range(51))
        ]
        return Chart(
            f"After a change old answers fade for as long as the TTL, T = {longest:g} s",
            [Panel([
                Curve("theory: occ·(1 − t/T)", [*curve, (longest + 1.5, 0.0)], 0),
                Dots("answers of the resolver", dots, 1),
            ], y="old answers, %", height=220, high=105)],
            x="seconds since the change",
            caption="A cache that was filled just before the change keeps the old answer longest. Dots: answers of "
            "the resolver, with 95 % intervals.",
            low=0.0,
            high=longest + 1.5,
            name="ttl-fading",
        )  # fmt: skip


def _name(number: int, ttl: float) -> str:
    return f"n{number}.ttl-{ttl:g}.example.com"


async def _ask(name: str, after: float = 0.0) -> str:
    """Return the address of *name*, asked without any memory after some seconds; empty if there is no answer."""
    await asyncio.sleep(after)  # as its caller asks: the pace of a client
    try:
        return (await AsyncStub([RESOLVER]).resolve(name)).rdata[0]
    except StubError:
        return ""


async def _forget(run: Run, stop: asyncio.Event) -> None:
    run.note("injection", "the cache is emptied twice a second")
    while not stop.is_set():
        await run.lab.call("resolver", "POST", "/admin/cache/flush", {"all": True})
        await asyncio.sleep(0.5)  # the pace that the note names
