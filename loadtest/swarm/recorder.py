"""Writes requests into Locust's statistics: the request itself, and each of its phases as an entry of its own.

Phases stay out of Locust's total, where they would count every request six times.  Beside Locust's rounded times an
exact histogram is kept; workers send what is new to the master every few seconds.
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

#: Seconds of sleep whose overshoot is the lag of this process, and seconds after which it is judged.
NAP, JUDGE = 0.05, 3.0


class Recorder:
    """One for each process, worker or not."""

    def __init__(self, environment: Any) -> None:
        self.board = Board()
        self._environment = environment
        self._tally, self._lag = Tally(), Histogram()
        self._cpu = 0.0
        self._starvation = Starvation(math.nan, 0.0)
        self._warned = False

    def note(self, request: Request, method: str, name: str, length: int = 0) -> None:
        """Count one request that ended."""
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
        """Judge again and again whether this process has the CPU that its users need; never returns."""
        while True:
            if isinstance(self._environment.runner, LocalRunner):  # workers report to their master
                self.board.take("here", self.report())
            cpu, waited, began = time.process_time(), run_delay(), time.monotonic()
            while (at := time.monotonic()) - began < JUDGE:
                gevent.sleep(NAP)  # how much longer it takes is what is measured
                self._lag.add(max(0.0, time.monotonic() - at - NAP))
            took = time.monotonic() - began
            self._cpu = (time.process_time() - cpu) / took
            self._judge((run_delay() - waited) / took)

    def hear(self, worker: str, report: Report) -> None:
        """Take what a worker says of itself; it has logged its own starvation, and here it is seen."""
        before = self.board.workers.get(worker)
        self.board.take(worker, report)
        if report.reasons and (before is None or not before.reasons):
            logger.warning("worker %s is starved: %s", short(worker), "; ".join(report.reasons))

    def report(self) -> Report:
        """Return what is new since the last report, for the board."""
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
            self._lag = Histogram()  # nobody's times are measured by it
            self._starvation = Starvation(math.nan, self._cpu)
            return
        self._starvation = Starvation.of(self._lag, self._cpu, waited=waited)
        self._lag = Histogram()
        if self._starvation.starved and not self._warned:
            logger.warning(
                "generator starved: %s. These times say more of Locust than of the server: "
                "fewer users, or more workers (--scale locust-worker=N) where cores are free.",
                "; ".join(self._starvation.reasons),
            )
        elif self._warned and not self._starvation.starved:
            logger.info("generator is fit again")
        self._warned = self._starvation.starved


class RequestLostError(Exception):
    """Why a request was lost, as Locust's Failures page shows it."""

    def __init__(self, request: Request) -> None:
        super().__init__(f"{request.failed_in}: {request.error}" if request.failed_in else request.error)


def _namespace() -> str:
    """Return what names this network namespace: workers in one container count the same sockets."""
    try:
        return str(Path("/proc/self/ns/net").readlink())
    except OSError:
        return ""
