"""Rendering of traces for a terminal: a bar per phase on a common time axis, with measured and predicted times.

No line is wider than the terminal: narrow terminals show fewer columns, and sentences wrap with an indent.
"""

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from waterfall.ladder import ladder
from waterfall.model import summary

COLOURS = {
    "dns": "magenta",
    "connect": "blue",
    "tls": "cyan",
    "request": "white",
    "first_byte": "green",
    "body": "bright_green",
    "close": "bright_black",
}
LABELS = {"dns": "names", "tls": "TLS", "first_byte": "first byte"}
#: Width in columns of the phase names, and of the labels in front of sentences.
LABEL, HANGING = 11, 7
#: Maximum length of a bar, in columns.
BAR_MAX = 60
#: Minimum terminal width, in columns, for showing bytes and CPU time.
NARROW = 72
#: Minimum terminal width, in columns, for showing the question of every DNS hop.
WIDE = 100
#: Minimum width of the output, in columns; narrower terminals truncate lines.
MIN_WIDTH = 54
UNBROKEN = "\N{NO-BREAK SPACE}"
EIGHTHS = " ▏▎▍▌▋▊▉█"


def render(body: Mapping[str, Any], width: int = 100) -> RenderableType:
    """Render the JSON of ``firstbyte trace`` for a rich console.

    Args:
        body: the trace's JSON with ``url``, ``cold`` and, if measured, ``warm``.
        width: width of the terminal in columns.
    """
    width = max(MIN_WIDTH, width)
    kinds = [kind for kind in ("cold", "warm") if body.get(kind)]
    scale = max(_end(body[kind]) for kind in kinds)
    lines: list[Text] = []
    for kind in kinds:
        trace = body[kind]
        lines += _title(kind, body["url"], trace, width)
        lines += _bars(trace, scale, width)
        lines += _story(trace, width)
        lines.append(Text(""))
        if trace.get("packets"):
            lines += [*ladder(trace["packets"], width), Text("")]
    lines += [Text(line, style="bold") for line in textwrap.wrap(summary(body["cold"], body.get("warm")), width)]
    for line in lines:
        line.no_wrap = True
    return Group(*lines)


def _end(trace: Mapping[str, Any]) -> float:
    return max((p["start_ms"] + p["measured_ms"] for p in trace["phases"]), default=1.0) or 1.0


def _title(kind: str, url: str, trace: Mapping[str, Any], width: int) -> Iterator[Text]:
    named = Text(f"{kind}  {url}", style="bold")
    named.truncate(width, overflow="ellipsis")
    yield named
    predicted = trace.get("ttfb_predicted_ms")
    said = Text(f"{trace['status']}; first byte after {trace['ttfb_ms']:.1f} ms")
    if predicted is not None:
        said.append(f", predicted {predicted:.1f}", style="dim")
    said.truncate(width, overflow="ellipsis")
    yield said


def _bars(trace: Mapping[str, Any], scale: float, width: int) -> Iterator[Text]:
    titles = ["measured", "predicted", "residual", "trips"]
    sizes = [8, 10, 9, 6]
    if width >= NARROW:
        titles, sizes = [*titles, "sent", "recv", "cpu ms"], [*sizes, 7, 7, 7]
    bar = min(BAR_MAX, width - LABEL - sum(sizes))
    header = "".join(f"{title:>{size}}" for title, size in zip(titles, sizes, strict=True))
    yield Text(f"{'ms':<{LABEL}}{' ' * bar}{header}", style="dim")
    for phase in trace["phases"]:
        name, residual, predicted = phase["name"], phase.get("residual_ms"), phase.get("predicted_ms")
        line = Text(f"{LABELS.get(name, name):<{LABEL}}", style=COLOURS[name])
        drawn = _bar(phase, scale, bar)
        line.append(drawn + " " * (bar - len(drawn)))
        line.append(f"{phase['measured_ms']:>8.1f}", style="default")
        line.append(f"{'' if predicted is None else f'{predicted:.1f}':>10}", style="default")
        line.append(
            f"{'' if residual is None else f'{residual:+.1f}':>9}", style="yellow" if _surprises(phase) else "dim"
        )
        line.append(f"{phase['round_trips'] or '':>6}", style="default")
        if width >= NARROW:
            line.append(f"{_bytes(phase['bytes_sent']):>7}{_bytes(phase['bytes_received']):>7}", style="default")
            line.append(f"{phase['cpu_ms']:>7.1f}", style="dim")
        line.rstrip()
        yield line


def _surprises(phase: Mapping[str, Any]) -> bool:
    """Return whether the residual exceeds the expected noise: both 5 ms and 10 % of the prediction."""
    residual = phase.get("residual_ms")
    return residual is not None and abs(residual) > max(5, 0.1 * (phase["predicted_ms"] or 0))


