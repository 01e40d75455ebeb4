"""`year`: a whole year of 47-day certificates, in two minutes, under load, with a calendar of who held what when."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from drills.lifetimes import JITTER, NOMINAL_DAYS, SHARE, Scale, shorten
from drills.rehearsal import HOST, Rehearsal, listed, said
from experiments import (
    Bars,
    Chart,
    Control,
    Curve,
    Dots,
    Experiment,
    Lane,
    Moment,
    Panel,
    Quantity,
    Run,
    Span,
    parameter,
)

#: Everybody in the lab who holds a certificate of the CA's.
HOSTS = (HOST, "edge-far", "catalog-1", "catalog-2", "catalog-3", "news")
#: Seconds of load before the year begins.
BASELINE = 3.0
#: Seconds that an order takes at most, from its due moment to our own look.
ORDER = 2.0
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True, slots=True)
class Parameters:
    """What can be varied."""

    rate: float = parameter(100.0, quick=60.0, unit="requests/s", low=1, high=1000, help="half fresh, half kept alive")
    days: float = parameter(365.0, quick=183.0, unit="d", low=50, high=3650, help="that are lived through")
    seconds: float = parameter(120.0, quick=60.0, unit="s", low=30, high=3600, help="in which they are")


class Year(Experiment[Parameters]):
    """Injected: time.  Every host renews by its own schedule, origins and edges alike."""

    name = "year"
    claim = "A year of 47-day certificates on six hosts costs no request: each is replaced when it is due, and none comes near its end."
    says = (
        "Certificates of the public Web live 200 days from March 2026, 100 from 2027 and 47 from 2029: one renewal a year becomes one a "
        "month, and what a person could do by hand becomes what only a schedule can."
    )
    source = (
        "CA/Browser Forum ballot SC-081v3. A life of L days that is renewed after two thirds makes 3/2 × 365/L renewals a year: 11.6 for 47 "
        "days, per certificate."
    )
    production = (
        "Count: certificates × 11.6 renewals a year, each with two validations of control. If one of them needs a person, that person is the "
        "outage. Jitter keeps the fleet from renewing on one day. Watch the least time left at a renewal: it is the margin that an "
        "outage of the CA may use up."
    )
    settings = Parameters
    control = Control("the edge is forgotten: it does not renew", ("requests lost", "no certificate ended"))
    records = (HOST, "ca")

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.scale = Scale(NOMINAL_DAYS * parameters.seconds / parameters.days)
        self.stage: Rehearsal | None = None
        self.began = self.ended = float("inf")

    def duration(self) -> float:
        """The year, and what comes before it."""
        return BASELINE + self.p.seconds + 10

    def predict(self) -> Mapping[str, Quantity]:
        """3/2 × days / 47 renewals of each host, with a third of life left."""
        each = self.p.days / (NOMINAL_DAYS * SHARE)
        return {
            "requests lost": Quantity(0),
            "renewals of one host": Quantity(each),
            "days left at a renewal": Quantity((1 - SHARE) * NOMINAL_DAYS, "d"),
        }

    async def measure(self, run: Run) -> None:
        """Let a year pass."""
        stage = self.stage = Rehearsal(run, self.p.rate, HOSTS)
        async with stage.under_load():
            await stage.baseline(BASELINE)
            await shorten(run, HOSTS, self.scale)
            if self.negative:
                await run.lab.fault(HOST, "renewal_off")
            for host in HOSTS:
                await stage.watch.look(host)
            self.began = run.now()
            quarter = self.p.seconds / 4
            for number in range(4):
                run.phase(f"day {self.p.days * number / 4:.0f} of {self.p.days:.0f}")
                await run.until(self.began + quarter * (number + 1))
            self.ended = run.now()
            run.phase("the year is over")

    def conclude(self, run: Run) -> None:
        """Nothing lost, all in time."""
        stage = self.stage
        if stage is None:
            return
        stage.gates(self.began - 3.0)
        lost, failed = stage.lost(), stage.failed_probes()
        # What a host held when the year began and after; the long ones before it do not belong to the year.
        held = {host: [h for h in stage.watch.of(host) if h.life < 2 * self.scale.life] for host in HOSTS}
        counts = {host: len(each) - 1 for host, each in held.items()}
        left = [self.scale.days(a.not_after - b.issued) for each in held.values() for a, b in pairwise(each)]
        expected = self.p.days / (NOMINAL_DAYS * SHARE)
        run.findings.row("requests lost", len(lost))
        run.findings.row("renewals of one host", sum(counts.values()) / len(counts))
        run.findings.check("requests lost", "0", said(lost), not lost)
        run.findings.check("handshakes from outside that failed", "0", listed(failed), not failed)  # fmt: skip
        # An order takes some days of this clock, and notAfter has whole seconds: both shorten or lengthen a turn.
        slack = 1 + expected * (ORDER / self.scale.life + JITTER)
        near = {host: n for host, n in counts.items() if abs(n - expected) > slack}
        run.findings.check("renewals of each host", f"{expected:.1f} ± {slack:.1f}", ", ".join(f"{host} {n}" for host, n in counts.items()), not near)  # fmt: skip
        ended = [host for host, each in held.items() if any(b.issued >= a.not_after for a, b in pairwise(each)) or (each and stage.at(each[-1].not_after) < self.ended)]  # fmt: skip
        run.findings.check("no certificate ended", "on no host", ", ".join(ended) or "on none", not ended)
        if left:
            run.findings.row("days left at a renewal", sum(left) / len(left), "d")
            run.findings.fact("least days left at a renewal", round(min(left), 1))
        edge = {h.serial for h in held[HOST]}
        shown = edge & stage.seen()
        run.findings.check("serials of the edge seen from outside", str(len(edge)), str(len(shown)), shown == edge)
        run.findings.fact("certificates issued in the year", sum(counts.values()))
        stage.facts(self.began, self.ended)
        run.findings.chart(self._calendar(stage))
        stage.picture(
            "The year under load",
            "Bars: requests by outcome, a second each. Stripes: what OpenSSL was shown from outside.",
        )

    def _calendar(self, stage: Rehearsal) -> Chart:
        """Draw who held which certificate when, in days."""

        def day(epoch: float) -> float:
            return min(self.p.days, max(0.0, self.scale.days(stage.at(epoch) - self.began)))

        lanes = []
        renewals: list[tuple[float, float]] = []  # the day, and the days that the one before had left
        for host in HOSTS:
            each = [h for h in stage.watch.of(host) if h.life < 2 * self.scale.life]
            spans = []
            for number, one in enumerate(each):
                until = (
                    each[number + 1].issued if number + 1 < len(each) else min(one.not_after, stage.epoch + self.ended)
                )
                if number:
                    renewals.append((day(one.issued), self.scale.days(each[number - 1].not_after - one.issued)))
                spans.append(Span(day(one.issued), day(until), one.serial[:6], number % 6))
                if number + 1 == len(each) and stage.at(one.not_after) < self.ended:
                    spans.append(Span(day(one.not_after), self.p.days, "expired", "bad"))
            lanes.append(Lane(host, spans))
        weeks = int(self.p.days // 7) + 1
        counts = [sum(7 * week <= at < 7 * week + 7 for at, _ in renewals) for week in range(weeks)]
        bars = Bars("", [(7.0 * week, min(7.0 * week + 7, self.p.days), float(n)) for week, n in enumerate(counts)], 0)
        third = (1 - SHARE) * NOMINAL_DAYS
        margin: list[Curve | Dots | Bars] = [
            Curve("theory: a third of life", [(0.0, third), (self.p.days, third)], 0),
            Dots("measured", [(at, left, left, left) for at, left in renewals], 1),
        ]
        months = [Moment(30.42 * m, MONTHS[m % 12], 6) for m in range(int(self.p.days / 30.42) + 1)]
        return Chart(
            f"Who held which certificate, on each of {self.p.days:.0f} days",
            [
                Panel(lanes=lanes, y="certificate in use, by host"),
                Panel(margin, y="days left when renewed; 0 is an outage", height=110),
                Panel([bars], y="renewals in a week", height=90),
            ],
            x="nominal days",
            caption=f"A colour is a certificate; it lives {NOMINAL_DAYS:g} days and is replaced after about {NOMINAL_DAYS * SHARE:.0f}. "
            f"A day lasted {self.scale.seconds(1) * 1000:.0f} ms, so an order of a second costs {self.scale.days(1):.0f} days of the margin.",
            moments=months,
            low=0.0,
            high=self.p.days,
            name="calendar",
        )
