"""Charts of the scenario `congestion`: the sawtooth, throughput against loss, and an upload during a flood."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from experiments import Chart, Curve, Dots, Moment, Panel
from scenarios.instruments.bulk import Flow

#: A function that returns the throughput in bits per second for a loss rate and a round-trip time in seconds.
Model = Callable[[float, float], float]
#: Measured loss rate, and throughputs of the flows of one measurement in bits per second.
Seen = tuple[float, Sequence[float]]
#: Width of the intervals over which a throughput is averaged for a chart over time, in seconds.
STEP = 0.5


def sawtooth(flows: Mapping[str, Flow], path: str, warm_up: float) -> Chart:
    """Draw the congestion window of one flow of each algorithm.

    Args:
        flows: one flow by algorithm.
        path: description of the path.
        warm_up: seconds of slow start, whose peak may be cut off.
    """
    panels = []
    for colour, (name, flow) in enumerate(flows.items()):
        points = [(each.at - flow.readings[0].at, float(each.window)) for each in flow.readings]
        late = [y for x, y in points if x >= warm_up]
        top = 1.5 * max(late) if late else None
        curve = Curve(name, [(x, min(y, top or y)) for x, y in points], colour, measured=True)
        panels.append(Panel([curve], y="segments", height=170, high=top))
    return Chart(
        "The sawtooth: a loss halves Reno's window and leaves 70 % of CUBIC's",
        panels or [Panel([Curve("no upload", [(0.0, 0.0)])])],
        x="seconds since the start of an upload",
        caption=f"The congestion window of one upload with each algorithm, from TCP_INFO of the sender; {path}. Slow "
        "start ends at the first loss; its peak may be cut off.",
        low=0.0,
        name="congestion",
    )


def throughputs(models: Mapping[str, Model], seen: Mapping[tuple[str, float], Sequence[Seen]]) -> Chart:
    """Draw throughput against loss: models as lines, measurements as points by (algorithm, round-trip time in ms)."""
    losses = [loss for each in seen.values() for loss, _ in each if loss] or [0.001, 0.01]
    low, high = min(losses) / 1.5, max(losses) * 1.5
    grid = [low * (high / low) ** (i / 40) for i in range(41)]
    marks: list[Curve | Dots] = []
    for colour, ((name, rtt_ms), each) in enumerate(seen.items()):
        curve = [(100 * loss, models[name](loss, rtt_ms / 1000) / 1e6) for loss in grid]
        marks.append(Curve(f"{name}, {rtt_ms:g} ms", curve, colour, dashed=name == "CUBIC"))
        dots = [(100 * loss, fmean(rates) / 1e6, min(rates) / 1e6, max(rates) / 1e6) for loss, rates in each if rates]
        marks.append(Dots("measured", dots, colour))
    return Chart(
        "Throughput falls with the loss rate and the round-trip time, whatever the link could carry",
        [Panel(marks, y="Mbit/s per upload", height=300, log=True, low=None)],
        x="packets lost, %",
        caption="Lines are theory: 1.31 · MSS / (RTT · √p) for Reno, RFC 9438 section 5 for CUBIC, which is never "
        "slower than Reno. Each dot is the mean of concurrent uploads, its bar spans them; the loss rate is the one "
        "that the senders saw.",
        log=True,
        name="congestion-throughput",
    )


def flooded(flow: Flow | None, flood_at: float, capacity: float, excess: float) -> Chart:
    """Draw the throughput of one upload before and during a flood.

    Args:
        flow: the upload; None if there is none.
        flood_at: start of the flood on the monotonic clock, in seconds.
        capacity: bits of data per second that the link carries.
        excess: rate of the flood divided by the rate of the link.
    """
    readings = flow.readings if flow else []
    first, last = (readings[0].at, readings[-1].at) if readings else (0.0, 1.0)
    steps = [first + STEP * i for i in range(int((last - first) / STEP))]
    rates = [(at - first + STEP / 2, flow.rate(at, at + STEP) / 1e6) for at in steps if flow]
    level = [(0.0, capacity / 1e6), (last - first, capacity / 1e6)]
    marks = [Curve("capacity of the link", level, 3, dashed=True), Curve("TCP upload", rates, 0, measured=True)]
    return Chart(
        "A flood that does not react takes the link from a flow that does",
        [Panel(marks, y="Mbit/s", height=200)],
        x="seconds since the start of the upload",
        caption=f"From the marked moment on, UDP datagrams are sent at {excess:g} times the rate of the link.",
        moments=[Moment(flood_at - first, "the flood begins")] if readings else [],
        low=0.0,
        name="congestion-flood",
    )
