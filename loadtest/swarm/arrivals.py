"""An open loop for one Locust user: each request starts at its scheduled time, in its own greenlet."""

import random
import time
from collections.abc import Callable

import gevent
from gevent.pool import Group

from generator import Schedule


def schedule_seed(seed: int, worker: int, user: int) -> int:
    """Return the seed of one user's schedule.

    With the same *seed* and the same number of workers, a repeated load test has the same schedules on any machine; two
    users never share a schedule.

    Args:
        seed: seed of the load test; if it is 0, the returned seed is random.
        worker: index of the worker, as assigned by Locust's master.
        user: number of the user in its worker process.
    """
    return random.Random(f"{seed}:{worker}:{user}").getrandbits(32) if seed else random.getrandbits(32)


def arrivals(schedule: Schedule, begin: Callable[[float], None], group: Group) -> None:
    """Call *begin* for each arrival of *schedule*, in a new greenlet, until the schedule ends or the user is stopped.

    Args:
        schedule: intended start times of the requests, relative to this call.
        begin: sends one request; called with its intended start, in seconds on `time.monotonic`.
        group: group to which the greenlets are added.
    """
    began = time.monotonic()
    for offset in schedule.times():
        intended = began + offset
        gevent.sleep(max(0.0, intended - time.monotonic()))  # wait until the intended start
        group.spawn(begin, intended)
