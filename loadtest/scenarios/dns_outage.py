"""Scenario `dns-outage`: caches hide an outage of all name servers until records expire, or longer."""

import asyncio
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments import Chart, Control, Curve, Dots, Estimate, Experiment, Lesson, Panel, Quantity, Run, Undo, parameter
from experiments.estimate import trials
from hostfiles.layout import lab_address
from scenarios.instruments.local_resolvers import PROGRAMS, STALE_S, Resolver, running
from stub import AsyncStub, StubError
from theory import outage, ttl

ZONE = "example.com."
#: Name servers of the zone, the primary first, and the primary's address (a test compares it with the compose file).
PRIMARY, SECONDARY = SERVERS = ("ns1", "ns2")
PRIMARY_ADDRESS = (lab_address("20.53"), 53)
#: Maximum time until the records reach the secondary, and interval at which the secondary is polled, both in seconds.
ARRIVES, POLL = 5.0, 0.05
#: Address in all records (RFC 5737).
ADDRESS = "192.0.2.53"
#: A number higher than that of any query in a server's log.
NEWEST = 10**12
#: How long a client waits for an answer, in seconds.
PATIENCE = 4.0
#: Number of queries per name and TTL during the outage: to a resolver without serve-stale, and to one with serve-stale.
DENSE, SPARSE = 3, 1
#: How long the outage lasts beyond the TTL, in seconds; a resolver without serve-stale must not answer in this time.
AFTER = 1.2
#: Number of intervals into which each curve is divided, and the largest deviation of an interval in percentage points.
BINS, POINTS = 4, 5.0
#: Number of names queried while one of two servers is down: before resolvers have noticed the failure, and afterwards.
FIRST, HALF = 15, 40
#: Seconds after which resolvers prefer the other server.  With Unbound, some of the first clients wait longer.
NOTICE = 2.0
#: For queries through the lossy link: time-out of one attempt in seconds, and queries per second.
TRY, RATE = 0.2, 250.0
#: Largest absolute error of a share of answered queries.
SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters that the user can vary."""

    ttl_s: tuple[float, ...] = parameter(
        (10.0, 30.0), quick=(4.0, 8.0), unit="s", low=3, high=300, help="times to live, each for names of its own"
    )
    rate: float = parameter(0.5, unit="queries/s", low=0.05, high=20, help="queries per second for each name")
    names: int = parameter(150, quick=100, low=50, high=2000, help="names per resolver and TTL")
    loss: float = parameter(0.9, low=0.1, high=0.95, help="share of packets lost in the partial outage")
    tries: int = parameter(7, low=1, high=20, help="tries per query in the partial outage")
    queries: int = parameter(2000, quick=900, low=400, high=20_000, help="queries in the partial outage")
    resolver: str = parameter("", help="address of one more resolver to test, without serve-stale")


class DnsOutage(Experiment[Parameters]):
    """Queries resolvers that hold cached records of every age, while one or all name servers of the zone are down."""

    name = "dns-outage"
    claim = (
        "If all name servers of a zone are down for t seconds, a cache answers occ·(1 − t/T) of the queries, and "
        "with serve-stale nearly all; if one of two is down, all are answered."
    )
    says = (
        "The textbook says that a dead name server takes down everything that depends on its names, and that a short "
        "TTL makes it worse. In practice a zone has several servers, and resolvers go on to the next one; records "
        "that are cached are answered until they expire; and resolvers that serve expired answers hide an outage of "
        "hours. Most of them ship with this switched off."
    )
    source = (
        "G. Moura et al., “When the Dike Breaks: Dissecting DNS Defenses During DDoS” (IMC 2018); RFC 8767 "
        "(serve-stale); RFC 9520 (caching of failures)."
    )
    production = (
        "Have at least two name servers that do not share a network, a provider or a deployment. Choose a TTL that is "
        "longer than your reaction time to an outage, half an hour rather than half a minute, for names that do not "
        "have to move quickly. Switch on serve-stale in your own resolvers: Unbound `serve-expired: yes` with "
        "`serve-expired-client-timeout: 1800`, BIND `stale-answer-enable yes`. Retry in clients: with nine of ten "
        "packets lost, seven tries still resolve half of the names. But bound the retries, since they are what "
        "keeps an overloaded server down."
    )
    settings = Parameters
    control = Control("the name servers stay up", ("answers of firstbyte after the TTL",))
    paths = (PRIMARY,)
    lessons = (
        Lesson(
            "A link loses 90 % of the packets to a name server, and clients try 7 times. Which share of the queries is "
            "answered?",
            "answered through a lossy link", "of queries", 0.05,
        ),
        Lesson(
            "One of a zone's two name servers is dead. Which share of the queries does a resolver answer?",
            "answered by firstbyte, 1 of 2 servers down", "of queries", 0.05,
        ),
        Lesson(
            "All servers are down, and every record has been in the resolver's cache. Which share of the queries is "
            "answered with serve-stale?",
            "answered by firstbyte, serve-stale", "of queries", 0.05,
        ),
    )  # fmt: skip

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.resolvers: list[Resolver] = []
        #: Pairs of (seconds since the last record was cached, whether the query was answered), keyed by resolver and
        #: TTL.
        self.answers: dict[tuple[str, float], list[tuple[float, bool]]] = defaultdict(list)
        #: With one server down: whether each query was answered and after how many seconds, keyed by resolver.
        self.half: dict[str, list[tuple[bool, float]]] = defaultdict(list)
        #: Like `half`, but for the queries that were sent before the resolver had noticed the failure.
        self.first: dict[str, list[tuple[bool, float]]] = defaultdict(list)
        #: Whether each query through the lossy link was answered.
        self.lossy: list[bool] = []
        #: How late each query through the lossy link was sent, in seconds.
        self.late: list[float] = []
        #: Number of queries that the name servers logged during the outage, keyed by resolver.
        self.upstream: Counter[str] = Counter()
        #: Number of records that could not be cached before the outage.
        self.unfilled = 0

    @property
    def longest(self) -> float:
        """The longest TTL, in seconds."""
        return max(self.p.ttl_s)

    def _cycle(self, ttl_s: float) -> float:
        """Return the mean time between a cache's fetches of a name queried λ times per second, in seconds: T + 1/λ."""
        return ttl_s + 1 / self.p.rate

    def duration(self) -> float:
        """Return the expected duration in seconds.

        It is the sum of the phases: resolver start-up, cache warm-up, outage, and lossy link.
        """
        outage_s = self._cycle(self.longest) + self.longest + AFTER + PATIENCE
        return 4 + NOTICE + PATIENCE / 2 + outage_s + self.p.queries / RATE + self.p.tries * TRY

    def predict(self) -> Mapping[str, Quantity]:
        """Predict the shares of answered queries, including those of resolver programs that may not be installed."""
        predicted: dict[str, Quantity] = {}
        share = "of queries"
        kept = min(ttl.hit_rate(self.p.rate, each + STALE_S) for each in self.p.ttl_s)
        for name in (*(each.name for each in PROGRAMS), *([self.p.resolver] if self.p.resolver else [])):
            half = outage.resolved_share_of_servers(down=1, servers=2, tries=2)
            predicted[f"answered by {name}, 1 of 2 servers down"] = Quantity(half, share)
            for ttl_s in self.p.ttl_s:
                predicted[f"distance of {name} from the curve, T = {ttl_s:g} s"] = Quantity(0.0, "points")
            predicted[f"answers of {name} after the TTL"] = Quantity(0.0, share)
            predicted[f"answered by {name}, serve-stale"] = Quantity(kept, share)
        predicted["answered through a lossy link"] = Quantity(outage.resolved_share(self.p.loss, self.p.tries), share)
        return predicted

    # --- measurement ------------------------------------------------------------------------------------------------

    async def measure(self, run: Run) -> None:
        """Fill the caches, make the name servers drop all answers, and query; then query through a lossy link."""
        installed = [each for each in PROGRAMS if each.installed]
        for each in PROGRAMS:
            if each not in installed:
                run.findings.leave_out(f"{each.name}: not installed here")
        for ttl_s in self.p.ttl_s:
            await self._publish(run, ttl_s)
        run.phase("starting the resolvers")
        async with running(installed) as started:
            self.resolvers = list(started)
            if self.p.resolver:
                self.resolvers.append(
                    Resolver(self.p.resolver, (self.p.resolver, 53), "exact", stale=False, label="own")
                )
            async with _silent(run, (PRIMARY,), off=self.negative):
                run.phase("one of two name servers is down")
                await self._lose_one()
            run.phase("filling the caches with records of every age")
            await self._fill(run)
            async with _silent(run, SERVERS, off=self.negative):
                run.phase("all name servers are down")
                await self._outage(run)
        run.phase(f"a link that loses {self.p.loss:.0%}")
        await run.lab.link("access", "near", one_way=True, loss=self.p.loss)
        began = run.now()
        self.lossy = await asyncio.gather(*(self._through_loss(run, began, i) for i in range(self.p.queries)))

    async def _publish(self, run: Run, ttl_s: float) -> None:
        """Publish the records with a TTL, and wait until the secondary has them."""
        owner, path = f"*.down-{ttl_s:g}", f"/admin/zones/{ZONE}/records"
        undo = Undo(f"{owner} of {PRIMARY}", PRIMARY, "DELETE", f"{path}?name=%2A.down-{ttl_s:g}&type=A")
        body = {"name": owner, "type": "A", "ttl": int(ttl_s), "rdata": [ADDRESS]}
        answer = await run.lab.inject(f"{owner} at {PRIMARY}", PRIMARY, "PUT", path, body, undo=undo)
        end = run.now() + ARRIVES
        while run.now() < end:
            zones = await run.lab.call(SECONDARY, "GET", "/admin/zones")
            if any(each["zone"] == ZONE and each["serial"] >= int(answer["serial"]) for each in zones):
                return
            await asyncio.sleep(POLL)  # polling interval
        run.findings.gate(f"records at {SECONDARY}", f"within {ARRIVES:g} s", "not in time", ok=False)

    async def _lose_one(self) -> None:
        """Query names while one of two servers is down; the first queries let each resolver notice the failure."""

        async def ask(resolver: Resolver, after: float, name: str, found: list[tuple[bool, float]]) -> None:
            await asyncio.sleep(after)  # spreads the queries, so that one time-out does not delay all of them
            began = asyncio.get_running_loop().time()
            answered = await _resolve(resolver, f"{name}.{resolver.label}.down-{self.longest:g}.{ZONE}")
            found.append((answered, asyncio.get_running_loop().time() - began))

        async with asyncio.TaskGroup() as group:
            for each in self.resolvers:
                for number in range(FIRST):
                    group.create_task(ask(each, number * 0.03, f"first{number}", self.first[each.name]))
                for number in range(HALF):
                    group.create_task(ask(each, NOTICE + number * 0.03, f"half{number}", self.half[each.name]))

    async def _fill(self, run: Run) -> None:
        """Query each name once, spread evenly over T + 1/λ, so that a share λT/(1+λT) of the records is cached."""
        end = run.now() + max(self._cycle(each) for each in self.p.ttl_s)

        async def fetch(resolver: Resolver, ttl_s: float, number: int) -> None:
            await run.until(end - self._cycle(ttl_s) * (1 - number / self.p.names))
            self.unfilled += not await _resolve(resolver, self._name(resolver, ttl_s, number))

        async with asyncio.TaskGroup() as group:
            for resolver in self.resolvers:
                for ttl_s in self.p.ttl_s:
                    for number in range(self.p.names):
                        group.create_task(fetch(resolver, ttl_s, number))
        self.filled = end

    def _name(self, resolver: Resolver, ttl_s: float, number: int) -> str:
        return f"n{number}.{resolver.label}.down-{ttl_s:g}.{ZONE}"

    async def _outage(self, run: Run) -> None:
        """Query the names during the outage, and count the queries that reach the name servers."""
        following = {}
        for server in SERVERS:
            following[server] = (await run.lab.call(server, "GET", f"/admin/queries?limit=1&after={NEWEST}"))["next"]
        began = run.now()
        async with asyncio.TaskGroup() as group:
            counting = group.create_task(self._count(run, following))
            async with asyncio.TaskGroup() as sampling:
                for resolver in self.resolvers:
                    for ttl_s in self.p.ttl_s:
                        sampling.create_task(self._sample(run, resolver, ttl_s, began))
            counting.cancel()

    async def _count(self, run: Run, following: dict[str, int]) -> None:
        """Follow the servers' query logs, each of which holds 2,000 entries."""
        while True:
            for server in SERVERS:
                log = await run.lab.call(server, "GET", f"/admin/queries?after={following[server]}&limit=2000")
                following[server] = log["next"]
                self.upstream.update(_label(each["qname"]) for each in log["queries"])
            await asyncio.sleep(1.0)  # polling interval

    async def _sample(self, run: Run, resolver: Resolver, ttl_s: float, began: float) -> None:
        """Query the names of one TTL until the TTL has passed, in an order in which successive names differ in age."""
        step = ttl_s / (self.p.names * (SPARSE if resolver.stale else DENSE))
        stride = _stride(self.p.names)

        async def ask(number: int) -> None:
            await run.until(began + number * step)
            at = run.now() - self.filled
            name = self._name(resolver, ttl_s, number * stride % self.p.names)
            self.answers[resolver.name, ttl_s].append((at, await _resolve(resolver, name)))

        async with asyncio.TaskGroup() as group:
            for number in range(math.ceil((ttl_s + AFTER) / step)):
                group.create_task(ask(number))

    async def _through_loss(self, run: Run, began: float, number: int) -> bool:
        await run.until(began + number / RATE)
        self.late.append(run.now() - began - number / RATE)
        stub = AsyncStub([PRIMARY_ADDRESS], timeout=TRY, attempts=self.p.tries)
        try:
            return bool((await stub.resolve(f"l{number}.lossy.down-{self.longest:g}.{ZONE}")).rdata)
        except StubError:
            return False

    # --- conclusions ------------------------------------------------------------------------------------------------

    def conclude(self, run: Run) -> None:
        """Compare each resolver's answers during the outage with the predicted curve; check the other shares."""
        found, total = run.findings, len(self.resolvers) * len(self.p.ttl_s) * self.p.names
        run.raw["answers"] = {f"{name}, T = {t:g} s": each for (name, t), each in self.answers.items()}
        found.gate(
            "records that could not be cached", "<= 1 %", f"{self.unfilled} of {total}", self.unfilled <= total / 100
        )
        found.enough("queries through the lossy link", len(self.lossy), trials(SHARE))
        late = max(self.late, default=math.inf)
        found.gate("queries through the lossy link, sent late", f"< {TRY / 2:g} s", f"{late:.3f} s", late < TRY / 2)
        for resolver in self.resolvers:
            self._conclude_one(run, resolver)
        row = found.row("answered through a lossy link", Estimate.share(sum(self.lossy), len(self.lossy)))
        found.check_near(row, SHARE, absolute=True)
        found.chart(self._curves())

    def _conclude_one(self, run: Run, resolver: Resolver) -> None:
        found, name = run.findings, resolver.name
        every = {ttl_s: sorted(self.answers[name, ttl_s]) for ttl_s in self.p.ttl_s}
        if resolver.stale:
            oks = [ok for answers in every.values() for _, ok in answers]
            row = found.row(f"answered by {name}", Estimate.share(sum(oks), len(oks)))
            found.check_near(row, SHARE, absolute=True)
            return
        half = self.half[name]
        answered = Estimate.share(sum(ok for ok, _ in half), len(half))
        found.check_near(found.row(f"answered by {name}, 1 of 2 servers down", answered), SHARE, absolute=True)
        for what, answers in (("first", self.first[name]), ("later", half)):
            slowest = round(max((took for _, took in answers), default=math.nan), 2)
            found.fact(f"slowest of the {what} answers of {name} with 1 of 2 servers down, s", slowest)
        late: list[bool] = []
        for ttl_s, sampled in every.items():
            far = max((100 * abs(got - want) for _, got, want, _ in self._binned(resolver, ttl_s)), default=math.nan)
            row = found.row(f"distance of {name} from the curve, T = {ttl_s:g} s", far)
            found.check_near(row, POINTS, absolute=True)
            late += [ok for at, ok in sampled if at > ttl_s + 1]
        row = found.row(f"answers of {name} after the TTL", Estimate.share(sum(late), len(late)))
        found.check(row.name, "0", f"{sum(late)} of {len(late)}", not any(late))
        found.fact(f"queries that {name} sent to the silent servers", self.upstream[resolver.label])

    def _rounding(self, resolver: Resolver) -> ttl.Rounding:
        """Return how the resolver rounds lifetimes; Unbound 1.22 rounds down, and 1.17 rounds up."""
        if resolver.rounding != "up":
            return resolver.rounding

        def distance(rounding: ttl.Rounding) -> float:
            """Return the difference between the measured and the expected number of answers, over the whole outage."""
            return abs(
                sum(
                    ok - min(1.0, max(0.0, (ttl.lifetime(ttl_s, rounding) - at) / self._cycle(ttl_s)))
                    for ttl_s in self.p.ttl_s
                    for at, ok in self.answers[resolver.name, ttl_s]
                )
            )

        roundings: tuple[ttl.Rounding, ...] = ("up", "down")
        return min(roundings, key=distance)

    def _binned(self, resolver: Resolver, ttl_s: float) -> list[tuple[float, float, float, int]]:
        """Return the shares of answered queries for each interval of the outage's first T seconds, T being the TTL.

        Each element is a tuple: mean time of the interval's queries in seconds since the last record was cached,
        measured share, predicted share, and number of queries.  The predicted share is the mean of the theoretical
        curve at the times of these queries, for the resolver's mean cache lifetime.
        """
        bins: dict[int, list[tuple[float, bool]]] = defaultdict(list)
        for at, ok in self.answers[resolver.name, ttl_s]:
            bins[int(BINS * at / ttl_s)].append((at, ok))
        life = ttl.lifetime(ttl_s, self._rounding(resolver))
        found = []
        for number in range(BINS):
            if each := bins.get(number):
                want = sum(min(1.0, max(0.0, (life - at) / self._cycle(ttl_s))) for at, _ in each) / len(each)
                middle = sum(at for at, _ in each) / len(each)
                found.append((middle, sum(ok for _, ok in each) / len(each), want, len(each)))
        return found

    def _curves(self) -> Chart:
        end = self.longest + AFTER
        panels = []
        for ttl_s in sorted(self.p.ttl_s, reverse=True):
            steps = [end * i / 60 for i in range(61)]
            curve = [(at, 100 * outage.answered_share(self.p.rate, ttl_s, at)) for at in sorted({*steps, ttl_s})]
            marks: list[Curve | Dots] = [Curve("theory: occ·(1 − t/T)", curve, 0)]
            for colour, resolver in enumerate((each for each in self.resolvers if not each.stale), start=1):
                dots = []
                for at, got, _, n in self._binned(resolver, ttl_s):
                    share = Estimate.share(round(got * n), n).scaled(100)
                    dots.append((at, share.value, share.low, share.high))
                marks.append(Dots(resolver.name, dots, colour))
            stale = [each for each in self.resolvers if each.stale]
            answers = sorted(x for each in stale for x in self.answers[each.name, ttl_s])
            width = max(1, len(answers) // BINS)
            dots = []
            for i in range(0, len(answers) - width + 1, width):
                part = answers[i : i + width]
                share = Estimate.share(sum(ok for _, ok in part), len(part)).scaled(100)
                dots.append((sum(at for at, _ in part) / len(part), share.value, share.low, share.high))
            marks.append(Dots("all, with serve-stale", dots, 4))
            panels.append(Panel(marks, y=f"answered, %, T = {ttl_s:g} s", height=220, high=108))
        return Chart(
            "While all name servers are down, a cache answers until its records expire",
            panels,
            x="seconds since the name servers stopped answering",
            caption="Line: theory, where occ = λT/(1+λT) is the share of names that are cached, with λ = "
            f"{self.p.rate:g} queries per second for each name and T the time to live. Dots: shares of answered "
            "queries with 95 % intervals. BIND rounds lifetimes to whole seconds down, Unbound up.",
            low=0.0,
            high=end,
            name="dns-outage",
        )


class _silent:  # noqa: N801 - used like a function: `async with _silent(…)`
    """Make name servers drop all answers during an ``async with`` block; do nothing if *off* is true."""

    def __init__(self, run: Run, servers: Sequence[str], *, off: bool) -> None:
        self._run, self._servers = run, () if off else servers
        self._undos: list[Undo] = []

    async def __aenter__(self) -> None:
        lab = self._run.lab
        self._undos = await asyncio.gather(
            *(lab.fault(each, "drop_answers", probability=1.0) for each in self._servers)
        )

    async def __aexit__(self, *_: object) -> None:
        for undo in self._undos:
            await asyncio.shield(self._run.lab.undo(undo))


async def _resolve(resolver: Resolver, name: str) -> bool:
    """Send one query for *name* to *resolver*; return whether an answer arrives within `PATIENCE` seconds."""
    try:
        answer = await AsyncStub([resolver.address], timeout=PATIENCE, attempts=1).resolve(name)
    except StubError:
        return False
    return answer.rdata == (ADDRESS,)


def _label(qname: str) -> str:
    """Return the label in a queried name that identifies the resolver; "" if the name has no such label."""
    labels = qname.rstrip(".").lower().split(".")
    return labels[-4] if len(labels) >= 4 else ""


def _stride(names: int) -> int:
    """Return a number coprime to *names* and near 0.618·*names*, so that successive multiples are spread evenly."""
    return next(each for each in range(round(names * 0.618), 2 * names) if math.gcd(each, names) == 1)
