"""Simulated hosts of a drill; each has the renewal agent's state machine, an ACME account, and its own name.

The hosts place real orders with the lab's CA.  They serve no clients, so that one process can simulate hundreds of
them.
"""

import asyncio
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography import x509

from drills.enrolment import Enrolment, publish
from drills.rehearsal import Rehearsal
from experiments import Run
from renewal.client import AcmeClient
from renewal.errors import RenewalError
from renewal.lifecycle import Lifecycle, Validity
from renewal.schedule import Rule

#: DNS label below which all simulated hosts have their names; a wildcard record resolves these names to this host.
DOMAIN = "fleet"
#: Maximum number of first certificates that are ordered at the same time.
AT_ONCE = 16


@dataclass(slots=True)
class Host:
    """State machine of a simulated host's agent, and its results; times are in seconds on the run's timeline."""

    name: str
    lifecycle: Lifecycle
    client: AcmeClient
    #: Additional names in the host's certificate.
    also: tuple[str, ...] = ()
    #: The certificate in use; None if the drill only assumes that the host has an initial certificate.
    leaf: x509.Certificate | None = None
    #: Time at which each order began.
    orders: list[float] = field(default_factory=list)
    #: Time at which the host received a new certificate; infinity before that.
    renewed: float = math.inf
    #: Error message of each failed order.
    errors: list[str] = field(default_factory=list)
    #: Type of the ACME problem of each failed order; "" if the CA reported none.
    kinds: list[str] = field(default_factory=list)
    #: Error message of each failed poll of the CA's renewal information.
    poll_errors: list[str] = field(default_factory=list)
    #: Number of times that renewal information changed the time of the renewal.
    moved: int = 0
    #: Whether the host polls the CA's renewal information.
    polls: bool = True
    #: notAfter of the first certificate, in seconds on the run's timeline.
    not_after: float = math.inf

    @property
    def late(self) -> bool:
        """Whether the first certificate expired before the host received a new one."""
        return math.isinf(self.renewed) or self.renewed > self.not_after


class Fleet:
    """All simulated hosts of a drill."""

    def __init__(self, run: Run, stage: Rehearsal, enrolment: Enrolment) -> None:
        """Create an empty fleet; *enrolment* answers the challenges of all hosts."""
        self.hosts: list[Host] = []
        self._run, self._stage, self.enrolment = run, stage, enrolment

    def __repr__(self) -> str:
        return f"<Fleet {sum(not math.isinf(host.renewed) for host in self.hosts)} of {len(self.hosts)} renewed>"

    def add(self, rule: Rule, rng: random.Random, client: AcmeClient | None = None) -> Host:
        """Add a host without a certificate.

        Args:
            rule: the host's renewal rule.
            rng: draws the host's jitter and the random factors of its retry delays.
            client: the host's ACME client; None creates one with an account of its own.
        """
        name = f"h{len(self.hosts)}.{DOMAIN}.example.com"
        host = Host(name, Lifecycle(rule, rng), client or self.enrolment.new_client())
        self.hosts.append(host)
        return host

    async def publish(self) -> None:
        """Add the wildcard DNS record of the hosts' names."""
        await publish(self._run, f"*.{DOMAIN}")

    async def enrol(self) -> None:
        """Order the first certificate of every host; `Enrolment.responding` must be active.

        Raises:
            RenewalError: an order failed.
        """
        limit = asyncio.Semaphore(AT_ONCE)

        async def first(host: Host) -> None:
            async with limit:
                held = await self._order(host, None)
                host.lifecycle.loaded(held)
                host.not_after = self._stage.at(held.not_after)

        async with asyncio.TaskGroup() as group:
            for host in self.hosts:
                group.create_task(first(host))

    async def operate(self, hosts: Sequence[Host], timeout: float) -> None:
        """Run each host's state machine until the host has renewed once; stop all of them after *timeout* seconds."""
        tasks = [asyncio.create_task(self._operate(host)) for host in hosts]
        try:
            await asyncio.wait(tasks, timeout=timeout)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def now(self) -> float:
        """Return the time in seconds since the epoch."""
        return self._stage.epoch + self._run.now()

    async def _operate(self, host: Host) -> None:
        state = host.lifecycle
        while math.isinf(host.renewed):
            step = state.next(self.now())
            await self._run.until(self._stage.at(step.at))
            if step.action == "poll":
                await self._poll(host)
                continue
            host.orders.append(self._run.now())
            try:
                validity = await self._order(host, host.leaf)
            except RenewalError as error:
                host.errors.append(str(error))
                host.kinds.append(getattr(error, "kind", ""))
                state.failed(self.now(), str(error), getattr(error, "retry_after", None))
            else:
                state.succeeded(validity)
                host.renewed = self._run.now()

    async def _order(self, host: Host, replaces: x509.Certificate | None) -> Validity:
        pair = await self.enrolment.obtain([host.name, *host.also], host.client, replaces=replaces)
        leaf = host.leaf = x509.load_pem_x509_certificates(pair)[0]
        before, after = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
        return Validity(f"{leaf.serial_number:x}", self.now(), before, after)

    async def _poll(self, host: Host) -> None:
        """Poll the CA's renewal information, unless the host does not poll or has no certificate of the CA."""
        after: float | None = None
        if host.polls and host.leaf is not None:
            try:
                info = await host.client.renewal_info(host.leaf)
            except RenewalError as error:
                host.poll_errors.append(str(error))
                after = getattr(error, "retry_after", None)
            else:
                if info is not None:
                    after = info.retry_after
                    host.moved += host.lifecycle.informed(info, f"{host.leaf.serial_number:x}")
        host.lifecycle.polled(self.now(), after)
