"""Drill D14 `clock-skew`: the clock of a client, the server or the CA is wrong by an hour, a day or a lifetime."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from drills.drill import Drill
from drills.lifetimes import NOMINAL_DAYS, Scale, renew, renewal_when_undone, shorten
from drills.rehearsal import HOST, Rehearsal
from experiments import Control, Lane, Panel, Quantity, Run, Span, parameter

#: Clock skews to test, in nominal days.  One certificate lifetime (shown as "1 life") is `NOMINAL_DAYS` nominal days,
#: which the drill scales down to seconds.
SKEWS = {"1 h": 1 / 24, "1 d": 1.0, "1 life": NOMINAL_DAYS}
CLIENT, SERVER, CA = "client", "server", "CA"
#: Observation time of a case, in seconds, and the number of renewal attempts in that time above which the drill reports
#: a renewal loop.
WATCHED, TRIES = 2.5, 4
#: A host must raise an alarm if the skew exceeds `SHARE` of the lifetime and `LEAST` seconds
#: (`renewal.schedule.tolerated_skew`).  Within `BLUR` seconds of this limit both outcomes are accepted, because an HTTP
#: date has a resolution of one second.
SHARE, LEAST, BLUR = 0.01, 1.5, 0.75


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters of the drill `clock-skew`."""

    rate: float = parameter(100.0, quick=60.0, unit="requests/s", low=1, high=1000, help="half fresh, half kept alive")
    day: float = parameter(3.0, unit="s", low=3, high=20, help="a nominal day lasts this long")


@dataclass(frozen=True, slots=True)
class _Case:
    """One case with one wrong clock, and its result; times are in seconds on the run's timeline."""

    who: str
    #: Clock skew in nominal days; negative if the clock is behind.
    days: float
    name: str
    begin: float
    end: float
    #: Measured outcome: whether the client accepted the certificate, or whether the host accepted a new certificate.
    got: bool
    #: Predicted outcome.
    wanted: bool
    alarm: bool
    tries: int
    words: str = ""

    @property
    def skew(self) -> str:
        """The skew with its sign, such as ``+1 h``."""
        return f"{'+' if self.days > 0 else '-'}{self.name}"


