"""Drill D8 `ca-outage`: the CA is down for 20, 40 and 120 % of a lifetime, starting just before a renewal."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from drills.drill import Drill
from drills.lifetimes import SHARE, Scale, renew, shorten
from drills.rehearsal import HOST, Rehearsal, by_cause
from experiments import Control, Lane, Panel, Quantity, Run, Span, parameter

#: Failure modes of the CA, and the fault that causes each mode.
MODES = {"answers 503": "acme_503", "refuses connections": "acme_refuse", "never answers": "acme_hang"}
#: Time from the start of an outage to the scheduled renewal, as a fraction of the lifetime.  An outage that starts just
#: before the renewal is the worst case.
EARLY = 0.04
#: Maximum time from the end of an outage until every host has a new certificate, in seconds.
RETURN = 6.0
#: Minimum interval between a host's renewal attempts, in seconds (`renewal.schedule.MIN_RETRY`), and the number of
#: additional attempts that the check allows per outage.
MIN_RETRY, FREE = 1.0, 2
#: Tolerance after expiry and after recovery, in seconds, within which requests may either fail or succeed.
BLUR = 1.5
#: Mean rounding error of notAfter, in seconds: it is truncated to whole seconds, so certificates expire early.
CUT = 0.5


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters of the drill `ca-outage`."""

    rate: float = parameter(100.0, quick=60.0, unit="requests/s", low=1, high=1000, help="half fresh, half kept alive")
    life: float = parameter(20.0, quick=10.0, unit="s", low=8, high=120, help="47 nominal days last this long")
    outages: tuple[float, ...] = parameter((0.2, 0.4, 1.2), low=0.05, high=3, help="as shares of a life, in this order")


@dataclass(slots=True)
class _Outage:
    """One outage of the CA, and its effects; times are in seconds on the run's timeline."""

    share: float
    mode: str
    begin: float
    end: float = 0.0
    #: Expiry of the edge's certificate.
    expiry: float = float("inf")
    #: Time at which the edge had a new certificate.
    renewed: float = float("inf")
    #: Time at which all hosts had a new certificate.
    all_renewed: float = float("inf")
    #: Number of failed renewals during the outage, on the host with the most failures.
    tries: int = 0

    @property
    def name(self) -> str:
        """Name of the outage in result rows and checks."""
        return f"outage of {self.share:.0%} of a life"


