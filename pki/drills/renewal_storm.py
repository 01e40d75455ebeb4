"""Drill D9 `renewal-storm`: certificates of many hosts, all issued at the same time, are due for renewal."""

import math
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from drills.drill import Drill
from drills.enrolment import Enrolment
from drills.fleet import Fleet, Host
from drills.lifetimes import JITTER, NOMINAL_DAYS, SHARE, Scale
from drills.rehearsal import Rehearsal
from experiments import Bars, Control, Curve, Panel, Quantity, Run, parameter
from renewal.lifecycle import Validity
from renewal.schedule import Rule

#: How long after the start of the renewal window every host must have renewed, as a multiple of the window's duration.
PATIENCE = 1.5
#: Maximum ratio of the number of orders in the busiest second to the mean rate per second.
MAX_PEAK = 3.0


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters of the drill `renewal-storm`."""

    rate: float = parameter(60.0, quick=40.0, unit="requests/s", low=1, high=1000, help="half fresh, half kept alive")
    hosts: int = parameter(1000, quick=150, low=50, high=2000, help="simulated hosts, each with an account of its own")
    per_second: float = parameter(8.0, quick=7.5, unit="1/s", low=1, high=50, help="mean rate of renewals")


class NoJitter(random.Random):
    """Random number generator whose uniform distribution always returns its mean."""

    def uniform(self, a: float, b: float) -> float:
        """Return the mean of *a* and *b*."""
        return (a + b) / 2


class RenewalStorm(Drill[Parameters]):
    """Drill in which the renewals of many hosts are due within one window."""

    name = "renewal-storm"
    claim = "Certificates that were issued together are renewed in time, and spread so that the CA sees no peak."
    says = (
        "Certificates that were issued in one minute, by a deployment or after a mass revocation, are due in one "
        "minute a month later, and again a month after that. In March 2020 Let's Encrypt had to replace 3 million "
        "certificates, in January 2022 2 million. A peak of renewals meets the rate limit of the CA, or its capacity."
    )
    source = (
        "RFC 9773 section 4.2 (clients select a random time in the window); Let's Encrypt integration guide (jitter). "
        "n arrivals that are uniform over w seconds make a Poisson process: the busiest second has about "
        "m + sqrt(2 m ln w) arrivals, with m = n/w."
    )
    production = (
        "Select the time of a renewal at random, over a window that is long compared with the number of hosts divided "
        "by the rate that the CA permits. Do not renew from cron at midnight. Poll the CA's renewal information: the "
        "CA knows its load, and may suggest a better window."
    )
    settings = Parameters
    control = Control("no jitter: all hosts renew at two thirds of the lifetime", ("busiest second",))
    records = ("ca",)
    after = 0.5

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        #: Duration of the window in which renewals are due, in seconds; equals 2 · `JITTER` · lifetime.
        self.window = parameters.hosts / parameters.per_second
        self.scale = Scale(self.window / (2 * JITTER))
        self.fleet: list[Host] = []
        #: notAfter of the hosts' initial certificates, in seconds on the run's timeline.
        self.not_after = math.inf

    def duration(self) -> float:
        """Return the expected duration in seconds: the baseline, the window, and some time for the last orders."""
        return self.before + 2 + self.window + 4 + self.after

    def predict(self) -> Mapping[str, Quantity]:
        """Predict the mean order rate, and the ratio of the busiest second to that rate for a Poisson process."""
        mean = self.p.per_second
        peak = 1 + math.sqrt(2 * math.log(self.window) / mean)
        return {
            "requests lost": Quantity(0),
            "hosts renewed": Quantity(self.p.hosts),
            "orders/s, mean": Quantity(mean, "1/s"),
            "busiest second / mean": Quantity(self.window if self.negative else peak),
        }

    async def inject(self, run: Run, stage: Rehearsal) -> None:
        """Create the hosts, with renewals due within the window that begins now, and run their renewals."""
        fleet = Fleet(run, stage, Enrolment())
        await fleet.publish()
        self.began = run.now()
        self._create(run, stage, fleet)
        run.phase(f"{self.p.hosts} hosts renew within {self.window:.0f} s")
        run.note("injection", "renewals are due")
        async with fleet.enrolment.responding():
            await fleet.operate(self.fleet, self.window * PATIENCE + 5)
        self.ended = run.now()

    def _create(self, run: Run, stage: Rehearsal, fleet: Fleet) -> None:
        """Create hosts whose certificates were all issued at the same time, (`SHARE` - `JITTER`) · lifetime ago."""
        issued = stage.epoch + run.now() - (SHARE - JITTER) * self.scale.life
        ends = issued + self.scale.life
        self.not_after = stage.at(ends)
        for number in range(self.p.hosts):
            rng = NoJitter() if self.negative else random.Random(run.rng.getrandbits(32))
            host = fleet.add(Rule(scale=self.scale.factor), rng)
            host.lifecycle.loaded(Validity(f"old-{number}", issued, issued, ends))
        self.fleet = fleet.hosts

    def judge(self, run: Run, stage: Rehearsal) -> None:
        """Check that every host renewed in time, and that the orders were spread over the window."""
        stage.gates(self.began)
        check, row = run.findings.check, run.findings.row
        self.check_nothing_lost(run, stage)
        late = [host.name for host in self.fleet if host.renewed > self.not_after]
        row("hosts renewed", len(self.fleet) - len(late))
        got = f"{len(self.fleet) - len(late)} of {len(self.fleet)}"
        check("renewed before the end of the certificate", "all", got, not late and bool(self.fleet))
        per_second = Counter(int(at - self.began) for host in self.fleet for at in host.orders)
        mean = sum(per_second.values()) / self.window
        busiest = max(per_second.values(), default=0)
        row("orders/s, mean", mean, "1/s")
        row("busiest second / mean", busiest / mean if mean else math.inf)
        got = f"{busiest} orders, {busiest / mean if mean else math.inf:.1f} × the mean"
        check("busiest second", f"<= {MAX_PEAK:g} × the mean", got, 0 < busiest <= MAX_PEAK * mean)
        took = sorted(host.renewed - host.orders[-1] for host in self.fleet if not math.isinf(host.renewed))
        if took:
            run.findings.fact("duration of an order p50 / max, s", f"{took[len(took) // 2]:.2f} / {took[-1]:.2f}")
            last = max(host.renewed for host in self.fleet) - self.began
            run.findings.fact("last renewal, s after the start of the window", round(last, 1))
        errors = Counter(error[:80] for host in self.fleet for error in host.errors)
        run.findings.fact("orders that failed", errors.total())
        run.findings.fact("reasons", dict(errors.most_common(3)) or "none")
        stage.facts(self.began, self.ended)
        seconds = range(max((*per_second, int(self.window))) + 1)
        bars = [(self.began + n, self.began + n + 1, float(per_second[n])) for n in seconds]
        line = [(self.began + n, MAX_PEAK * self.p.per_second) for n in (0, seconds[-1] + 1)]
        stage.picture(
            f"{self.p.hosts:,} certificates are due together",
            f"The lower panel shows how many orders begin in each second; the line is {MAX_PEAK:g} times the mean of "
            f"{NOMINAL_DAYS:g}-day certificates that are renewed over {2 * JITTER:.0%} of their lifetime.",
            Panel([Bars("orders begun", bars, 0), Curve("limit", line, "bad", dashed=True)], y="orders per second"),
        )