class ClockSkew(Drill[Parameters]):
    """Drill in which the clocks of a client, the edge and the CA are set wrong in turn, ahead and behind."""

    name = "clock-skew"
    claim = (
        "Within the backdate a wrong clock does no harm; beyond it an alarm is raised, nothing loops, and no bad "
        "certificate is served."
    )
    says = (
        "Clocks are wrong: a dead battery, a virtual machine that was paused, a faulty time server. Chrome's "
        "engineers found the client's own clock behind a large share of all certificate errors (Acer et al., CCS "
        "2017)."
    )
    source = (
        "RFC 5280 section 4.1.2.5; M. E. Acer et al., Where the Wild Warnings Are, CCS 2017; Let's Encrypt backdates "
        "by one hour for this reason. RFC 9110 section 6.6.1: a client can learn of a skew from the Date of an HTTP "
        "response."
    )
    production = (
        "Backdate what you issue, but not by more than clients need. Let the renewal agent compare its clock with the "
        "CA's Date and raise an alarm: an agent whose clock is wrong renews at the wrong time, or refuses good "
        "certificates. Enforce a minimum time between two renewals, so that a host whose clock is ahead does not "
        "renew in a loop until it hits the CA's rate limit."
    )
    settings = Parameters
    control = Control(
        "the edge accepts what comes, unchecked, from a CA whose clock is ahead",
        ("requests lost", "what was predicted"),
    )

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.scale = Scale(parameters.day * NOMINAL_DAYS)
        self.cases: list[_Case] = []

    def duration(self) -> float:
        """Return the expected duration in seconds: baseline, twelve cases of 3.7 s, six of 0.5 s, recovery."""
        return self.before + 12 * (WATCHED + 1.2) + 3 + self.after

    def predict(self) -> Mapping[str, Quantity]:
        """Predict that every case ends as calculated from lifetime and backdate, and that no requests are lost."""
        return {"requests lost": Quantity(0), "cases as predicted": Quantity(4 if self.negative else 18)}

    async def inject(self, run: Run, stage: Rehearsal) -> None:
        """Run all cases in an order shuffled by the seed."""
        await shorten(run, (HOST,), self.scale)
        await asyncio.sleep(1.0)  # clients connect with the short-lived certificate
        self.began = run.now()
        if self.negative:
            await run.lab.fault(HOST, "naive_reload", how="live")
        cases = [(who, sign, name) for who in (CLIENT, SERVER, CA) for name in SKEWS for sign in (1, -1)]
        run.rng.shuffle(cases)
        if self.negative:
            cases = [case for case in cases if case[0] == CA and case[1] > 0 and case[2] != "1 h"] * 2
        for who, sign, name in cases:
            if who == CLIENT:
                case = await self._client(run, stage, sign, name)
            else:
                case = await self._agent(run, stage, who, sign, name)
            self.cases.append(case)
            run.note("observation", f"{who} {case.skew}: {case.words}"[:160])
        self.ended = run.now()
        await stage.watch.look(HOST)

    async def _client(self, run: Run, stage: Rehearsal, sign: int, name: str) -> _Case:
        """Verify the edge's certificate with OpenSSL at a shifted time, as a client with a wrong clock would."""
        begin, at = run.now(), time.time() + sign * self.scale.seconds(SKEWS[name])
        probe = await stage.prober.look(run.now, at)
        held = stage.watch.of(HOST)
        if not held:
            raise RuntimeError("the edge holds no certificate")
        wanted = int(held[-1].issued - self.scale.backdate) <= int(at) < held[-1].not_after
        days, words = sign * SKEWS[name], probe.error or "accepted"
        return _Case(CLIENT, days, name, begin, run.now(), probe.ok, wanted, alarm=False, tries=0, words=words)

    async def _agent(self, run: Run, stage: Rehearsal, who: str, sign: int, name: str) -> _Case:
        """Shift the clock of the edge or the CA, request one renewal, and count the edge's renewal attempts."""
        days = sign * SKEWS[name]
        skew = self.scale.seconds(days)
        run.phase(f"the {who}'s clock is {'ahead' if sign > 0 else 'behind'} by {name} ({skew:+.2f} s)")
        before = await stage.watch.look(HOST)
        begin = run.now()
        undo = await run.lab.set_clock(HOST if who == SERVER else "ca", skew)
        try:
            await renew(run, HOST)
        except Exception as error:  # rejected; the message states the reason
            got, words = False, str(error)
        else:
            got, words = True, "taken"
        await asyncio.sleep(WATCHED)  # clients connect meanwhile
        after = await stage.watch.look(HOST)
        alarm = any(text.startswith("clock:") for text in after["alarms"])
        tries = after["renewals"] + after["failures"] - before["renewals"] - before["failures"]
        await run.lab.undo(undo)
        end = run.now()
        # To the agent, a new certificate seems `ahead` seconds old.  The agent accepts ages from minus the backdate
        # to the lifetime.
        ahead = skew if who == SERVER else -skew
        wanted = -self.scale.backdate <= ahead + BLUR * (ahead > 0) and ahead < self.scale.life
        good = renewal_when_undone(HOST, "good certificate")
        run.lab.undo_log.add(good)
        await renew(run, HOST)  # all clocks are correct again, so this renewal must succeed
        await run.lab.undo(good)
        await stage.watch.look(HOST)
        return _Case(who, days, name, begin, end, got, wanted, alarm, tries, words)

    def judge(self, run: Run, stage: Rehearsal) -> None:
        """Check outcomes and alarms of all cases, and that there were no renewal loops and no lost requests."""
        stage.gates(self.began)
        check = run.findings.check
        self.check_nothing_lost(run, stage)
        wrong = [c for c in self.cases if c.got is not c.wanted]
        run.findings.row("cases as predicted", len(self.cases) - len(wrong))
        got, ok = f"not {_named(wrong)}" if wrong else "in all", not wrong and bool(self.cases)
        check("what was predicted", f"in all {len(self.cases)} cases", got, ok)
        limit = max(LEAST, SHARE * self.scale.life)
        agents = [(c, abs(self.scale.seconds(c.days))) for c in self.cases if c.who != CLIENT]
        far, near = [c for c, s in agents if s > limit + BLUR], [c for c, s in agents if s < limit - BLUR]
        silent, noisy = [c for c in far if not c.alarm], [c for c in near if c.alarm]
        got = f"silent: {_named(silent)}" if silent else "in all"
        check(f"alarm where a clock is off by more than {limit:.1f} s", f"{len(far)} cases", got, not silent)
        got = f"noisy: {_named(noisy)}" if noisy else "none"
        check("no alarm within the tolerance", f"{len(near)} cases", got, not noisy)
        most = max((c.tries for c, _ in agents), default=0)
        check("no renewal loop", f"<= {TRIES} tries in {WATCHED:g} s", str(most), most <= TRIES)
        active = sorted(stage.watch.active(HOST))
        check("clocks set right again: no alarm left", "none", ", ".join(active) or "none", not active)
        for c in self.cases:
            outcome = f"{'accepted' if c.got else 'refused'}, {'alarm' if c.alarm else 'no alarm'}, {c.tries} tries"
            run.findings.fact(f"{c.who} {c.skew}", f"{outcome}; {c.words[:110]}")
        stage.facts(self.began, self.ended)
        lanes = [Lane(who, [_span(c) for c in self.cases if c.who == who]) for who in (CLIENT, SERVER, CA)]
        stage.picture(
            "Clocks that are wrong, one after the other",
            "Each span is one case with a wrong clock: green if the certificate was accepted, orange if it was "
            "refused. No request may be lost in either case.",
            Panel(lanes=lanes, y="whose clock"),
            shown=(),
        )


def _span(case: _Case) -> Span:
    return Span(case.begin, max(case.end, case.begin + 0.4), case.skew, "good" if case.got else "mark")


def _named(cases: Sequence[_Case]) -> str:
    return ", ".join(f"{case.who} {case.skew}" for case in cases)
