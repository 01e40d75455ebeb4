"""D8 `ca-outage`: the CA is down for 20, 40 and 120 % of a lifetime, just when renewal is due.  Let's Encrypt 2017."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from drills.lifetimes import SHARE, Scale, shorten
from drills.rehearsal import HOST, Rehearsal, said
from experiments import Control, Experiment, Lane, Panel, Quantity, Run, Span, parameter

#: Ways in which a CA is away: it says so, nobody listens, or it takes requests and never answers.
MODES = {"answers 503": "acme_503", "refuses connections": "acme_refuse", "never answers": "acme_hang"}
HOSTS = (HOST, "edge-far", "news")
#: Share of a life by which an outage begins before the renewal is due: at the worst moment.
EARLY = 0.04
#: Seconds within which everybody has to be renewed when the CA is back.
RETURN = 6.0
#: Seconds between two tries of one host at least (`renewal.schedule.MIN_RETRY`), and tries that are free.
MIN_RETRY, FREE = 1.0, 2
#: Seconds after expiry and recovery in which either outcome is right.
BLUR = 1.5
BASELINE, AFTER = 2.0, 1.5
#: Seconds by which notAfter, cut to whole seconds, comes early on average.
WHOLE = 0.5


@dataclass(frozen=True, slots=True)
class Parameters:
    """What can be varied."""

    rate: float = parameter(100.0, quick=60.0, unit="requests/s", low=1, high=1000, help="half fresh, half kept alive")
    life: float = parameter(20.0, quick=10.0, unit="s", low=8, high=120, help="47 nominal days last this long")
    outages: tuple[float, ...] = parameter((0.2, 0.4, 1.2), low=0.05, high=3, help="as shares of a life, in this order")


@dataclass(slots=True)
class _Outage:
    """One outage, as it went; seconds on the time line."""

    share: float
    mode: str
    begin: float
    end: float = 0.0
    #: End of the certificate that the edge held.
    expiry: float = float("inf")
    #: When the edge had another.
    renewed: float = float("inf")
    #: When the last host had another.
    all_renewed: float = float("inf")
    tries: int = 0


class CaOutage(Experiment[Parameters]):
    """Injected: the CA goes away just before the renewal of every host is due."""

    name = "ca-outage"
    claim = "A CA may be away for the third of a life that renewal leaves; after a longer outage hosts come back by themselves."
    says = (
        "May 2017: Let's Encrypt's OCSP and issuance were down for hours. Whoever renews in the last days of a life stands in the dark with "
        "it; whoever retries in a tight loop keeps the CA down when it tries to come back."
    )
    source = "Let's Encrypt integration guide (renew with a third of life left, back off, add jitter); RFC 8555 section 6.6 (Retry-After)."
    production = (
        "The margin is what is left of a life when renewal begins: a third of 47 days is 15 days, a third of a six-day certificate is two. "
        "Plan for an outage that long. Back off, honour Retry-After, and spread the retries: all clients find the CA at the same moment. "
        "An expired host must need nobody to come back."
    )
    settings = Parameters
    control = Control("hosts try again at once: no back-off, no Retry-After", ("back-off obeyed",))
    records = (HOST, "ca")

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.scale = Scale(parameters.life)
        self.stage: Rehearsal | None = None
        self.outages: list[_Outage] = []
        self.began = self.ended = float("inf")
        #: (second, requests that the CA has answered).
        self.asked: list[tuple[float, float]] = []

    def duration(self) -> float:
        """Each outage waits for the renewal to be due."""
        return BASELINE + sum(self.p.life * (SHARE + share) + RETURN for share in self.p.outages) + 4

    def predict(self) -> Mapping[str, Quantity]:
        """How long the certificate is expired in each outage."""
        return {
            f"expired, outage of {share:.0%} of a life": Quantity(
                max(0.0, (SHARE - EARLY + share - 1) * self.p.life + WHOLE), "s"
            )
            for share in self.p.outages
        }

    async def measure(self, run: Run) -> None:
        """One outage after the other."""
        stage = self.stage = Rehearsal(run, self.p.rate, HOSTS)
        modes = list(MODES)
        run.rng.shuffle(modes)
        if self.negative:  # a CA that never answers slows the most eager client down
            modes.remove("never answers")
        async with stage.under_load():
            await stage.baseline(BASELINE)
            self.began = run.now()
            await shorten(run, HOSTS, self.scale)
            if self.negative:
                for host in HOSTS:
                    await run.lab.fault(host, "eager_retry")
            counting = asyncio.create_task(self._count(run))
            try:
                for number, share in enumerate(self.p.outages):
                    await self._outage(run, stage, share, modes[number % len(modes)], first=number == 0)
            finally:
                counting.cancel()
                await asyncio.gather(counting, return_exceptions=True)
            self.ended = run.now()
            await asyncio.sleep(AFTER)  # the load shows whether it is well again

    async def _outage(self, run: Run, stage: Rehearsal, share: float, mode: str, *, first: bool) -> None:
        if not first:  # all of one age again, so that the outage meets all at the same point
            await asyncio.gather(*(run.lab.call(host, "POST", "/admin/renew", {}, timeout=60.0) for host in HOSTS))
        bodies = {host: await stage.watch.look(host) for host in HOSTS}
        due = min(stage.at(body["due"]) for body in bodies.values())
        run.phase(f"outage of {share:.0%} of a life begins in {max(0.0, due - run.now()):.0f} s: the CA {mode}")
        await run.until(due - EARLY * self.p.life)
        bodies = {host: await stage.watch.look(host) for host in HOSTS}
        outage = _Outage(share, mode, run.now(), expiry=stage.at(bodies[HOST]["not_after"]))
        self.outages.append(outage)
        fault = await run.lab.fault("ca", MODES[mode])
        await run.until(outage.begin + share * self.p.life)
        tries = [(await stage.watch.look(host))["failures"] - bodies[host]["failures"] for host in HOSTS]
        outage.tries = max(tries)
        await run.lab.undo(fault)
        outage.end = run.now()
        run.phase("the CA is back")
        waiting = [stage.watch.until_renewed(host, bodies[host]["serial"], 15.0) for host in HOSTS]
        times = await asyncio.gather(*waiting, return_exceptions=True)
        good = [t for t in times if isinstance(t, float)]
        if isinstance(times[0], float):
            outage.renewed = times[0]
        if len(good) == len(HOSTS):
            outage.all_renewed = max(good)

    async def _count(self, run: Run) -> None:
        """Note how many requests the CA has answered, once a second."""
        while True:
            try:
                text = str(await run.lab.call("ca", "GET", "/metrics"))
            except OSError:
                text = ""
            found = re.findall(r"^firstbyte_acme_requests_total\{[^}]*\} ([\d.e+]+)$", text, re.MULTILINE)
            self.asked.append((run.now(), sum(map(float, found))))
            await asyncio.sleep(1.0)  # a count a second is enough for the picture

    def conclude(self, run: Run) -> None:
        """No loss within the margin, none but the expired after it, and back alone."""
        stage = self.stage
        if stage is None:
            return
        stage.gates(self.began)
        for each in self.outages:
            name = f"outage of {each.share:.0%} of a life"
            expired = max(0.0, each.end - each.expiry)
            run.findings.row(f"expired, {name}", expired, "s")
            inside = stage.lost(each.begin, each.all_renewed + AFTER)
            wrong = [r for r in inside if r.done < each.expiry - 0.3 or r.sent > each.renewed + BLUR]
            excused = len(inside) - len(wrong)
            words = "0" if expired <= 0 else f"0 but while expired ({expired:.1f} s)"
            run.findings.check(f"requests lost, {name}", words, f"{said(wrong)}{f', and {excused} while expired' if excused else ''}", not wrong)  # fmt: skip
            if expired > BLUR:
                fresh = stage.fresh(each.expiry + BLUR, each.end)
                accepted = sum(not r.error for r in fresh)
                run.findings.check(f"expired and accepted, {name}", "0 new handshakes", f"{accepted} of {len(fresh)}", accepted == 0 and bool(fresh))  # fmt: skip
            took = each.all_renewed - each.end
            run.findings.check(f"all renewed, {name}", f"<= {RETURN:g} s after return", f"{took:.1f} s", took <= RETURN)
        limits = [FREE + each.share * self.p.life / MIN_RETRY for each in self.outages]
        got = [each.tries for each in self.outages]
        run.findings.check("back-off obeyed", f"<= {', '.join(f'{x:.0f}' for x in limits)} tries of one host", ", ".join(map(str, got)), all(g <= x for g, x in zip(got, limits, strict=True)) and bool(got))  # fmt: skip
        alarms = [stage.watch.first_alarm(each.begin, HOST) for each in self.outages if each.share > SHARE / 2]
        rung = [a.at for a in alarms if a is not None]
        run.findings.check("alarm before expiry", "in each outage beyond the margin", f"{len(rung)} of {len(alarms)}", len(rung) == len(alarms) and all(at < each.expiry for at, each in zip(rung, [o for o in self.outages if o.share > SHARE / 2], strict=False)))  # fmt: skip
        rates = [((x + y) / 2, (n - m) / (y - x)) for (x, m), (y, n) in pairwise(self.asked) if y > x and n >= m]
        run.findings.fact("CA requests/s, at most", round(max((r for _, r in rates), default=0.0), 1))
        stage.facts(self.began, self.ended)
        lanes = [Lane("CA away", [Span(o.begin, o.end, f"{o.share:.0%}: {o.mode}", "bad") for o in self.outages])]
        lanes.append(Lane("edge expired", [Span(o.expiry, max(o.expiry, o.renewed), "expired", "mark") for o in self.outages if o.renewed > o.expiry]))  # fmt: skip
        stage.picture(
            "The CA goes away when renewal is due",
            "An outage shorter than the third of a life that is left costs nothing. A longer one lets certificates expire; when the CA is "
            "back, hosts re-enrol by themselves.",
            Panel(lanes=lanes, y="outages"),
        )
