"""A report that stands alone: one HTML file, its pictures inline; light and dark, on a phone, on paper."""

import html
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from experiments import parameters
from experiments.chart import Chart
from experiments.drawing import NARROW, svg
from experiments.experiment import Experiment
from experiments.palette import style
from experiments.result import Check, Result, Row

#: Of what a verdict is about, in words.
WORDS = {
    "pass": "pass",
    "fail": "fail",
    "invalid": "invalid: proves nothing",
    "skipped": "skipped",
}
STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5b6570; --paper: #fff; --line: #dfe3e7; --card: #f6f7f9;
  --good: #1f7a5f; --bad: #b3261e; --idle: #6b7480; --link: #0068a8 }
@media (prefers-color-scheme: dark) { @media screen { :root { --ink: #e8eaed; --soft: #9aa5b1; --paper: #14171a; --line: #30363d;
  --card: #1b1f23; --good: #2f9e63; --bad: #e5534b; --idle: #7d8894; --link: #5eb3f0 } } }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 62rem; margin: 0 auto; padding: 1.6rem 1.2rem 4rem }
h1 { font-size: 1.55rem; margin: 0 0 .2rem; display: flex; flex-wrap: wrap; gap: .2rem .8rem; align-items: center }
h2 { font-size: 1.08rem; margin: 2.2rem 0 .5rem } p { margin: .5rem 0 } a { color: var(--link) }
.claim { font-size: 1.14rem; margin: .4rem 0 } .soft, figcaption, footer { color: var(--soft) } .no { color: var(--bad); font-weight: 600 }
.verdict { border-radius: .35rem; color: #fff; font-size: .95rem; font-weight: 700; padding: .12rem .7rem; letter-spacing: .01em }
.pass { background: var(--good) } .fail { background: var(--bad) } .invalid, .skipped { background: var(--idle) }
.note { background: var(--card); border-left: 4px solid var(--idle); border-radius: .3rem; padding: .5rem .9rem; margin: .8rem 0 }
.note.bad { border-color: var(--bad) } figure { margin: 1.4rem 0 } figure h3 { font-size: 1rem; margin: 0 0 .3rem } figcaption { font-size: .93rem }
.chart { width: 100%; height: auto; display: block } .narrow { display: none }
@media screen and (max-width: 40rem) { svg.chart { display: none } svg.narrow { display: block }
  .rows tr { display: grid; grid-template-columns: 3fr 3fr 5fr 3fr 3fr 3fr; gap: 0 .3rem; border-bottom: 1px solid var(--line); font-size: .88rem; padding: .25rem 0 }
  .rows td, .rows th { border: 0; padding: 0 } .rows td:first-child { grid-column: 1 / -1 } .rows th:first-child { display: none } .rows td.n { white-space: normal } }
table { border-collapse: collapse; width: 100%; font-size: .95rem }
.wide { overflow-x: auto } td, th { text-align: left; padding: .32rem .9rem .32rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
th { color: var(--soft); font-weight: 500 } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
pre, code { font: .9rem/1.5 ui-monospace, monospace } pre { background: var(--card); border-radius: .3rem; padding: .7rem .9rem; overflow-x: auto }
details { margin: .5rem 0 } summary { cursor: pointer; color: var(--soft) } footer { margin-top: 3rem; font-size: .9rem }
@media print { body { max-width: none; padding: 0; font-size: 11pt } figure, tr, .note { break-inside: avoid } h2, h3 { break-after: avoid }
  .wide, pre { overflow: visible } pre { white-space: pre-wrap } details:not([open]) { display: none } }
"""


FOOTER = (
    "<footer>firstbyte: everything that happens before the first byte, measured and held against theory. "
    "<a href='../../index.html'>All runs</a></footer>"
)


def render(result: Result, kind: type[Experiment[Any]], charts: Sequence[Chart], files: Iterable[str] = ()) -> str:
    """Return the report.

    Args:
        result: with verdict, rows and checks.
        kind: the experiment: what it means, and how its parameters are counted.
        charts: pictures, the most important first.
        files: names of files beside it.
    """
    control = "<span class='soft'>(control)</span>" if result.control else ""
    parts = [
        f"<h1>{_e(result.name)} {control}<span class='verdict {result.verdict}'>{WORDS[result.verdict]}</span></h1>",
        f"<p class='claim'>{_e(result.claim)}</p>",
        f"<p class='soft'>{_e(_when(result))}</p>",
        _control(result),
        *(f"<div class='note bad'>{_e(reason)}</div>" for reason in result.reasons),
        *(f"<div class='note'>Left out: {_e(text)}</div>" for text in result.left_out),
        *map(_figure, charts),
        _rows(result.rows),
        _checks("What was checked", result.checks),
        _checks("Was the machine fit to measure it?", result.validity),
        _words("What is said of it", kind.says),
        _words("What it means in production", kind.production),
        _reproduce(result, kind),
        _parameters(result, kind),
        _events(result),
        _facts(result),
        _words("Where the theory comes from", kind.source),
        _manifest(result),
        _files(files),
        FOOTER,
    ]
    return page(f"{result.name}: {result.verdict}", "".join(parts))


def page(title: str, body: str) -> str:
    """Return a whole HTML page in the reports' style."""
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<meta name='color-scheme' content='light dark'><title>{_e(title)}</title><style>{STYLE}{style()}</style></head><body>{body}</body></html>\n"
    )


def figure(value: float | None) -> str:
    """Return a number for people: four digits."""
    if value is None or math.isnan(value):
        return "–"
    if value and abs(value) < 0.0005:
        return f"{value:.2g}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    text = f"{value:.4g}"
    return "0" if float(text) == 0 else text


def _e(text: object) -> str:
    return html.escape(str(text))


def _when(result: Result) -> str:
    m = result.manifest
    where = f"Linux {m.get('kernel', '?')}, {m.get('cpus', '?')} CPUs, {m.get('openssl', '?')}, Python {m.get('python', '?')}"
    return f"{str(m.get('time', '')).replace('T', ' ').replace('+00:00', ' UTC')} · {'quick' if result.quick else 'full'} run · seed {result.seed} · {where}"


def _control(result: Result) -> str:
    if not result.control:
        return ""
    wanted = " or ".join(f"“{name}”" for name in result.control_fails)
    return (
        f"<div class='note'><b>This is the control</b>: {_e(result.control)}. It has to fail, at {_e(wanted)}; "
        "if it passed, the experiment would prove nothing.</div>"
    )


def _figure(chart: Chart) -> str:
    caption = f"<figcaption>{_e(chart.caption)}</figcaption>" if chart.caption else ""
    return f"<figure><h3>{_e(chart.title)}</h3>{svg(chart)}{svg(chart, width=NARROW)}{caption}</figure>"


def _rows(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    body = "".join(
        f"<tr><td>{_e(r.name)}<td class='n'>{figure(r.predicted)}<td class='n'>{figure(r.measured.value)}"
        f"<td class='n'>{_interval(r)}<td class='n'>{figure(r.residual)}<td class='n'>{_percent(r)}<td>{_e(r.unit)}"
        for r in rows
    )
    return (
        "<h2>Predicted and measured</h2><div class='wide'><table class='rows'><tr><th><th class='n'>theory<th class='n'>measured<th class='n'>interval"
        f"<th class='n'>residual<th class='n'><th>{body}</table></div>"
    )


def _interval(row: Row) -> str:
    return "" if row.measured.n < 2 else f"{figure(row.measured.low)} … {figure(row.measured.high)}"


def _percent(row: Row) -> str:
    if row.residual is None or not row.predicted:
        return ""
    return f"{row.residual / row.predicted:+.1%}"


def _checks(title: str, checks: Sequence[Check]) -> str:
    if not checks:
        return ""
    body = "".join(
        f"<tr><td>{'✓' if c.ok else '<span class=no>✗</span>'}<td>{_e(c.name)}<td>{_e(c.expected)}<td class='{'' if c.ok else 'no'}'>{_e(c.got)}"
        for c in checks
    )
    return f"<h2>{_e(title)}</h2><div class='wide'><table><tr><th><th>check<th>expected<th>got{body}</table></div>"


def _words(title: str, text: str) -> str:
    return "" if not text else f"<h2>{_e(title)}</h2>" + "".join(f"<p>{_e(p)}</p>" for p in text.split("\n\n"))


def command(result: Result, kind: type[Experiment[Any]]) -> str:
    """Return the command line that repeats this run."""
    usual = parameters.as_json(parameters.bind(kind.settings, quick=result.quick))
    given = "".join(
        f" --set {name}={','.join(map(str, value)) if isinstance(value, (list, tuple)) else value}"
        for name, value in result.parameters.items()
        if value != usual.get(name)
    )
    verb = "drill" if kind.__module__.startswith("drills") else "run"
    flags = f"{' --quick' if result.quick else ''}{' --control' if result.control else ''}"
    return f"firstbyte {verb} {result.name}{flags} --seed {result.seed}{given}"


def _reproduce(result: Result, kind: type[Experiment[Any]]) -> str:
    said = command(result, kind)
    inside = said.replace("firstbyte ", "docker compose run --rm lab ", 1)
    return f"<h2>How to repeat it</h2><pre>{_e(said)}\n{_e(inside)}    # with nothing but Docker</pre>"


def _parameters(result: Result, kind: type[Experiment[Any]]) -> str:
    about = {each["name"]: each for each in parameters.describe(kind.settings)}
    body = "".join(
        f"<tr><td><code>{_e(name)}</code><td>{_e(', '.join(map(str, value)) if isinstance(value, (list, tuple)) else value)}"
        f"<td>{_e(about.get(name, {}).get('unit', ''))}<td class='soft'>{_e(about.get(name, {}).get('help', ''))}"
        for name, value in result.parameters.items()
    )
    return f"<h2>Parameters</h2><div class='wide'><table>{body}</table></div>" if body else ""


def _events(result: Result) -> str:
    if not result.events:
        return ""
    body = "".join(f"<tr><td class='n'>{e.at:.2f} s<td>{_e(e.kind)}<td>{_e(e.text)}" for e in result.events)
    return f"<h2>What happened</h2><details {'open' if len(result.events) <= 12 else ''}><summary>{len(result.events)} events</summary><div class='wide'><table>{body}</table></div></details>"


def _facts(result: Result) -> str:
    body = "".join(
        f"<tr><td>{_e(k.replace('_', ' '))}<td>{_e(figure(v) if isinstance(v, float) else v if isinstance(v, (str, int)) else json.dumps(v))}"
        for k, v in result.facts.items()
    )
    return f"<h2>Other figures</h2><div class='wide'><table>{body}</table></div>" if body else ""


def _manifest(result: Result) -> str:
    rows = [(k, v) for k, v in result.manifest.items() if k not in {"links", "sysctls"}]
    rows += list(result.manifest.get("sysctls", {}).items())
    body = "".join(f"<tr><td>{_e(k)}<td>{_e(v)}" for k, v in rows)
    return f"<details><summary>The machine it ran on</summary><div class='wide'><table>{body}</table></div></details>"


def _files(files: Iterable[str]) -> str:
    listed = " · ".join(f"<a href='{_e(name)}'>{_e(name)}</a>" for name in files)
    return f"<p class='soft'>Beside this report: {listed}</p>" if listed else ""
