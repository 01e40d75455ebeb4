"""Records requests in Locust's statistics, with a separate entry for each phase.

Phases are not included in Locust's total, which would otherwise count every request six times.  Because Locust rounds
times, exact histograms are recorded as well; each worker sends its histograms to the master every few seconds.
"""

import json
import logging
import math
import socket
import time
from pathlib import Path
from typing import Any

import gevent
from locust.runners import STATE_RUNNING, STATE_SPAWNING, LocalRunner, MasterRunner, WorkerRunner

from generator import Histogram, Request, Starvation, Tally, run_delay
from hostfiles.atomic import atomic_write
from linuxnet import counters
from swarm.board import Board, Report, short

logger = logging.getLogger("firstbyte")

#: Duration of a sleep whose overshoot measures the lag of this process, and interval between assessments, in seconds.
NAP, JUDGE = 0.05, 3.0
#: Exit code if the file of ``--tally`` cannot be written.
NOT_WRITTEN = 4


class Recorder:
    """Records the requests of one Locust process, and assesses whether the process has enough CPU time."""

    def __init__(self, environment: Any) -> None:
        self.board = Board()
        self._environment = environment
        #: File for the exact histograms of this process; "" for none.  It is read now, because a master later
        #: overwrites the options of its workers with its own.
        self._file: str = environment.parsed_options.tally
        self._tally, self._lag = Tally(), Histogram()
        self._cpu = 0.0
        self._starvation = Starvation(math.nan, 0.0)
        self._warned = False

    def note(self, request: Request, method: str, name: str, length: int = 0) -> None:
        """Record one completed or lost request.

        Args:
            request: the request.
            method: request type in Locust's statistics, such as GET, TCP or DNS.
            name: name of the request in Locust's statistics.
            length: response size in bytes; 0: the size of the response body.
        """
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
        """Every `JUDGE` seconds, check whether this process has enough CPU time for its users; never returns."""
        while True:
            if isinstance(self._environment.runner, LocalRunner):  # a worker process reports to its master instead
                self.board.take("here", self.report())
            cpu, waited, began = time.process_time(), run_delay(), time.monotonic()
            while (at := time.monotonic()) - began < JUDGE:
                gevent.sleep(NAP)  # the overshoot of this sleep is the lag of the process
                self._lag.add(max(0.0, time.monotonic() - at - NAP))
            took = time.monotonic() - began
            self._cpu = (time.process_time() - cpu) / took
            self._judge((run_delay() - waited) / took)

    def receive(self, worker: str, report: Report) -> None:
        """Store a worker's report, and log a warning in this process if the worker has started to lack CPU time."""
        before = self.board.workers.get(worker)
        self.board.take(worker, report)
        if report.reasons and (before is None or not before.reasons):
            logger.warning("worker %s lacks CPU: %s", short(worker), "; ".join(report.reasons))

    def report(self) -> Report:
        """Return a report on this process with the requests since the previous report."""
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
        if isinstance(self._environment.runner, WorkerRunner):
            self.board.take("here", made)
        return made

    def finish(self) -> None:
        """Write the file of ``--tally`` when the process ends; without a master, first add the latest requests."""
        if isinstance(self._environment.runner, LocalRunner):
            self.board.take("here", self.report())
        if not self._file:
            return
        try:
            atomic_write(Path(self._file), json.dumps(self.board.tally.as_json()).encode())
        except OSError as error:
            logger.error("--tally %s: %s", self._file, error.strerror or error)
            self._environment.process_exit_code = self._environment.process_exit_code or NOT_WRITTEN

    def _judge(self, waited: float) -> None:
        runner = self._environment.runner
        if isinstance(runner, MasterRunner) or getattr(runner, "state", "") not in {STATE_SPAWNING, STATE_RUNNING}:
            self._lag = Histogram()  # discard lag that was recorded while no test was running
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
    """A request was lost; the message, shown on Locust's Failures page, is the phase and the cause."""

    def __init__(self, request: Request) -> None:
        super().__init__(f"{request.failed_in}: {request.error}" if request.failed_in else request.error)


def _namespace() -> str:
    """Return an identifier of this process's network namespace; "" if it is unknown."""
    try:
        return str(Path("/proc/self/ns/net").readlink())
    except OSError:
        return ""
