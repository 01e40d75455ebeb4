"""What scenarios and drills share: a time line, a verdict, a report.

inject → measure → verdict → control → report
"""

from experiments.result import Check, Event, Result, Verdict, write
from experiments.timeline import Timeline

__all__ = [
    "Check",
    "Event",
    "Result",
    "Timeline",
    "Verdict",
    "write",
]
