"""Drill D1 `leaf-expiry`: renewal is switched off, and the edge's certificate expires under load."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from drills.drill import Drill
from drills.lifetimes import JITTER, Scale, shorten
from drills.paths import NEW, PATHS, POOLED, RESUMED, Paths
from drills.rehearsal import HOST, NAME, Rehearsal, by_cause
from experiments import Control, Lesson, Panel, Quantity, Run, parameter
from hostfiles.layout import TRUST_ANCHOR

#: Duration of the load after the recovery, in seconds.
RECOVERED = 3.0
#: Tolerance around notAfter, in seconds, within which both outcomes are accepted: notAfter has a resolution of 1 s, and
#: a handshake takes some time.
BLUR = 1.2
#: Uncertainty of an alarm's time, as a fraction of the lifetime: hosts are polled only four times per second.
UNCERTAIN = 0.06
#: Maximum time until the edge renews after renewal is switched on again, in seconds.
RECOVERY = 4.0


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters of the drill `leaf-expiry`."""

    rate: float = parameter(100.0, quick=60.0, unit="requests/s", low=1, high=1000, help="half fresh, half kept alive")
    life: float = parameter(20.0, quick=12.0, unit="s", low=8, high=120, help="47 nominal days last this long")
    expired: float = parameter(8.0, quick=6.0, unit="s", low=3, high=60, help="from expiry until renewal is allowed")


