"""Drill D5 `acme-chaos`: while renewals are due, the CA fails in nine ways, each of them for a few requests."""

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from drills.drill import Drill
from drills.enrolment import Enrolment
from drills.fleet import Fleet, Host
from drills.lifetimes import SHARE, Scale, shorten
from drills.rehearsal import HOST, Rehearsal
from experiments import Control, Dots, Lane, Panel, Quantity, Run, Span, parameter
from renewal.client import AcmeClient, retry_after
from renewal.lifecycle import Lifecycle
from renewal.schedule import Rule

#: Faults of the CA that make one order fail, each with the ACME resources at which the drill injects it.
FATAL: Mapping[str, tuple[str, ...]] = {
    "acme_429": ("new-order",),
    "acme_503": ("new-order", "authorization", "challenge", "finalize"),
    "acme_500": ("new-order", "challenge", "finalize", "certificate"),
    "acme_empty": ("new-order", "challenge", "finalize", "certificate"),
    "acme_drop": ("new-order", "challenge", "finalize", "certificate"),
}
#: Faults that a correct client survives within the same order.
HARMLESS: Mapping[str, tuple[str, ...]] = {
    "acme_bad_nonce": ("new-order", "challenge", "finalize"),
    "acme_slow": ("new-order", "challenge", "finalize"),
    "acme_processing": ("authorization", "order"),
}
#: Fault of the CA's renewal information, and kinds of this fault that must not change the time of a renewal.
WINDOW, WINDOWS = "acme_renewal_window", ("malformed", "missing", "inverted", "far-future")
#: Simulated hosts renew at times between these fractions of the lifetime, as if they had enrolled on different days; at
#: least a third of each host's lifetime is left.
EARLIEST, LATEST = 0.35, SHARE
#: Fractions of the lifetime during which the faults are switched on one after the other.
FIRST, LAST = 0.3, 0.6
#: Delay of responses with the fault ``acme_slow``, in milliseconds.
SLOW = 500.0
#: Tolerance when the time between two requests is compared with Retry-After, in seconds.
BLUR = 0.02
#: Validity gate: maximum median duration of an order that did not fail, in seconds.
PROMPT = 2.0


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters of the drill `acme-chaos`."""

    rate: float = parameter(60.0, quick=40.0, unit="requests/s", low=1, high=1000, help="half fresh, half kept alive")
    hosts: int = parameter(60, quick=20, low=5, high=500, help="simulated hosts, each with an account of its own")
    life: float = parameter(45.0, quick=18.0, unit="s", low=15, high=120, help="47 nominal days last this long")
    hits: int = parameter(6, quick=2, low=1, high=50, help="requests that each fault affects")


class PunctualClient(AcmeClient):
    """An ACME client that records whether its requests obey the CA's Retry-After."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        #: Event-loop time before which no request may be sent; 0 if the CA did not ask the client to wait.
        self._not_before = 0.0
        #: Number of responses with Retry-After; for each request that was sent too early, by how many seconds.
        self.asked, self.early = 0, list[float]()

    def _sign(self, url: str, payload: dict[str, Any] | None) -> bytes:
        ahead = self._not_before - asyncio.get_running_loop().time()
        if ahead > BLUR:
            self.early.append(ahead)
        self._not_before = 0.0
        return super()._sign(url, payload)

    async def _heard(self, response: aiohttp.ClientResponse) -> None:
        wait = retry_after(response.headers.get("Retry-After"))
        # In renewal information, Retry-After is the interval between polls; it does not apply to orders (RFC 9773).
        if wait is not None and response.method == "POST":
            self.asked += 1
            self._not_before = asyncio.get_running_loop().time() + wait
        await super()._heard(response)


class Impatient(Lifecycle):
    """State machine of a host that retries immediately, for the negative control."""

    def failed(self, now: float, error: str, retry_after: float | None = None) -> float:  # noqa: ARG002 - the control ignores the CA's request to wait
        """Report a failed renewal; the next attempt is due immediately."""
        super().failed(now, error)
        self.next_renewal = now
        return 0.0


