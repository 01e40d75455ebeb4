"""D1 `leaf-expiry`: nobody renewed, and the certificate ends under load.  O2/Ericsson 2018, Teams 2020, Starlink 2023."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from drills.lifetimes import JITTER, Scale, shorten
from drills.paths import NEW, PATHS, POOLED, RESUMED, Paths
from drills.rehearsal import HOST, NAME, Rehearsal, said
from experiments import Control, Experiment, Lane, Panel, Quantity, Run, Span, parameter
from hostfiles.layout import TRUST_ANCHOR

#: Seconds of load before the fault, and after the recovery.
BASELINE, AFTER = 3.0, 3.0
#: Seconds around a border (notAfter has whole seconds, a handshake takes some) in which either outcome is right.
BLUR = 1.2
#: Share of life by which our looks, four a second, blur the moment of an alarm.
BLURRED = 0.06
#: Seconds within which a renewal that is allowed again has to have happened.
RECOVERY = 4.0


@dataclass(frozen=True, slots=True)
class Parameters:
    """What can be varied."""

    rate: float = parameter(100.0, quick=60.0, unit="requests/s", low=1, high=1000, help="half fresh, half kept alive")
    life: float = parameter(20.0, quick=12.0, unit="s", low=8, high=120, help="47 nominal days last this long")
    expired: float = parameter(8.0, quick=6.0, unit="s", low=3, high=60, help="from expiry until renewal is allowed again")  # fmt: skip


class LeafExpiry(Experiment[Parameters]):
    """Injected: the edge does not renew.  Its certificate ends; later it may renew again."""

    name = "leaf-expiry"
    claim = "An expiry that nobody averts is announced in good time, refused by every new handshake, and over once renewal is allowed."
    says = (
        "December 2018: an expired certificate in Ericsson's core software took data service from 32 million O2 customers for a day. "
        "February 2020: Microsoft Teams was down for three hours. April 2023: Starlink, for the same reason. In each case the end was "
        "printed in the certificate from its first day."
    )
    source = (
        "RFC 5280 section 4.1.2.5 and 6.1.3 (validity and when it is checked); RFC 8446 section 4.6.1 and 2.2 (a resumed session shows no "
        "certificate); Let's Encrypt integration guide (renew at two thirds of life)."
    )
    production = (
        "Alarm on the renewal that did not happen, not on the days that are left: the renewal is due at two thirds of life, so an alarm "
        "a twentieth of life later leaves almost a third to act: 13 of 47 days. Do not read quiet dashboards as health: "
        "connections that were open, and sessions that resume, never look at the certificate again, so that an expiry arrives as a slow "
        "rise of errors. To end those paths, too, limit the age of connections and replace the listening context."
    )
    settings = Parameters
    control = Control("the alarm is switched off, as it was in every one of these outages", ("alarm before notAfter",))
    records = (HOST,)

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.scale = Scale(parameters.life)
        self.stage: Rehearsal | None = None
        self.ways: Paths | None = None
        self.serial = ""
        #: Seconds on the time line: fault on, notAfter, fault off, renewed.
        self.off = self.end = self.allowed = self.renewed = float("inf")
        self.issued = 0.0

    def duration(self) -> float:
        """Baseline, one life, the time after it."""
        return BASELINE + self.p.life + self.p.expired + AFTER + 6

    def predict(self) -> Mapping[str, Quantity]:
        """When the alarm comes, and which paths notice."""
        return {
            "alarm at this share of life": Quantity(self.scale.alarm),
            f"exposure, {NEW}": Quantity(0.0, "s"),
            f"exposure, {POOLED}": Quantity(self.p.expired, "s"),
            f"exposure, {RESUMED}": Quantity(self.p.expired, "s"),
        }

    async def measure(self, run: Run) -> None:
        """Let it expire."""
        stage = self.stage = Rehearsal(run, self.p.rate)
        await shorten(run, (HOST,), self.scale)
        ways = self.ways = Paths(NAME, TRUST_ANCHOR, run.now)
        async with stage.under_load():
            await run.blocking(ways.start)
            try:
                await stage.baseline(BASELINE)
                await self._expire(run, stage)
                await asyncio.sleep(AFTER)  # the load shows whether it is well again
            finally:
                await run.blocking(ways.stop)

    async def _expire(self, run: Run, stage: Rehearsal) -> None:
        if self.negative:
            await run.lab.fault(HOST, "alarm_off")
        fault = await run.lab.fault(HOST, "renewal_off")
        self.off = run.now()
        body = await stage.watch.look(HOST)
        self.serial, self.end, self.issued = body["serial"], stage.at(body["not_after"]), stage.at(body["issued"])
        run.phase(f"renewal is off; certificate {self.serial[:8]} ends in {self.end - run.now():.0f} s")
        await run.until(self.end)
        run.note("injection", "notAfter")
        run.phase("expired")
        await asyncio.sleep(self.p.expired)  # what it costs clients is what is measured
        await run.lab.undo(fault)
        self.allowed = run.now()
        run.phase("renewal is allowed again")
        self.renewed = await stage.watch.until_renewed(HOST, self.serial, 20.0)

    def conclude(self, run: Run) -> None:
        """Announced, refused, over."""
        stage, ways = self.stage, self.ways
        if stage is None or ways is None:
            return
        begin, end = self.end + BLUR, self.allowed - 0.1
        stage.gates(self.off)
        alarm = stage.watch.first_alarm(self.off, HOST)
        rings = float("inf") if alarm is None else alarm.at
        share = (rings - self.issued) / (self.end - self.issued)
        if alarm is not None:
            run.findings.row("alarm at this share of life", share)
        else:
            run.findings.fact("alarm at this share of life", "there was none")
        words = "none" if alarm is None else f"{self.end - rings:.1f} s before ({self.scale.days(self.end - rings):.0f} nominal days): {alarm.text[:80]}"  # fmt: skip
        run.findings.check("alarm before notAfter", f"at {self.scale.alarm:.2f} ± {JITTER + BLURRED:.2f} of life", words, abs(share - self.scale.alarm) <= JITTER + BLURRED)  # fmt: skip
        early = stage.lost(self.off, self.end - 0.3)
        run.findings.check("requests lost before notAfter", "0", said(early), not early)
        fresh = stage.fresh(begin, end)
        refused = [r for r in fresh if "expired" in r.error]
        run.findings.check("new handshakes after notAfter", "all refused: certificate has expired", f"{len(refused)} of {len(fresh)} refused so, {sum(not r.error for r in fresh)} accepted", bool(fresh) and len(refused) == len(fresh))  # fmt: skip
        probes = [p for p in stage.prober.probes if begin <= p.at < end]
        agree = [p for p in probes if "expired" in p.error]
        run.findings.check("the outside prober agrees", "all refused: certificate has expired", f"{len(agree)} of {len(probes)}", bool(probes) and len(agree) == len(probes))  # fmt: skip
        late = stage.lost(self.renewed + BLUR)
        took = self.renewed - self.allowed
        run.findings.check("recovers alone", f"within {RECOVERY:g} s, nothing lost after", f"{took:.1f} s, {len(late)} lost after", took <= RECOVERY and not late)  # fmt: skip
        for path in PATHS:
            run.findings.row(f"exposure, {path}", ways.exposure(path, self.end, self.allowed), "s")
        # What is asked twice a second is known to half a second, and a border has its blur.
        new = ways.exposure(NEW, self.end + BLUR, self.allowed)
        run.findings.check(f"exposure, {NEW}", f"<= {BLUR:g} s", f"{new + BLUR if new else ways.exposure(NEW, self.end, self.allowed):.1f} s", not new)  # fmt: skip
        stage.facts(self.off, self.renewed)
        lanes = [_lane(path, ways) for path in PATHS]
        stage.picture(
            "A certificate expires under load",
            "Bars: requests by outcome. Below: what OpenSSL saw from outside, and which paths still worked: a connection that was open, and "
            "a session that is resumed, never look at the certificate again.",
            Panel(lanes=lanes, y="still accepted"),
        )


def _lane(path: str, ways: Paths) -> Lane:
    """Return how one path fared, as stretches of one outcome."""
    spans: list[Span] = []
    for each in (t for t in ways.tried if t.path == path):
        colour = "bad" if each.error else "good"
        text = each.error or "ok"
        if spans and spans[-1].colour == colour:
            spans[-1] = Span(spans[-1].begin, each.at + 0.5, spans[-1].text, colour)
        else:
            spans.append(Span(each.at, each.at + 0.5, text, colour))
    return Lane(path, spans)
