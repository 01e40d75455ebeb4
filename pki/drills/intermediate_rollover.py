"""Drill D6 `intermediate-rollover`: the issuing CA is replaced while the lab is under load."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.serialization import Encoding

from authority.rotation import STEPS
from drills.rehearsal import NAME, Rehearsal
from drills.revoke_client import judge_with_openssl
from drills.rollover import SERVERS, Rollover
from drills.verifiers import installed
from experiments import Control, Quantity, Run, parameter
from hostfiles.layout import TRUST_ANCHOR
from monitor.openssl import Prober

#: Name of the only set of roots with which clients verify the chains.
BUNDLE = "the trust bundle"


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters of the drill `intermediate-rollover`."""

    rate: float = parameter(100.0, quick=60.0, unit="requests/s", low=1, high=1000, help="half fresh, half kept alive")
    pause: float = parameter(5.0, quick=0.5, unit="s", low=0, high=60, help="load between two steps")


class IntermediateRollover(Rollover[Parameters]):
    """Drill in which a new issuing CA replaces the old one."""

    name = "intermediate-rollover"
    claim = (
        "A new issuing CA replaces the old one under load: no request is lost, and when the old one is retired, no "
        "server presents its chain any more."
    )
    says = (
        "An intermediate certificate expires, or its key must be replaced. The same root signs the new one, so clients "
        "need no change; but every server has to present the new intermediate with its new leaf. A server that was "
        "forgotten, or that has a fixed chain file, fails on the day on which the old intermediate expires."
    )
    source = (
        "RFC 5280 section 6.1 (path validation); RFC 8555 section 7.4.2 (the CA sends the chain with the leaf); "
        "RFC 9773 (renewal information asks for early renewal)."
    )
    production = (
        "Install chains as the CA sends them, never a fixed intermediate. Before the old CA is retired, look from "
        "outside at the chain that each server presents, not at the inventory. Publish the old CA's CRL and OCSP until "
        "its last leaf has expired."
    )
    settings = Parameters
    control = Control("the steps do not wait for the hosts", ("presented after the last step",))
    kind = "intermediate"
    accepted = dict.fromkeys(STEPS["intermediate"], frozenset({BUNDLE}))

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        #: Verdict of ``openssl verify -crl_check`` on a leaf of the old CA, after that CA was retired.
        self.old_leaf = ""

    def duration(self) -> float:
        """Return the expected duration in seconds: three steps, each with a verification of the chain by clients."""
        return self.before + len(STEPS[self.kind]) * (self.p.pause + 4.0) + 2.0 + self.after

    def predict(self) -> Mapping[str, Quantity]:
        """Predict no lost requests, new chains on all servers, and that every client accepts every chain."""
        return {
            "requests lost": Quantity(0),
            "servers with the new chain": Quantity(len(SERVERS)),
            "verdicts of clients as predicted": Quantity(len(STEPS[self.kind]) * len(installed())),
        }

    async def rotate(self, run: Run) -> None:
        """Perform all steps; the control does not wait until hosts have adopted a step."""
        probe = await Prober(NAME, TRUST_ANCHOR).look(run.now)
        old_chain = b"".join(each.public_bytes(Encoding.PEM) for each in probe.chain)
        for name in STEPS[self.kind]:
            step = await self.perform(run, name, *(["--force"] if self.negative else []))
            await self.judge_chain(step, {BUNDLE: TRUST_ANCHOR})
            await asyncio.sleep(self.p.pause)  # load between the steps
        self.old_leaf = await judge_with_openssl(old_chain)

    def judge(self, run: Run, stage: Rehearsal) -> None:
        """Check that no request was lost, that all clients accepted the chains, and that no old chain is left."""
        stage.gates(self.began)
        self.check_nothing_lost(run, stage)
        self.check_clients(run)
        new = [name for name, issuer in self.presented.items() if issuer == self.new_issuer]
        run.findings.row("servers with the new chain", len(new))
        self.check_presented(run)
        run.findings.check(
            "CRL of the old CA after its retirement",
            "OpenSSL: good",
            f"OpenSSL: {self.old_leaf}",
            self.old_leaf == "good",
        )
        stage.facts(self.began, self.ended)
        stage.picture(
            "The issuing CA is replaced",
            "The lower panel shows the steps of the rotation, and for each host the issuing CA of its certificate and "
            "the version of its trust bundle.",
            self.panel(stage),
            shown=(),
        )
