"""Monitors hosts during a drill: each host reports its certificate and its alarms on the admin port."""

import asyncio
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from experiments import Run

#: Interval between admin requests to one host, in seconds.
EVERY = 0.25


@dataclass(frozen=True, slots=True)
class Held:
    """A certificate that a host uses; times are in seconds since the epoch by that host's clock."""

    host: str
    serial: str
    #: Time at which the host received the certificate.
    issued: float
    not_after: float
    #: Time of the scheduled renewal.
    due: float

    @property
    def life(self) -> float:
        """Lifetime in seconds, from the receipt of the certificate to its expiry."""
        return self.not_after - self.issued


@dataclass(frozen=True, slots=True)
class Identity:
    """Issuer of a host's certificate, and the host's trusted roots, from the time *at* on the run's timeline."""

    at: float
    #: Name of the issuing CA.
    issuer: str
    #: Version of the trust bundle in use.
    bundle: int


@dataclass(slots=True)
class Alarm:
    """A failing health check of a host; times are in seconds on the run's timeline."""

    at: float
    host: str
    text: str
    #: Time at which the alarm ended; infinite while it is active.
    until: float = math.inf

    @property
    def check(self) -> str:
        """Name of the health check: certificate, renewal or clock."""
        return self.text.partition(":")[0]


@dataclass(slots=True)
class Watch:
    """Polls ``/admin/certificate`` on every host four times per second, and records certificates and alarms."""

    run: Run
    hosts: Sequence[str]
    held: list[Held] = field(default_factory=list)
    alarms: list[Alarm] = field(default_factory=list)
    #: Changes of issuer and trust bundle, oldest first, keyed by host.
    identities: dict[str, list[Identity]] = field(default_factory=dict)

    async def run_until(self, stop: asyncio.Event) -> None:
        """Poll every host until *stop* is set."""
        await asyncio.gather(*(self._watch(host, stop) for host in self.hosts))

    async def look(self, host: str) -> dict[str, Any]:
        """Poll one host now; record its certificate and alarms, and return the response body."""
        body: dict[str, Any] = await self.run.lab.call(host, "GET", "/admin/certificate")
        now = self.run.now()
        if "serial" in body:
            self._keep(Held(host, body["serial"], body["issued"], body["not_after"], body["due"]))
            known = self.identities.setdefault(host, [])
            found = Identity(now, body["issuer"], body["trust_bundle"])
            if not known or (known[-1].issuer, known[-1].bundle) != (found.issuer, found.bundle):
                known.append(found)
        reported = {str(text).partition(":")[0]: str(text) for text in body["alarms"]}
        active = self.active(host)
        for check, alarm in active.items():
            if check not in reported:
                alarm.until = now
        for check, text in reported.items():
            if check not in active:
                self.alarms.append(Alarm(now, host, text))
                self.run.note("alarm", f"{host}: {check}")
                self.run.note("observation", f"alarm of {host}: {text}")
        return body

    def _keep(self, found: Held) -> None:
        """Record a certificate; a later report replaces the earlier one, since renewal information can change `due`."""
        for i, known in enumerate(self.held):
            if (known.host, known.serial) == (found.host, found.serial):
                self.held[i] = found
                return
        self.held.append(found)

    async def until_renewed(self, host: str, serial: str, timeout: float) -> float:
        """Wait until *host* uses a certificate whose serial number is not *serial*.

        Returns:
            The time at which the new certificate was observed, in seconds on the run's timeline.

        Raises:
            TimeoutError: the host still uses the certificate with this serial number after *timeout* seconds.
        """
        async with asyncio.timeout(timeout):
            while (await self.look(host)).get("serial") == serial:  # noqa: ASYNC110 - polls: no event signals a change on a host
                await asyncio.sleep(EVERY)  # wait until the next poll
        return self.run.now()

    def of(self, host: str) -> list[Held]:
        """Return the recorded certificates of *host*, oldest first."""
        return [each for each in self.held if each.host == host]

    def active(self, host: str) -> dict[str, Alarm]:
        """Return the active alarms of *host*, keyed by name of the health check."""
        return {alarm.check: alarm for alarm in self.alarms if alarm.host == host and alarm.until == math.inf}

    def first_alarm(self, since: float, host: str | None = None) -> Alarm | None:
        """Return the first alarm at or after *since*, on *host* or on any host; None if there is none."""
        return next((a for a in self.alarms if a.at >= since and host in {None, a.host}), None)

    def renewed_at(self, host: str) -> list[float]:
        """Return the fraction of the lifetime at which each completed renewal of *host* was due."""
        return [(a.due - a.issued) / a.life for a, _ in pairwise(self.of(host))]

    def late_by(self, host: str) -> list[float]:
        """Return the delay of each renewal of *host*, in seconds from the time at which it was due."""
        return [b.issued - a.due for a, b in pairwise(self.of(host))]

    async def _watch(self, host: str, stop: asyncio.Event) -> None:
        while not stop.is_set():
            with suppress(Exception):  # skip this poll if the host does not respond
                await self.look(host)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), EVERY)