class CaOutage(Drill[Parameters]):
    """Drill in which the CA fails just before the hosts' renewals are due, for three durations."""

    name = "ca-outage"
    claim = (
        "A CA may be away for the third of a life that renewal leaves; after a longer outage hosts recover by "
        "themselves."
    )
    says = (
        "May 2017: Let's Encrypt's OCSP and issuance were down for hours. Anyone who renews in the last days of a "
        "life goes down with it; anyone who retries in a tight loop keeps the CA down while it tries to come back."
    )
    source = (
        "Let's Encrypt integration guide (renew with a third of life left, back off, add jitter); RFC 8555 section 6.6 "
        "(Retry-After)."
    )
    production = (
        "The margin is what is left of a life when renewal begins: a third of 47 days is 15 days, a third of a "
        "six-day certificate is two. Plan for an outage of that length. Back off, honour Retry-After, and spread the "
        "retries: all clients find the CA at the same moment. A host whose certificate has expired must recover "
        "without a person."
    )
    settings = Parameters
    control = Control("hosts try again at once: no back-off, no Retry-After", ("back-off obeyed",))
    records = (HOST, "ca")
    hosts = (HOST, "edge-far", "news")
    before = 2.0

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.scale = Scale(parameters.life)
        self.outages: list[_Outage] = []
        #: Samples of the CA's request counter: time in seconds on the run's timeline, and total number of responses.
        self.answered: list[tuple[float, float]] = []

    def duration(self) -> float:
        """Return the expected duration in seconds: the baseline, and for each outage the wait for the next renewal."""
        return self.before + sum(self.p.life * (SHARE + share) + RETURN / 2 for share in self.p.outages) + 4

    def predict(self) -> Mapping[str, Quantity]:
        """Predict for how many seconds of each outage the edge's certificate is expired."""
        beyond = {share: (SHARE - EARLY + share - 1) * self.p.life + CUT for share in self.p.outages}
        return {f"expired, outage of {share:.0%} of a life": Quantity(max(0.0, s), "s") for share, s in beyond.items()}

    async def inject(self, run: Run, stage: Rehearsal) -> None:
        """Run all outages one after another, each with a different failure mode."""
        modes = list(MODES)
        run.rng.shuffle(modes)
        if self.negative:  # the control needs fast retries, which an unresponsive CA would delay
            modes.remove("never answers")
        self.began = run.now()
        await shorten(run, self.hosts, self.scale)
        if self.negative:
            for host in self.hosts:
                await run.lab.fault(host, "eager_retry")
        counting = asyncio.create_task(self._count(run))
        try:
            for number, share in enumerate(self.p.outages):
                await self._outage(run, stage, share, modes[number % len(modes)], first=number == 0)
        finally:
            counting.cancel()
            await asyncio.gather(counting, return_exceptions=True)
        self.ended = run.now()

    async def _outage(self, run: Run, stage: Rehearsal, share: float, mode: str, *, first: bool) -> None:
        if not first:  # renew all hosts, so that their certificates have the same age
            await asyncio.gather(*(renew(run, host) for host in self.hosts))
        bodies = {host: await stage.watch.look(host) for host in self.hosts}
        due = min(stage.at(body["due"]) for body in bodies.values())
        run.phase(f"outage of {share:.0%} of a life begins in {max(0.0, due - run.now()):.0f} s: the CA {mode}")
        await run.until(due - EARLY * self.p.life)
        bodies = dict(zip(self.hosts, await asyncio.gather(*map(stage.watch.look, self.hosts)), strict=True))
        outage = _Outage(share, mode, run.now(), expiry=stage.at(bodies[HOST]["not_after"]))
        self.outages.append(outage)
        fault = await run.lab.fault("ca", MODES[mode])
        await run.until(outage.begin + share * self.p.life)
        tries = [(await stage.watch.look(host))["failures"] - bodies[host]["failures"] for host in self.hosts]
        outage.tries = max(tries)
        await run.lab.undo(fault)
        outage.end = run.now()
        run.phase("the CA is back")
        waiting = [stage.watch.until_renewed(host, bodies[host]["serial"], 15.0) for host in self.hosts]
        times = [
            t if isinstance(t, float) else float("inf") for t in await asyncio.gather(*waiting, return_exceptions=True)
        ]
        outage.renewed, outage.all_renewed = times[0], max(times)

    async def _count(self, run: Run) -> None:
        """Sample the CA's request counter once per second."""
        while True:
            try:
                text = str(await run.lab.call("ca", "GET", "/metrics"))
            except OSError:
                text = ""
            found = re.findall(r"^firstbyte_acme_requests_total\{[^}]*\} ([\d.e+]+)$", text, re.MULTILINE)
            self.answered.append((run.now(), sum(map(float, found))))
            await asyncio.sleep(1.0)  # interval between two scrapes

    def judge(self, run: Run, stage: Rehearsal) -> None:
        """Check lost requests, back-off, alarms and recovery for each outage."""
        stage.gates(self.began)
        for each in self.outages:
            self._judge_one(run, stage, each)
        check = run.findings.check
        limits = [FREE + each.share * self.p.life / MIN_RETRY for each in self.outages]
        tries = [each.tries for each in self.outages]
        expected = f"<= {', '.join(f'{limit:.0f}' for limit in limits)} tries of one host"
        obeyed = bool(tries) and all(got <= limit for got, limit in zip(tries, limits, strict=True))
        check("back-off obeyed", expected, ", ".join(map(str, tries)), obeyed)
        beyond = [each for each in self.outages if each.share > SHARE / 2]
        alarms = [stage.watch.first_alarm(each.begin, HOST) for each in beyond]
        early = sum(a is not None and a.at < each.expiry for a, each in zip(alarms, beyond, strict=True))
        check(
            "alarm before expiry", "in each outage beyond the margin", f"{early} of {len(beyond)}", early == len(beyond)
        )
        rates = [(n - m) / (y - x) for (x, m), (y, n) in pairwise(self.answered) if y > x and n >= m]
        run.findings.fact("CA requests/s, at most", round(max(rates, default=0.0), 1))
        stage.facts(self.began, self.ended)
        away = [Span(o.begin, o.end, f"{o.share:.0%}: {o.mode}", "bad") for o in self.outages]
        expired = [Span(o.expiry, o.renewed, "expired", "mark") for o in self.outages if o.renewed > o.expiry]
        stage.picture(
            "The CA goes away when renewal is due",
            "An outage that is shorter than the remaining third of the lifetime has no effect. During a longer one "
            "certificates expire; once the CA is back, the hosts renew by themselves.",
            Panel(lanes=[Lane("CA away", away), Lane("edge expired", expired)], y="outages"),
        )

    def _judge_one(self, run: Run, stage: Rehearsal, each: _Outage) -> None:
        check, expired = run.findings.check, max(0.0, each.end - each.expiry)
        run.findings.row(f"expired, {each.name}", expired, "s")
        lost = stage.lost(each.begin, each.all_renewed + self.after)
        wrong = [r for r in lost if r.done < each.expiry - 0.3 or r.sent > each.renewed + BLUR]
        excused = len(lost) - len(wrong)
        expected = "0" if expired <= 0 else f"0 but while expired ({expired:.1f} s)"
        got = by_cause(wrong) + (f", and {excused} while expired" if excused else "")
        check(f"requests lost, {each.name}", expected, got, not wrong)
        if expired > BLUR:
            fresh = stage.fresh(each.expiry + BLUR, each.end)
            accepted = sum(not r.error for r in fresh)
            ok = accepted == 0 and bool(fresh)
            check(f"expired and accepted, {each.name}", "0 new handshakes", f"{accepted} of {len(fresh)}", ok)
        took = each.all_renewed - each.end
        check(f"all renewed, {each.name}", f"<= {RETURN:g} s after return", f"{took:.1f} s", took <= RETURN)
