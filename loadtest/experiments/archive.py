"""The folder of results: ``NAME/UTC time/`` with result.json, report.html, pictures and counters; an index above them."""

import contextlib
import datetime as dt
import html
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from experiments import repeats_report, report
from experiments.conduct import Outcome
from experiments.drawing import rasterise, svg
from experiments.repeats import Repeats
from hostfiles.atomic import atomic_write

#: Bytes of a result.json that are read.
MAX_RESULT = 4 << 20
#: Name of a run's folder: UTC time, which sorts as text.
TIME = "%Y%m%dT%H%M%SZ"


class ArchiveError(Exception):
    """A run that is not there: one line, for people."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A run as it lies in the folder."""

    name: str
    #: Name of its folder: UTC time.
    time: str
    folder: Path
    body: dict[str, Any]

    @property
    def page(self) -> str:
        """Return the name of the file to look at: a full disk may have had no room for the report."""
        return "report.html" if (self.folder / "report.html").exists() else "result.json"

    @property
    def picture(self) -> str:
        """Return the name of the picture that says most, as the experiment ordered them; empty: there is none."""
        found = sorted(self.folder.glob("*.svg"), key=lambda path: (path.stem != self.name, path.stat().st_mtime))
        there = [path.name for path in found]
        ordered = [name for name in self.body.get("pictures", ()) if name in there]
        return next(iter(ordered or there), "")

    @property
    def verdict(self) -> str:
        """Return pass, fail, invalid or skipped."""
        return str(self.body.get("verdict", "invalid"))


def keep(outcome: Outcome, results: Path) -> Path:
    """Write everything about a run into a folder of its own, and the index anew; return the folder.

    On a disk that is full, what fits is kept, the result first, and the run is invalid; no file is ever half written.

    Raises:
        OSError: not even the result could be written; nothing is left behind.
    """
    folder = _fresh(results / outcome.result.name)
    try:
        _write(outcome, folder)
        write_index(results)
    except OSError as error:
        outcome.result.interrupted = f"not all of it could be kept: {error.strerror or error}"
        _clear(folder)
        try:
            _write(outcome, folder, what_fits=True)
        except OSError:
            _clear(folder)
            folder.rmdir()
            raise
        with contextlib.suppress(OSError):
            write_index(results)
    return folder


def _write(outcome: Outcome, folder: Path, *, what_fits: bool = False) -> None:
    """Write the files of a run, the most important first; *what_fits*: leave out those that there is no room for."""
    result, run = outcome.result, outcome.run
    texts: dict[str, Callable[[], str]] = {}
    for i, chart in enumerate(run.findings.charts):
        again = f"-{i}" if chart.file_name in {c.file_name for c in run.findings.charts[:i]} else ""
        texts[f"{chart.file_name}{again}.svg"] = partial(svg, chart, standalone=True)
    body = {**result.as_json(), "took_s": round(outcome.took, 2), "pictures": list(texts)}
    _put(folder / "result.json", json.dumps(body, indent=2, default=str) + "\n")
    if run.recorders.series:
        texts["counters.json"] = lambda: json.dumps({host: asdict(each) for host, each in run.recorders.series.items()})
    if run.raw:
        texts["raw.json"] = lambda: json.dumps(run.raw, default=str)
    pages: dict[str, Callable[[], str]] = {"report.html": lambda: _report(outcome, folder)}
    for name, text in ((pages | texts) if what_fits else (texts | pages)).items():
        try:
            _put(folder / name, text() + ("" if name.endswith(".html") else "\n"))
        except OSError:
            if not what_fits:
                raise
            continue
        if name.endswith(".svg") and not what_fits:
            rasterise(folder / name, (folder / name).with_suffix(".png"))


def _report(outcome: Outcome, folder: Path) -> str:
    beside = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    return report.render(outcome.result, outcome.kind, outcome.run.findings.charts, beside)


def _put(path: Path, text: str) -> None:
    atomic_write(path, text.encode())


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def runs(results: Path) -> list[Kept]:
    """Return every run, the newest first."""
    found = []
    for path in results.glob("*/*/result.json"):
        try:
            if path.stat().st_size > MAX_RESULT:
                continue
            body = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # one that is being written, or was cut off by a full disk
        if isinstance(body, dict):
            found.append(Kept(path.parent.parent.name, path.parent.name, path.parent, body))
    return sorted(found, key=lambda each: each.time, reverse=True)


