"""Drill `year`: simulates a year of 47-day certificates in two minutes under load.

The report contains a calendar of every certificate that was issued.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from drills.drill import Drill
from drills.lifetime_changes import POLICIES, LifetimeChanges
from drills.lifetimes import JITTER, NOMINAL_DAYS, SHARE, Scale, shorten
from drills.rehearsal import HOST, Rehearsal
from drills.watch import Held
from experiments import Bars, Chart, Control, Curve, Dots, Lane, Moment, Panel, Quantity, Run, Span, parameter

#: Maximum time from a scheduled renewal until the drill observes the new certificate, in seconds.
ORDER = 2.0
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
DAYS_OF_A_MONTH = 30.42


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters of the drill `year`."""

    rate: float = parameter(100.0, quick=60.0, unit="requests/s", low=1, high=1000, help="half fresh, half kept alive")
    days: float = parameter(365.0, quick=92.0, unit="d", low=50, high=3650, help="nominal days")
    seconds: float = parameter(120.0, quick=30.0, unit="s", low=30, high=3600, help="that they last")
    policy: str = parameter(
        "none",
        choices=("none", *POLICIES),
        help="shorten the lifetimes in the steps of a CA or forum, instead of a year",
    )


class Year(Drill[Parameters]):
    """Drill in which a year is scaled to two minutes, and all origins and edges renew by their own schedules."""

    name = "year"
    claim = (
        "A year of 47-day certificates on six hosts costs no request: each is replaced when it is due, long before its "
        "end."
    )
    says = (
        "Certificates of the public Web live 200 days from March 2026, 100 from 2027 and 47 from 2029: one renewal a "
        "year becomes one a month, and what a person could do by hand needs a schedule."
    )
    source = (
        "CA/Browser Forum ballot SC-081v3. A life of L days that is renewed after two thirds makes 3/2 × 365/L "
        "renewals a year: 11.6 for 47 days, per certificate."
    )
    production = (
        "Count: certificates × 11.6 renewals a year, each with two validations of control. If one of them needs a "
        "person, that person is the outage. Jitter keeps the fleet from renewing on one day. Watch the least time "
        "left at a renewal: it is the margin that an outage of the CA may use up."
    )
    settings = Parameters
    control = Control("the edge is forgotten: it does not renew", ("requests lost", "no certificate ended"))
    records = (HOST, "ca")
    #: All hosts of the lab that have a certificate from the CA.
    hosts = (HOST, "edge-far", "catalog-1", "catalog-2", "catalog-3", "news")
    after = 0.0

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.scale = Scale(NOMINAL_DAYS * parameters.seconds / parameters.days)
        #: Expected number of renewals per host during the run.
        self.expected = parameters.days / (NOMINAL_DAYS * SHARE)
        #: The steps of the policy; None for a year of 47-day certificates.
        self.changes = None if parameters.policy == "none" else LifetimeChanges(parameters.policy, negative=negative)

    def duration(self) -> float:
        """Return the expected duration in seconds: the baseline, the scaled year, and preparations."""
        return self.before + 10 + (self.p.seconds if self.changes is None else self.changes.duration())

    def predict(self) -> Mapping[str, Quantity]:
        """Predict 3/2 × days / 47 renewals per host, each with a third of the lifetime left, and no lost requests."""
        if self.changes is not None:
            return self.changes.predict()
        return {
            "requests lost": Quantity(0),
            "renewals of one host": Quantity(self.expected),
            "days left at a renewal": Quantity((1 - SHARE) * NOMINAL_DAYS, "d"),
        }

    async def inject(self, run: Run, stage: Rehearsal) -> None:
        """Shorten all certificates' lifetimes, and wait until the scaled year is over or all steps are done."""
        if self.changes is not None:
            await self.changes.inject(run, stage)
            self.began, self.ended = self.changes.began, self.changes.ended
            return
        await shorten(run, self.hosts, self.scale)
        if self.negative:
            await run.lab.fault(HOST, "renewal_off")
        for host in self.hosts:
            await stage.watch.look(host)
        self.began = run.now()
        for quarter in range(4):
            run.phase(f"day {self.p.days * quarter / 4:.0f} of {self.p.days:.0f}")
            await run.until(self.began + self.p.seconds / 4 * (quarter + 1))
        self.ended = run.now()
        run.phase("the year is over")

    def judge(self, run: Run, stage: Rehearsal) -> None:
        """Check that no requests were lost, and that every certificate was renewed before it expired."""
        stage.gates(self.began - 3.0)
        if self.changes is not None:
            self.check_nothing_lost(run, stage)
            self.changes.judge(run, stage)
            stage.facts(self.began, self.ended)
            caption = (
                "Each step shortens the lifetime; the lower panel shows which client rules let a certificate expire."
            )
            stage.picture(f"Lifetimes shrink: {self.p.policy}", caption, self.changes.panel(stage))
            return
        check = run.findings.check
        held = self._held(stage)
        counts = {host: len(each) - 1 for host, each in held.items()}
        self.check_nothing_lost(run, stage)
        run.findings.row("renewals of one host", sum(counts.values()) / len(counts))
        # An order takes several nominal days, and notAfter is rounded to seconds; both affect the renewal interval.
        slack = 1 + self.expected * (ORDER / self.scale.life + JITTER)
        ok = all(abs(n - self.expected) <= slack for n in counts.values())
        got = ", ".join(f"{host} {n}" for host, n in counts.items())
        check("renewals of each host", f"{self.expected:.1f} ± {slack:.1f}", got, ok)
        ended = [host for host, each in held.items() if self._ended(stage, each)]
        check("no certificate ended", "on no host", ", ".join(ended) or "on none", not ended)
        left = [self.scale.days(a.not_after - b.issued) for each in held.values() for a, b in pairwise(each)]
        if left:
            run.findings.row("days left at a renewal", sum(left) / len(left), "d")
            run.findings.fact("least days left at a renewal", round(min(left), 1))
        edge = {h.serial for h in held[HOST]}
        shown = edge & stage.seen()
        check("serials of the edge seen from outside", str(len(edge)), str(len(shown)), shown == edge)
        run.findings.fact("certificates issued in the year", sum(counts.values()))
        stage.facts(self.began, self.ended)
        run.findings.chart(self._calendar(stage, held))
        stage.picture(
            "The year under load",
            "The bars are requests by outcome, in bins of one second. The lanes show the certificate that OpenSSL "
            "received from outside, and its verdict.",
        )

    def _held(self, stage: Rehearsal) -> dict[str, list[Held]]:
        """Return each host's short-lived certificates, without the long-lived one from before the drill."""
        return {host: [h for h in stage.watch.of(host) if h.life < 2 * self.scale.life] for host in self.hosts}

    def _ended(self, stage: Rehearsal, held: list[Held]) -> bool:
        """Return whether one of a host's certificates expired before its renewal or before the end of the year."""
        late = any(b.issued >= a.not_after for a, b in pairwise(held))
        return late or (bool(held) and stage.at(held[-1].not_after) < self.ended)

    def _calendar(self, stage: Rehearsal, held: Mapping[str, list[Held]]) -> Chart:
        """Return the chart of all certificates, the margin of each renewal, and renewals per week (x: nominal days)."""
        days = self.p.days

        def day(second: float) -> float:
            return min(days, max(0.0, self.scale.days(second - self.began)))

        lanes = []
        renewals: list[tuple[float, float]] = []  # day of renewal, remaining days of the replaced certificate
        for host, each in held.items():
            spans = []
            for number, (one, following) in enumerate(zip(each, [*each[1:], None], strict=True)):
                begin, not_after = stage.at(one.issued), stage.at(one.not_after)
                until = min(not_after, self.ended) if following is None else stage.at(following.issued)
                spans.append(Span(day(begin), day(until), one.serial[:6], number % 6))
                if following is not None:
                    renewals.append((day(until), self.scale.days(not_after - until)))
                elif not_after < self.ended:
                    spans.append(Span(day(not_after), days, "expired", "bad"))
            lanes.append(Lane(host, spans))
        weeks = [(7.0 * week, min(7.0 * week + 7, days)) for week in range(int(days // 7) + 1)]
        bars = [(begin, end, float(sum(begin <= at < begin + 7 for at, _ in renewals))) for begin, end in weeks]
        third = (1 - SHARE) * NOMINAL_DAYS
        margin: list[Curve | Dots | Bars] = [
            Curve("theory: a third of life", [(0.0, third), (days, third)], 0),
            Dots("measured", [(at, left, left, left) for at, left in renewals], 1),
        ]
        months = range(int(days / DAYS_OF_A_MONTH) + 1)
        return Chart(
            f"Which host held which certificate, on each of {days:.0f} days",
            [
                Panel(lanes=lanes, y="certificate in use, by host"),
                Panel(margin, y="days left when renewed; 0 is an outage", height=110),
                Panel([Bars("", bars, 0)], y="renewals in a week", height=90),
            ],
            x="nominal days",
            caption=f"Each span is a certificate, which is valid for {NOMINAL_DAYS:g} days and replaced after about "
            f"{NOMINAL_DAYS * SHARE:.0f}. A nominal day lasted {self.scale.seconds(1) * 1000:.0f} ms, so an order that "
            f"takes a second uses {self.scale.days(1):.0f} days of the margin.",
            moments=[Moment(DAYS_OF_A_MONTH * month, MONTHS[month % 12], 6) for month in months],
            low=0.0,
            high=days,
            name="calendar",
        )
