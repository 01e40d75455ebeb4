"""What scenarios and drills share: an experiment is one file, and gets everything else from here.

predict → calibrate → record → inject and measure → undo → conclude → report
"""

from experiments.chart import Bars, Chart, Curve, Dots, Lane, Moment, Panel, Span
from experiments.conduct import Order, Outcome, clean_up, conduct
from experiments.estimate import Estimate, Line
from experiments.experiment import Control, Experiment
from experiments.journal import BusyError, Undo
from experiments.parameters import ParameterError, parameter
from experiments.repeats import Repeats
from experiments.result import Check, Event, Quantity, Result, Row, Verdict
from experiments.run import HERE, Lab, Run, Series, Skipped
from experiments.timeline import Timeline

__all__ = [
    "HERE",
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
    "Lab",
    "Lane",
    "Line",
    "Moment",
    "Order",
    "Outcome",
    "Panel",
    "ParameterError",
    "Quantity",
    "Repeats",
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
