"""The drill `year` with a policy: certificate lifetimes shrink in steps, and clients have different renewal rules.

Three hosts of the lab renew after a share of the lifetime, as their agents always do.  Simulated hosts apply the fixed
rules of other clients.  Their certificates come from the lab's CA, but are not served to clients, so no request is lost
if one of them expires.
"""

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from cryptography import x509

from drills.enrolment import Enrolment
from drills.fleet import DOMAIN, Fleet
from drills.lifetimes import SHARE, Scale, renew, shorten
from drills.rehearsal import HOST, Rehearsal
from drills.watch import Held
from experiments import Lane, Panel, Quantity, Run, Span

#: Certificate lifetimes in days, in the order of the announced reductions: the default profile of Let's Encrypt (90, 64
#: from February 2027, 45 from February 2028), and the maximum of the CA/Browser Forum (ballot SC-081v3: 200 from March
#: 2026, 100 from March 2027, 47 from March 2029).
POLICIES: Mapping[str, tuple[float, ...]] = {"letsencrypt": (90, 64, 45), "cabforum": (200, 100, 47)}
#: Renewal rules of clients: days from issuance to renewal, keyed by lifetime in days.
SHARE_RULE, BEFORE_END, FIXED = "two thirds of the life", "30 days before the end", "every 60 days"
RULES: Mapping[str, Callable[[float], float]] = {
    SHARE_RULE: lambda life: SHARE * life,
    BEFORE_END: lambda life: life - 30,
    FIXED: lambda _: 60.0,
}
#: Hosts of the lab, whose agents apply the rule `SHARE_RULE`; simulated hosts apply the other rules.
HOSTS = (HOST, "edge-far", "news")
#: Duration of the shortest lifetime, in seconds.
SHORTEST = 15.0
#: Duration of each step after its last renewal, in nominal days.
REST = 4.0
#: Validity gate: maximum duration of an order, in seconds; a longer one would use up the four days that are left if a
#: certificate of 64 days is renewed after 60.
PROMPT = 1.2


@dataclass(frozen=True, slots=True)
class Renewed:
    """A renewal according to one rule; times are in seconds on the run's timeline."""

    rule: str
    #: Lifetime of the replaced certificate, in nominal days.
    life: float
    issued: float
    not_after: float
    #: Time at which the order was placed.
    ordered: float
    #: Arrival of the new certificate; infinity if the order failed.
    renewed: float