class AcmeChaos(Drill[Parameters]):
    """Drill in which the CA's responses to ACME requests fail in nine ways while many renewals are due."""

    name = "acme-chaos"
    claim = (
        "Whatever the CA answers for a while, all hosts renew in time, and no client retries earlier than permitted."
    )
    says = (
        "A CA in trouble is rarely just down: it answers with errors, late, with an empty body, or not at all. A "
        "client that hangs in one order, or gives up, loses its certificate; one that retries at once makes it worse."
    )
    source = (
        "RFC 8555 sections 6.5 (badNonce), 6.6 (rateLimited, Retry-After) and 7.5.1 (polling); RFC 9773 section 4.3 "
        "(renewal information must not prevent a renewal). A fault that fails n requests fails n orders."
    )
    production = (
        "Test your ACME client against a CA that misbehaves before your CA does. Limit the time of every order: an "
        "order that never ends is worse than one that fails. Retry with a new order, after Retry-After, with back-off. "
        "Ignore renewal information that makes no sense."
    )
    settings = Parameters
    control = Control("hosts retry at once and ignore Retry-After", ("requests before Retry-After has passed",))
    records = (HOST, "ca")
    hosts = (HOST, "news")

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.scale = Scale(parameters.life)
        self.fleet: list[Host] = []
        #: Number of requests that each fault affected.
        self.hit: dict[str, int] = {}
        #: Failed renewals of the lab's hosts.
        self.failures = 0

    def duration(self) -> float:
        """Return the expected duration in seconds: enrolment, and most of a lifetime."""
        return self.before + 2 + self.p.hosts / 10 + (SHARE + 0.15) * self.p.life + self.after

    def predict(self) -> Mapping[str, Quantity]:
        """Predict that every fatal fault fails one order per affected request, and that no host is late."""
        return {
            "requests lost": Quantity(0),
            "hosts renewed": Quantity(self.p.hosts + len(self.hosts)),
            "orders that failed": Quantity(len(FATAL) * self.p.hits),
        }

    async def inject(self, run: Run, stage: Rehearsal) -> None:
        """Give all hosts short certificates; while these are due for renewal, switch the faults on in random order."""
        fleet = Fleet(run, stage, Enrolment())
        await fleet.publish()
        self.began = run.now()
        async with fleet.enrolment.responding():
            await shorten(run, self.hosts, self.scale)
            for number in range(self.p.hosts):
                self._add(run, fleet, number)
            await fleet.enrol()
            bodies = [await stage.watch.look(host) for host in self.hosts]
            run.phase("renewals are due, and the CA fails in nine ways")
            chaos = asyncio.create_task(self._chaos(run))
            try:
                await fleet.operate(fleet.hosts, self.p.life + 5)
                for host, body in zip(self.hosts, bodies, strict=True):
                    await stage.watch.until_renewed(host, body["serial"], self.p.life)
            finally:
                chaos.cancel()
                await asyncio.gather(chaos, return_exceptions=True)
        faults = await run.lab.call("ca", "GET", "/admin/faults")
        self.hit = {name: faults[name]["hits"] for name in (*FATAL, *HARMLESS, WINDOW)}
        after = [await stage.watch.look(host) for host in self.hosts]
        self.failures = sum(b["failures"] - a["failures"] for a, b in zip(bodies, after, strict=True))
        self.ended = run.now()

    def _add(self, run: Run, fleet: Fleet, number: int) -> None:
        share = EARLIEST + (LATEST - EARLIEST) * number / self.p.hosts
        rng, rule = random.Random(run.rng.getrandbits(32)), Rule(share, self.scale.factor)
        host = fleet.add(rule, rng, fleet.enrolment.new_client(PunctualClient))
        if self.negative:
            host.lifecycle = Impatient(rule, rng)
        self.fleet = fleet.hosts

    async def _chaos(self, run: Run) -> None:
        """Switch the faults on, one after the other; each switches itself off after the configured number of hits."""
        began, resources = run.now(), {**FATAL, **HARMLESS}
        await run.lab.fault("ca", WINDOW, kind=run.rng.choice(WINDOWS), count=self.p.hits)
        names = sorted(resources)
        run.rng.shuffle(names)
        for number, name in enumerate(names):
            await run.until(began + self.p.life * (FIRST + (LAST - FIRST) * number / len(names)))
            more: dict[str, Any] = {"ms": SLOW} if name == "acme_slow" else {}
            if name == "acme_drop":
                more = {"loses": run.rng.choice(("request", "response"))}
            resource = run.rng.choice(resources[name])
            await run.lab.fault("ca", name, resource=resource, count=self.p.hits, **more)

    def judge(self, run: Run, stage: Rehearsal) -> None:
        """Check that all hosts renewed in time and obeyed Retry-After, and that no request was lost."""
        stage.gates(self.began)
        check, row, gate, fact = run.findings.check, run.findings.row, run.findings.gate, run.findings.fact
        short = {name: n for name, n in self.hit.items() if n != self.p.hits}
        got = ", ".join(f"{name} {n}" for name, n in short.items()) or f"{self.p.hits} each"
        gate("requests affected by the faults", f"{self.p.hits} each", got, not short and bool(self.hit))
        took = sorted(host.renewed - host.orders[-1] for host in self.fleet if host.orders and not host.late)
        median = took[len(took) // 2] if took else float("inf")
        gate("median duration of an order", f"<= {PROMPT:g} s", f"{median:.2f} s", median <= PROMPT)
        self.check_nothing_lost(run, stage)
        late = [host.name for host in self.fleet if host.late]
        late += [host for host in self.hosts if not renewed_in_time(stage, host)]
        total = len(self.fleet) + len(self.hosts)
        row("hosts renewed", total - len(late))
        got = f"{total - len(late)} of {total}" + (f", not {', '.join(late[:5])}" if late else "")
        check("renewed before the end of the certificate", "all", got, not late and bool(self.fleet))
        failed = sum(len(host.errors) for host in self.fleet) + self.failures
        row("orders that failed", failed)
        clients = [host.client for host in self.fleet if isinstance(host.client, PunctualClient)]
        asked, early = sum(each.asked for each in clients), [s for each in clients for s in each.early]
        got = f"{len(early)} of {asked}" + (f", by up to {max(early):.1f} s" if early else "")
        check("requests before Retry-After has passed", "0", got, not early and asked > 0)
        moved = sum(host.moved for host in self.fleet)
        check("renewals moved by wrong renewal information", "0", str(moved), moved == 0)
        fact("reasons", dict(Counter(_reason(e) for host in self.fleet for e in host.errors).most_common(6)) or "none")
        fact("polls that failed", sum(len(host.poll_errors) for host in self.fleet))
        fact("median duration of an order, s", round(median, 2))
        stage.facts(self.began, self.ended)
        self._picture(stage)

    def _picture(self, stage: Rehearsal) -> None:
        number = {host.name: float(n) for n, host in enumerate(self.fleet)}
        failed = [(at, number[h.name]) for h in self.fleet for at in h.orders[:-1]]
        last = [(h.orders[-1], number[h.name]) for h in self.fleet if h.orders]
        dots = [
            Dots(name, [(at, n, n, n) for at, n in found], colour)
            for name, found, colour in (("failed", failed, "bad"), ("succeeded", last, "good"))
            if found
        ]
        lanes = [
            Lane(host, [Span(stage.at(h.issued), stage.at(h.not_after), h.serial[:6], n % 6)
                        for n, h in enumerate(stage.watch.of(host)) if h.life < 2 * self.p.life])
            for host in self.hosts
        ]  # fmt: skip
        stage.picture(
            "The CA fails in nine ways while renewals are due",
            "One panel shows the certificates of the lab's hosts, the other the orders of the simulated hosts: green "
            "if an order succeeded, red if it failed.",
            Panel(lanes=lanes, y="certificate in use"),
            Panel(dots, y="simulated host"),
        )


def renewed_in_time(stage: Rehearsal, host: str) -> bool:
    """Return whether *host* had at least two certificates, and received each one before the previous one expired."""
    held = stage.watch.of(host)[-2:]
    return len(held) == 2 and held[1].issued < held[0].not_after


def _reason(error: str) -> str:
    """Return the part of an ACME client's error message that is the same for all orders."""
    return error.split(": ", 1)[-1][:80]
