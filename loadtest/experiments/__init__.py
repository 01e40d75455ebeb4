"""What scenarios and drills share: open-loop load, exact histograms, a time line, a verdict, a report.

inject → measure → verdict → control → report
"""

from experiments.histogram import Histogram
from experiments.load import Load, LoadError, Request, Target
from experiments.result import Check, Event, Result, Verdict, write
from experiments.timeline import Timeline

__all__ = [
    "Check",
    "Event",
    "Histogram",
    "Load",
    "LoadError",
    "Request",
    "Result",
    "Target",
    "Timeline",
    "Verdict",
    "write",
]
