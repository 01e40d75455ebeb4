"""Drill D3 `broken-material`: renewals deliver unusable keys or certificates of eight kinds under load."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from drills.drill import Drill
from drills.lifetimes import renew, renewal_when_undone
from drills.rehearsal import HOST, Rehearsal
from experiments import Control, Lane, Panel, Quantity, Run, Span, parameter

#: Kinds of broken material: corrupted between the CA and the server, or mis-issued by the CA.
CORRUPTED = ("key-mismatch", "truncated", "half-written", "unreadable")
MISISSUED = ("wrong-san", "expired", "not-yet-valid", "no-chain")
KINDS = (*CORRUPTED, *MISISSUED)
#: Duration of the load between a renewal and the next case, in seconds.
PAUSE = 0.8
#: Number of failed renewals per case, after which the alarm must be active.
TRIES = 2


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters of the drill `broken-material`."""

    rate: float = parameter(200.0, quick=100.0, unit="requests/s", low=1, high=2000, help="half fresh, half kept alive")
    repeats: int = parameter(2, quick=1, low=1, high=20, help="of all eight, in an order shuffled by the seed")


@dataclass(slots=True)
class _Case:
    """One case with one kind of broken material, and its result; times are in seconds on the run's timeline."""

    kind: str
    begin: float
    end: float = float("inf")
    #: Error of each rejected renewal.
    refused: list[str] = field(default_factory=list)
    #: Number of accepted renewals; only the naive reload in the negative control accepts broken material.
    taken: int = 0
    alarmed: bool = False
    #: Whether the edge still used the old certificate at the end of the case.
    kept: bool = False


class BrokenMaterial(Drill[Parameters]):
    """Drill in which renewals of the edge deliver keys and chains that the edge must reject."""

    name = "broken-material"
    claim = (
        "A renewal that brings broken material only raises an alarm: the old certificate stays in service, and no "
        "handshake fails."
    )
    says = (
        "Certificates are replaced by scripts, and scripts fail half-way: the wrong key copied, a full disk, a "
        "certificate without its chain (which browsers forgive and curl does not), a permission that changed. With 47 "
        "days that can happen eight to twelve times a year for every certificate."
    )
    source = (
        "RFC 5280 section 6.1 (path validation), RFC 9525 (service identity), RFC 8446 section 4.4.2 (the chain in "
        "the handshake); Python's ssl: load_cert_chain on a live context with a mismatched pair raises and leaves the "
        "server without a usable key."
    )
    production = (
        "Check what arrives as the strictest client would (key, names, dates, chain to a trusted root), load it into "
        "a scratch context, and only then let it near a listener. Write key and chain as one file, atomically. Never "
        "load into a context that is serving. A refused renewal is not an outage: it is an alarm with a third of a "
        "life left to act."
    )
    settings = Parameters
    control = Control(
        "the edge writes what arrives over its file and loads it, unchecked, into the contexts that are serving",
        ("requests lost", "handshakes from outside that failed"),
    )
    after = PAUSE

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.cases: list[_Case] = []

    def duration(self) -> float:
        """Return the expected duration in seconds: a baseline and 3 s per case."""
        return self.before + 3.0 * self.p.repeats * len(KINDS) + 3

    def predict(self) -> Mapping[str, Quantity]:
        """Predict that all renewals are rejected and no requests are lost."""
        return {"requests lost": Quantity(0), "renewals refused": Quantity(TRIES * self.p.repeats * len(KINDS))}

    async def inject(self, run: Run, stage: Rehearsal) -> None:
        """Run all cases in shuffled order; a valid renewal follows each case."""
        self.began = run.now()
        if self.negative:
            await run.lab.fault(HOST, "naive_reload", how="live")
        run.lab.undo_log.add(renewal_when_undone(HOST, "good certificate"))
        for _, kind in run.interleaved(KINDS, self.p.repeats):
            await self._one(run, stage, kind)
        self.ended = run.now()

    async def _one(self, run: Run, stage: Rehearsal, kind: str) -> None:
        host, fault = (HOST, "broken_material") if kind in CORRUPTED else ("ca", "misissue")
        run.phase(kind)
        before = (await stage.watch.look(HOST))["serial"]
        case = _Case(kind, run.now())
        self.cases.append(case)
        async with run.lab.fault_on(host, fault, kind=kind):
            for _ in range(TRIES):
                try:
                    await renew(run, HOST)
                except Exception as error:  # the expected outcome: the renewal is rejected
                    case.refused.append(str(error))
                else:
                    case.taken += 1
                await asyncio.sleep(PAUSE / 2)  # send load while the fault is on
            body = await stage.watch.look(HOST)
            case.kept = body["serial"] == before and case.taken == 0
            case.alarmed = any(text.startswith("renewal:") for text in body["alarms"])
        case.end = run.now()
        await renew(run, HOST)  # the fault is off, so this renewal must succeed
        await stage.watch.look(HOST)
        await asyncio.sleep(PAUSE)  # send load to the renewed certificate

    def judge(self, run: Run, stage: Rehearsal) -> None:
        """Check that every renewal was rejected with an alarm, and that no client was affected."""
        stage.gates(self.began)
        check, cases = run.findings.check, f"in all {len(self.cases)} cases"
        refused, wanted = sum(len(case.refused) for case in self.cases), TRIES * len(self.cases)
        self.check_nothing_lost(run, stage)
        run.findings.row("renewals refused", refused)
        check("renewals refused", f"all {wanted}", str(refused), refused == wanted and wanted > 0)
        replaced = [case.kind for case in self.cases if not case.kept]
        got = f"not in {', '.join(replaced)}" if replaced else "in all"
        check("the old certificate stays in service", cases, got, not replaced)
        silent = [case.kind for case in self.cases if not case.alarmed]
        got = f"not in {', '.join(silent)}" if silent else "in all"
        check(f"alarm after {TRIES} failures", cases, got, not silent)
        active = sorted(stage.watch.active(HOST))
        check("the alarm ends with the fault", "no active alarm", ", ".join(active) or "none", not active)
        for case in self.cases:
            run.findings.fact(case.kind, (case.refused[0] if case.refused else f"taken {case.taken} times")[:160])
        stage.facts(self.began, self.ended)
        spans = {kind: [_span(case) for case in self.cases if case.kind == kind] for kind in KINDS}
        stage.picture(
            "Broken material arrives under load",
            "Each span is one kind of broken material, which two renewals deliver: green if both are refused and "
            "the old certificate stays in use. A valid renewal follows each span.",
            Panel(lanes=[Lane(kind, found) for kind, found in spans.items()], y="what the renewal brought"),
            shown=(),
        )


def _span(case: _Case) -> Span:
    return Span(case.begin, case.end, "refused" if case.kept else "taken", "good" if case.kept else "bad")
