"""Open-loop load over real connections, and exact histograms with microsecond resolution.

The Locust users and the experiments are both built on this package, which depends on neither.
"""

from generator.channel import Channel
from generator.connection import Connection
from generator.histogram import Histogram
from generator.load import Load
from generator.pace import MAX_WAITED, Pacer, Starvation, run_delay
from generator.queries import Queries
from generator.request import KINDS, PHASES, Closes, Kind, LoadError, Request, Target
from generator.schedule import Schedule, ScheduleError, Shape, constant, ramp, spike, step
from generator.tally import Tally
from linuxnet.source_ports import Source

__all__ = [
    "KINDS",
    "MAX_WAITED",
    "PHASES",
    "Channel",
    "Closes",
    "Connection",
    "Histogram",
    "Kind",
    "Load",
    "LoadError",
    "Pacer",
    "Queries",
    "Request",
    "Schedule",
    "ScheduleError",
    "Shape",
    "Source",
    "Starvation",
    "Tally",
    "Target",
    "constant",
    "ramp",
    "run_delay",
    "spike",
    "step",
]
