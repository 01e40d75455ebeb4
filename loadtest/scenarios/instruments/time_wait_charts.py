"""The pictures of `time-wait`: the square wave, what cures serve, when ports are gone, what cures multiply."""

from collections import Counter
from collections.abc import Mapping, Sequence

from experiments import Bars, Chart, Curve, Dots, Moment, Panel
from scenarios.instruments.port_windows import Arm
from theory import time_wait

#: The share by which the totals of two arms may differ and still be one line to the eye.
ALIKE = 0.02


def square_wave(base: Arm, ports: int, seconds: float, wheel: tuple[float, float]) -> Chart:
    """Return connections per second by outcome, above the sockets that wait; *wheel* as `time_wait.on_the_wheel` has it."""
    step = 0.5 if seconds < 60 else 2.0
    good, bad = Counter[int](), Counter[int]()
    for intended, _, error in base.attempts:
        (bad if error else good)[int(intended / step)] += 1
    bars = [
        Bars(label, [(i * step, (i + 1) * step, n / step) for i, n in sorted(counts.items())], colour)
        for label, counts, colour in (("connected", good, "good"), ("no port left", bad, "bad"))
    ]
    times = [intended for intended, *_ in base.attempts]
    ramp = [(at, float(n)) for at, (_, n) in zip(times, time_wait.on_the_wheel(times, ports, *wheel), strict=True)]
    panels = [
        Panel(bars, y="connections per second", height=170),
        Panel(
            [Curve("theory", ramp[:: max(1, len(ramp) // 1200)], 0), Dots("counted", [(at, n, n, n) for at, n in base.waiting[:: max(1, len(base.waiting) // 60)]], 1)],
            y="sockets in TIME-WAIT",
            height=170,
        ),
    ]  # fmt: skip
    gone = time_wait.exhausted_at(base.rate, ports)
    moments = [Moment(gone, f"P/λ = {gone:.3g} s")] if gone is not None and gone < seconds else []
    return Chart(
        f"{base.rate:g} connections per second from {ports} ports: all, then none{', in turns' if seconds > time_wait.WAIT else ''}",
        panels,
        x="seconds since the first connection",
        caption="Each connection is closed here first and then keeps its port for a minute. When the last port is taken, every further attempt "
        "fails within a millisecond.",
        moments=moments,
        low=0.0,
        high=seconds,
        name="time-wait",
    )


def cumulative(base: Arm, others: Sequence[Arm], seconds: float, ports: int) -> Chart:
    """Return requests served over time, by how connections are closed and kept."""
    # Arms that end alike lie on each other: they share a colour and a place in the legend.
    alike: list[tuple[float, list[str], list[Sequence[tuple[float, float]]]]] = []
    for arm in (base, *others):
        total = 0
        points: list[tuple[float, float]] = [(0.0, 0.0)]
        for intended, _, error in arm.attempts:
            total += not error
            points.append((intended, total))
        label = "closed here first" if arm is base else arm.name
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
        said = f"the first stops at {ports:,}, two destinations or twice the ports at {2 * ports:,}; the others do not stop."
    else:
        said = f"the first stops at {ports:,} until the minute is over; twice the ports outlast that minute, so no cure ever stops."
    return Chart(
        "The same ports serve more requests with every cure",
        [Panel(marks, y="requests that went well", height=260)],
        x="seconds since the first connection",
        caption=f"Theory: {said} “Reset instead” works too, and gives up what TIME-WAIT is for.",
        low=0.0,
        high=seconds,
        name="time-wait-cures",
    )


def exhaustion(arms: Sequence[Arm], ports: int) -> Chart:
    """Return when the ports are gone, against the rate."""
    rates = [arm.rate for arm in arms]
    curve = [(r, ports / r) for r in _geometric(rates[0] / 1.5, rates[-1] * 1.5)]
    dots = []
    for arm in arms:
        got = arm.exhausted_at
        if got is not None:
            dots.append((arm.rate, got, got, got))
    return Chart(
        "Twice the rate, half the time until the ports are gone",
        [Panel([Curve(f"theory: {ports}/λ", curve, 0), Dots("measured", dots, 1)], y="seconds until exhausted", height=200, low=0)],
        x="connections per second, λ",
        caption="Linux's 28,232 ports last 28 s at 1,000 connections per second: the same curve, 110 times higher.",
        log=True,
        name="time-wait-exhaustion",
    )  # fmt: skip


def multipliers(predicted: Mapping[str, float], measured: Mapping[str, float]) -> Chart:
    """Return what each cure multiplies the rate by that lasts for ever."""
    names = list(predicted)
    bars = [(i - 0.3, i + 0.3, predicted[name]) for i, name in enumerate(names)]
    dots = [(i, measured[name], measured[name], measured[name]) for i, name in enumerate(names) if name in measured]
    return Chart(
        "By how much each cure multiplies the rate that lasts for ever",
        [Panel([Bars("theory", bars, 0), Dots("measured", dots, 1)], y="times as many", height=220, log=True, low=1.0)],
        x="cure",
        caption="Resetting instead, and letting the server close first, have no such limit here: nothing waits here, and what the latter costs waits on the server.",
        categories=names,
        name="time-wait-multipliers",
    )  # fmt: skip


def _geometric(low: float, high: float) -> Sequence[float]:
    return [low * (high / low) ** (i / 60) for i in range(61)]


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Keep what a picture can show."""
    step = max(1, len(points) // 300)
    return [*points[::step], points[-1]]
