"""Recorder of kernel counters that runs inside the recorded host, so that scrapes do not disturb the measurement.

Timestamps are in seconds of CLOCK_MONOTONIC, which all containers of a machine share.
"""

import asyncio
import contextlib
import itertools
import time
from dataclasses import dataclass
from typing import Any

from linuxnet import counters, sock_diag

#: Maximum number of samples per recording: half an hour at 10 Hz.
MAX_ROWS = 18_000
MAX_HZ = 100.0
#: Number of samples from one socket search to the next. A search takes milliseconds, because the kernel walks its
#: whole socket table.
SEARCH_EVERY = 10
#: Maximum number of sockets whose TCP_INFO is read per sample.
MAX_SOCKETS = 64
#: Maximum CPU time for reading TCP_INFO, as a share of one core. Above it, samples omit the sockets.
SOCKETS_SHARE = 0.004
#: TCP states in which TCP_INFO is meaningful.
OPEN = frozenset({"ESTABLISHED", "CLOSE-WAIT", "FIN-WAIT-1"})


@dataclass(frozen=True, slots=True)
class Watch:
    """Local and remote port of the sockets whose TCP_INFO is recorded; 0 matches any port."""

    local_port: int = 0
    remote_port: int = 0


class Recording:
    """Samples of one recording."""

    def __init__(self, watch: Watch | None = None) -> None:
        self.watch = watch
        self.times: list[float] = []
        self.rows: list[dict[str, float]] = []
        #: Samples of the watched sockets: tuples (monotonic time in seconds, "local remote" addresses, TCP_INFO).
        self.sockets: list[tuple[float, str, dict[str, int]]] = []
        #: CPU seconds used by the whole recording, and the part of them used by reading sockets.
        self.cost = self.sockets_cost = 0.0
        #: Sockets found by the last search that were still open at the last sample.
        self.known: list[sock_diag.Socket] = []
        #: Number of the sample at which the next socket search is due.
        self.search_at = 1

    def __repr__(self) -> str:
        return f"<Recording rows={len(self.rows)} sockets={len(self.sockets)} cpu={self.cost:.3f}s>"

    @property
    def full(self) -> bool:
        """Whether the recording has `MAX_ROWS` samples."""
        return len(self.rows) >= MAX_ROWS

    @property
    def may_watch(self) -> bool:
        """Whether reading sockets is within its CPU limit `SOCKETS_SHARE`, averaged over at least one second."""
        return self.sockets_cost <= SOCKETS_SHARE * max(1.0, self.times[-1] - self.times[0])

    def add(self, now: float, row: dict[str, float]) -> None:
        """Append one sample of the counters, taken at *now* on the monotonic clock."""
        self.times.append(round(now, 6))
        self.rows.append(row)

    def as_json(self) -> dict[str, Any]:
        """Return the samples by column; a column that never changes is a single number."""
        names = self.rows[-1] if self.rows else {}
        columns: dict[str, Any] = {}
        for name in names:
            values = [row.get(name, 0) for row in self.rows]
            columns[name] = values[0] if len(set(values)) == 1 else values
        return {"time": self.times, "columns": columns, "sockets": self.sockets, "cpu_s": round(self.cost, 6)}


class Recorder:
    """Recorder of one host, which stores at most one recording."""

    def __init__(self) -> None:
        self.recording: Recording | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, hz: float, seconds: float, watch: Watch | None) -> Recording:
        """Start a recording of at most *seconds* and discard the previous one; requires a running event loop."""
        self.stop()
        self.recording = recording = Recording(watch)
        self._task = asyncio.get_running_loop().create_task(_record(recording, hz, seconds))
        return recording

    def stop(self) -> Recording | None:
        """Stop recording and return the recording, which remains available until the next start."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
            if self.recording is not None:
                sample(self.recording)  # record the final state; the last periodic sample may be much older
        return self.recording


def sample(recording: Recording) -> None:
    """Append a sample of this host's counters and watched sockets."""
    before, now = time.thread_time(), time.monotonic()
    recording.add(now, counters.sample())
    if recording.watch is not None and recording.may_watch:
        began = time.thread_time()
        with contextlib.suppress(sock_diag.SockDiagError):  # the counters are useful even without the sockets
            _sample_sockets(recording, recording.watch, now)
        recording.sockets_cost += time.thread_time() - began
    recording.cost += time.thread_time() - before


def _sample_sockets(recording: Recording, watch: Watch, now: float) -> None:
    """Record TCP_INFO of the watched sockets: search every `SEARCH_EVERY` samples, otherwise refresh known ones."""
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
        number = max(number + 1, int((time.monotonic() - began) * hz))  # after a stall, skip missed samples
        await asyncio.sleep(max(0.0, began + number / hz - time.monotonic()))  # sleeps until the next sample is due
