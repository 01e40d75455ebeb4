"""Recorder of kernel counters, run inside the host they belong to, so that no scrape disturbs the measurement.

Time stamps are CLOCK_MONOTONIC, which all containers of one machine share.
"""

import asyncio
import contextlib
import itertools
import time
from dataclasses import dataclass
from typing import Any

from linuxnet import counters, sock_diag

#: Samples in one recording: half an hour at 10 Hz.
MAX_ROWS = 18_000
MAX_HZ = 100.0
#: Samples between two searches for sockets.  In a search the kernel walks its whole table, which takes milliseconds.
SEARCH_EVERY = 10
#: Sockets whose TCP_INFO is read in one sample.
MAX_SOCKETS = 64
#: Share of one core that reading TCP_INFO may take.  Above it, samples leave the sockets out.
SOCKETS_SHARE = 0.004
#: States in which TCP_INFO is meaningful.
OPEN = frozenset({"ESTABLISHED", "CLOSE-WAIT", "FIN-WAIT-1"})


@dataclass(frozen=True, slots=True)
class Watch:
    """Ports of the sockets whose TCP_INFO is recorded; 0 matches any."""

    local_port: int = 0
    remote_port: int = 0


class Recording:
    """The samples of one recording."""

    def __init__(self, watch: Watch | None = None) -> None:
        self.watch = watch
        self.times: list[float] = []
        self.rows: list[dict[str, float]] = []
        #: (time, "local remote", TCP_INFO) of watched sockets.
        self.sockets: list[tuple[float, str, dict[str, int]]] = []
        #: CPU seconds spent on recording, and the part of them spent on sockets.
        self.cost = self.sockets_cost = 0.0
        #: Sockets of the last search that were still open in the last sample.
        self.known: list[sock_diag.Socket] = []
        #: Number of the sample that searches next.
        self.search_at = 1

    def __repr__(self) -> str:
        return f"<Recording rows={len(self.rows)} sockets={len(self.sockets)} cpu={self.cost:.3f}s>"

    @property
    def full(self) -> bool:
        """Whether the recording has reached `MAX_ROWS`."""
        return len(self.rows) >= MAX_ROWS

    @property
    def may_watch(self) -> bool:
        """Whether reading sockets has stayed within `SOCKETS_SHARE` so far (of at least one second)."""
        return self.sockets_cost <= SOCKETS_SHARE * max(1.0, self.times[-1] - self.times[0])

    def add(self, now: float, row: dict[str, float]) -> None:
        """Append one sample of the counters."""
        self.times.append(round(now, 6))
        self.rows.append(row)

    def as_json(self) -> dict[str, Any]:
        """Return the samples as columns; a column that never changed is a single number."""
        names = self.rows[-1] if self.rows else {}
        columns: dict[str, Any] = {}
        for name in names:
            values = [row.get(name, 0) for row in self.rows]
            columns[name] = values[0] if len(set(values)) == 1 else values
        return {"time": self.times, "columns": columns, "sockets": self.sockets, "cpu_s": round(self.cost, 6)}


class Recorder:
    """The recorder of one host; it holds at most one recording."""

    def __init__(self) -> None:
        self.recording: Recording | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, hz: float, seconds: float, watch: Watch | None) -> Recording:
        """Start a new recording of at most *seconds*; the previous one is dropped.  Needs a running event loop."""
        self.stop()
        self.recording = recording = Recording(watch)
        self._task = asyncio.get_running_loop().create_task(_record(recording, hz, seconds))
        return recording

    def stop(self) -> Recording | None:
        """Stop, and return the recording, which is kept until the next start."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
            if self.recording is not None:
                sample(self.recording)  # the final state, which may be much newer than the last tick
        return self.recording


def sample(recording: Recording) -> None:
    """Append one sample of this host."""
    before, now = time.thread_time(), time.monotonic()
    recording.add(now, counters.sample())
    if recording.watch is not None and recording.may_watch:
        began = time.thread_time()
        with contextlib.suppress(sock_diag.SockDiagError):  # the counters are useful without the sockets
            _sample_sockets(recording, recording.watch, now)
        recording.sockets_cost += time.thread_time() - began
    recording.cost += time.thread_time() - before


def _sample_sockets(recording: Recording, watch: Watch, now: float) -> None:
    """Read TCP_INFO of the watched sockets: every `SEARCH_EVERY` samples search, otherwise refresh the known ones."""
    if len(recording.rows) >= recording.search_at:
        recording.search_at = len(recording.rows) + SEARCH_EVERY
        found = sock_diag.sockets(*OPEN, local_port=watch.local_port, remote_port=watch.remote_port, info=True)
        recording.known = list(itertools.islice(found, MAX_SOCKETS))
    else:
        recording.known = [each for each in sock_diag.refresh(recording.known, info=True) if each.state in OPEN]
    recording.sockets.extend((round(now, 6), str(each), each.info) for each in recording.known)


async def _record(recording: Recording, hz: float, seconds: float) -> None:
    began = time.monotonic()
    number = 0
    while not recording.full and time.monotonic() - began < seconds:
        sample(recording)
        number = max(number + 1, int((time.monotonic() - began) * hz))  # after a stall, skip samples: no burst
        await asyncio.sleep(max(0.0, began + number / hz - time.monotonic()))
