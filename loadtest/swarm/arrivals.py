"""An open loop for one Locust user: each request starts at its scheduled time, in its own greenlet."""

import time
from collections.abc import Callable

import gevent
from gevent.pool import Group

from generator import Schedule


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