class LifetimeChanges:
    """The steps of one policy, and the renewals of each client rule."""

    def __init__(self, policy: str, *, negative: bool) -> None:
        """Prepare the steps of *policy*, one of the keys of `POLICIES`."""
        self.policy, self.lives, self.negative = policy, POLICIES[policy], negative
        #: Scale from nominal days to seconds, the same in every step.
        self.scale = Scale(SHORTEST, self.lives[-1])
        self.renewals: list[Renewed] = []
        #: Start and end of the renewals with which each step begins, in seconds on the run's timeline.
        self.begins: list[tuple[float, float]] = []
        #: Start and end of all steps, in seconds on the run's timeline.
        self.began = self.ended = math.inf

    def duration(self) -> float:
        """Return the duration of all steps in seconds."""
        return sum(self.scale.seconds(self._step(life)) + 4 for life in self.lives)

    def predict(self) -> Mapping[str, Quantity]:
        """Predict the days left at a renewal for each rule and lifetime; a negative number means after expiry."""
        return {"requests lost": Quantity(0)} | {
            _row(rule, life): Quantity(life - after(life), "d") for life in self.lives for rule, after in RULES.items()
        }

    async def inject(self, run: Run, stage: Rehearsal) -> None:
        """For each lifetime, issue certificates to all hosts, and wait until each of them has renewed once."""
        fleet = Fleet(run, stage, Enrolment())
        await fleet.publish()
        self.began = run.now()
        async with fleet.enrolment.responding():
            for number, life in enumerate(self.lives):
                scale = Scale(self.scale.seconds(life), life)
                run.phase(f"certificates live {life:g} days ({scale.life:.0f} s)")
                step = run.now()
                hosts = [host for host in HOSTS if not (self.negative and number and host == HOST)]
                if number == 0:
                    await shorten(run, HOSTS, scale)
                    if self.negative:
                        await run.lab.fault(HOST, "renewal_off")
                else:
                    body = {"seconds": scale.life, "backdate": scale.backdate}
                    await run.lab.inject(
                        f"leaves live {scale.life:.3g} s", "ca", "PUT", "/admin/lifetime", body, undo=None
                    )
                    for host in hosts:
                        await renew(run, host)
                began = run.now()
                self.begins.append((step, began))
                async with asyncio.TaskGroup() as group:
                    for index, rule in enumerate((BEFORE_END, FIXED)):
                        name = f"rule{index}.{DOMAIN}.example.com"
                        group.create_task(self._rule(run, stage, fleet.enrolment, name, rule, life))
                await run.until(began + self.scale.seconds(self._step(life)))
        self.ended = run.now()

    async def _rule(self, run: Run, stage: Rehearsal, enrolment: Enrolment, name: str, rule: str, life: float) -> None:
        """Order a certificate of *life* days for *name*, and order its successor according to *rule*."""
        leaf = x509.load_pem_x509_certificates(await enrolment.obtain([name]))[0]
        not_after = stage.at(leaf.not_valid_after_utc.timestamp())
        # The nominal time of issuance depends neither on the rounding of notAfter nor on the duration of the order.
        issued = not_after - self.scale.seconds(life)
        await run.until(issued + self.scale.seconds(RULES[rule](life)))
        ordered = run.now()
        await enrolment.obtain([name], replaces=leaf)
        self.renewals.append(Renewed(rule, life, issued, not_after, ordered, run.now()))

    def _step(self, life: float) -> float:
        """Return the duration of the step with certificates of *life* days, in nominal days."""
        return max(after(life) for after in RULES.values()) + REST

    def judge(self, run: Run, stage: Rehearsal) -> None:
        """Check that the lab's hosts always had a valid certificate, and that exactly the predicted rules failed."""
        check, row, gate = run.findings.check, run.findings.row, run.findings.gate
        took = max((each.renewed - each.ordered for each in self.renewals), default=math.inf)
        gate("longest order", f"<= {PROMPT:g} s", f"{took:.2f} s", took <= PROMPT)
        for life in self.lives:
            if own := self._margins(stage, life):
                row(_row(SHARE_RULE, life), sum(own) / len(own), "d")
            for each in (r for r in self.renewals if r.life == life):
                row(_row(each.rule, life), self.scale.days(each.not_after - each.renewed), "d")
        ended = [host for host in HOSTS if self._ended(stage, host)]
        check("no certificate ended", "on no host", ", ".join(ended) or "on none", not ended)
        expected = [_row(rule, life) for life in self.lives for rule, after in RULES.items() if after(life) >= life]
        failed = sorted((r for r in self.renewals if r.not_after <= r.renewed), key=lambda r: -r.life)
        got = [_row(each.rule, each.life) for each in failed]
        complete = len(self.renewals) == (len(RULES) - 1) * len(self.lives)
        check(
            "rules that let a certificate expire",
            "; ".join(expected),
            "; ".join(got) or "none",
            complete and got == expected,
        )

    def _margins(self, stage: Rehearsal, life: float) -> list[float]:
        """Return the days left at each renewal of a certificate of *life* days by the lab's hosts."""
        wanted = self.scale.seconds(life)
        return [
            self.scale.days(a.not_after - b.issued)
            for host in HOSTS
            for a, b in pairwise(self._held(stage, host))
            if abs(a.life - wanted) < 0.1 * wanted
            and not any(begin <= stage.at(b.issued) <= end for begin, end in self.begins)
        ]

    def _ended(self, stage: Rehearsal, host: str) -> bool:
        """Return whether a certificate of *host* expired before its successor arrived, or before the end."""
        held = self._held(stage, host)
        following: Sequence[float] = [*(each.issued for each in held[1:]), self.ended + stage.epoch]
        return any(begin > each.not_after for each, begin in zip(held, following, strict=True))

    def _held(self, stage: Rehearsal, host: str) -> list[Held]:
        """Return the certificates that *host* received during the drill, without the earlier long-lived one."""
        return [each for each in stage.watch.of(host) if each.life < 2 * self.scale.seconds(self.lives[0])]

    def panel(self, stage: Rehearsal) -> Panel:
        """Return a chart panel with the certificates of each rule: green while valid, red after expiry."""
        lanes = []
        for rule in (BEFORE_END, FIXED):
            spans = []
            for each in (r for r in self.renewals if r.rule == rule):
                spans.append(Span(each.issued, min(each.renewed, each.not_after), f"{each.life:g} d", "good"))
                if each.renewed > each.not_after:
                    spans.append(Span(each.not_after, each.renewed, "expired", "bad"))
            lanes.append(Lane(rule, spans))
        for host in HOSTS:
            spans = [
                Span(stage.at(h.issued), min(stage.at(h.not_after), self.ended), h.serial[:6], n % 6)
                for n, h in enumerate(self._held(stage, host))
            ]
            lanes.append(Lane(host, spans))
        return Panel(lanes=lanes, y="certificates by client rule and host")


def _row(rule: str, life: float) -> str:
    return f"{rule}, {life:g} days"
