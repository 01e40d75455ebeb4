"""An open loop for one Locust user: requests start on schedule, each in its own greenlet."""

import time
from collections.abc import Callable

import gevent
from gevent.pool import Group

from generator import Schedule


def arrivals(schedule: Schedule, begin: Callable[[float], None], group: Group) -> None:
    """Call *begin* on schedule in greenlets of *group* until the user is stopped.

    Args:
        schedule: when requests should start.
        begin: gets the intended start on `time.monotonic`.
        group: runs the greenlets.
    """
    began = time.monotonic()
    for offset in schedule.times():
        intended = began + offset
        gevent.sleep(max(0.0, intended - time.monotonic()))
        group.spawn(begin, intended)
