"""Drill D7 `root-rollover`: the root is replaced while the lab is under load, and one host lags."""

import asyncio
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from authority.rotation import STEPS
from drills.rehearsal import HOST, Rehearsal, by_cause
from drills.rollover import FINISH, LAGS, SERVERS, Rollover, Step
from drills.verifiers import installed
from experiments import Control, Quantity, Run, parameter
from hostfiles.layout import TRUST_ANCHOR

#: Names of the sets of roots with which clients verify the chains.
BUNDLE, OLD, NEW = "the trust bundle", "the old root only", "the new root only"
#: Host that does not load the new trust bundle, and time for which ``firstbyte pki rotate`` waits for it, in seconds.
LAGGARD, PATIENCE = "edge-far", 3.0
#: Name of the attempt at the next step while `LAGGARD` lags.
ATTEMPT = "sign-new while a host lags"
#: How long the control leaves hosts with certificates that no client trusts, in seconds.
BROKEN = 2.0
#: Tolerance of the predicted times of failures, in seconds: one polling interval of hosts and files, and the duration
#: of a handshake.
SLACK = 0.4


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters of the drill `root-rollover`."""

    rate: float = parameter(100.0, quick=60.0, unit="requests/s", low=1, high=1000, help="half fresh, half kept alive")
    pause: float = parameter(5.0, quick=0.3, unit="s", low=0, high=60, help="load between two steps")


class RootRollover(Rollover[Parameters]):
    """Drill in which a new root replaces the old one; in between, the trust bundle contains both."""

    name = "root-rollover"
    claim = (
        "A new root replaces the old one under load without a lost request, if every host trusts both roots before the "
        "new one signs, and the old one leaves the bundle last; a step is refused while one host lags."
    )
    says = (
        "Roots expire, and leave trust stores. Clients update their trust stores on their own schedule, so for a while "
        "some trust only the old root and some only the new one. It is an outage if the new root signs before all "
        "clients trust it, or if the old root is removed before all servers present the new chain."
    )
    source = (
        "RFC 4210 section 4.4 (root CA key update, with cross-certificates); RFC 5280 section 6.1; RFC 8555 section "
        "7.4.2 (alternate chains)."
    )
    production = (
        "Four changes, each only after the last has reached every machine: distribute the new root in addition to the "
        "old one, sign with it (with a cross-certificate for clients that lag), remove the old root, delete its key. "
        "Let each machine report the version of its trust bundle, and refuse to continue while one is missing."
    )
    settings = Parameters
    control = Control(
        "the old root leaves the trust bundle before servers present the new chain",
        ("requests lost", "handshakes from outside that failed"),
    )
    kind = "root"
    accepted: ClassVar[Mapping[str, frozenset[str]]] = {
        "prepare": frozenset({BUNDLE, OLD}),
        "trust-both": frozenset({BUNDLE, OLD}),
        "sign-new": frozenset({BUNDLE, OLD, NEW}),
        "trust-new": frozenset({BUNDLE, OLD, NEW}),
        "retire": frozenset({BUNDLE, OLD, NEW}),
    }

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        #: Begin and end of the period in which new connections to the edge should fail, in seconds on the run's
        #: timeline; None if no failures are predicted.
        self.broken: tuple[float, float] | None = None

    def duration(self) -> float:
        """Return the expected duration in seconds: five steps, each with a verification of the chain by clients."""
        return self.before + len(STEPS[self.kind]) * (self.p.pause + 4.5) + PATIENCE + 4.0 + self.after

    def predict(self) -> Mapping[str, Quantity]:
        """Predict no lost requests, one refused step, and the clients that accept the chain after each step."""
        steps = len(STEPS[self.kind])
        judged = steps * len(installed()) + (2 * steps - 1) * len(installed(everyone=False))
        return {
            "requests lost": Quantity(0),
            "steps refused": Quantity(1),
            "servers with the new chain": Quantity(len(SERVERS)),
            "verdicts of clients as predicted": Quantity(judged),
        }

    async def rotate(self, run: Run) -> None:
        """Perform all steps; one host lags after the second.  The control forces the steps."""
        if self.negative:
            await self._force(run)
            return
        with tempfile.TemporaryDirectory() as folder:
            roots = {BUNDLE: TRUST_ANCHOR, OLD: Path(folder, "old.pem")}
            roots[OLD].write_bytes(TRUST_ANCHOR.read_bytes())
            for name in STEPS[self.kind]:
                if name == "trust-both":
                    step = await self._lag(run)
                    roots[NEW] = Path(folder, "new.pem")
                    roots[NEW].write_bytes(new_root(TRUST_ANCHOR.read_bytes(), roots[OLD].read_bytes()))
                else:
                    step = await self.perform(run, name)
                await self.judge_chain(step, roots)
                await asyncio.sleep(self.p.pause)  # load between the steps

    async def _lag(self, run: Run) -> Step:
        """Distribute both roots while one host does not load them, and try the next step; return the distribution."""
        async with run.lab.fault_on(LAGGARD, "trust_frozen"):
            step = await self.perform(run, "trust-both", "--timeout", f"{PATIENCE:g}", expect=LAGS)
            await self.perform(run, ATTEMPT, expect=LAGS)
        await run.lab.call(LAGGARD, "POST", "/admin/trust")
        return step

    async def _force(self, run: Run) -> None:
        """Force the steps, so that the old root leaves the bundle before hosts renew; then renew their certificates."""
        for name in STEPS[self.kind][:-1]:
            step = await self.perform(run, name, "--force")
        await asyncio.sleep(BROKEN)  # duration of the outage before the operator repairs it
        run.phase("repair: hosts renew")
        began = run.now()
        reply = await run.lab.operate("repair", *FINISH.split(), undo=FINISH)
        self.steps.append(Step("repair", began, run.now(), reply.code))
        begin = next((at for at in self.adopted if at >= step.begin), None)
        if begin is not None and self.stage is not None:
            await self.stage.watch.look(HOST)
            self.broken = begin, self.stage.at(self.stage.watch.of(HOST)[-1].issued)

    def judge(self, run: Run, stage: Rehearsal) -> None:
        """Check that no request was lost, that the step was refused, and that clients accepted the chains."""
        stage.gates(self.began)
        self.check_nothing_lost(run, stage)
        run.findings.row("servers with the new chain", sum(i == self.new_issuer for i in self.presented.values()))
        self.check_presented(run)
        if self.negative:
            self._check_failures(run, stage)
        else:
            refused = [s for s in self.steps if s.name == ATTEMPT and s.code == LAGS and is_refusal(s.said)]
            run.findings.row("steps refused", len(refused))
            got = refused[0].said.partition(";")[0] if refused else "it was performed, or another reason was given"
            run.findings.check("the next step while one host lags", f"refused, names {LAGGARD}", got, bool(refused))
            self.check_clients(run)
        stage.facts(self.began, self.ended)
        stage.picture(
            "The root is replaced",
            "The lower panel shows the steps of the rotation (red: the host that lags has not adopted it, or it was "
            "refused), and for each host the issuing CA of its certificate and the version of its trust bundle.",
            self.panel(stage),
            shown=(),
        )

    def _check_failures(self, run: Run, stage: Rehearsal) -> None:
        """Check that new connections failed only from when clients had the new bundle until the edge's new chain."""
        name = "new connections fail exactly when predicted"
        if self.broken is None:
            run.findings.check(name, "from the new bundle to the new chain", "no such time was recorded", ok=False)
            return
        begin, end = self.broken
        fresh = [r for r in stage.requests if r.kind == "fresh"]
        inside = [r for r in fresh if begin + SLACK <= r.sent and r.done <= end - SLACK]
        passed = [r for r in inside if not r.error]
        refused = [r for r in fresh if r.failed_in == "tls"]
        outside = [r for r in refused if r.done < begin - SLACK or r.sent > end + SLACK]
        got = (
            f"{len(inside) - len(passed)} of {len(inside)} in these {end - begin:.1f} s, "
            f"{len(outside)} handshakes at other times"
        )
        run.findings.check(
            name, "all of them, and no handshake at other times", got, bool(inside) and not passed + outside
        )
        run.findings.fact("other requests lost", by_cause([r for r in stage.lost() if r not in refused]))


def is_refusal(said: str) -> bool:
    """Return whether ``firstbyte pki rotate`` refused a step because `LAGGARD` does not trust the new root."""
    return "the next step is refused" in said and f"{LAGGARD} trusts bundle" in said


def new_root(bundle: bytes, old: bytes) -> bytes:
    """Return the root in *bundle* that is not in *old*; all in PEM."""
    known = set(x509.load_pem_x509_certificates(old))
    return b"".join(
        each.public_bytes(Encoding.PEM) for each in x509.load_pem_x509_certificates(bundle) if each not in known
    )
