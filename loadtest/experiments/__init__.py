"""Framework shared by scenarios and drills.

Each run predicts, calibrates the links, records kernel counters, injects and measures, undoes its injections, and draws
conclusions.  The package `reports` then writes the report.
"""

from experiments.chart import Bars, Chart, Curve, Dots, Ladder, Lane, Moment, Panel, Span
from experiments.conduct import Order, Outcome, clean_up, conduct
from experiments.estimate import Estimate, Line
from experiments.experiment import Control, Experiment, Lesson
from experiments.lab import Admin
from experiments.operator import Mailbox, NoOperator, NoOperatorError, Reply
from experiments.parameters import ParameterError, parameter
from experiments.recorders import HERE, Series
from experiments.repeats import Repeats
from experiments.result import Check, Event, Quantity, Result, Row, Verdict
from experiments.run import Run, Skipped
from experiments.timeline import Timeline
from experiments.undo_log import BusyError, Undo

__all__ = [
    "HERE",
    "Admin",
    "Bars",
    "BusyError",
    "Chart",
    "Check",
    "Control",
    "Curve",
    "Dots",
    "Estimate",
    "Event",
    "Experiment",
    "Ladder",
    "Lane",
    "Lesson",
    "Line",
    "Mailbox",
    "Moment",
    "NoOperator",
    "NoOperatorError",
    "Order",
    "Outcome",
    "Panel",
    "ParameterError",
    "Quantity",
    "Repeats",
    "Reply",
    "Result",
    "Row",
    "Run",
    "Series",
    "Skipped",
    "Span",
    "Timeline",
    "Undo",
    "Verdict",
    "clean_up",
    "conduct",
    "parameter",
]
