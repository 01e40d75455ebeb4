"""Base class of the drills that replace the issuing CA or the root under load, with ``firstbyte pki rotate``."""

import asyncio
import json
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol, TypeVar

from drills import verifiers
from drills.drill import Drill
from drills.lifetimes import renewal_when_undone
from drills.rehearsal import HOST, NAME, Rehearsal
from experiments import Lane, NoOperator, Panel, Reply, Run, Span
from hostfiles.layout import TRUST_ANCHOR
from monitor.openssl import Prober

#: TLS servers whose chains are inspected from outside: DNS name and TCP port.
SERVERS = (
    ("www.example.com", 443), ("rsa.example.com", 443), ("far.example.com", 443), ("news.example.com", 443),
    ("ca.example.com", 443), ("resolver.example.com", 853), ("catalog-1.example.com", 8443),
    ("catalog-2.example.com", 8443), ("catalog-3.example.com", 8443),
)  # fmt: skip
#: Command that completes a rotation that is in progress; it does nothing if there is none.
FINISH = "pki rotate --finish"
#: Exit code of ``firstbyte pki rotate`` if a host is not ready for the next step.
LAGS = 1
#: Interval between checks whether the trust bundle has changed, in seconds.
POLL = 0.05


class HasPause(Protocol):
    """Parameters that all rotation drills have."""

    @property
    def rate(self) -> float:
        """Load in requests per second; half of the requests use a new connection."""

    @property
    def pause(self) -> float:
        """Duration of the load between two steps, in seconds."""


P = TypeVar("P", bound=HasPause)


@dataclass(slots=True)
class Step:
    """A step of the rotation; times are in seconds on the run's timeline."""

    name: str
    begin: float
    end: float
    #: Exit code of the command; 0 if the step was performed and all hosts have adopted it.
    code: int
    #: Error message of the command; "" if it succeeded.
    said: str = ""
    #: By name of the trusted roots, then by name of the verifier: why the chain was refused; "" if it was accepted.
    verdicts: dict[str, dict[str, str]] = field(default_factory=dict)