def find(results: Path, text: str) -> Kept:
    """Return the run that *text* names: ``NAME`` (its latest), ``NAME/TIME``, ``NAME~1`` (the one before), or a folder.

    Raises:
        ArchiveError: there is none.
    """
    every = runs(results)
    path = Path(text)
    name, _, back = text.partition("~")
    if back.isdecimal() or not back:
        of_name = [each for each in every if each.name == name]
        if len(of_name) > int(back or 0):
            return of_name[int(back or 0)]
    for each in every:
        if text.strip("/") == f"{each.name}/{each.time}" or (path.exists() and path.resolve() == each.folder.resolve()):
            return each
    known = ", ".join(sorted({each.name for each in every})) or "none yet"
    raise ArchiveError(f"expected a run (NAME, NAME~1, NAME/TIME or a folder; there are: {known}), got {text!r}")


def compare(a: Kept, b: Kept) -> list[dict[str, Any]]:
    """Return one row per quantity that both runs measured: theory, both measurements, and whether their intervals meet."""
    rows = []
    for name, one in a.body.get("measurement", {}).items():
        other = b.body.get("measurement", {}).get(name)
        if not _number(one) or not _number(other):
            continue
        spans = [each.body.get("interval", {}).get(name) or [value, value] for each, value in ((a, one), (b, other))]
        whole = all(_number(end) for span in spans for end in span)
        meet = spans[0][0] <= spans[1][1] and spans[1][0] <= spans[0][1] if whole else None
        rows.append(
            {
                "name": name,
                "unit": a.body.get("unit", {}).get(name, ""),
                "predicted": [each.body.get("prediction", {}).get(name) for each in (a, b)],
                "measured": [one, other],
                "interval": spans,
                "change": (other - one) / one if one else None,
                "intervals_meet": meet,
            }
        )
    return rows


def comparison_page(a: Kept, b: Kept) -> str:
    """Return the comparison as HTML, with both runs' first pictures."""
    e = html.escape
    body = "".join(
        f"<tr><td>{e(row['name'])}<td class='n'>{report.figure(row['predicted'][0])}<td class='n'>{report.figure(row['measured'][0])}"
        f"<td class='n'>{report.figure(row['measured'][1])}<td class='n'>{_change(row['change'])}"
        f"<td>{e(row['unit'])}<td>{'' if row['intervals_meet'] is None else 'intervals meet' if row['intervals_meet'] else '<b>differs</b>'}"
        for row in compare(a, b)
    )
    changed = [
        f"{name}: {a.body['parameters'].get(name)} → {value}"
        for name, value in b.body.get("parameters", {}).items()
        if a.body.get("parameters", {}).get(name) != value
    ]
    pictures = "".join(
        f"<figure><h3>{e(each.name)} {e(each.time)}</h3><img class='chart' alt='' src='{e(each.name)}/{e(each.time)}/{e(each.picture)}'></figure>"
        for each in (a, b)
        if each.picture
    )
    heads = "".join(
        f"<p><a href='{e(each.name)}/{e(each.time)}/report.html'>{e(each.name)} {e(each.time)}</a> "
        f"<span class='verdict {each.verdict}'>{each.verdict}</span></p>"
        for each in (a, b)
    )
    return report.page(
        f"{a.name} {a.time} and {b.name} {b.time}",
        f"<h1>Two runs compared</h1>{heads}<p class='soft'>Parameters: {e('; '.join(changed)) or 'the same'}</p>"
        "<div class='wide'><table class='rows'><tr><th><th class='n'>theory<th class='n'>first<th class='n'>second<th class='n'>change<th><th>"
        f"{body}</table></div>{pictures}",
    )


def write_index(results: Path) -> Path:
    """Write ``index.html`` above all runs: what each shows, its latest verdict and picture, and every run before."""
    by_name: dict[str, list[Kept]] = {}
    for each in runs(results):
        by_name.setdefault(each.name, []).append(each)
    cards = "".join(_card(name, found) for name, found in sorted(by_name.items()))
    body = (
        "<style>.cards { display: grid; gap: 1.2rem; grid-template-columns: repeat(auto-fill, minmax(19rem, 1fr)) } .card { border: 1px solid var(--line);"
        " border-radius: .5rem; padding: .9rem 1rem } .card h2 { margin: 0 0 .3rem } .card img { width: 100%; background: #fff; border-radius: .3rem }"
        "</style><h1>Runs</h1><p class='soft'>Scenarios (<code>firstbyte run --list</code>) and drills (<code>firstbyte drill --list</code>); "
        f"the latest first. <a href='/'>Console</a></p><div class='cards'>{cards}</div>{_pages(results)}"
    )
    path = results / "index.html"
    _put(path, report.page("firstbyte: all runs", body))
    return path


