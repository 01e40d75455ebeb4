"""Records the hosts' kernel counters during a measurement."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from experiments.lab import Lab
from linuxnet.recorder import Recorder, Watch

#: Sampling rate of kernel counters, in samples per second.
HZ = 10.0
#: Maximum duration of a recording in seconds.
LONGEST = 3600
#: Name under which the load generator's own kernel counters are recorded, next to those of the hosts.
HERE = "here"


@dataclass(frozen=True, slots=True)
class Series:
    """Time series of one host's kernel counters."""

    #: Times of the samples, in seconds since the run began.
    times: tuple[float, ...]
    #: By counter name, a list with one value per sample, or a single number if the counter never changed.
    columns: dict[str, Any]
    #: Samples of watched sockets: (seconds since the run began, "local remote" addresses, TCP_INFO fields).
    sockets: tuple[tuple[float, str, dict[str, int]], ...] = ()
    #: CPU time spent on recording, in seconds.
    cost: float = 0.0

    def of(self, name: str) -> list[tuple[float, float]]:
        """Return the samples of counter *name* as pairs (seconds since the run began, value).

        All values are 0 if this kernel lacks the counter.
        """
        column = self.columns.get(name, 0)
        values = column if isinstance(column, list) else [column] * len(self.times)
        return list(zip(self.times, values, strict=True))

    def rise(self, name: str, begin: float = 0.0, end: float = float("inf")) -> float:
        """Return the increase in counter *name* between *begin* and *end* (both in seconds since the run began)."""
        values = [value for at, value in self.of(name) if begin - 1 / HZ <= at <= end + 1 / HZ]
        return values[-1] - values[0] if values else 0.0

    def rate(self, name: str) -> list[tuple[float, float]]:
        """Return the growth of counter *name* between samples, as pairs (seconds since the run began, rate)."""
        points = self.of(name)
        return [((a + b) / 2, (y - x) / (b - a)) for (a, x), (b, y) in pairwise(points) if b > a]


@dataclass(slots=True)
class Recorders:
    """Starts and stops recorders on hosts; after `stop`, `series` holds the recorded time series, keyed by host."""

    lab: Lab
    series: dict[str, Series] = field(default_factory=dict)
    _running: list[str] = field(default_factory=list)
    _here: Recorder = field(default_factory=Recorder)

    async def start(self, *hosts: str, sockets: Watch | None = None) -> None:
        """Start recording the kernel counters of *hosts*, until `stop` is called.

        Args:
            hosts: host names; `HERE` is the load generator itself.
            sockets: sockets whose TCP_INFO is recorded as well; None: no sockets.
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
        """Stop all recorders and fetch their series; call *failed* with a message for each unresponsive host."""
        began = self.lab.timeline.began
        for host in self._running:
            try:
                if host == HERE:
                    recording = self._here.stop()
                    found = {} if recording is None else recording.as_json()
                else:
                    found = await self.lab.call(host, "DELETE", "/admin/recorder")
            except Exception as error:  # the host is down; the other series are still valid
                failed(f"no counters of {host}: {error}")
                continue
            self.series[host] = Series(
                tuple(at - began for at in found.get("time", ())),
                found.get("columns", {}),
                tuple((at - began, name, info) for at, name, info in found.get("sockets", ())),
                found.get("cpu_s", 0.0),
            )
        self._running.clear()
