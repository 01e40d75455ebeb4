"""D3 `broken-material`: what arrives at a renewal must not be used, in eight ways; what was there goes on serving."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from drills.rehearsal import HOST, Rehearsal, listed, said
from experiments import Control, Experiment, Lane, Panel, Quantity, Run, Span, Undo, parameter

#: What goes wrong between the CA and the server, and what the CA itself gets wrong: (host, fault, kinds).
SPOILT = ("key-mismatch", "truncated", "half-written", "unreadable")
MISISSUED = ("wrong-san", "expired", "not-yet-valid", "no-chain")
#: Seconds of load before the first, and after each.
BASELINE, AFTER = 3.0, 0.8
#: Renewals that fail before the alarm has to be there.
TRIES = 2


@dataclass(frozen=True, slots=True)
class Parameters:
    """What can be varied."""

    rate: float = parameter(200.0, quick=100.0, unit="requests/s", low=1, high=2000, help="half fresh, half kept alive")
    repeats: int = parameter(2, quick=1, low=1, high=20, help="of all eight, in an order that the seed shuffles")


@dataclass(slots=True)
class _Case:
    """One kind of broken material, as it fared."""

    kind: str
    begin: float
    end: float = float("inf")
    refused: list[str] = field(default_factory=list)
    #: What the naive control did: took it, or said something.
    taken: int = 0
    alarmed: bool = False
    kept: bool = False


class BrokenMaterial(Experiment[Parameters]):
    """Injected: each renewal brings a pair that must not be used."""

    name = "broken-material"
    claim = "A renewal that brings broken material changes nothing but the alarm: the old pair serves on, and no handshake fails."
    says = (
        "Certificates are replaced by scripts, and scripts fail half-way: the wrong key copied, a full disk, a certificate without its chain "
        "(which a browser forgives and curl does not), a permission that changed. With 47 days that chance comes eight to twelve times a year "
        "and certificate."
    )
    source = (
        "RFC 5280 section 6.1 (path validation), RFC 9525 (service identity), RFC 8446 section 4.4.2 (the chain in the handshake); Python's "
        "ssl: load_cert_chain on a live context with a mismatched pair raises and leaves the server without a usable key."
    )
    production = (
        "Check what arrives as the strictest client would (key, names, dates, chain to a trusted root), load it into a scratch context, and "
        "only then let it near a listener. Write key and chain as one file, atomically. Never load into a context that is serving. A refused "
        "renewal is not an outage: it is an alarm with a third of a life to act."
    )
    settings = Parameters
    control = Control(
        "the edge writes what arrives over its file and loads it, unchecked, into the contexts that are serving",
        ("requests lost", "handshakes from outside that failed"),
    )
    records = (HOST,)

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.stage: Rehearsal | None = None
        self.cases: list[_Case] = []
        self.began = self.ended = float("inf")

    def duration(self) -> float:
        """Baseline, then some seconds for each kind."""
        return BASELINE + 3.0 * self.p.repeats * (len(SPOILT) + len(MISISSUED)) + 3

    def predict(self) -> Mapping[str, Quantity]:
        """All refused, nothing lost."""
        tried = TRIES * self.p.repeats * (len(SPOILT) + len(MISISSUED))
        return {"requests lost": Quantity(0), "renewals refused": Quantity(tried)}

    async def measure(self, run: Run) -> None:
        """One kind after the other; between them a renewal that is good."""
        stage = self.stage = Rehearsal(run, self.p.rate)
        async with stage.under_load():
            await stage.baseline(BASELINE)
            self.began = run.now()
            if self.negative:
                await run.lab.fault(HOST, "naive_reload", how="live")
            run.lab.undo_log.add(Undo(f"good certificate of {HOST}", HOST, "POST", "/admin/renew", {}))
            for _, kind in run.interleaved((*SPOILT, *MISISSUED), self.p.repeats):
                await self._one(run, stage, kind)
            self.ended = run.now()
            await asyncio.sleep(AFTER)  # the load shows whether it is well again

    async def _one(self, run: Run, stage: Rehearsal, kind: str) -> None:
        host, fault = (HOST, "broken_material") if kind in SPOILT else ("ca", "misissue")
        run.phase(kind)
        before = (await stage.watch.look(HOST))["serial"]
        case = _Case(kind, run.now())
        self.cases.append(case)
        async with run.lab.fault_on(host, fault, kind=kind):
            for _ in range(TRIES):
                try:
                    await run.lab.call(HOST, "POST", "/admin/renew", {}, timeout=60.0)
                except Exception as error:  # refused, as it should be; the words are kept
                    case.refused.append(str(error))
                else:
                    case.taken += 1
                await asyncio.sleep(AFTER / 2)  # clients meet what was taken, or not
            body = await stage.watch.look(HOST)
            case.kept = body["serial"] == before and case.taken == 0
            case.alarmed = any(text.startswith("renewal:") for text in body["alarms"])
        case.end = run.now()
        await run.lab.call(HOST, "POST", "/admin/renew", {}, timeout=60.0)  # nothing broken any more: it has to work
        await stage.watch.look(HOST)
        await asyncio.sleep(AFTER)  # clients meet the new certificate before the next case

    def conclude(self, run: Run) -> None:
        """Refused, announced, and nobody noticed."""
        stage = self.stage
        if stage is None:
            return
        stage.gates(self.began)
        lost, failed = stage.lost(), stage.failed_probes()
        refused = sum(len(case.refused) for case in self.cases)
        wanted = TRIES * len(self.cases)
        run.findings.row("requests lost", len(lost))
        run.findings.row("renewals refused", refused)
        run.findings.check("requests lost", "0", said(lost), not lost)
        run.findings.check("handshakes from outside that failed", "0", listed(failed), not failed)  # fmt: skip
        run.findings.check("renewals refused", f"all {wanted}", str(refused), refused == wanted and wanted > 0)
        kept = [case.kind for case in self.cases if not case.kept]
        run.findings.check("the old pair goes on serving", f"in all {len(self.cases)} cases", f"not in {', '.join(kept)}" if kept else "in all", not kept)  # fmt: skip
        silent = [case.kind for case in self.cases if not case.alarmed]
        run.findings.check(f"alarm after {TRIES} failures", f"in all {len(self.cases)} cases", f"not in {', '.join(silent)}" if silent else "in all", not silent)  # fmt: skip
        left = stage.watch.ringing(HOST)
        run.findings.check(
            "the alarm ends with the fault", "no complaint left", ", ".join(sorted(left)) or "none", not left
        )
        for case in self.cases:
            run.findings.fact(f"{case.kind}", (case.refused[0] if case.refused else f"taken {case.taken} times")[:160])
        stage.facts(self.began, self.ended)
        lanes = []
        for kind in (*SPOILT, *MISISSUED):
            spans = [
                Span(c.begin, c.end, "refused" if c.kept else "taken", "good" if c.kept else "bad")
                for c in self.cases
                if c.kind == kind
            ]
            lanes.append(Lane(kind, spans))
        stage.picture(
            "Broken material arrives under load",
            "Each stretch is one kind of broken material at two renewals: green where it was refused and the old pair served on. Between "
            "them one good renewal.",
            Panel(lanes=lanes, y="what the renewal brought"),
            shown=(),
        )
