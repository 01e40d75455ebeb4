"""Derives the number of round trips from measured times: it is the slope of the times over the round-trip time."""

from collections.abc import Sequence
from statistics import median

from experiments import Estimate, Line
from experiments.findings import Findings

#: Largest difference between a measured slope and its predicted integer.
TOLERANCE = 0.1


def check_slope(
    findings: Findings,
    name: str,
    trips: int,
    samples: Sequence[tuple[float, Sequence[float]]],
    tolerance: float = TOLERANCE,
) -> float:
    """Fit a line to the shortest time at each round-trip time, and check that its slope is *trips*.

    The shortest of the repeated measurements is used because a busy machine can only add time.

    Args:
        findings: receives a row and a check.
        name: name of the row and of the check.
        trips: expected round trips.
        samples: pairs (round-trip time, times measured with this round-trip time), in milliseconds.
        tolerance: largest difference between the slope and *trips*.

    Returns:
        The median time in milliseconds in addition to the round trips: the intercept of a line with the slope *trips*.
    """
    points = [(rtt, min(times)) for rtt, times in samples if times]
    line = Line.through(points)
    row = findings.row(name, Estimate(line.slope, line.slope - line.half, line.slope + line.half, len(points)))
    findings.check_near(row, tolerance, absolute=True)
    return median(time - trips * rtt for rtt, time in points)


def check_slope_of_rounds(
    findings: Findings, name: str, trips: int, samples: Sequence[tuple[float, Sequence[float]]]
) -> float:
    """Fit a line to the times of each round, and check that the median of the slopes is *trips*.

    Each round measures once at every round-trip time, so that a busy period of the machine affects all of them alike.

    Args:
        findings: receives a row, a check, and a gate for the scatter of the slopes.
        name: name of the row and of the check.
        trips: expected round trips.
        samples: pairs (round-trip time, times measured with this round-trip time, one per round), in milliseconds.

    Returns:
        The median of the time that is not due to round trips, in milliseconds.
    """
    rounds = list(zip(*([(rtt, time) for time in times] for rtt, times in samples), strict=False))
    row = findings.row(name, Estimate.of(Line.through(each).slope for each in rounds))
    findings.check_near(row, TOLERANCE, absolute=True, scattered=True)
    return Estimate.of(time - trips * rtt for each in rounds for rtt, time in each).value


def shortest_to_median(x: float, times: Sequence[float]) -> tuple[float, float, float, float]:
    """Return a chart dot at the shortest time, with an error bar up to the median."""
    return x, min(times), min(times), median(times)