def write_summary(results: Path, title: str, folders: Sequence[Path]) -> Path:
    """Write one page about several runs that were made together, for whoever has to sign them; return its path.

    Args:
        results: the folder of all results.
        title: what was run.
        folders: of the runs, in order.
    """
    e = html.escape
    found = {each.folder: each for each in runs(results)}
    kept = [found[folder] for folder in folders if folder in found]
    lines, parts = [], []
    for each in kept:
        control = " (control)" if each.body.get("control") else ""
        badge = f"<span class='verdict {each.verdict}'>{each.verdict}</span>"
        link = f"{e(each.name)}/{e(each.time)}/report.html"
        checks = each.body.get("checks", [])
        held = sum(1 for check in checks if check["ok"])
        lines.append(
            f"<tr><td><a href='{link}'>{e(each.name)}</a>{control}<td>{badge}<td class='n'>{held} of {len(checks)}"
            f"<td class='n'>{each.body.get('took_s', 0):.0f} s<td>{e('; '.join(each.body.get('reasons', [])))}"
        )
        image = (
            f"<a href='{link}'><img class='chart' alt='' src='{e(each.name)}/{e(each.time)}/{e(each.picture)}'></a>"
            if each.picture
            else ""
        )
        parts.append(
            f"<figure><h3>{e(each.name)}{control} {badge}</h3><p>{e(str(each.body.get('claim', '')))}</p>{image}</figure>"
        )
    made = kept[0].body.get("manifest", {}) if kept else {}
    where = f"{made.get('time', '')} · Linux {made.get('kernel', '?')} · {made.get('openssl', '?')} · firstbyte {made.get('firstbyte', '?')}"
    body = (
        f"<h1>{e(title)}</h1><p class='soft'>{e(where)}</p><div class='wide'><table><tr><th>experiment<th>verdict<th class='n'>checks that held"
        f"<th class='n'>took<th>what did not hold{''.join(lines)}</table></div>{''.join(parts)}<p><a href='index.html'>All runs</a></p>"
    )
    words = "".join(c if c.isalnum() else " " for c in title.lower()).split()
    path = results / f"{'-'.join(words)}-{kept[0].time if kept else 'none'}.html"
    _put(path, report.page(title, body))
    return path


def write_repeats(results: Path, repeats: Repeats, outcomes: Sequence[Outcome], folders: Sequence[Path | None]) -> Path:
    """Write the page about repeats and the same as JSON, and the index anew; return the page.

    Args:
        results: the folder of all results.
        repeats: what the runs say together.
        outcomes: of each run.
        folders: of each run; None: it could not be kept.
    """
    last = next((folder.name for folder in reversed(folders) if folder is not None), "none")
    control = "-control" if outcomes[0].result.control else ""
    path = results / f"{repeats.results[0].name}{control}-{repeats.wanted}-times-{last}.html"
    links = ["" if folder is None else f"{folder.parent.name}/{folder.name}/report.html" for folder in folders]
    took = [each.took for each in outcomes]
    body = {**repeats.as_json(), "reports": links}
    _put(path.with_suffix(".json"), json.dumps(body, indent=2, default=str) + "\n")
    page = repeats_report.render(repeats, outcomes[0].kind, list(zip(links, took, strict=True)))
    _put(path, page)
    write_index(results)
    return path


def _card(name: str, found: Sequence[Kept]) -> str:
    e = html.escape
    shown = next((each for each in found if not each.body.get("control")), found[0])
    image = (
        f"<a href='{e(name)}/{shown.time}/report.html'><img alt='' loading='lazy' src='{e(name)}/{shown.time}/{e(shown.picture)}'></a>"
        if shown.picture
        else ""
    )
    lines = "".join(
        f"<li><a href='{e(name)}/{each.time}/{each.page}'>{each.time}</a> {each.verdict}"
        f"{' (control)' if each.body.get('control') else ''}{' · quick' if each.body.get('quick') else ''}"
        for each in found[:8]
    )
    more = f"<li class='soft'>and {len(found) - 8} more" if len(found) > 8 else ""
    return (
        f"<div class='card'><h2>{e(name)} <span class='verdict {shown.verdict}'>{shown.verdict}</span></h2>"
        f"<p>{e(str(shown.body.get('claim', '')))}</p>{image}<ul>{lines}{more}</ul></div>"
    )


def _pages(results: Path) -> str:
    """List the pages about several runs, the newest first."""
    found = sorted(
        (p for p in results.glob("*.html") if p.name != "index.html"), key=lambda p: p.stem[-16:], reverse=True
    )
    lines = "".join(f"<li><a href='{html.escape(p.name)}'>{html.escape(p.stem)}</a>" for p in found[:24])
    return f"<h2>Pages about several runs</h2><ul>{lines}</ul>" if lines else ""


def _fresh(parent: Path) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    moment = dt.datetime.now(dt.UTC)
    while True:
        folder = parent / moment.strftime(TIME)
        try:
            folder.mkdir()
        except FileExistsError:  # two runs within a second
            moment += dt.timedelta(seconds=1)
        else:
            return folder


def _change(share: float | None) -> str:
    return "" if share is None else f"{share:+.1%}"


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
