"""What the hosts report about themselves during a drill: the certificate each holds, and its alarms."""

import asyncio
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from experiments import Run

#: Seconds between two requests to one host.
EVERY = 0.25


@dataclass(frozen=True, slots=True)
class Held:
    """A certificate that a host holds; times are seconds since the epoch by that host's clock."""

    host: str
    serial: str
    #: When the host received it.
    issued: float
    not_after: float
    #: When its renewal is due.
    due: float

    @property
    def life(self) -> float:
        """Seconds from its receipt to its end."""
        return self.not_after - self.issued


@dataclass(slots=True)
class Alarm:
    """A failed health check of one host; seconds on the run's timeline."""

    at: float
    host: str
    text: str
    #: When it ended; infinite while it is active.
    until: float = math.inf

    @property
    def check(self) -> str:
        """Name of the health check: renewal, certificate, clock."""
        return self.text.partition(":")[0]


@dataclass(slots=True)
class Watch:
    """Asks ``/admin/certificate`` of every host four times a second."""

    run: Run
    hosts: Sequence[str]
    held: list[Held] = field(default_factory=list)
    alarms: list[Alarm] = field(default_factory=list)

    async def run_until(self, stop: asyncio.Event) -> None:
        """Watch every host until *stop* is set."""
        await asyncio.gather(*(self._watch(host, stop) for host in self.hosts))

    async def look(self, host: str) -> dict[str, Any]:
        """Ask one host now; return its answer."""
        body: dict[str, Any] = await self.run.lab.call(host, "GET", "/admin/certificate")
        now = self.run.now()
        if "serial" in body:
            self._keep(Held(host, body["serial"], body["issued"], body["not_after"], body["due"]))
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
        """Remember a certificate; a later answer corrects when it is due, since the CA may change that."""
        for i, known in enumerate(self.held):
            if (known.host, known.serial) == (found.host, found.serial):
                self.held[i] = found
                return
        self.held.append(found)

    async def until_renewed(self, host: str, serial: str, timeout: float) -> float:
        """Return the second at which *host* holds another certificate than *serial*.

        Raises:
            TimeoutError: it still holds that one after *timeout* seconds.
        """
        async with asyncio.timeout(timeout):
            while (await self.look(host)).get("serial") == serial:  # noqa: ASYNC110 - a host has no events to wait for
                await asyncio.sleep(EVERY)
        return self.run.now()

    def of(self, host: str) -> list[Held]:
        """Return the certificates of *host*, oldest first."""
        return [each for each in self.held if each.host == host]

    def active(self, host: str) -> dict[str, Alarm]:
        """Return the active alarms of *host* by health check."""
        return {alarm.check: alarm for alarm in self.alarms if alarm.host == host and alarm.until == math.inf}

    def first_alarm(self, since: float, host: str | None = None) -> Alarm | None:
        """Return the first alarm at or after *since*."""
        return next((a for a in self.alarms if a.at >= since and host in {None, a.host}), None)

    def renewed_at(self, host: str) -> list[float]:
        """Return the share of its life at which each certificate of *host* was due, except the last."""
        return [(a.due - a.issued) / a.life for a, _ in pairwise(self.of(host))]

    def late_by(self, host: str) -> list[float]:
        """Return how many seconds after it was due each certificate of *host* was replaced, except the last."""
        return [b.issued - a.due for a, b in pairwise(self.of(host))]

    async def _watch(self, host: str, stop: asyncio.Event) -> None:
        while not stop.is_set():
            with suppress(Exception):  # a host that does not answer now may answer next time
                await self.look(host)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), EVERY)
