"""Drill D10 `revocation-data`: the CRL that hosts fetch is unavailable, expired, forged, replayed or truncated."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from drills.drill import Drill
from drills.enrolment import Enrolment, publish, serial_of
from drills.paths import NEW, PATHS, Paths
from drills.rehearsal import HOST, Rehearsal, distinct
from drills.revoke_client import EVERY, LABEL, ORIGIN, ORIGIN_NAME, PARTNER, PORT
from experiments import Control, Lane, Panel, Quantity, Run, Span, parameter
from hostfiles.layout import TRUST_ANCHOR

#: Kinds of defective CRLs (fault ``wrong_crl`` of the CA), and the error that a host must report for each kind.
KINDS = {
    "unavailable": "got 503",
    "expired": "in date",
    "wrong-issuer": "signed by",
    "replayed": "or a later one",
    "truncated": "in DER",
}
#: Name of the health check, and fraction of a CRL's lifetime below which this check fails
#: (`renewal.revocation.ALARM_LEFT`).
CHECK, ALARM_LEFT = "revocation", 0.4
#: Minimum time between the step of the origin's clock and the alarm, in seconds, so that an early alarm is noticed.
MARGIN = 1.5
#: Time beyond the polling interval that a host has to fetch and report a CRL, in seconds, and interval between two
#: looks at a host.
PATIENCE, POLL = 5.0, 0.1


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters of the drill `revocation-data`."""

    rate: float = parameter(100.0, quick=60.0, unit="requests/s", low=1, high=1000, help="half fresh, half kept alive")
    rounds: int = parameter(2, quick=1, low=1, high=20, help="how often each defective CRL is served")
    interval: float = parameter(5.0, quick=1.0, unit="s", low=0.5, high=30, help="hosts request the CRL this often")


@dataclass(frozen=True, slots=True)
class Served:
    """A defective CRL that the CA served; times are in seconds on the run's timeline."""

    kind: str
    begin: float
    end: float
    #: Hosts that reported the expected error.
    reported: frozenset[str]
    #: Hosts that replaced their CRL by the defective one.
    replaced: frozenset[str]


@dataclass(slots=True)
class Ageing:
    """A CRL that grows old while the CA is unavailable; times are in seconds on the run's timeline."""

    #: Time at which `ALARM_LEFT` of the lifetime is left, by the origin's clock.
    due: float
    #: Lifetime of the CRL, in seconds.
    life: float
    #: Time at which the origin's clock was set past nextUpdate.
    expired: float = float("inf")
    #: Time at which the alarm was raised; infinite if it was not raised before nextUpdate.
    alarm: float = float("inf")
    #: Time at which the CA was available again.
    end: float = float("inf")
    #: Time at which the alarm ended.
    cleared: float = float("inf")

    @property
    def left(self) -> float:
        """Percentage of the CRL's lifetime that was left at the alarm; 0 without an alarm."""
        return max(0.0, 100 * (ALARM_LEFT - (self.alarm - self.due) / self.life))


@dataclass(slots=True)
class Client:
    """Requests of a client on all paths; `at` is the time from which the origin refuses a revoked client."""

    ways: Paths
    at: float = float("inf")
    #: Errors before the defective CRLs, on paths that should work.
    early: list[str] = field(default_factory=list)

    def accepted(self, since: float) -> int:
        """Return the number of successful requests since *since*, in seconds on the run's timeline."""
        return sum(not t.error and t.at >= since for t in self.ways.tried)

    def refused(self) -> list[str]:
        """Return the errors of all failed requests."""
        return [t.error for t in self.ways.tried if t.error]


