"""Draws traces for a terminal (rich): one bar per phase on a common time axis, measured beside predicted."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

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
LABELS = {"dns": "names", "connect": "connect", "tls": "TLS", "request": "request", "first_byte": "first byte"}
#: Columns of the bar, at least and at most; the rest of the line is figures.
BAR_MIN, BAR_MAX, FIGURES = 12, 60, 66
EIGHTHS = " ▏▎▍▌▋▊▉█"


def render(body: Mapping[str, Any], width: int = 100) -> RenderableType:
    """Return what a console prints for the JSON of ``firstbyte trace``.

    Args:
        body: with ``url``, ``cold`` and, where it was measured, ``warm``.
        width: columns of the terminal.
    """
    parts: list[RenderableType] = []
    scale = max(_end(body[kind]) for kind in ("cold", "warm") if body.get(kind))
    for kind in ("cold", "warm"):
        trace = body.get(kind)
        if trace:
            parts.extend([_title(kind, body["url"], trace), _bars(trace, scale, width)])
            if kind == "cold":
                parts.extend(_story(trace, width))
            parts.append(Text(""))
    parts.append(Text(summary(body["cold"], body.get("warm")), style="bold"))
    return Group(*parts)


def _end(trace: Mapping[str, Any]) -> float:
    return max((p["start_ms"] + p["measured_ms"] for p in trace["phases"]), default=1.0) or 1.0


def _title(kind: str, url: str, trace: Mapping[str, Any]) -> Text:
    predicted = trace.get("ttfb_predicted_ms")
    text = Text.assemble(
        (f"{kind}  ", "bold"), (url, "bold"), f"  {trace['status']}  first byte after {trace['ttfb_ms']:.1f} ms"
    )
    if predicted is not None:
        text.append(f" (predicted {predicted:.1f})", style="dim")
    return text


def _bars(trace: Mapping[str, Any], scale: float, width: int) -> Table:
    bar = max(BAR_MIN, min(BAR_MAX, width - FIGURES))
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    table.add_column("", width=bar, no_wrap=True)
    for title in ("measured", "predicted", "residual", "trips", "sent", "recv"):
        table.add_column(title, justify="right", no_wrap=True)
    for phase in trace["phases"]:
        name = phase["name"]
        residual = phase.get("residual_ms")
        table.add_row(
            Text(LABELS.get(name, name), style=COLOURS[name]),
            _bar(phase, scale, bar),
            f"{phase['measured_ms']:.1f} ms",
            "" if phase.get("predicted_ms") is None else f"{phase['predicted_ms']:.1f}",
            "" if residual is None else Text(f"{residual:+.1f}", style="yellow" if _surprises(phase) else "dim"),
            str(phase["round_trips"]) if phase["round_trips"] else "",
            _octets(phase["bytes_sent"]),
            _octets(phase["bytes_received"]),
        )
    return table


def _surprises(phase: Mapping[str, Any]) -> bool:
    """Return whether the residual is more than noise: a tenth of the prediction and more than 5 ms."""
    residual = abs(phase["residual_ms"])
    return bool(residual > 5 and residual > 0.1 * (phase["predicted_ms"] or 0))


def _bar(phase: Mapping[str, Any], scale: float, width: int) -> Text:
    """Draw the phase to an eighth of a column."""
    begin = phase["start_ms"] / scale * width
    length = max(phase["measured_ms"] / scale * width, 0.125)
    whole = int(begin)
    eighths = min(max(1, round((length + begin - whole) * 8)), (width - whole) * 8)
    lead = round((begin - whole) * 8) if eighths > 8 else 0
    cells = "█" * (eighths // 8) + (EIGHTHS[eighths % 8] if eighths % 8 else "")
    if lead >= 4 and len(cells) > 1:
        cells = "▐" + cells[1:]
    return Text(" " * min(whole, width - 1) + cells, style=COLOURS[phase["name"]])


def _story(trace: Mapping[str, Any], width: int) -> list[RenderableType]:
    """Tell what the bars can not: each hop, the chain, the end of the connection."""
    lines: list[RenderableType] = []
    phases = {phase["name"]: phase for phase in trace["phases"]}
    dns = phases.get("dns", {}).get("detail", {})
    hops = dns.get("hops", [])
    if hops:
        lines.append(_line("names", f"client → resolver {dns.get('resolver', '')}, which asks", "magenta"))
        lines.append(_hop_table(hops, width))
    tls = phases.get("tls", {}).get("detail", {})
    if tls.get("chain"):
        chain = " ← ".join(_common_name(each["subject"]) for each in tls["chain"])
        left = tls["chain"][0]["seconds_left"]
        group = f", {tls['group']}" if tls.get("group") else ""
        text = f"{tls['version']}, {tls['cipher']}{group}; verified: {chain}; the leaf has {_duration(left)} left"
        lines.append(_line("TLS", text, "cyan"))
    timing = phases.get("first_byte", {}).get("detail", {}).get("server_timing", {})
    if timing:
        connection = timing.get("connection", "fresh")
        steps = [
            f"{name} {timing[name]:.1f}" for name in ("pool", "dns", "connect", "tls", "upstream") if timing.get(name)
        ]
        lines.append(_line("edge", f"{connection} connection to the origin; ms: {', '.join(steps)}", "green"))
    close = phases.get("close", {}).get("detail", {})
    if close:
        local = phases.get("connect", {}).get("detail", {}).get("local", "")
        wait = " for the next minute" if close.get("state") == "TIME-WAIT" else ""
        lines.append(
            _line("close", f"the client closed first: {local} is in {close.get('state')}{wait}", "bright_black")
        )
    return lines


def _line(label: str, text: str, style: str) -> Table:
    """Return a paragraph that hangs behind its label."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=7, no_wrap=True)
    grid.add_column()
    grid.add_row(f"  {label}", text, style=style)
    return grid


def _hop_table(hops: list[dict[str, Any]], width: int) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for justify in ("left", "left", "left", "left", "right"):
        table.add_column(no_wrap=True, justify=justify)
    wide = width >= 100
    for hop in hops:
        answer = hop.get("kind") or hop["rcode"]
        question = f"{hop['qname']} {hop['qtype']}" if wide else ""
        table.add_row(
            "       ",
            f"{hop['server_name']} ({hop['zone']})",
            question,
            answer,
            f"{hop['rtt_ms']:.1f} ms",
            style="magenta",
        )
    return table


def _common_name(subject: str) -> str:
    return next((part[3:] for part in subject.split(",") if part.startswith("CN=")), subject)


def _octets(count: int) -> str:
    if not count:
        return ""
    return (
        f"{count} B" if count < 10_000 else f"{count / 1000:.0f} kB" if count < 10_000_000 else f"{count / 1e6:.0f} MB"
    )


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.0f} h"
    )
