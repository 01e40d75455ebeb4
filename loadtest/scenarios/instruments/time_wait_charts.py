"""Charts of the scenario `time-wait`: the square wave, port exhaustion by rate, and the effect of each remedy."""

from collections import Counter
from collections.abc import Mapping, Sequence

from experiments import Bars, Chart, Curve, Dots, Moment, Panel
from scenarios.instruments.port_windows import Arm
from theory import time_wait

#: Arms whose totals differ by at most this fraction are drawn as one line.
ALIKE = 0.02


def square_wave(base: Arm, ports: int, seconds: float, wheel: tuple[float, float]) -> Chart:
    """Draw connections per second by outcome, above the number of TIME-WAIT sockets.

    Args:
        base: the arm in which the client closes first.
        ports: size of the base arm's port window.
        seconds: length of the run.
        wheel: step and phase of the kernel's timer wheel in seconds, see `theory.time_wait.on_the_wheel`.
    """
    step = 0.5 if seconds < 60 else 2.0
    outcomes: dict[bool, Counter[int]] = {True: Counter(), False: Counter()}
    for each in base.attempts:
        outcomes[not each.error][int(each.intended / step)] += 1
    bars = [
        Bars(label, [(i * step, (i + 1) * step, n / step) for i, n in sorted(outcomes[ok].items())], colour)
        for label, ok, colour in (("connected", True, "good"), ("no port left", False, "bad"))
    ]
    times = [each.intended for each in base.attempts]
    waiting = [n for _, n in time_wait.on_the_wheel(times, ports, *wheel)]
    ramp = [(at, float(n)) for at, n in zip(times, waiting, strict=True)]
    counted = [(at, float(n)) for at, n in base.waiting[:: max(1, len(base.waiting) // 60)]]
    sockets: list[Curve | Dots] = [
        Curve("theory", ramp[:: max(1, len(ramp) // 1200)], 0),
        Dots("counted", [(at, n, n, n) for at, n in counted], 1),
    ]
    gone = time_wait.exhausted_at(base.rate, ports)
    repeats = ", over and over" if seconds > time_wait.WAIT else ""
    return Chart(
        f"{base.rate:g} connections per second from {ports} ports: all succeed, then none{repeats}",
        [Panel(bars, y="connections per second", height=170), Panel(sockets, y="sockets in TIME-WAIT", height=170)],
        x="seconds since the first connection",
        caption="The client closes each connection first, which then occupies its port for a minute. Once the last "
        "port is taken, every attempt fails within a millisecond.",
        moments=[Moment(gone, f"P/λ = {gone:.3g} s")] if gone is not None and gone < seconds else [],
        low=0.0,
        high=seconds,
        name="time-wait",
    )


def cumulative(base: Arm, others: Sequence[Arm], seconds: float, ports: int) -> Chart:
    """Draw the cumulative number of served requests over time; arms with equal totals share one line."""
    # Lines of arms with equal totals would overlap, so these arms share a colour and a legend entry.
    alike: list[tuple[float, list[str], list[Sequence[tuple[float, float]]]]] = []
    for arm in (base, *others):
        total = 0
        points: list[tuple[float, float]] = [(0.0, 0.0)]
        for each in arm.attempts:
            total += not each.error
            points.append((each.intended, total))
        label = "client closes first" if arm is base else arm.name
        for end, labels, curves in alike:
            if abs(total - end) <= ALIKE * max(total, end):
                labels.append(label)
                curves.append(_thin(points))
                break
        else:
            alike.append((total, [label], [_thin(points)]))
    marks = [
        Curve(f"{' = '.join(labels)}: {end:,.0f}" if not j else "", points, i, measured=True, dashed=i % 2 == 1)
        for i, (end, labels, curves) in enumerate(alike)
        for j, points in enumerate(curves)
    ]
    if 2 * ports < base.rate * time_wait.WAIT:
        limits = (
            f"the first line stops at {ports:,}, two destinations or twice the ports at {2 * ports:,}, the others never"
        )
    else:
        limits = f"the first line stops at {ports:,} until the minute is over; twice the ports outlast it"
    return Chart(
        "Every cure serves more requests from the same ports",
        [Panel(marks, y="successful requests", height=260)],
        x="seconds since the first connection",
        caption=f"Theory: {limits}. A reset works as well, but gives up the protection of TIME-WAIT.",
        low=0.0,
        high=seconds,
        name="time-wait-cures",
    )


def exhaustion(arms: Sequence[Arm], ports: int) -> Chart:
    """Draw the time until the ports run out, by connection rate."""
    rates = [arm.rate for arm in arms]
    low, high = rates[0] / 1.5, rates[-1] * 1.5
    curve = [(rate, ports / rate) for rate in (low * (high / low) ** (i / 60) for i in range(61))]
    dots = [(arm.rate, gone, gone, gone) for arm in arms if (gone := arm.exhausted_at) is not None]
    marks: list[Curve | Dots] = [Curve(f"theory: {ports}/λ", curve, 0), Dots("measured", dots, 1)]
    return Chart(
        "At twice the rate, the ports last half as long",
        [Panel(marks, y="seconds until exhausted", height=200, low=0)],
        x="connections per second, λ",
        caption="Linux's 28,232 ports last 28 s at 1,000 connections per second: the same curve, 110 times higher.",
        log=True,
        name="time-wait-exhaustion",
    )


def multipliers(predicted: Mapping[str, float], measured: Mapping[str, float]) -> Chart:
    """Draw the factor by which each remedy raises the sustainable rate."""
    bars = [(i - 0.3, i + 0.3, factor) for i, factor in enumerate(predicted.values())]
    dots = [(i, measured[name]) for i, name in enumerate(predicted) if name in measured]
    marks: list[Bars | Dots] = [
        Bars("theory", bars, 0),
        Dots("measured", [(i, factor, factor, factor) for i, factor in dots], 1),
    ]
    return Chart(
        "How much each cure raises the sustainable rate",
        [Panel(marks, y="times as many", height=220, log=True, low=1.0)],
        x="cure",
        caption="Two cures have no limit here and are not shown: a reset leaves nothing waiting, and if the server "
        "closes first, the sockets wait there.",
        categories=list(predicted),
        name="time-wait-multipliers",
    )


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return at most about 300 of the points, always including the last."""
    return [*points[:: max(1, len(points) // 300)], points[-1]]
