"""Evaluates the thresholds of ``--fail-if`` when Locust quits: sets the exit code, logs results, writes JUnit XML."""

import datetime as dt
import logging
import time
from pathlib import Path
from typing import Any

from locust.runners import WorkerRunner

from hostfiles import junit
from swarm import thresholds
from swarm.recorder import Recorder

logger = logging.getLogger("firstbyte")

#: Exit code if the JUnit XML file cannot be written.
NOT_WRITTEN = 4


class Judge:
    """Listens to Locust's events and evaluates the load test's thresholds when Locust quits."""

    def __init__(self, environment: Any, recorder: Recorder) -> None:
        self._environment, self._recorder = environment, recorder
        options = environment.parsed_options
        self._thresholds = thresholds.parse(options.fail_if)
        self._junit = options.junit
        self._began = self._ended = 0.0
        self._at = ""
        if self._thresholds:
            environment.events.test_start.add_listener(self._start)
            environment.events.test_stop.add_listener(self._stop)
            environment.events.quitting.add_listener(self._quit)

    def _start(self, **_: Any) -> None:
        self._at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        self._began = time.monotonic()

    def _stop(self, **_: Any) -> None:
        self._ended = time.monotonic()

    def _quit(self, environment: Any, **_: Any) -> None:
        """Evaluate the thresholds over all requests of the test; on a worker, do nothing: its master evaluates them."""
        if isinstance(environment.runner, WorkerRunner):
            return
        board = self._recorder.board
        took = (self._ended or time.monotonic()) - self._began
        cases = [each.judge(board.tally, took) for each in self._thresholds]
        for case in cases:
            log = logger.info if case.outcome == "passed" else logger.error
            log("%s: %s, %s", case.name, case.outcome, case.message)
        for reason in board.starved:
            logger.warning("load generator lacks CPU, so times are too long: %s", reason)
        code = thresholds.verdict(cases)
        # A threshold for errors replaces Locust's default, which is exit code 1 after any failed request.
        if code or any(each.metric == "errors" for each in self._thresholds):
            environment.process_exit_code = code
        if self._junit:
            suite = junit.Suite(f"load test of {environment.host}", cases, took, self._at)
            try:
                junit.write(Path(self._junit), [suite])
            except OSError as error:
                logger.error("--junit %s: %s", self._junit, error.strerror or error)
                environment.process_exit_code = code or NOT_WRITTEN