class Rollover(Drill[P]):
    """A drill that rotates the issuing CA or the root."""

    #: Argument of ``firstbyte pki rotate``.
    kind: ClassVar[str]
    #: Steps after which clients verify the server's chain, each with the names of the roots that must lead to
    #: acceptance.
    accepted: ClassVar[Mapping[str, frozenset[str]]]
    operated = True
    hosts: ClassVar[Sequence[str]] = (HOST, "edge-far", "news", "resolver", "catalog-1", "catalog-2", "catalog-3")

    def __init__(self, parameters: P, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.steps: list[Step] = []
        #: Issuer of the leaf that each server presents after the last step, keyed by DNS name; "" if it presents none.
        self.presented: dict[str, str] = {}
        #: Names of the issuing CA before and after the rotation.
        self.old_issuer = self.new_issuer = ""
        #: Times at which the clients of the load adopted a new trust bundle, in seconds on the run's timeline.
        self.adopted: list[float] = []

    async def measure(self, run: Run) -> None:
        """Run the drill; skip it if it was started inside the lab, where the ceremony cannot run."""
        if isinstance(run.lab.operator, NoOperator):
            run.skip("the ceremony performs the steps: start this drill with `firstbyte` outside the lab")
        await super().measure(run)

    async def inject(self, run: Run, stage: Rehearsal) -> None:
        """Perform the rotation under load; clients follow the trust bundle."""
        following = asyncio.create_task(self._follow_trust(run, stage))
        try:
            self.old_issuer = await self._signing(run)
            if self.negative:  # hosts that still have certificates of the old CA renew them at the end
                for host in self.hosts:
                    run.lab.undo_log.add(renewal_when_undone(host, "certificate of the old CA"))
            self.began = run.now()
            await self.rotate(run)
            self.new_issuer = await self._signing(run)
            self.presented = await presented(run)
            self.ended = run.now()
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    @abstractmethod
    async def rotate(self, run: Run) -> None:
        """Perform the steps, and let clients verify the chains after each step."""

    async def perform(self, run: Run, name: str, *flags: str, expect: int = 0) -> Step:
        """Perform the next step of the rotation, called *name*.

        Args:
            run: the run.
            name: name of the step, for the report.
            flags: additional arguments of ``firstbyte pki rotate``.
            expect: expected exit code.

        Raises:
            ConnectionError: the command ended with another exit code, for example because a host did not answer.
        """
        run.phase(f"{name} {' '.join(flags)}".rstrip())
        begin = run.now()
        reply = await run.lab.operate(name, "pki", "rotate", self.kind, "--json", *flags, undo=FINISH)
        step = Step(name, begin, run.now(), reply.code, _message(reply))
        self.steps.append(step)
        if reply.code != expect:
            got = f"{reply.code} ({step.said or 'no message'})"
            raise ConnectionError(f"`pki rotate {self.kind}`, {name}: expected exit code {expect}, got {got}")
        return step

    async def judge_chain(self, step: Step, roots: Mapping[str, Path]) -> None:
        """Let verifiers judge the edge's chain after *step*, once for each file in *roots* (a path by name).

        All verifiers use the first file; with the other files, only one verifier of each library judges.
        """
        for number, (name, file) in enumerate(roots.items()):
            step.verdicts[name] = await verifiers.judge(NAME, file, everyone=number == 0)

    async def _signing(self, run: Run) -> str:
        """Return the name of the CA that signs new leaves."""
        name: str = (await run.lab.call("ca", "GET", "/admin/certificates"))["issuer"]
        return name

    async def _follow_trust(self, run: Run, stage: Rehearsal) -> None:
        """Make new connections of the load use the current trust bundle, like clients that read it at each start."""
        seen = TRUST_ANCHOR.stat().st_mtime_ns
        while True:
            await asyncio.sleep(POLL)  # polls: no event signals a change of the file
            if (now := TRUST_ANCHOR.stat().st_mtime_ns) != seen and stage.load is not None:
                seen = now
                stage.load.follow_trust()
                self.adopted.append(run.now())

    # --- verdict ----------------------------------------------------------------------------------------------------

    def check_clients(self, run: Run) -> None:
        """Check that all verifiers judged the edge's chain as predicted, and that at least two libraries were used."""
        judged = [(step, roots, client, error) for step in self.steps for roots, found in step.verdicts.items()
                  for client, error in found.items()]  # fmt: skip
        wrong = [
            f"{client} with {roots} after {step.name}: {error or 'accepted'}"
            for step, roots, client, error in judged
            if (not error) is not (roots in self.accepted[step.name])
        ]
        slow = sorted({client for _, _, client, error in judged if error == verifiers.NO_VERDICT})
        gate = run.findings.gate
        gate("verdicts of clients", f"within {verifiers.TIMEOUT:g} s", ", ".join(slow) or "in time", not slow)
        clients = sorted({client for _, _, client, _ in judged})
        got = f"{len(judged) - len(wrong)} of {len(judged)}" + (f"; {'; '.join(wrong[:3])}" if wrong else "")
        run.findings.row("verdicts of clients as predicted", len(judged) - len(wrong))
        run.findings.check(
            "clients accept the chains", f"all {len(judged)} as predicted", got, bool(judged) and not wrong
        )
        run.findings.fact("clients", ", ".join(clients))

    def check_presented(self, run: Run) -> None:
        """Check from outside that no server presents a chain of the old issuing CA after the last step."""
        old = sorted(name for name, issuer in self.presented.items() if issuer != self.new_issuer)
        got = f"old chain on {', '.join(old)}" if old else f"the new chain on all {len(self.presented)}"
        ok = bool(self.presented) and not old and self.new_issuer != self.old_issuer
        run.findings.check("presented after the last step", f"the new chain on all {len(SERVERS)} servers", got, ok)

    def lanes(self, stage: Rehearsal) -> list[Lane]:
        """Return the lanes of the chart: the steps of the rotation, and each host's issuer and trust bundle."""
        end = stage.requests[-1].intended if stage.requests else self.ended
        steps = [Span(s.begin, s.end, s.name, "bad" if s.code else "good") for s in self.steps]
        lanes = [Lane("step", steps)]
        for host in self.hosts:
            known = stage.watch.identities.get(host, [])
            ends = [*(each.at for each in known[1:]), end]
            order = [self.old_issuer, self.new_issuer]
            spans = [
                Span(i.at, until, _brief(i.issuer, i.bundle), order.index(i.issuer) if i.issuer in order else "bad")
                for i, until in zip(known, ends, strict=False)  # a host that never answered has no identity
            ]
            lanes.append(Lane(host, spans))
        return lanes

    def panel(self, stage: Rehearsal) -> Panel:
        """Return the chart panel with the lanes of this drill."""
        return Panel(lanes=self.lanes(stage), y="issuing CA and trust bundle of each host")


async def presented(run: Run, servers: Sequence[tuple[str, int]] = SERVERS) -> dict[str, str]:
    """Return the issuer of the leaf that each server presents, keyed by DNS name; "" if it presents none."""
    probes = await asyncio.gather(*(Prober(name, TRUST_ANCHOR, port).look(run.now) for name, port in servers))
    return {
        name: probe.chain[0].issuer.rfc4514_string() if probe.chain else ""
        for (name, _), probe in zip(servers, probes, strict=True)
    }


def _brief(issuer: str, bundle: int) -> str:
    """Return a short label for an issuing CA and a trust bundle: ``CA 2, bundle 3``."""
    number = re.search(r"(\d+)(?:,|$)", issuer)
    return f"CA {number[1] if number else '?'}, bundle {bundle}"


def _message(reply: Reply) -> str:
    """Return the error message of a failed command, also if it is in JSON; "" if the command succeeded."""
    if not reply.code:
        return ""
    try:
        return str(json.loads(reply.err)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return reply.err.strip()