class RevocationData(Drill[Parameters]):
    """Drill in which the CA serves five kinds of defective CRLs, and then none until the current CRL has expired."""

    name = "revocation-data"
    claim = (
        "With a missing or defective CRL, hosts keep the last good one: revoked clients stay refused, valid clients "
        "stay accepted, and an alarm is raised long before the CRL expires."
    )
    says = (
        "Revocation depends on a file that every server must fetch again and again. If a server trusts whatever it "
        "receives, an old list accepts revoked clients again. If a server refuses everyone without a current list, "
        "an outage of the CA is an outage of all services."
    )
    source = (
        "RFC 5280 section 6.3.3 (validation of a CRL) and section 5.2.3 (CRL numbers increase); CA/Browser Forum "
        "Baseline Requirements sections 4.9.7 and 4.9.9; GlobalSign 2016: wrong revocation data was cached for days."
    )
    production = (
        "Check signature, issuer, dates and number of each CRL before use, and replace the file atomically. Raise an "
        "alarm while there is time to act, not at nextUpdate. Decide in advance what a server does after nextUpdate: "
        "continue with the old list, as here, or refuse everyone."
    )
    settings = Parameters
    control = Control(
        "the origin uses each CRL without validation",
        ("the revoked client stays refused", "defective CRLs are rejected"),
    )
    hosts = (HOST, ORIGIN)
    after = 1.0

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.served: list[Served] = []
        self.ageing: Ageing | None = None
        self.revoked: Client | None = None
        self.valid: Client | None = None

    def duration(self) -> float:
        """Return the expected duration in seconds: two orders, a revocation, the defective CRLs, and an old CRL."""
        return self.before + 4 + self.p.interval * (1 + len(KINDS) * self.p.rounds + 3) + 2 * MARGIN + self.after

    def predict(self) -> Mapping[str, Quantity]:
        """Predict that no request of a valid client fails, and when the alarm is raised."""
        return {
            "requests lost": Quantity(0),
            "requests of the valid client refused": Quantity(0),
            "requests of the revoked client accepted": Quantity(0),
            "lifetime of the CRL left at the alarm": Quantity(100 * ALARM_LEFT, "%"),
        }

    async def inject(self, run: Run, stage: Rehearsal) -> None:
        """Revoke one of two clients, serve defective CRLs, and let the last good CRL expire."""
        for host in self.hosts:
            await run.lab.fault(host, "crl_every", seconds=self.p.interval)
        await publish(run, LABEL)
        enrolment = Enrolment()
        self.began = run.now()
        async with enrolment.responding():
            pairs = [await enrolment.obtain([PARTNER]) for _ in range(2)]
        both = [Client(Paths(ORIGIN_NAME, TRUST_ANCHOR, run.now, PORT, pair=p, every=EVERY)) for p in pairs]
        self.revoked, self.valid = both
        try:
            for each in both:
                await run.blocking(each.ways.start)
            await self._revoke(run, stage, serial_of(pairs[0]), self.revoked)
            if self.negative:
                await run.lab.fault(ORIGIN, "crl_unchecked")
            for number in range(self.p.rounds):
                kinds = list(KINDS)
                run.rng.shuffle(kinds)
                for kind in kinds:
                    run.phase(f"CRL {kind}, round {number + 1} of {self.p.rounds}")
                    self.served.append(await self._serve(run, stage, kind))
            await self._age(run, stage)
        finally:
            for each in both:
                await run.blocking(each.ways.stop)
        self.ended = run.now()

    async def _revoke(self, run: Run, stage: Rehearsal, serial: str, client: Client) -> None:
        """Revoke *client*, and wait until the origin refuses it and the hosts have the new CRL."""
        before = {host: (await stage.watch.look(host))["crl"]["number"] for host in self.hosts}
        client.early = client.refused()
        await run.lab.inject(f"{serial[:8]} revoked", "ca", "POST", f"/admin/revoke/{serial}", {"reason": 5}, undo=None)
        for host in self.hosts:
            await self._until(stage, host, lambda body, host=host: body["crl"]["number"] > before[host])  # type: ignore[misc]  # mypy does not infer the type of a default value
        await asyncio.sleep(5 * EVERY)  # requests that were under way are complete
        client.at = run.now()

    async def _serve(self, run: Run, stage: Rehearsal, kind: str) -> Served:
        """Serve a defective CRL until all hosts have reported the error or used this CRL."""
        good = {host: (await stage.watch.look(host))["crl"] for host in self.hosts}
        begin, reported, replaced = run.now(), set[str](), set[str]()

        def done(host: str) -> Callable[[dict[str, Any]], bool]:
            def look(body: dict[str, Any]) -> bool:
                crl = body["crl"]
                if KINDS[kind] in crl["error"]:
                    reported.add(host)
                if crl["number"] < good[host]["number"] or crl["entries"] < good[host]["entries"]:
                    replaced.add(host)
                return host in reported or host in replaced

            return look

        async with run.lab.fault_on("ca", "wrong_crl", kind=kind):
            await asyncio.gather(*(self._until(stage, host, done(host)) for host in self.hosts))
            await asyncio.sleep(3 * EVERY)  # requests show the effect of the CRL
        if replaced:  # the next kind needs a good CRL to start from
            await asyncio.gather(
                *(self._until(stage, h, lambda b, h=h: b["crl"]["entries"] >= good[h]["entries"]) for h in replaced)  # type: ignore[misc]  # mypy does not infer the type of a default value
            )
        return Served(kind, begin, run.now(), frozenset(reported), frozenset(replaced))

    async def _age(self, run: Run, stage: Rehearsal) -> None:
        """Set the origin's clock ahead while there is no CRL: first to the time of the alarm, then past nextUpdate."""
        run.phase("no CRL until the last one has expired")
        await run.lab.fault(ORIGIN, "renewal_off")  # the certificate would be due as well
        async with run.lab.fault_on("ca", "wrong_crl", kind="unavailable"):
            crl = (await stage.watch.look(ORIGIN))["crl"]
            life = crl["next_update"] - crl["this_update"]
            ageing = self.ageing = Ageing(run.now() + MARGIN, life)
            ahead = crl["next_update"] - ALARM_LEFT * life - stage.epoch - ageing.due
            clock = await run.lab.set_clock(ORIGIN, ahead)
            if await self._until(stage, ORIGIN, lambda _: CHECK in stage.watch.active(ORIGIN), 2 * MARGIN):
                ageing.alarm = stage.watch.active(ORIGIN)[CHECK].at
            await run.lab.set_clock(ORIGIN, ahead + ALARM_LEFT * life + 60.0)
            ageing.expired = run.now()
            run.note("observation", "the CRL has expired")
            await asyncio.sleep(self.p.interval + 5 * EVERY)  # the origin works with an expired CRL
            await run.lab.undo(clock)
        ageing.end = run.now()
        if await self._until(stage, ORIGIN, lambda _: CHECK not in stage.watch.active(ORIGIN)):
            ageing.cleared = run.now()

    async def _until(
        self, stage: Rehearsal, host: str, holds: Callable[[dict[str, Any]], bool], more: float = 0.0
    ) -> bool:
        """Look at *host* until *holds* is true of its report; return False after a time-out."""
        end = stage.run.now() + self.p.interval + PATIENCE + more
        while not holds(await stage.watch.look(host)):
            if stage.run.now() > end:
                return False
            await asyncio.sleep(POLL)  # polls: no event signals a change on a host
        return True

    def judge(self, run: Run, stage: Rehearsal) -> None:
        """Check that defective CRLs are rejected and reported, who is refused, and when the alarm is raised."""
        stage.gates(self.began)
        if self.revoked is None or self.valid is None or self.ageing is None:
            return
        check, row, gate, ageing = run.findings.check, run.findings.row, run.findings.gate, self.ageing
        words = "on every path"
        gate("accepted before the revocation", words, ", ".join(self.revoked.early) or words, not self.revoked.early)
        late = {t.path for t in self.revoked.ways.tried if t.error and t.at < self.revoked.at}
        gate("refused after the revocation", words, ", ".join(sorted(late)) or "never", late == set(PATHS))
        self.check_nothing_lost(run, stage)
        accepted, refused = self.revoked.accepted(self.revoked.at), self.valid.refused()
        row("requests of the revoked client accepted", accepted)
        check("the revoked client stays refused", "0 requests accepted", str(accepted), accepted == 0)
        row("requests of the valid client refused", len(refused))
        check("no valid client is refused", "0", distinct(refused), not refused)
        total = len(self.served) * len(self.hosts)
        used = [f"{host}: {each.kind}" for each in self.served for host in sorted(each.replaced)]
        check("defective CRLs are rejected", f"all {total}", distinct(used) if used else f"all {total}",
              not used and total > 0)  # fmt: skip
        silent = [f"{host}: {s.kind}" for s in self.served for host in self.hosts if host not in s.reported]
        check("defective CRLs are reported", f"all {total}", f"not {distinct(silent)}" if silent else f"all {total}",
              not silent and total > 0)  # fmt: skip
        row("lifetime of the CRL left at the alarm", ageing.left, "%")
        before = (100 * ALARM_LEFT - ageing.left) / 100 * ageing.life
        check(
            "alarm before nextUpdate",
            f"with {ALARM_LEFT:.0%} of the lifetime left",
            f"{ageing.left:.1f} % left, {ageing.left / 100 * ageing.life / 60:.0f} min before nextUpdate"
            if ageing.left
            else "no alarm",
            -0.5 <= before <= self.p.interval + PATIENCE + 2 * MARGIN,
        )
        others = [a for a in stage.watch.alarms if a.check == CHECK and a.at < ageing.due - MARGIN]
        check("no alarm while the CRL is fresh", "none", distinct([a.text for a in others]) if others else "none",
              not others)  # fmt: skip
        ends = "once the CA serves a CRL"
        check("the alarm ends", ends, ends if ageing.cleared < float("inf") else "still active",
              ageing.cleared < float("inf"))  # fmt: skip
        stage.facts(self.began, self.ended)
        end = min(ageing.end, self.ended)
        bad = [Span(each.begin, each.end, each.kind, "bad") for each in self.served]
        lanes = [
            Lane("CRL from the CA", [*bad, Span(ageing.due - MARGIN, end, "none", "bad")]),
            Lane(
                "origin's clock",
                [Span(ageing.due - MARGIN, ageing.expired, "old CRL"), Span(ageing.expired, end, "CRL expired", 1)],
            ),
            Lane("revoked client", self.revoked.ways.lane(NEW).spans),
            Lane("valid client", self.valid.ways.lane(NEW).spans),
        ]
        stage.picture(
            "The CA serves defective CRLs, then none",
            "The lane of the CA shows the defective CRLs. At the end the CA serves none, and the origin's clock is set "
            "ahead, first to the time of the alarm and then past nextUpdate. The lanes of the clients show requests on "
            "new connections: green while the origin accepts them, red while it refuses them.",
            Panel(lanes=lanes, y="CRL and clients"),
            shown=(),
        )
