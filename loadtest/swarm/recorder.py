"""Records requests in Locust's statistics, with each phase as an entry of its own.

Phases are not part of Locust's total, which would count every request six times.  Locust rounds its times, so exact
histograms are kept as well; workers send theirs to the master every few seconds.
"""

import logging
import math
import socket
import time
from pathlib import Path
from typing import Any

import gevent
from locust.runners import STATE_RUNNING, STATE_SPAWNING, LocalRunner, MasterRunner

from generator import Histogram, Request, Starvation, Tally, run_delay
from linuxnet import counters
from swarm.board import Board, Report, short

logger = logging.getLogger("firstbyte")

#: Seconds of a sleep whose overshoot measures the lag of this process, and seconds between two judgements.
NAP, JUDGE = 0.05, 3.0


class Recorder:
    """Records the requests of one process, and judges whether it has enough CPU."""

    def __init__(self, environment: Any) -> None:
        self.board = Board()
        self._environment = environment
        self._tally, self._lag = Tally(), Histogram()
        self._cpu = 0.0
        self._starvation = Starvation(math.nan, 0.0)
        self._warned = False

    def note(self, request: Request, method: str, name: str, length: int = 0) -> None:
        """Record one completed request."""
        stats = self._environment.stats
        if not request.error:
            for phase, seconds in request.phases().items():
                stats.entries[name, phase.replace("_", " ")].log(seconds * 1e3, 0)
        self._tally.add(request)
        self._lag.add(max(0.0, request.lag))
        self._environment.events.request.fire(
            request_type=method,
            name=name,
            response_time=request.latency * 1e3,
            response_length=length or request.body_bytes,
            exception=RequestLostError(request) if request.error else None,
            context={"phases": request.phases(), "serial": request.serial, "resumed": request.resumed},
        )

    def watch(self) -> None:
        """Judge periodically whether this process has the CPU that its users need; never returns."""
        while True:
            if isinstance(self._environment.runner, LocalRunner):  # workers report to their master instead
                self.board.take("here", self.report())
            cpu, waited, began = time.process_time(), run_delay(), time.monotonic()
            while (at := time.monotonic()) - began < JUDGE:
                gevent.sleep(NAP)  # its overshoot is measured
                self._lag.add(max(0.0, time.monotonic() - at - NAP))
            took = time.monotonic() - began
            self._cpu = (time.process_time() - cpu) / took
            self._judge((run_delay() - waited) / took)

    def receive(self, worker: str, report: Report) -> None:
        """Store a worker's report; log here as well when it starts to lack CPU."""
        before = self.board.workers.get(worker)
        self.board.take(worker, report)
        if report.reasons and (before is None or not before.reasons):
            logger.warning("worker %s lacks CPU: %s", short(worker), "; ".join(report.reasons))

    def report(self) -> Report:
        """Return a report of everything since the last one."""
        made = Report(
            host=socket.gethostname(),
            namespace=_namespace(),
            cpu=self._cpu,
            lag_p99=self._starvation.lag_p99,
            reasons=self._starvation.reasons,
            counters=counters.sample(),
            tally=self._tally.as_json(),
        )
        self._tally = Tally()
        return made

    def _judge(self, waited: float) -> None:
        runner = self._environment.runner
        if isinstance(runner, MasterRunner) or getattr(runner, "state", "") not in {STATE_SPAWNING, STATE_RUNNING}:
            self._lag = Histogram()  # no request is being measured
            self._starvation = Starvation(math.nan, self._cpu)
            return
        self._starvation = Starvation.of(self._lag, self._cpu, waited=waited)
        self._lag = Histogram()
        if self._starvation.starved and not self._warned:
            logger.warning(
                "load generator lacks CPU: %s. Its times say more about Locust than about the server: use fewer "
                "users, or more workers if cores are free (--scale locust-worker=N)",
                "; ".join(self._starvation.reasons),
            )
        elif self._warned and not self._starvation.starved:
            logger.info("load generator has enough CPU again")
        self._warned = self._starvation.starved


class RequestLostError(Exception):
    """Why a request was lost, for Locust's Failures page."""

    def __init__(self, request: Request) -> None:
        super().__init__(f"{request.failed_in}: {request.error}" if request.failed_in else request.error)


def _namespace() -> str:
    """Return the name of this network namespace, or an empty text: workers in one container share it."""
    try:
        return str(Path("/proc/self/ns/net").readlink())
    except OSError:
        return ""
