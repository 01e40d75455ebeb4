"""Drill D4 `one-name-fails`: for four of six names the CA can no longer validate control when a renewal is due."""

import asyncio
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from drills.drill import Drill
from drills.enrolment import Enrolment, own_address, publish
from drills.fleet import DOMAIN, Fleet, Host
from drills.lifetimes import JITTER, SHARE, Scale
from drills.rehearsal import Rehearsal
from experiments import Control, Dots, Lane, Panel, Quantity, Run, Span, Undo, parameter
from hostfiles.layout import lab_address
from renewal import health
from renewal.lifecycle import Validity
from renewal.schedule import Rule, overdue

#: Causes of failed validations: the name points to a host without a web server, the name's DNS zone does not answer,
#: CAA records permit only another CA, and the name points to another web server.
GONE, BROKEN, FORBIDDEN, ELSEWHERE = "no web server", "SERVFAIL", "CAA forbids", "another server"
#: ACME problem types that the CA may report for each cause.
PROBLEMS: Mapping[str, tuple[str, ...]] = {
    GONE: ("connection",),
    BROKEN: ("dns",),
    FORBIDDEN: ("caa",),
    ELSEWHERE: ("unauthorized", "incorrectResponse"),
}
#: Number of names without a fault.
HEALTHY = 2
#: Last two bytes of the IPv4 addresses of a host without a web server (a name server), and of another web server.
NO_WEB_SERVER, OTHER_SERVER = "20.53", "20.10"
#: Fraction of the lifetime that has passed when the faults begin.
AGE = 0.5
#: Duration of the faults, as a fraction of the lifetime; they end before the certificates expire.
OUTAGE = 1 / 3
#: Minimum fraction of the lifetime that must be left when an alarm is raised.  A third is left when the renewal is due,
#: and the alarm follows after two failures.
LEFT = 0.2
#: Minimum interval between the orders of one host, in seconds (`renewal.schedule.MIN_RETRY`).
MIN_RETRY = 1.0
#: Maximum time from the end of the faults until every name has a certificate, in seconds: the TTL of the DNS records,
#: the longest retry delay of this lifetime, and an order.
RECOVERS = 12.0
#: Interval between health checks, in seconds.
EVERY = 0.1
#: Validity gate: maximum duration of an order that succeeded, in seconds.
PROMPT = 2.0


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters of the drill `one-name-fails`."""

    rate: float = parameter(60.0, quick=40.0, unit="requests/s", low=1, high=1000, help="half fresh, half kept alive")
    life: float = parameter(48.0, quick=24.0, unit="s", low=20, high=120, help="47 nominal days last this long")


@dataclass(slots=True)
class Watched:
    """A simulated host, the cause of its failures, and its first alarm."""

    host: Host
    #: One of the keys of `PROBLEMS`; empty for a name without a fault.
    cause: str
    #: Time of the first alarm, in seconds on the run's timeline, and its text.
    alarm: float = math.inf
    text: str = ""


class OneNameFails(Drill[Parameters]):
    """Drill in which validation fails for some names; each name has its own certificate, or all names share one."""

    name = "one-name-fails"
    claim = (
        "A name that can no longer be validated does not prevent other names from renewing; an alarm gives the reason "
        "while at least a fifth of the lifetime is left."
    )
    says = (
        "A certificate for many names is renewed only if the CA can validate all of them. One forgotten name, moved to "
        "another provider or removed from DNS, then stops the renewal of all. In June 2026 the certificate of "
        "PortAudio's download site expired because another domain on the same server was configured wrongly."
    )
    source = (
        "RFC 8555 section 7.1.6 (an order with one invalid authorization is invalid); RFC 8659 (CAA); Let's Encrypt "
        "integration guide (back-off). Renewal begins with 1/3 of the lifetime left; the alarm follows after two "
        "failures."
    )
    production = (
        "Give each name that someone else controls a certificate of its own, or remove the name when its validation "
        "fails. Alarm on failed renewals, not only on the days that are left, and put the CA's reason into the alarm: "
        "it says whether DNS, CAA or the web server is wrong."
    )
    settings = Parameters
    control = Control("all names are in one certificate", ("names without a fault renewed",))
    records = ("ca",)
    after = 0.5

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.scale = Scale(parameters.life)
        self.watched: list[Watched] = []
        #: End of the faults, and notAfter of the initial certificates, in seconds on the run's timeline.
        self.mended = self.not_after = math.inf

    def duration(self) -> float:
        """Return the expected duration in seconds: baseline, faults, and recovery."""
        return self.before + 1 + OUTAGE * self.p.life + RECOVERS / 2 + self.after

    def predict(self) -> Mapping[str, Quantity]:
        """Predict that names without a fault renew, and the remaining lifetime at the first alarm."""
        alarm = SHARE + overdue(0.0, self.p.life) / self.p.life
        return {
            "requests lost": Quantity(0),
            "names renewed during the faults": Quantity(0 if self.negative else HEALTHY),
            "lifetime left at an alarm": Quantity(100 * (1 - alarm), "%"),
        }

    async def inject(self, run: Run, stage: Rehearsal) -> None:
        """Break the validation of four names shortly before their renewal is due; repair it before they expire."""
        fleet = Fleet(run, stage, Enrolment())
        await fleet.publish()
        self._create(run, stage, fleet)
        self.began = run.now()
        undos = [undo for number, cause in enumerate(PROBLEMS) for undo in await self._break(run, number, cause)]
        # Flush the resolver's cache, because an earlier run may have left negative answers for the same names.
        await run.lab.call("resolver", "POST", "/admin/cache/flush", {"all": True})
        run.phase(f"{len(PROBLEMS)} of {len(PROBLEMS) + HEALTHY} names cannot be validated, and renewals are due")
        watching = asyncio.create_task(self._watch(run, fleet))
        mending = asyncio.create_task(self._mend(run, undos))
        try:
            async with fleet.enrolment.responding():
                await fleet.operate(fleet.hosts, OUTAGE * self.p.life + RECOVERS)
            await mending
        finally:
            for task in (watching, mending):
                task.cancel()
            await asyncio.gather(watching, mending, return_exceptions=True)
        self.ended = run.now()

    def _create(self, run: Run, stage: Rehearsal, fleet: Fleet) -> None:
        """Create one host per name, each with a certificate that is halfway through its lifetime.

        In the control run, create one host for all names.
        """
        issued = fleet.now() - AGE * self.p.life
        self.not_after = stage.at(issued + self.p.life)
        causes = [*PROBLEMS, *[""] * HEALTHY]
        for cause in causes:
            host = fleet.add(Rule(scale=self.scale.factor), random.Random(run.rng.getrandbits(32)))
            host.lifecycle.loaded(Validity(f"old-{host.name}", issued, issued, issued + self.p.life))
            host.not_after, host.polls = self.not_after, False
            self.watched.append(Watched(host, cause))
        if self.negative:
            first = fleet.hosts[0]
            first.also = tuple(host.name for host in fleet.hosts[1:])
            del fleet.hosts[1:]
            for each in self.watched:
                each.host = first

    async def _break(self, run: Run, number: int, cause: str) -> Sequence[Undo]:
        name = f"h{number}.{DOMAIN}"
        if cause == BROKEN:  # a delegation to a server that has no such zone
            return [await publish(run, name, "NS", ["ns1.example.com."])]
        if cause == FORBIDDEN:
            rules = await publish(run, name, "CAA", ['0 issue "ca.example.net"'])
            return [rules, await publish(run, name, "A", [own_address()])]
        return [await publish(run, name, "A", [lab_address(NO_WEB_SERVER if cause == GONE else OTHER_SERVER)])]

    async def _mend(self, run: Run, undos: Sequence[Undo]) -> None:
        await run.until(self.began + OUTAGE * self.p.life)
        run.phase("the names are mended")
        for undo in undos:
            await run.lab.undo(undo)
        self.mended = run.now()

    async def _watch(self, run: Run, fleet: Fleet) -> None:
        """Evaluate the health checks of all hosts periodically; record the first alarm of each name."""
        while True:
            for each in self.watched:
                state = each.host.lifecycle
                if state.held is not None and math.isinf(each.alarm):
                    findings = health.judge(health.Condition(state.held, state), fleet.now())
                    bad = next((finding for finding in findings if not finding.ok), None)
                    if bad is not None:
                        each.alarm, each.text = run.now(), state.last_error
            await asyncio.sleep(EVERY)  # interval between health checks

    def judge(self, run: Run, stage: Rehearsal) -> None:
        """Check which names were renewed, the alarms and their reasons, the back-off, and the recovery."""
        stage.gates(self.began)
        check, row, gate, fact = run.findings.check, run.findings.row, run.findings.gate, run.findings.fact
        healthy = [each for each in self.watched if not each.cause]
        failing = [each for each in self.watched if each.cause]
        hosts = list({each.host.name: each.host for each in self.watched}.values())
        took = max((h.renewed - h.orders[-1] for h in hosts if not math.isinf(h.renewed)), default=0.0)
        gate("longest order that succeeded", f"<= {PROMPT:g} s", f"{took:.2f} s", took <= PROMPT)
        self.check_nothing_lost(run, stage)
        in_time = [each for each in healthy if each.host.renewed < min(self.not_after, self.mended)]
        row("names renewed during the faults", sum(each.host.renewed < self.mended for each in self.watched))
        got = f"{len(in_time)} of {len(healthy)}"
        check("names without a fault renewed", "all", got, len(in_time) == len(healthy) > 0)
        left = [(self.not_after - each.alarm) / self.p.life for each in failing if not math.isinf(each.alarm)]
        if left:
            row("lifetime left at an alarm", 100 * min(left), "%")
        got = f"{len(left)} of {len(failing)}" + (f", with {min(left):.0%} left or more" if left else "")
        check("alarm for each failing name", f"with {LEFT:.0%} of the lifetime left", got,
              len(left) == len(failing) > 0 and min(left) >= LEFT)  # fmt: skip
        wrong = [e.cause for e in failing if not set(e.host.kinds) & set(PROBLEMS[e.cause])]
        got = f"not for {', '.join(wrong)}" if wrong else "for each name"
        check("the CA's reason is the cause", "for each name", got, not wrong)
        gaps = [b - a for host in hosts for a, b in pairwise(host.orders)]
        got, ok = f"{min(gaps):.1f} s" if gaps else "no retry", bool(gaps) and min(gaps) >= MIN_RETRY
        check("shortest time between two orders of a host", f">= {MIN_RETRY:g} s", got, ok)
        late = max((host.renewed for host in hosts), default=math.inf) - self.mended
        got = "not all" if math.isinf(late) else f"after {max(0.0, late):.1f} s"
        check("all names renew when the faults end", f"within {RECOVERS:g} s", got, late <= RECOVERS)
        for each in failing:
            fact(each.cause, each.text[:260] or "no alarm")
        stage.facts(self.began, self.ended)
        self._picture(stage)

    def _picture(self, stage: Rehearsal) -> None:
        lanes, failed, good = [], [], []
        for number, each in enumerate(self.watched):
            host, label = each.host, each.cause or "no fault"
            end = min(host.renewed, self.ended)
            spans = [Span(self.began, min(end, self.not_after), "old certificate", 0)]
            if end > self.not_after:
                spans.append(Span(self.not_after, end, "expired", "bad"))
            if not math.isinf(host.renewed):
                spans.append(Span(host.renewed, self.ended, "new certificate", "good"))
            lanes.append(Lane(f"h{number}: {label}", spans))
            failed += [(at, float(number)) for at in host.orders if at < host.orders[-1] or math.isinf(host.renewed)]
            good += [(host.orders[-1], float(number))] if not math.isinf(host.renewed) else []
        dots = [
            Dots(name, [(at, n, n, n) for at, n in found], colour)
            for name, found, colour in (("failed", failed, "bad"), ("succeeded", good, "good"))
            if found
        ]
        stage.picture(
            "Four of six names cannot be validated",
            "The first panel shows the certificate of each name; the second the orders for it. A name with a fault "
            f"fails until the faults end; renewals are due after {SHARE:.0%} ± {JITTER:.0%} of the lifetime.",
            Panel(lanes=lanes, y="certificate of each name"),
            Panel(dots, y="orders for hN"),
        )
