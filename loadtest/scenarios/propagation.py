"""Scenario `propagation`: how a change reaches the secondary and caches, and how a race of writers empties a record."""

import asyncio
import math
import shutil
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

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
from hostfiles.layout import lab_address
from nameserver.notify import DELAY, RETRIES
from stub import AsyncStub, StubError
from theory import propagation as theory

ZONE = "example.com."
PRIMARY, SECONDARY = "ns1", "ns2"
#: Addresses of the primary and of the resolver (a test compares them with the compose file).
PRIMARY_ADDRESS, RESOLVER = (lab_address("20.53"), 53), (lab_address("2.53"), 53)
SECONDARY_ADDRESS = lab_address("30.53")
#: Lifetime of the zone's negative answers in seconds: the last field of the SOA record, since it is below that record's
#: TTL.
NEGATIVE_TTL = 10.0
#: File with the TSIG key that authorizes changes of the zone, and time-out of nsupdate in seconds.
KEY, NSUPDATE_TIMEOUT = Path("/srv/tsig/lab.key"), 10.0
#: Number of names whose cached records differ in age, and number of clients, each with a cached record of its own.
CACHES, CLIENTS = 5, 24
#: How often a changed record is polled, and how often each client queries its name, both as intervals in seconds.
POLL, ASKS = 0.05, 0.2
#: A sequence number larger than that of any query in a server's log.
NEWEST = 10**12
#: Row of the result for changes that the secondary learns only by polling.
POLLED = "lag of the secondary, every NOTIFY lost, with a refresh after 1.6 s"
#: How long the slow writer waits between its check and its write, in seconds.
STALL = 0.5
#: Refresh interval of the zone while all NOTIFY messages are lost, and time from the change of the record to the next
#: refresh, in seconds.  The third NOTIFY would be sent 3.1 s after the change, and so after the refresh.
REFRESH, LEAD = 3, 1.6
#: Delay beyond the predicted arrival of a change, in seconds, after which the change counts as lost.
LATE = 5.0
#: Tolerance for a measured time: relative, and absolute in seconds; the larger one applies.
EXACT, SECONDS = 0.05, 0.2


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters that the user can vary."""

    rtt_ms: float = parameter(100.0, unit="ms", low=20, high=400, help="round-trip time between primary and secondary")
    lost: tuple[int, ...] = parameter(
        (0, 1, 2), quick=(0, 1), low=0, high=3, help="NOTIFY messages that are lost before one arrives"
    )
    repeats: int = parameter(5, quick=2, low=1, high=50, help="changes for each of them")
    polls: int = parameter(3, quick=1, low=1, high=20, help="changes of which every NOTIFY is lost")
    ttl_s: float = parameter(4.0, quick=3.0, unit="s", low=2, high=60, help="TTL of the records")
    gone_s: float = parameter(6.0, quick=5.0, unit="s", low=2, high=60, help="how long the record is gone")


class Propagation(Experiment[Parameters]):
    """Times changes of a zone at its servers and in caches, then lets two writers race for one record."""

    name = "propagation"
    claim = (
        "A change reaches the secondary after NOTIFY and two round trips, and caches after the TTL; if it deletes a "
        "record by mistake, clients are without it for the negative TTL even after it is restored."
    )
    says = (
        "The textbook says that DNS is eventually consistent: changes take time to reach every server and cache. In "
        "practice the servers agree within a second and the caches within a TTL. Mistakes last longer than changes: "
        "in the outage of October 2025, a delayed writer overwrote a newer plan, the clean-up of old plans deleted "
        "it, and the record was empty; negative answers then stayed in caches after the repair."
    )
    source = (
        "RFC 1996 (NOTIFY), RFC 1995 (IXFR), RFC 2136 section 2.4 (prerequisites), RFC 2308 section 5 (negative "
        "caching); AWS, “Summary of the Amazon DynamoDB Service Disruption in the Northern Virginia Region” "
        "(October 2025)."
    )
    production = (
        "Write DNS records with a precondition (UPDATE prerequisites, or the version of a provider's API) so that a "
        "stale writer is refused, and let clean-up jobs refuse to delete what is live. Alert on a name without "
        "addresses. Keep the negative TTL (the last field of the SOA record) short, a minute at most: it is the time "
        "by which every deletion by mistake outlives its repair. Compare the serial numbers of all servers."
    )
    settings = Parameters
    control = Control("the writers send no prerequisites", ("stale plans refused, with prerequisites",))
    paths = (PRIMARY,)
    lessons = (
        Lesson(
            "Primary and secondary are 100 ms apart, and the primary waits 0.1 s before it notifies. How long after a "
            "change does the secondary serve it?",
            "lag of the secondary, 0 NOTIFY lost", "s", 0.2,
        ),
        Lesson(
            "A record is deleted by mistake and restored before its negative answers (10 s) expire. For how long is a "
            "busy client without it?",
            "seconds without the record, per client", "s", 0.5,
        ),
    )  # fmt: skip

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        #: Seconds from a change at the primary to the change at the secondary, keyed by number of lost NOTIFY messages.
        self.lags: dict[int, list[float]] = defaultdict(list)
        #: Lags of the secondary behind the primary in seconds, if it learns of a change only by a refresh.
        self.polled: list[float] = []
        #: Number of SOA queries from the secondary that the primary logged during these changes.
        self.polls = 0
        #: Pairs of (seconds from caching to change, seconds from change to the first answer with the new address).
        self.caches: list[tuple[float, float]] = []
        #: Pairs of (seconds since the record was deleted, whether the client received an address), keyed by client.
        self.asked: dict[int, list[tuple[float, bool]]] = defaultdict(list)
        #: Time of the record's deletion, in seconds since the run began, and seconds from its deletion to its
        #: restoration.
        self.deleted, self.gone = math.inf, math.nan
        #: Number of stale plans refused in the race with prerequisites; None if that race did not take place.
        self.refused: int | None = None
        #: Number of clients without an address in the race with prerequisites.
        self.failures = 0

    def duration(self) -> float:
        """Return the expected duration in seconds."""
        lags = sum(theory.retried_lag(self.p.rtt_ms / 1000, lost, DELAY, RETRIES) + 0.5 for lost in self.p.lost)
        polls = self.p.polls * (REFRESH + LEAD)
        return 3 + self.p.repeats * lags + polls + 4 * self.p.ttl_s + self._watched() + 3

    def _watched(self) -> float:
        """Return for how long clients are observed after the deletion, in seconds."""
        longest = max(self._without(ttl) + ttl for ttl in self._expiries())
        return max(longest, self.p.gone_s) + 1.0

    def _expiries(self) -> list[float]:
        return [self.p.ttl_s * (i + 0.5) / CLIENTS for i in range(CLIENTS)]

    def _without(self, expires: float) -> float:
        return theory.without_record_s(expires, self.p.gone_s, NEGATIVE_TTL)

    def predict(self) -> Mapping[str, Quantity]:
        """Predict the secondary's lag, the caches, and the consequences of the race."""
        rtt = self.p.rtt_ms / 1000
        predicted = {_lag(n): Quantity(theory.retried_lag(rtt, n, DELAY, RETRIES), "s") for n in self.p.lost}
        predicted[POLLED] = Quantity(theory.polled_lag(rtt, LEAD), "s")
        predicted["seconds until the youngest cache has the change"] = Quantity(self.p.ttl_s, "s")
        predicted["cached records: largest difference from T - age"] = Quantity(0.0, "s")
        without = [each for each in map(self._without, self._expiries()) if each]
        predicted["seconds without the record, per client"] = Quantity(fmean(without), "s")
        last = max(self._without(each) + each for each in self._expiries())
        predicted["seconds until the last client has it again"] = Quantity(last, "s")
        predicted["stale plans refused, with prerequisites"] = Quantity(1)
        predicted["queries without an address, with prerequisites"] = Quantity(0)
        return predicted

    # --- measurement ------------------------------------------------------------------------------------------------

    async def measure(self, run: Run) -> None:
        """Time changes at the secondary and in caches, then let two writers race."""
        await run.lab.link("near", "far", rtt_ms=self.p.rtt_ms)
        await self._put(run, "*.lag", "A", "192.0.2.1")
        for repeat, lost in run.interleaved(self.p.lost, self.p.repeats):
            run.phase(f"a change of which {lost} NOTIFY are lost, {repeat + 1} of {self.p.repeats}")
            self.lags[lost].append(await self._change(run, lost, f"192.0.2.{100 + repeat}"))
        await self._refresh(run)
        run.phase("records in caches")
        await self._age(run)
        if shutil.which("nsupdate") is None or not KEY.exists():
            run.findings.leave_out("two writers that race: nsupdate or the key of the zone is missing here")
            return
        await self._put(run, "state.plan", "TXT", "1")
        await self._put(run, "*.plan", "A", "192.0.2.1")
        watching = [asyncio.create_task(self._watch(run, number)) for number in range(CLIENTS)]
        try:
            await asyncio.sleep(self.p.ttl_s + 0.5)  # wait until all clients have cached records of different ages
            run.phase("two writers race without prerequisites")
            await self._race(run, old=1, checked=False)
            self.deleted = run.now()
            await run.until(self.deleted + self.p.gone_s)
            await _nsupdate(*_plan(3, int(self.p.ttl_s)))
            self.gone = run.now() - self.deleted
            run.note("observation", "the record is restored")
            await run.until(self.deleted + self._watched())
            run.phase("two writers race with prerequisites")
            since = run.now()
            self.refused = await self._race(run, old=3, checked=not self.negative)
            await asyncio.sleep(self.p.ttl_s + 0.5)  # wait until every client has queried again after the race
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
            await _nsupdate(*_plan(5, int(self.p.ttl_s)))  # the records must exist, because they are removed at the end
        self.failures = sum(not ok for each in self.asked.values() for at, ok in each if at + self.deleted > since)

    async def _put(self, run: Run, owner: str, rdtype: str, rdata: str) -> None:
        """Replace a record at the primary, and have it removed at the end of the run."""
        path = f"/admin/zones/{ZONE}/records"
        query = f"?name={owner.replace('*', '%2A')}&type={rdtype}"
        undo = Undo(f"{owner} {rdtype} of {PRIMARY}", PRIMARY, "DELETE", f"{path}{query}")
        body = {"name": owner, "type": rdtype, "ttl": int(self.p.ttl_s), "rdata": [rdata]}
        new = undo if undo not in run.lab.undo_log.undos else None
        await run.lab.inject(f"{owner} {rdtype} → {rdata}", PRIMARY, "PUT", path, body, undo=new)

    async def _change(self, run: Run, lost: int, address: str) -> float:
        """Change a record, drop the first *lost* NOTIFY messages, and return the lag of the secondary in seconds."""
        rtt = self.p.rtt_ms / 1000
        if lost:
            await run.lab.link("near", "far", one_way=True, loss=1.0, rtt_ms=self.p.rtt_ms)
        await self._put(run, "*.lag", "A", address)
        if lost:
            # Restore the link after the last NOTIFY that has to be lost and before the next one.
            await asyncio.sleep(DELAY + sum(RETRIES[: lost - 1]) + RETRIES[lost - 1] / 2)
            await run.lab.link("near", "far", one_way=True, loss=0.0, rtt_ms=self.p.rtt_ms)
        return await self._equal(run, run.now() + theory.retried_lag(rtt, lost, DELAY, RETRIES) + LATE)

    async def _refresh(self, run: Run) -> None:
        """Shorten the zone's refresh interval, and measure the lag of changes whose NOTIFY messages are all lost."""
        path = f"/admin/zones/{ZONE}/records"
        apex = await run.lab.call(PRIMARY, "GET", f"{path}?name=%40")
        soa = next(each for each in apex if each["type"] == "SOA")
        words = soa["rdata"][0].split()
        short = {**soa, "rdata": [" ".join([*words[:3], str(REFRESH), str(REFRESH), *words[5:]])]}
        undo = Undo(f"SOA of {PRIMARY}", PRIMARY, "PUT", path, soa)
        await run.lab.inject(f"{ZONE}: refresh after {REFRESH} s", PRIMARY, "PUT", path, short, undo=undo)
        try:
            await self._equal(run, run.now() + DELAY + LATE)
            for repeat in range(self.p.polls):
                run.phase(f"a change of which every NOTIFY is lost, {repeat + 1} of {self.p.polls}")
                self.polled.append(await self._unnoticed(run, f"192.0.2.{200 + repeat}"))
        finally:
            await run.lab.undo(undo)
        await self._equal(run, run.now() + DELAY + LATE)

    async def _unnoticed(self, run: Run, address: str) -> float:
        """Change a record `LEAD` seconds before a refresh, drop all NOTIFY messages, and return the secondary's lag."""
        left = 0.0
        while left < LEAD + SECONDS:
            await asyncio.sleep(max(left, POLL))  # wait for the next refresh
            left = (await _state(run, SECONDARY))["secondary"]["refresh_s"]
        change = run.now() + left - LEAD
        since = (await run.lab.call(PRIMARY, "GET", f"/admin/queries?limit=1&after={NEWEST}"))["next"]
        await run.until(change)
        await run.lab.link("near", "far", one_way=True, loss=1.0, rtt_ms=self.p.rtt_ms)
        await self._put(run, "*.lag", "A", address)
        await asyncio.sleep(DELAY + RETRIES[0] + 0.1)  # wait until two NOTIFY messages are lost
        await run.lab.link("near", "far", one_way=True, loss=0.0, rtt_ms=self.p.rtt_ms)
        lag = await self._equal(run, run.now() + LATE)
        log = await run.lab.call(PRIMARY, "GET", f"/admin/queries?after={since}&limit=1000")
        self.polls += sum(each["qtype"] == "SOA" and each["client"] == SECONDARY_ADDRESS for each in log["queries"])
        return lag

    async def _equal(self, run: Run, end: float) -> float:
        """Wait until both servers have the same zone; return the lag in seconds, or infinity at *end*."""
        while run.now() < end:
            primary, secondary = [await _state(run, server) for server in (PRIMARY, SECONDARY)]
            if primary["serial"] == secondary["serial"]:
                return float(secondary["published"] - primary["published"])
            await asyncio.sleep(POLL)  # polling interval
        return math.inf

    async def _age(self, run: Run) -> None:
        """Cache records of different ages, change them, and measure when the resolver returns the new address."""
        await self._put(run, "*.lag", "A", "192.0.2.2")
        ages = [self.p.ttl_s * i / CACHES for i in range(CACHES)]
        cached = {}
        for number in reversed(range(CACHES)):
            await _address(f"c{number}.lag.{ZONE}")
            cached[number] = time.monotonic()
            await asyncio.sleep(ages[1] if number else 0)  # wait, so that the next record is younger by one step
        await self._put(run, "*.lag", "A", "192.0.2.3")
        changed = time.monotonic()

        async def follow(number: int) -> None:
            while time.monotonic() < changed + self.p.ttl_s + LATE:
                if await _address(f"c{number}.lag.{ZONE}") == "192.0.2.3":
                    self.caches.append((changed - cached[number], time.monotonic() - changed))
                    return
                await asyncio.sleep(POLL)  # polling interval
            self.caches.append((changed - cached[number], math.inf))

        await asyncio.gather(*(follow(number) for number in range(CACHES)))

    async def _watch(self, run: Run, number: int) -> None:
        """Query one name repeatedly; clients start at different times, so that their cached records differ in age."""
        found: list[tuple[float, bool]] = []
        await asyncio.sleep(self.p.ttl_s * number / CLIENTS)  # stagger the starts of the clients
        try:
            while True:
                found.append((run.now(), bool(await _address(f"n{number}.plan.{ZONE}"))))
                await asyncio.sleep(ASKS)  # interval between two queries
        finally:
            self.asked[number] = [(at - self.deleted, ok) for at, ok in found]

    async def _race(self, run: Run, old: int, *, checked: bool) -> int:
        """Let two writers replace plan *old*, the slow one with an older plan; return the number of refused updates.

        Both writers check that the current plan is older than theirs.  The slow writer waits between check and write.
        Then the fast writer cleans up: it deletes the addresses of older plans.
        """

        async def write(plan: int, stall: float) -> bool:
            seen = await _current()
            await asyncio.sleep(stall)  # the delay between this writer's check and its write
            if seen >= plan:
                return False
            return await _nsupdate(
                *([f'prereq yxrrset state.plan.{ZONE} TXT "{seen}"'] if checked else []),
                *_plan(plan, int(self.p.ttl_s)),
            )

        done = await asyncio.gather(write(old + 1, STALL), write(old + 2, 0.0))
        await _nsupdate(
            f"update delete *.plan.{ZONE} A 192.0.2.{old}", f"update delete *.plan.{ZONE} A 192.0.2.{old + 1}"
        )
        run.note("observation", f"plans written: {sum(done)} of 2; addresses of older plans deleted")
        return sum(not each for each in done)

    # --- conclusions ------------------------------------------------------------------------------------------------

    def conclude(self, run: Run) -> None:
        """Compare the secondary's lags, the caches, and the duration of the outage with theory."""
        found = run.findings
        run.raw["lags, s"], run.raw["caches, s"] = dict(self.lags), self.caches
        run.raw["asked"] = dict(self.asked)
        for lost, lags in self.lags.items():
            self._check(run, _lag(lost), Estimate.of(lags))
        if self.polled:
            self._check(run, POLLED, Estimate.of(self.polled))
            name = "SOA queries of the secondary in the primary's log, at least one per change"
            found.check(name, f">= {len(self.polled)}", str(self.polls), self.polls >= len(self.polled))
        self._check(
            run,
            "seconds until the youngest cache has the change",
            max((took for _, took in self.caches), default=math.inf),
        )
        far = max((abs(took + age - self.p.ttl_s) for age, took in self.caches), default=math.inf)
        self._check(run, "cached records: largest difference from T - age", far)
        found.chart(self._lags())
        if self.refused is None:
            return
        outages = [each for each in map(_outage, self.asked.values()) if each is not None]
        found.enough("clients that were without the record", len(outages), CLIENTS // 2)
        lasted = [end - begin for begin, end in outages] or [math.nan]
        mean = Estimate(fmean(lasted), min(lasted), max(lasted), len(outages))
        self._check(run, "seconds without the record, per client", mean)
        self._check(
            run, "seconds until the last client has it again", max((end for _, end in outages), default=math.inf)
        )
        found.fact("the record was gone at the primary, s", round(self.gone, 2))
        row = found.row("stale plans refused, with prerequisites", self.refused)
        found.check(row.name, "1", str(self.refused), self.refused == 1)
        row = found.row("queries without an address, with prerequisites", self.failures)
        found.check(row.name, "0", str(self.failures), self.failures == 0)
        found.chart(self._recovery())

    def _check(self, run: Run, name: str, measured: Estimate | float) -> None:
        """Check a time; the tolerance is the larger of `EXACT` (relative) and `SECONDS`."""
        row = run.findings.row(name, measured)
        run.findings.check_near(row, max(SECONDS, EXACT * (row.predicted or 0.0)), absolute=True)

    def _recovery(self) -> Chart:
        end, p = self._watched() - 0.5, self.p
        grid = [end * i / 150 for i in range(151)]
        theory_line = [(at, 100 * theory.share_without_record(at, p.gone_s, p.ttl_s, NEGATIVE_TTL)) for at in grid]
        measured = []
        for at in grid:
            known = [ok for each in self.asked.values() for ok in [_known(each, at)] if ok is not None]
            measured.append((at, 100 * sum(not ok for ok in known) / max(1, len(known))))
        return Chart(
            "Negative answers outlive the repair of a deleted record",
            [
                Panel(
                    [
                        Curve("theory", theory_line, 0, dashed=True),
                        Curve("measured", measured, 1, measured=True, steps=True),
                    ],
                    y="clients without the record, %",
                    height=240,
                    high=105,
                )
            ],
            x="seconds since the record was deleted",
            moments=[Moment(self.gone if math.isfinite(self.gone) else p.gone_s, "restored at the primary")],
            caption="Each client queries a name of its own through the resolver. Records live for "
            f"{p.ttl_s:g} s in its cache, negative answers for {NEGATIVE_TTL:g} s.",
            low=0.0,
            high=end,
            name="propagation",
        )

    def _lags(self) -> Chart:
        rtt = self.p.rtt_ms / 1000
        line = [(float(n), theory.retried_lag(rtt, n, DELAY, RETRIES)) for n in self.p.lost]
        dots = [
            (float(n), *((e := Estimate.of(lags)).value, e.low, e.high))
            for n, lags in sorted(self.lags.items())
            if max(lags) < math.inf
        ]
        return Chart(
            "A lost NOTIFY delays the secondary until the next one",
            [
                Panel(
                    [Curve("theory", line, 0, dashed=True), Dots("measured", dots, 1)],
                    y="lag of the secondary, s",
                    height=200,
                )
            ],
            x="NOTIFY messages lost",
            caption="The primary repeats NOTIFY after 1, 2, 4, 8 and 16 s; then only the refresh interval of the SOA "
            "record helps. Dots are medians; the bars span all changes.",
            whole=True,
            low=-0.2,
            high=max(self.p.lost) + 0.2,
            name="propagation-lag",
        )


def _lag(lost: int) -> str:
    return f"lag of the secondary, {lost} NOTIFY lost"


def _outage(asked: list[tuple[float, bool]]) -> tuple[float, float] | None:
    """Return when a client first had no address and when it had one again; None if it always had one."""
    begin = next((at for at, ok in asked if at > 0 and not ok), None)
    if begin is None:
        return None
    return begin, next((at for at, ok in asked if at > begin and ok), math.inf)


def _known(asked: list[tuple[float, bool]], at: float) -> bool | None:
    """Return the outcome of a client's last query before *at*; None if the client had sent none."""
    return next((ok for when, ok in reversed(asked) if when <= at), None)


async def _state(run: Run, server: str) -> dict[str, Any]:
    zones = await run.lab.call(server, "GET", "/admin/zones")
    found: dict[str, Any] = next(each for each in zones if each["zone"] == ZONE)
    return found


async def _address(name: str) -> str:
    """Return the address of *name* from the resolver, bypassing any local cache; "" if the name has no address."""
    try:
        return (await AsyncStub([RESOLVER], timeout=1.0).resolve(name)).rdata[0]
    except StubError:
        return ""


async def _current() -> int:
    """Return the number of the plan that the primary currently publishes."""
    answer = await AsyncStub([PRIMARY_ADDRESS]).resolve(f"state.plan.{ZONE}", "TXT")
    return int(answer.rdata[0].strip('"'))


def _plan(number: int, ttl: int) -> tuple[str, ...]:
    """Return the commands for nsupdate that replace the current plan by plan *number*."""
    return (
        f"update delete *.plan.{ZONE} A",
        f"update add *.plan.{ZONE} {ttl} A 192.0.2.{number}",
        f"update delete state.plan.{ZONE} TXT",
        f'update add state.plan.{ZONE} {ttl} TXT "{number}"',
    )


async def _nsupdate(*commands: str) -> bool:
    """Send one UPDATE with BIND's nsupdate; return True if it was accepted, False if a prerequisite was not met.

    Raises:
        OSError: nsupdate failed for another reason.
    """
    script = "\n".join((f"server {PRIMARY_ADDRESS[0]}", f"zone {ZONE}", *commands, "send", ""))
    child = await asyncio.create_subprocess_exec(
        "nsupdate",
        "-k",
        str(KEY),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    async with asyncio.timeout(NSUPDATE_TIMEOUT):
        _, errors = await child.communicate(script.encode())
    if child.returncode and b"NXRRSET" not in errors:
        raise OSError(f"nsupdate: {errors.decode(errors='replace').strip()[:200]}")
    return child.returncode == 0
