"""Kernel counters of hosts, sampled while an experiment measures."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from experiments.lab import Lab
from linuxnet.recorder import Recorder, Watch

#: Samples per second.
HZ = 10.0
#: Seconds that a recorder runs at most.
LONGEST = 3600
#: The name of our own kernel counters among those of the hosts.
HERE = "here"


@dataclass(frozen=True, slots=True)
class Series:
    """Kernel counters of one host over time."""

    #: Seconds on the run's timeline.
    times: tuple[float, ...]
    #: One value per sample by counter name; a counter that never changed is a single number.
    columns: dict[str, Any]
    #: (second, "local remote", TCP_INFO) of watched sockets.
    sockets: tuple[tuple[float, str, dict[str, int]], ...] = ()
    #: CPU seconds that recording took.
    cost: float = 0.0

    def of(self, name: str) -> list[tuple[float, float]]:
        """Return (second, value) of a counter; zeros for one that this kernel does not have."""
        column = self.columns.get(name, 0)
        values = column if isinstance(column, list) else [column] * len(self.times)
        return list(zip(self.times, values, strict=True))

    def rise(self, name: str, begin: float = 0.0, end: float = float("inf")) -> float:
        """Return the increase of a counter between two seconds."""
        values = [value for at, value in self.of(name) if begin - 1 / HZ <= at <= end + 1 / HZ]
        return values[-1] - values[0] if values else 0.0

    def rate(self, name: str) -> list[tuple[float, float]]:
        """Return (second, increase per second) between samples."""
        points = self.of(name)
        return [((a + b) / 2, (y - x) / (b - a)) for (a, x), (b, y) in pairwise(points) if b > a]


@dataclass(slots=True)
class Recorders:
    """Starts recorders on hosts; after `stop`, holds their series by host."""

    lab: Lab
    series: dict[str, Series] = field(default_factory=dict)
    _running: list[str] = field(default_factory=list)
    _here: Recorder = field(default_factory=Recorder)

    async def start(self, *hosts: str, sockets: Watch | None = None) -> None:
        """Record kernel counters of *hosts* (`HERE`: our own) until the run ends.

        Args:
            hosts: names.
            sockets: record TCP_INFO of these sockets as well.
        """
        body: dict[str, Any] = {"hz": HZ, "seconds": LONGEST}
        if sockets is not None:
            body["sockets"] = {"local_port": sockets.local_port, "remote_port": sockets.remote_port}
        for host in hosts:
            if host == HERE:
                self._here.start(HZ, LONGEST, sockets)
            else:
                await self.lab.call(host, "POST", "/admin/recorder", body)
            if host not in self._running:
                self._running.append(host)

    async def stop(self, failed: Callable[[str], object]) -> None:
        """Stop every recorder and fetch its series; report a host that does not answer to *failed*, and go on."""
        began = self.lab.timeline.began
        for host in self._running:
            try:
                if host == HERE:
                    recording = self._here.stop()
                    found = {} if recording is None else recording.as_json()
                else:
                    found = await self.lab.call(host, "DELETE", "/admin/recorder")
            except Exception as error:  # the host is gone: what else was measured still counts
                failed(f"no counters of {host}: {error}")
                continue
            self.series[host] = Series(
                tuple(at - began for at in found.get("time", ())),
                found.get("columns", {}),
                tuple((at - began, name, info) for at, name, info in found.get("sockets", ())),
                found.get("cpu_s", 0.0),
            )
        self._running.clear()
