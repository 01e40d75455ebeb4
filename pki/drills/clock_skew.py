"""D14 `clock-skew`: the clock of a client, of the server or of the CA is wrong by an hour, a day, a whole life."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

from drills.lifetimes import Scale, shorten
from drills.rehearsal import HOST, Rehearsal, listed, said
from experiments import Control, Experiment, Lane, Panel, Quantity, Run, Span, Undo, parameter

#: Skews in nominal days, by the words of the catalogue.
HOUR, DAY, LIFE = 1 / 24, 1.0, 47.0
SKEWS = {"1 h": HOUR, "1 d": DAY, "1 life": LIFE}
CLIENT, SERVER, CA = "client", "server", "CA"
#: Seconds of load before and after.
BASELINE, AFTER = 3.0, 1.5
#: Seconds that a case is watched: a loop would renew more than `TRIES` times.
WATCHED, TRIES = 2.5, 4
#: Skew beyond which a host has to complain (`renewal.schedule.tolerated_skew`: 1 % of a life, at least 1.5 s), and the
#: half second by which the whole seconds of an HTTP date blur it.
SHARE, LEAST, BLUR = 0.01, 1.5, 0.75


@dataclass(frozen=True, slots=True)
class Parameters:
    """What can be varied."""

    rate: float = parameter(100.0, quick=60.0, unit="requests/s", low=1, high=1000, help="half fresh, half kept alive")
    day: float = parameter(3.0, unit="s", low=3, high=20, help="a nominal day lasts this long")


@dataclass(frozen=True, slots=True)
class _Case:
    """One wrong clock, and what came of it; seconds on the time line."""

    who: str
    #: Nominal days; negative: late.
    days: float
    name: str
    begin: float
    end: float
    #: What the case was about: OpenSSL's verdict at that time (client), or whether the new certificate was taken.
    got: bool
    wanted: bool
    alarm: bool
    tries: int
    words: str = ""


class ClockSkew(Experiment[Parameters]):
    """Injected: one clock after the other is set wrong, forwards and back."""

    name = "clock-skew"
    claim = "Within the backdate a wrong clock harms nobody; beyond it somebody complains, nothing loops, and no bad certificate is served."
    says = (
        "Clocks are wrong: a dead battery, a virtual machine that was paused, a time server that lies. Chrome's engineers found the "
        "client's own clock behind a large share of all certificate errors (Acer et al., CCS 2017)."
    )
    source = (
        "RFC 5280 section 4.1.2.5; M. E. Acer et al., Where the Wild Warnings Are, CCS 2017; Let's Encrypt backdates by one hour for this "
        "reason. RFC 9110 section 6.6.1: the Date of an HTTP answer is how a client can learn of a skew."
    )
    production = (
        "Backdate what you issue, but not by more than clients need. Let the renewal agent compare its clock with the CA's Date, and alarm: "
        "an agent whose clock is wrong renews at the wrong time, or refuses good certificates. Put a floor under the time between two "
        "renewals, so that a clock that is ahead does not renew in a loop until the CA's rate limit."
    )
    settings = Parameters
    control = Control(
        "the edge takes what comes, unchecked, from a CA whose clock is ahead", ("requests lost", "what was predicted")
    )
    records = (HOST,)

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.scale = Scale(parameters.day * LIFE)
        self.stage: Rehearsal | None = None
        self.cases: list[_Case] = []
        self.began = self.ended = float("inf")

    def duration(self) -> float:
        """Twelve cases take some seconds each, and six of the client a moment."""
        return BASELINE + 12 * (WATCHED + 1.5) + 6 + AFTER

    def predict(self) -> Mapping[str, Quantity]:
        """All eighteen cases as arithmetic says; nothing lost."""
        return {"requests lost": Quantity(0), "cases as predicted": Quantity(4 if self.negative else 18)}

    async def measure(self, run: Run) -> None:
        """One wrong clock after the other, in an order that the seed shuffles."""
        stage = self.stage = Rehearsal(run, self.p.rate)
        async with stage.under_load():
            await stage.baseline(BASELINE)
            await shorten(run, (HOST,), self.scale)
            await asyncio.sleep(1.0)  # requests meet the short certificate
            self.began = run.now()
            if self.negative:
                await run.lab.fault(HOST, "naive_reload", how="live")
            cases = [(who, sign, name) for who in (CLIENT, SERVER, CA) for name in SKEWS for sign in (1, -1)]
            run.rng.shuffle(cases)
            if self.negative:
                cases = [case for case in cases if case[0] == CA and case[1] > 0 and case[2] != "1 h"] * 2
            for who, sign, name in cases:
                case = await {CLIENT: self._client, SERVER: self._server, CA: self._ca}[who](run, stage, sign, name)
                self.cases.append(case)
                run.note("observation", f"{who} {'+' if sign > 0 else '-'}{name}: {case.words}"[:160])
            self.ended = run.now()
            await stage.watch.look(HOST)
            await asyncio.sleep(AFTER)  # the load shows whether it is well again

    def _skew(self, sign: int, name: str) -> float:
        return sign * self.scale.seconds(SKEWS[name])

    async def _client(self, run: Run, stage: Rehearsal, sign: int, name: str) -> _Case:
        """Judge the certificate as a client would whose clock is wrong: OpenSSL with another time."""
        begin, skew = run.now(), self._skew(sign, name)
        at = time.time() + skew
        probe = await stage.prober.look(run.now, at)
        held = next((h for h in reversed(stage.watch.of(HOST))), None)
        if held is None:
            raise RuntimeError("the edge holds no certificate")
        wanted = int(held.issued - self.scale.backdate) <= int(at) < held.not_after
        words = probe.error or "accepted"
        return _Case(CLIENT, sign * SKEWS[name], name, begin, run.now(), probe.ok, wanted, alarm=False, tries=0, words=words)  # fmt: skip

    async def _server(self, run: Run, stage: Rehearsal, sign: int, name: str) -> _Case:
        """Set the edge's clock, and let it renew once by hand and as often as it likes by itself."""
        return await self._wrong(run, stage, SERVER, HOST, sign, name)

    async def _ca(self, run: Run, stage: Rehearsal, sign: int, name: str) -> _Case:
        """Set the CA's clock: what it issues begins and ends at another time."""
        return await self._wrong(run, stage, CA, "ca", sign, name)

    async def _wrong(self, run: Run, stage: Rehearsal, who: str, host: str, sign: int, name: str) -> _Case:
        skew = self._skew(sign, name)
        run.phase(f"the {who}'s clock is {'ahead' if sign > 0 else 'behind'} by {name} ({skew:+.2f} s)")
        before = await stage.watch.look(HOST)
        begin = run.now()
        undo = await run.lab.set_clock(host, skew)
        try:
            await run.lab.call(HOST, "POST", "/admin/renew", {}, timeout=60.0)
        except Exception as error:  # refused: the words are kept
            got, words = False, str(error)
        else:
            got, words = True, "taken"
        await asyncio.sleep(WATCHED)  # clients meet it
        after = await stage.watch.look(HOST)
        alarm = any(text.startswith("clock:") for text in after["alarms"])
        tries = after["renewals"] + after["failures"] - before["renewals"] - before["failures"]
        await run.lab.undo(undo)
        end = run.now()
        # The agent sees a certificate that is `ahead` seconds older than it is: valid from its backdate to its end.
        ahead = skew if who == SERVER else -skew
        wanted = -self.scale.backdate <= ahead + BLUR * (ahead > 0) and ahead < self.scale.life
        run.lab.undo_log.add(Undo(f"good certificate of {HOST}", HOST, "POST", "/admin/renew", {}))
        await run.lab.call(HOST, "POST", "/admin/renew", {}, timeout=60.0)  # every clock is right again: it has to work
        await run.lab.undo(run.lab.undo_log.undos[-1])
        await stage.watch.look(HOST)
        return _Case(who, sign * SKEWS[name], name, begin, end, got, wanted, alarm, tries, words)

    def conclude(self, run: Run) -> None:
        """As arithmetic says, announced, no loop, nothing lost."""
        stage = self.stage
        if stage is None:
            return
        stage.gates(self.began)
        lost, failed = stage.lost(), stage.failed_probes()
        wrong = [c for c in self.cases if c.got is not c.wanted]
        run.findings.row("requests lost", len(lost))
        run.findings.row("cases as predicted", len(self.cases) - len(wrong))
        run.findings.check("requests lost", "0", said(lost), not lost)
        run.findings.check("handshakes from outside that failed", "0", listed(failed), not failed)  # fmt: skip
        run.findings.check("what was predicted", f"in all {len(self.cases)} cases", f"not {_named(wrong)}" if wrong else "in all", not wrong and bool(self.cases))  # fmt: skip
        limit = max(LEAST, SHARE * self.scale.life)
        moved = [c for c in self.cases if c.who != CLIENT]
        far = [c for c in moved if abs(self.scale.seconds(c.days)) > limit + BLUR]
        near = [c for c in moved if abs(self.scale.seconds(c.days)) < limit - BLUR]
        silent, noisy = [c for c in far if not c.alarm], [c for c in near if c.alarm]
        run.findings.check(f"alarm where a clock is off by more than {limit:.1f} s", f"{len(far)} cases", f"silent: {_named(silent)}" if silent else "in all", not silent)  # fmt: skip
        run.findings.check("no alarm within the tolerance", f"{len(near)} cases", f"noisy: {_named(noisy)}" if noisy else "none", not noisy)  # fmt: skip
        most = max((c.tries for c in moved), default=0)
        run.findings.check("no renewal loop", f"<= {TRIES} tries in {WATCHED:g} s", str(most), most <= TRIES)
        left = stage.watch.ringing(HOST)
        run.findings.check(
            "clocks stepped back: no complaint left", "none", ", ".join(sorted(left)) or "none", not left
        )
        for c in self.cases:
            sign = "+" if c.days > 0 else "-"
            run.findings.fact(f"{c.who} {sign}{c.name}", f"{'accepted' if c.got else 'refused'}, {'alarm' if c.alarm else 'no alarm'}, {c.tries} tries; {c.words[:110]}")  # fmt: skip
        stage.facts(self.began, self.ended)
        lanes = []
        for who in (CLIENT, SERVER, CA):
            spans = [
                Span(c.begin, max(c.end, c.begin + 0.4), f"{'+' if c.days > 0 else '-'}{c.name}", "good" if c.got else "mark")
                for c in self.cases
                if c.who == who
            ]  # fmt: skip
            lanes.append(Lane(who, spans))
        stage.picture(
            "Clocks that are wrong, one after the other",
            "Each stretch is one wrong clock: green where the certificate was accepted, orange where it was refused. Neither may cost a request.",
            Panel(lanes=lanes, y="whose clock"),
            shown=(),
        )


def _named(cases: list[_Case]) -> str:
    return ", ".join(f"{c.who} {'+' if c.days > 0 else '-'}{c.name}" for c in cases)
