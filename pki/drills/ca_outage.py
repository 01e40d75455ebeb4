"""D8 `ca-outage`: the CA is down for 20, 40 and 120 % of a lifetime, just when renewal is due."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from drills.drill import Drill
from drills.lifetimes import SHARE, Scale, renew, shorten
from drills.rehearsal import HOST, Rehearsal, by_cause
from experiments import Control, Lane, Panel, Quantity, Run, Span, parameter

#: How a CA fails, and the fault that makes it fail so.
MODES = {"answers 503": "acme_503", "refuses connections": "acme_refuse", "never answers": "acme_hang"}
#: The share of a life by which an outage begins before the renewal is due, which is the worst moment.
EARLY = 0.04
#: Seconds within which every host has to be renewed once the CA is back.
RETURN = 6.0
#: Least seconds between two tries of one host (`renewal.schedule.MIN_RETRY`), and tries that are always allowed.
MIN_RETRY, FREE = 1.0, 2
#: Seconds after expiry and recovery in which either outcome is right.
BLUR = 1.5
#: notAfter is cut to whole seconds and so comes early by half a second on average.
CUT = 0.5


@dataclass(frozen=True, slots=True)
class Parameters:
    """What can be varied."""

    rate: float = parameter(100.0, quick=60.0, unit="requests/s", low=1, high=1000, help="half fresh, half kept alive")
    life: float = parameter(20.0, quick=10.0, unit="s", low=8, high=120, help="47 nominal days last this long")
    outages: tuple[float, ...] = parameter((0.2, 0.4, 1.2), low=0.05, high=3, help="as shares of a life, in this order")


@dataclass(slots=True)
class _Outage:
    """One outage; times are seconds on the run's timeline."""

    share: float
    mode: str
    begin: float
    end: float = 0.0
    #: notAfter of the edge's certificate.
    expiry: float = float("inf")
    #: When the edge had a new certificate.
    renewed: float = float("inf")
    #: When the last host had a new certificate.
    all_renewed: float = float("inf")
    #: Failed renewals of the most eager host.
    tries: int = 0

    @property
    def name(self) -> str:
        """Its name in rows and checks."""
        return f"outage of {self.share:.0%} of a life"


class CaOutage(Drill[Parameters]):
    """Injected: the CA goes away just before the renewal of every host is due."""

    name = "ca-outage"
    claim = "A CA may be away for the third of a life that renewal leaves; after a longer outage hosts recover by themselves."
    says = (
        "May 2017: Let's Encrypt's OCSP and issuance were down for hours. Anyone who renews in the last days of a life goes down with it; "
        "anyone who retries in a tight loop keeps the CA down while it tries to come back."
    )
    source = "Let's Encrypt integration guide (renew with a third of life left, back off, add jitter); RFC 8555 section 6.6 (Retry-After)."
    production = (
        "The margin is what is left of a life when renewal begins: a third of 47 days is 15 days, a third of a six-day certificate is two. "
        "Plan for an outage of that length. Back off, honour Retry-After, and spread the retries: all clients find the CA at the same "
        "moment. A host whose certificate has expired must recover without a person."
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
        #: (second, requests that the CA has answered so far).
        self.answered: list[tuple[float, float]] = []

    def duration(self) -> float:
        """Baseline; each outage waits for the renewal to be due."""
        return self.before + sum(self.p.life * (SHARE + share) + RETURN for share in self.p.outages) + 4

    def predict(self) -> Mapping[str, Quantity]:
        """Return how long the certificate is expired in each outage."""
        beyond = {share: (SHARE - EARLY + share - 1) * self.p.life + CUT for share in self.p.outages}
        return {f"expired, outage of {share:.0%} of a life": Quantity(max(0.0, s), "s") for share, s in beyond.items()}

    async def inject(self, run: Run, stage: Rehearsal) -> None:
        """Make one outage after the other, each in another way."""
        modes = list(MODES)
        run.rng.shuffle(modes)
        if self.negative:  # a CA that never answers would slow the eager clients down
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
        if not first:  # certificates of equal age, so that the outage meets all hosts at the same point
            await asyncio.gather(*(renew(run, host) for host in self.hosts))
        bodies = {host: await stage.watch.look(host) for host in self.hosts}
        due = min(stage.at(body["due"]) for body in bodies.values())
        run.phase(f"outage of {share:.0%} of a life begins in {max(0.0, due - run.now()):.0f} s: the CA {mode}")
        await run.until(due - EARLY * self.p.life)
        bodies = {host: await stage.watch.look(host) for host in self.hosts}
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
        """Record once a second how many requests the CA has answered."""
        while True:
            try:
                text = str(await run.lab.call("ca", "GET", "/metrics"))
            except OSError:
                text = ""
            found = re.findall(r"^firstbyte_acme_requests_total\{[^}]*\} ([\d.e+]+)$", text, re.MULTILINE)
            self.answered.append((run.now(), sum(map(float, found))))
            await asyncio.sleep(1.0)

    def judge(self, run: Run, stage: Rehearsal) -> None:
        """Check losses, back-off, alarms and recovery, outage by outage."""
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
            "An outage shorter than the remaining third of a life costs nothing. A longer one lets certificates expire; when the CA is "
            "back, hosts renew by themselves.",
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