class LeafExpiry(Drill[Parameters]):
    """Drill in which the edge does not renew until its certificate has expired, and is then allowed to renew."""

    name = "leaf-expiry"
    claim = "An expiry raises an alarm in time, new handshakes fail afterwards, and the next renewal ends the outage."
    says = (
        "December 2018: an expired certificate in Ericsson's core software cut off the data service of 32 million O2 "
        "customers for a day. February 2020: Microsoft Teams was down for three hours. April 2023: Starlink, for the "
        "same reason. In each case the end had been printed in the certificate since its first day."
    )
    source = (
        "RFC 5280 sections 4.1.2.5 and 6.1.3 (validity and when it is checked); RFC 8446 sections 4.6.1 and 2.2 (a "
        "resumed session sends no certificate); Let's Encrypt integration guide (renew at two thirds of life)."
    )
    production = (
        "Alarm on the renewal that did not happen, not on the days that are left: the renewal is due at two thirds of "
        "life, so an alarm a twentieth of life later leaves 28 % of it to act, 13 of 47 days. A quiet dashboard does "
        "not mean that all is well: open connections and resumed sessions never check the certificate again, so "
        "errors rise slowly after an expiry. To end those paths as well, limit the age of connections and replace the "
        "listening context."
    )
    settings = Parameters
    control = Control("the alarm is switched off, as it was in every one of these outages", ("alarm before notAfter",))
    lessons = (
        Lesson(
            "An alarm on an overdue renewal comes at two thirds of the life plus a grace; here a third of the life is "
            "4 s, and the grace 1.5 s. At which share of its life of 12 s does the certificate raise the alarm?",
            "alarm at this share of life", "", 0.06,
        ),
        Lesson(
            "The certificate has expired, and a valid one follows after 6 s. For how long does a connection that was "
            "open before still get responses?",
            f"exposure, {POOLED}", "s", 0.8,
        ),
        Lesson(
            "For how long do new handshakes still succeed after the end?", f"exposure, {NEW}", "s", BLUR,
        ),
    )  # fmt: skip
    after = 0.0  # `inject` already includes load after the recovery

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.scale = Scale(parameters.life)
        self.ways: Paths | None = None
        #: Time at which the edge received its certificate, in seconds on the run's timeline.
        self.issued = 0.0
        #: Times of four events, in seconds on the run's timeline: renewal switched off, certificate expired, renewal
        #: switched on again, certificate renewed.
        self.off = self.end = self.allowed = self.renewed = float("inf")

    def duration(self) -> float:
        """Return the expected duration in seconds: baseline, one lifetime, time after expiry, and recovery."""
        return self.before + self.p.life + self.p.expired + RECOVERED + 6

    def predict(self) -> Mapping[str, Quantity]:
        """Predict the time of the alarm, and for how long each path accepts the expired certificate."""
        return {
            "alarm at this share of life": Quantity(self.scale.alarm),
            f"exposure, {NEW}": Quantity(0.0, "s"),
            f"exposure, {POOLED}": Quantity(self.p.expired, "s"),
            f"exposure, {RESUMED}": Quantity(self.p.expired, "s"),
        }

    async def measure(self, run: Run) -> None:
        """Shorten the lifetime of the edge's certificate, then inject under load, with requests on all paths."""
        await shorten(run, (HOST,), self.scale)
        ways = self.ways = Paths(NAME, TRUST_ANCHOR, run.now)
        await run.blocking(ways.start)
        try:
            await super().measure(run)
        finally:
            await run.blocking(ways.stop)

    async def inject(self, run: Run, stage: Rehearsal) -> None:
        """Switch renewal off, let the certificate expire, and switch renewal on again."""
        if self.negative:
            await run.lab.fault(HOST, "alarm_off")
        fault = await run.lab.fault(HOST, "renewal_off")
        self.off = run.now()
        body = await stage.watch.look(HOST)
        serial, self.end, self.issued = body["serial"], stage.at(body["not_after"]), stage.at(body["issued"])
        run.phase(f"renewal is off; certificate {serial[:8]} ends in {self.end - run.now():.0f} s")
        await run.until(self.end)
        run.note("injection", "notAfter")
        run.phase("expired")
        await asyncio.sleep(self.p.expired)  # measure the effects of the expired certificate
        await run.lab.undo(fault)
        self.allowed = run.now()
        run.phase("renewal is allowed again")
        self.renewed = await stage.watch.until_renewed(HOST, serial, 20.0)
        await asyncio.sleep(RECOVERED)  # the load shows whether the service has recovered

    def judge(self, run: Run, stage: Rehearsal) -> None:
        """Check the alarm, the rejected handshakes, the recovery, and the exposure on each path."""
        ways = self.ways
        if ways is None:
            return
        stage.gates(self.off)
        self._alarm(run, stage)
        begin, end = self.end + BLUR, self.allowed - 0.1
        check = run.findings.check
        early = stage.lost(self.off, self.end - 0.3)
        check("requests lost before notAfter", "0", by_cause(early), not early)
        fresh = stage.fresh(begin, end)
        refused, accepted = sum("expired" in r.error for r in fresh), sum(not r.error for r in fresh)
        expected, got = (
            "all refused: certificate has expired",
            f"{refused} of {len(fresh)} refused so, {accepted} accepted",
        )
        check("new handshakes after notAfter", expected, got, bool(fresh) and refused == len(fresh))
        probes = [p.error for p in stage.prober.probes if begin <= p.at < end]
        agree = sum("expired" in error for error in probes)
        check("the outside prober agrees", expected, f"{agree} of {len(probes)}", bool(probes) and agree == len(probes))
        late, took = stage.lost(self.renewed + BLUR), self.renewed - self.allowed
        got, ok = f"{took:.1f} s, {len(late)} lost after", took <= RECOVERY and not late
        check("recovers alone", f"within {RECOVERY:g} s, nothing lost after", got, ok)
        for path in PATHS:
            run.findings.row(f"exposure, {path}", ways.exposure(path, self.end, self.allowed), "s")
        whole, beyond = (ways.exposure(NEW, since, self.allowed) for since in (self.end, begin))
        check(f"exposure, {NEW}", f"<= {BLUR:g} s", f"{beyond + BLUR if beyond else whole:.1f} s", not beyond)
        stage.facts(self.off, self.renewed)
        stage.picture(
            "A certificate expires under load",
            "The bars are requests by outcome. The lanes show what OpenSSL received from outside, and which paths "
            "still work: an open connection and a resumed session never check the certificate again.",
            Panel(lanes=[ways.lane(path) for path in PATHS], y="still accepted"),
        )

    def _alarm(self, run: Run, stage: Rehearsal) -> None:
        alarm = stage.watch.first_alarm(self.off, HOST)
        rang = float("inf") if alarm is None else alarm.at
        share = (rang - self.issued) / (self.end - self.issued)
        if alarm is None:
            run.findings.fact("alarm at this share of life", "there was none")
            got = "none"
        else:
            run.findings.row("alarm at this share of life", share)
            left = self.end - rang
            got = f"{left:.1f} s before ({self.scale.days(left):.0f} nominal days): {alarm.text[:80]}"
        room = JITTER + UNCERTAIN
        ok = abs(share - self.scale.alarm) <= room
        run.findings.check("alarm before notAfter", f"at {self.scale.alarm:.2f} ± {room:.2f} of life", got, ok)