def _bar(phase: Mapping[str, Any], scale: float, width: int) -> str:
    """Return the bar of a phase, with a resolution of an eighth of a column."""
    begin = float(phase["start_ms"]) / scale * width
    length = max(phase["measured_ms"] / scale * width, 0.125)
    whole = min(int(begin), width - 1)
    eighths: int = min(max(1, round((length + begin - whole) * 8)), (width - whole) * 8)
    lead = round((begin - whole) * 8) if eighths > 8 else 0
    cells = "█" * (eighths // 8) + (EIGHTHS[eighths % 8] if eighths % 8 else "")
    if lead >= 4 and len(cells) > 1:
        cells = "▐" + cells[1:]
    return " " * whole + cells


def _story(trace: Mapping[str, Any], width: int) -> Iterator[Text]:
    """Yield sentences on a trace: DNS hops, certificate chain, the edge's connection, and which end closed first."""
    details = {phase["name"]: phase.get("detail") or {} for phase in trace["phases"]}
    dns, tls, close = (details.get(name, {}) for name in ("dns", "tls", "close"))
    if dns.get("hops"):
        yield from _sentence("names", f"client → resolver {dns.get('resolver', '')}, which asks", width, "magenta")
        yield from _hops(dns["hops"], width)
    if tls:
        yield from _sentence("TLS", _identity(tls), width, "cyan")
    timing = details.get("first_byte", {}).get("server_timing")
    if timing:
        names = ("pool", "dns", "connect", "tls", "upstream")
        steps = ", ".join(f"{name} {timing[name]:.1f}" for name in names if timing.get(name))
        kind = timing.get("connection", "fresh")
        yield from _sentence("edge", f"{kind} connection to the origin; ms: {steps}", width, "green")
    if close:
        local = details.get("connect", {}).get("local", "the client")
        wait = " for the next minute" if close.get("state") == "TIME-WAIT" else ""
        first = close.get("closed_by", "client")
        text = f"the {first} closed first: {local} is in {close.get('state')}{wait}"
        yield from _sentence("close", text, width, "bright_black")


def _identity(tls: Mapping[str, Any]) -> str:
    text = ", ".join(str(tls[key]) for key in ("version", "cipher", "group") if tls.get(key))
    if tls.get("resumed"):
        text += "; resumed: no certificate was sent"
    if tls.get("chain"):
        chain = " ← ".join(_common_name(each["subject"]) for each in tls["chain"])
        verb = "verified before" if tls.get("resumed") else "verified"
        text += f"; {verb}: {chain}; the leaf has {_duration(tls['chain'][0]['seconds_left'])} left"
    return text


def _sentence(label: str, text: str, width: int, style: str) -> Iterator[Text]:
    """Yield the wrapped and indented lines of a sentence with a label."""
    hang = " " * (2 + HANGING)
    for line in textwrap.wrap(
        text, width, initial_indent=f"  {label:<{HANGING}}", subsequent_indent=hang, break_on_hyphens=False
    ):
        yield Text(line.replace(UNBROKEN, " "), style=style)


def _hops(hops: Iterable[Mapping[str, Any]], width: int) -> Iterator[Text]:
    """Yield one line per query of the resolver, aligned in columns."""
    rows = [
        [
            f"{hop['server_name']} ({hop['zone']})",
            *([f"{hop['qname']} {hop['qtype']}"] if width >= WIDE else []),
            str(hop.get("kind") or hop["rcode"]),
            "cached" if hop.get("cached") else f"{hop['rtt_ms']:.1f} ms",
        ]
        for hop in hops
    ]
    sizes = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    # Truncate only the first column: rcode and time are more important than the end of a long name.
    sizes[0] = max(12, min(sizes[0], width - 2 - HANGING - sum(sizes[1:]) - 2 * (len(sizes) - 1)))
    for row in rows:
        cells = [cell if len(cell) <= size else cell[: size - 1] + "…" for cell, size in zip(row, sizes, strict=True)]
        padded = [f"{cell:<{size}}" for cell, size in zip(cells[:-1], sizes[:-1], strict=True)]
        text = "  ".join([*padded, f"{cells[-1]:>{sizes[-1]}}"])
        yield Text((" " * (2 + HANGING) + text)[:width], style="magenta")


def _common_name(subject: str) -> str:
    """Return the common name (CN) in *subject*, with no-break spaces so that it does not wrap."""
    name = next((part[3:] for part in subject.split(",") if part.startswith("CN=")), subject)
    return name.replace(" ", UNBROKEN)


def _bytes(count: int) -> str:
    if not count:
        return ""
    if count < 10_000:
        return f"{count} B"
    return f"{count / 1000:.0f} kB" if count < 10_000_000 else f"{count / 1e6:.0f} MB"


def _duration(seconds: float) -> str:
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86400:.0f} d"
