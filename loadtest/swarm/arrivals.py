"""An open loop for one Locust user: requests begin by a schedule, each in a greenlet of its own."""

import time
from collections.abc import Callable

import gevent
from gevent.pool import Group

from generator import Schedule


def arrivals(schedule: Schedule, begin: Callable[[float], None], group: Group) -> None:
    """Call *begin* with each intended start (on `time.monotonic`) in a greenlet of *group*, until the user is stopped."""
    began = time.monotonic()
    for offset in schedule.times():
        intended = began + offset
        gevent.sleep(max(0.0, intended - time.monotonic()))  # until its time
        group.spawn(begin, intended)
