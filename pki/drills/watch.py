"""What the hosts themselves say while a drill runs: which certificate each holds, and what it complains about."""

import asyncio
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from experiments import Run

#: Seconds between two looks at one host.
EVERY = 0.25


@dataclass(frozen=True, slots=True)
class Held:
    """A certificate in the hands of one host; times are seconds since the epoch by that host's clock."""

    host: str
    serial: str
    issued: float
    not_after: float
    #: When its renewal was to begin.
    due: float

    @property
    def life(self) -> float:
        """Seconds from hand to end."""
        return self.not_after - self.issued


@dataclass(slots=True)
class Alarm:
    """A complaint of one host that began at *at* (seconds on the run's time line)."""

    at: float
    host: str
    text: str
    #: When it was over; infinite while it holds.
    until: float = math.inf

    @property
    def check(self) -> str:
        """What complained: renewal, certificate, clock."""
        return self.text.partition(":")[0]


@dataclass(slots=True)
class Watch:
    """Asks ``/admin/certificate`` of every host, four times a second."""

    run: Run
    hosts: Sequence[str]
    held: list[Held] = field(default_factory=list)
    alarms: list[Alarm] = field(default_factory=list)
    #: (second, host, failures so far).
    failures: list[tuple[float, str, int]] = field(default_factory=list)

    async def run_until(self, stop: asyncio.Event) -> None:
        """Watch every host until *stop* is set."""
        await asyncio.gather(*(self._one(host, stop) for host in self.hosts))

    async def look(self, host: str) -> dict[str, Any]:
        """Look at one host now; return what it says."""
        body: dict[str, Any] = await self.run.lab.call(host, "GET", "/admin/certificate")
        now = self.run.now()
        self.failures.append((now, host, int(body["failures"])))
        if "serial" in body:
            self._keep(Held(host, body["serial"], body["issued"], body["not_after"], body["due"]))
        said = {str(text).partition(":")[0]: str(text) for text in body["alarms"]}
        ringing = self.ringing(host)
        for check, alarm in ringing.items():
            if check not in said:
                alarm.until = now
        for check, text in said.items():
            if check not in ringing:
                self.alarms.append(Alarm(now, host, text))
                self.run.note("alarm", f"{host}: {check}")
                self.run.note("observation", f"{host} complains: {text}")
        return body

    def _keep(self, found: Held) -> None:
        """Remember a certificate; a later look may know better when it is due, since the CA has a say in it."""
        for i, known in enumerate(self.held):
            if (known.host, known.serial) == (found.host, found.serial):
                self.held[i] = found
                return
        self.held.append(found)

    async def until_renewed(self, host: str, serial: str, timeout: float) -> float:
        """Return the second at which *host* holds another certificate than *serial*; raise `TimeoutError`."""
        async with asyncio.timeout(timeout):
            while (await self.look(host)).get("serial") == serial:  # noqa: ASYNC110 - a host has no events to wait for
                await asyncio.sleep(EVERY)  # polls
        return self.run.now()

    def of(self, host: str) -> list[Held]:
        """Return what *host* held, in order."""
        return [each for each in self.held if each.host == host]

    def ringing(self, host: str) -> dict[str, Alarm]:
        """Return what *host* complains of now, by check."""
        return {alarm.check: alarm for alarm in self.alarms if alarm.host == host and alarm.until == math.inf}

    def first_alarm(self, since: float, host: str | None = None) -> Alarm | None:
        """Return the first complaint after *since*."""
        return next((a for a in self.alarms if a.at >= since and host in {None, a.host}), None)

    def renewed_at(self, host: str) -> list[float]:
        """Return at which share of its life each certificate of *host* was to be replaced, except the last."""
        return [(a.due - a.issued) / a.life for a, _ in pairwise(self.of(host))]

    def late_by(self, host: str) -> list[float]:
        """Return how many seconds after its due moment each certificate of *host* was replaced, except the last."""
        return [b.issued - a.due for a, b in pairwise(self.of(host))]

    async def _one(self, host: str, stop: asyncio.Event) -> None:
        while not stop.is_set():
            with suppress(Exception):  # a host that does not answer now may answer at the next look
                await self.look(host)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), EVERY)
