"""Records kernel counters ten times a second inside the host they belong to, so that no scrape disturbs what is measured.

    POST /admin/recorder {"hz": 10, "seconds": 120, "sockets": {"local_port": 443}}     starts
    GET /admin/recorder                                                                 what there is so far
    DELETE /admin/recorder                                                              ends, and answers with all of it

Time stamps are CLOCK_MONOTONIC, which every container of one machine shares.  Columns that never change are one number.
"""

import asyncio
import contextlib
import itertools
import time
from dataclasses import dataclass
from typing import Any

from telemetry import counters, sock_diag
from telemetry.admin import AdminError, Request

#: Samples that are kept at most: half an hour at 10 Hz.
MAX_ROWS = 18_000
MAX_HZ = 100.0
#: Samples from one search for sockets to the next: the kernel walks its whole table for that, which takes milliseconds.
SEARCH_EVERY = 10
#: Sockets whose TCP_INFO is taken at most, of each sample.
MAX_SOCKETS = 64
#: Share of a core that watching sockets may take; a sample that it has no CPU time left for goes without.
SOCKETS_SHARE = 0.004
#: States of which TCP_INFO says something.
OPEN = frozenset({"ESTABLISHED", "CLOSE-WAIT", "FIN-WAIT-1"})


@dataclass(frozen=True, slots=True)
class Watch:
    """Which sockets' TCP_INFO is recorded: those with these ports (0: any)."""

    local_port: int = 0
    remote_port: int = 0


class Recording:
    """Rows of one recording; knows no clock."""

    def __init__(self, watch: Watch | None = None) -> None:
        self.watch = watch
        self.times: list[float] = []
        self.rows: list[dict[str, float]] = []
        #: (time, "local remote", TCP_INFO) of watched sockets.
        self.sockets: list[tuple[float, str, dict[str, int]]] = []
        #: CPU seconds that recording itself took, and watching sockets of that.
        self.cost = self.sockets_cost = 0.0
        #: Sockets that the last search found and that were still open since.
        self.known: list[sock_diag.Socket] = []
        #: Row of the next search.
        self.search_at = 1

    def __repr__(self) -> str:
        return f"<Recording rows={len(self.rows)} sockets={len(self.sockets)} cpu={self.cost:.3f}s>"

    @property
    def full(self) -> bool:
        """Whether no more is kept."""
        return len(self.rows) >= MAX_ROWS

    @property
    def may_watch(self) -> bool:
        """Whether watching sockets stayed within its share so far, of at least one second."""
        return self.sockets_cost <= SOCKETS_SHARE * max(1.0, self.times[-1] - self.times[0])

    def add(self, now: float, row: dict[str, float]) -> None:
        """Keep one sample."""
        self.times.append(round(now, 6))
        self.rows.append(row)

    def as_json(self) -> dict[str, Any]:
        """Return columns; one that never changed is a single number."""
        names = self.rows[-1] if self.rows else {}
        columns: dict[str, Any] = {}
        for name in names:
            values = [row.get(name, 0) for row in self.rows]
            columns[name] = values[0] if len(set(values)) == 1 else values
        return {"time": self.times, "columns": columns, "sockets": self.sockets, "cpu_s": round(self.cost, 6)}


class Recorder:
    """The recorder of one host: at most one recording at a time."""

    def __init__(self) -> None:
        self.recording: Recording | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, hz: float, seconds: float, watch: Watch | None) -> Recording:
        """Begin anew, for at most *seconds*; needs a running event loop."""
        self.stop()
        self.recording = recording = Recording(watch)
        self._task = asyncio.get_running_loop().create_task(_record(recording, hz, seconds))
        return recording

    def stop(self) -> Recording | None:
        """End; what was recorded stays until the next start."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
            if self.recording is not None:
                take(self.recording)  # the last state, however long ago the last tick was
        return self.recording

    # --- admin ------------------------------------------------------------------------------------------------------

    async def on_post(self, request: Request) -> dict[str, Any]:
        """Start."""
        body = request.json()
        if not isinstance(body, dict) or body.keys() - {"hz", "seconds", "sockets"}:
            raise AdminError(400, f'expected {{"hz": …, "seconds": …, "sockets": {{…}}}}, got {request.body[:80]!r}')
        hz, seconds = _number(body, "hz", 10.0, MAX_HZ), _number(body, "seconds", 600.0, 3600.0)
        ports = body.get("sockets")
        if ports is not None and (not isinstance(ports, dict) or ports.keys() - {"local_port", "remote_port"}):
            raise AdminError(400, f'expected sockets to be {{"local_port": …, "remote_port": …}}, got {ports!r}')
        watch = None if ports is None else Watch(**{key: int(_number(ports, key, 0, 65535)) for key in ports})
        self.start(hz, seconds, watch)
        return {"hz": hz, "seconds": seconds}

    def on_get(self, _: Request) -> dict[str, Any]:
        """Return what was recorded so far."""
        if self.recording is None:
            raise AdminError(404, "nothing was recorded: POST /admin/recorder starts")
        return self.recording.as_json()

    def on_delete(self, _: Request) -> dict[str, Any]:
        """End, and return what was recorded."""
        found = self.stop()
        self.recording = None
        return {} if found is None else found.as_json()


def take(recording: Recording) -> None:
    """Add one sample of this host."""
    before, now = time.thread_time(), time.monotonic()
    recording.add(now, counters.sample())
    if recording.watch is not None and recording.may_watch:
        began = time.thread_time()
        with contextlib.suppress(sock_diag.SockDiagError):  # the counters are worth having alone
            _watch(recording, recording.watch, now)
        recording.sockets_cost += time.thread_time() - began
    recording.cost += time.thread_time() - before


def _watch(recording: Recording, watch: Watch, now: float) -> None:
    """Take TCP_INFO of the watched sockets: search for them once a second, look them up again in between."""
    if len(recording.rows) >= recording.search_at:
        recording.search_at = len(recording.rows) + SEARCH_EVERY
        found = sock_diag.sockets(*OPEN, local_port=watch.local_port, remote_port=watch.remote_port, info=True)
        recording.known = list(itertools.islice(found, MAX_SOCKETS))
    else:
        recording.known = [each for each in sock_diag.again(recording.known, info=True) if each.state in OPEN]
    recording.sockets.extend((round(now, 6), _named(each), each.info) for each in recording.known)


async def _record(recording: Recording, hz: float, seconds: float) -> None:
    began = time.monotonic()
    number = 0
    while not recording.full and time.monotonic() - began < seconds:
        take(recording)
        number = max(number + 1, int((time.monotonic() - began) * hz))  # a stall leaves a hole, not a burst
        await asyncio.sleep(max(0.0, began + number / hz - time.monotonic()))  # until the next sample


def _named(each: sock_diag.Socket) -> str:
    return f"{each.local[0]}:{each.local[1]} {each.remote[0]}:{each.remote[1]}"


def _number(body: dict[str, Any], name: str, default: float, highest: float) -> float:
    value = body.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= highest:
        raise AdminError(400, f"expected {name} from 0 to {highest:g}, got {value!r}")
    return float(value)
