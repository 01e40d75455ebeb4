"""A report that stands alone: one HTML file, its picture inline as SVG; light and dark, printable."""

import html
import math
from collections import defaultdict
from collections.abc import Sequence

from experiments.result import Event, Result
from generator.histogram import Histogram
from generator.load import Request

WIDTH, LEFT, RIGHT = 960, 64, 16
#: Seconds that one bar of the time line covers.
BIN = 0.25
STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #667; --paper: #fff; --line: #d5d9de; --good: #2b8a57;
  --bad: #c92a2a; --mark: #b35c00; --wait: #3567b8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --soft: #9aa3ad; --paper: #14171a; --line: #343a40;
  --good: #51cf8a; --bad: #ff7b72; --mark: #f0a04b; --wait: #7aa7ee; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem } h2 { font-size: 1.1rem; margin-top: 2rem }
.verdict { display: inline-block; padding: .1rem .7rem; border-radius: .3rem; color: var(--paper); font-weight: 700 }
.pass { background: var(--good) } .fail { background: var(--bad) } .invalid, .skipped { background: var(--soft) }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
.no { color: var(--bad); font-weight: 600 } svg { width: 100%; height: auto; font: 12px system-ui, sans-serif }
text { fill: var(--soft) } .axis { stroke: var(--line) } .ok { fill: var(--good) } .lost { fill: var(--bad) }
.p99 { fill: none; stroke: var(--wait); stroke-width: 1.5 } .injection { stroke: var(--mark); stroke-dasharray: 4 3 }
.label { fill: var(--mark) } @media print { body { margin: 0 } }
"""


def render(result: Result, requests: Sequence[Request], serials: Sequence[tuple[float, str]] = ()) -> str:
    """Return the report.

    Args:
        result: with verdict and checks.
        requests: of the load.
        serials: what an outside prober saw: seconds and serial.
    """
    rows = "".join(
        f"<tr><td>{html.escape(c.name)}<td>{html.escape(c.expected)}<td class='{'' if c.ok else 'no'}'>{html.escape(c.got)}"
        for c in (*result.checks, *result.validity)
    )
    events = "".join(f"<tr><td>{e.at:.2f} s<td>{html.escape(e.kind)}<td>{html.escape(e.text)}" for e in result.events)
    facts = "".join(
        f"<tr><td>{html.escape(str(k))}<td>{html.escape(str(v))}"
        for k, v in {**result.parameters, **result.measurement}.items()
    )
    reasons = "".join(f"<p class='no'>{html.escape(reason)}</p>" for reason in result.reasons)
    control = " (control: the safety is off)" if result.parameters.get("control") else ""
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{html.escape(result.name)}: {result.verdict}</title><style>{STYLE}</style>
<h1>{html.escape(result.name)}{control} <span class="verdict {result.verdict}">{result.verdict}</span></h1>
<p>{html.escape(result.claim)}</p>{reasons}{timeline(requests, result.events, serials)}
<h2>What was checked</h2><table><tr><th>check<th>expected<th>got{rows}</table>
<h2>What happened</h2><table>{events}</table><h2>Parameters and figures</h2><table>{facts}</table></html>
"""


def timeline(requests: Sequence[Request], events: Sequence[Event], serials: Sequence[tuple[float, str]]) -> str:
    """Return an SVG: requests by outcome and p99 over time, injections as lines, certificates as stripes."""
    if not requests:
        return ""
    end = max(max(r.done, r.intended) for r in requests) + BIN
    bins: dict[int, list[Request]] = defaultdict(list)
    for request in requests:
        bins[int(request.intended / BIN)].append(request)
    most = max(len(group) for group in bins.values())
    p99 = {i: Histogram(r.latency for r in group if not r.error).percentile(99) for i, group in bins.items()}
    slowest = max((v for v in p99.values() if not math.isnan(v)), default=0.001)

    def x(second: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * second / end

    height, base = 300, 190
    parts = [
        f"<svg viewBox='0 0 {WIDTH} {height}' role='img' aria-label='requests, losses, latency and certificates over time'>"
    ]
    for i, group in sorted(bins.items()):
        lost = sum(1 for r in group if r.error)
        good, bad = (150 * n / most for n in (len(group) - lost, lost))
        left, width = x(i * BIN), max(1.0, x((i + 1) * BIN) - x(i * BIN) - 0.6)
        parts.append(
            f"<rect class='ok' opacity='.55' x='{left:.1f}' y='{base - good:.1f}' width='{width:.1f}' height='{good:.1f}'/>"
        )
        if lost:
            parts.append(
                f"<rect class='lost' x='{left:.1f}' y='{base - good - bad:.1f}' width='{width:.1f}' height='{max(bad, 3):.1f}'/>"
            )
    points = " ".join(
        f"{x((i + 0.5) * BIN):.1f},{base - 150 * v / slowest:.1f}" for i, v in sorted(p99.items()) if not math.isnan(v)
    )
    parts.append(f"<polyline class='p99' points='{points}'/>")
    parts.append(f"<line class='axis' x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{base}' y2='{base}'/>")
    parts.append(
        f"<text x='0' y='{base - 146}'>{most / BIN:.0f}/s</text><text x='0' y='{base - 130}'>p99 {slowest * 1e3:.0f} ms</text>"
    )
    seconds = range(0, int(end) + 1, max(1, int(end / 12)))
    parts.extend(
        f"<text x='{x(second):.1f}' y='{base + 16}' text-anchor='middle'>{second} s</text>" for second in seconds
    )
    for event in events:
        if event.kind == "injection":
            parts.append(f"<line class='injection' x1='{x(event.at):.1f}' x2='{x(event.at):.1f}' y1='24' y2='{base}'/>")
            parts.append(f"<text class='label' x='{x(event.at) + 3:.1f}' y='20'>{html.escape(event.text[:22])}</text>")
    parts.append(_stripes(serials, x, base + 30, end))
    parts.append("</svg>")
    parts.append("<p style='color:var(--soft)'>Bars: requests that went well, and (red) that were lost. Line: p99 latency. "
                 "Stripes: the certificate that an outside prober saw.</p>")  # fmt: skip
    return "".join(parts)


def _stripes(serials: Sequence[tuple[float, str]], x, top: float, end: float) -> str:  # type: ignore[no-untyped-def] # noqa: ANN001 - x maps seconds
    """Draw one stripe per certificate seen from outside."""
    parts, seen = [], list(dict.fromkeys(serial for _, serial in serials))
    for i, serial in enumerate(seen):
        times = [at for at, each in serials if each == serial]
        first, last = min(times), max(times)
        following = [at for at, _ in serials if at > last]
        until = following[0] if following else min(end, last + BIN)
        y = top + 14 * (i % 5)
        hue = (i * 137) % 360
        parts.append(
            f"<rect x='{x(first):.1f}' y='{y}' width='{max(2.0, x(until) - x(first)):.1f}' height='10' rx='2' fill='hsl({hue} 55% 55%)'/>"
        )
        parts.append(f"<text x='{x(first) + 3:.1f}' y='{y + 9}' style='fill:#fff;font-size:9px'>{serial[:8]}</text>")
    return "".join(parts)
