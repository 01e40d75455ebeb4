"""Read-only browser access to the results folder.

Paths that leave the folder, through ``..`` or a symbolic link, are treated as not found.
"""

import html
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from console.hosts import ConsoleError

#: Number of runs listed on the page.
LATEST = 6
#: Maximum size of a result.json in bytes; normal files are a few kB.
MAX_RESULT = 1 << 20
#: Content types, keyed by file name suffix; files with other suffixes are sent as downloads.
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".csv": "text/plain; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".log": "text/plain; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
    ".toml": "text/plain; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}


class NotFoundError(ConsoleError):
    """The file or folder does not exist, or browsers may not access it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a folder listing."""

    name: str
    is_folder: bool
    #: File size in bytes; 0 for a folder.
    size: int


def locate(root: Path, path: str) -> Path:
    """Return the file or folder at the relative *path* below *root*.

    Raises:
        NotFoundError: the path does not exist, is hidden, or is outside *root*.
    """
    if "\0" in path or "\\" in path or any(part.startswith(".") for part in path.split("/") if part):
        raise NotFoundError(path)
    try:
        inside = root.resolve(strict=True)
        found = (root / path.strip("/")).resolve(strict=True)
    except (OSError, ValueError, RuntimeError):
        raise NotFoundError(path) from None
    if not found.is_relative_to(inside) or not (found.is_dir() or found.is_file()):
        raise NotFoundError(path)
    return found


def listing(folder: Path) -> list[Entry]:
    """Return the entries of *folder*: first folders in descending order of name (newest run first), then files."""
    entries = []
    for path in folder.iterdir():
        if path.name.startswith(".") or path.is_symlink():
            continue
        is_folder = path.is_dir()
        entries.append(Entry(path.name, is_folder, 0 if is_folder else path.stat().st_size))
    folders = sorted((e for e in entries if e.is_folder), key=lambda e: e.name, reverse=True)
    return folders + sorted((e for e in entries if not e.is_folder), key=lambda e: e.name)


def page(path: str, entries: list[Entry]) -> str:
    """Return an HTML page with a folder listing."""
    here = html.escape(f"/results/{path.strip('/')}".rstrip("/") + "/")
    rows = [
        f'<li><a href="{quote(e.name)}{"/" if e.is_folder else ""}">'
        f"{html.escape(e.name)}{'/' if e.is_folder else ''}</a>"
        f"{'' if e.is_folder else f' <small>{e.size:,} bytes</small>'}</li>"
        for e in entries
    ]
    body = (
        f"<ul>{''.join(rows)}</ul>"
        if rows
        else "<p>Nothing here yet. <code>firstbyte run</code> and <code>firstbyte drill</code> write here.</p>"
    )
    up = '<a href="../">up</a> · ' if path.strip("/") else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<title>{here}</title><link rel="icon" href="/icon.svg"><link rel="stylesheet" href="/style.css"></head>'
        f'<body><main class="listing"><h1>{here}</h1><p>{up}<a href="/">console</a></p>{body}</main></body></html>'
    )


def latest(root: Path, count: int = LATEST) -> list[dict[str, Any]]:
    """Return up to *count* runs (``results/NAME/TIME/``) with their verdicts, newest first."""
    try:
        runs = [run for name in root.iterdir() if _plain(name) for run in name.iterdir() if _plain(run)]
    except OSError:
        return []
    runs.sort(key=lambda run: run.name, reverse=True)
    return [_run(run) for run in runs[:count]]


def _plain(path: Path) -> bool:
    return not path.name.startswith(".") and path.is_dir() and not path.is_symlink()


def _run(run: Path) -> dict[str, Any]:
    verdict = None
    try:
        with (run / "result.json").open("rb") as file:
            result = json.loads(file.read(MAX_RESULT))
        verdict = result.get("verdict") if isinstance(result, dict) else None
    except (OSError, ValueError):
        pass  # without a result.json, the run has not finished
    href = f"/results/{quote(run.parent.name)}/{quote(run.name)}/"
    if (run / "report.html").is_file():
        href += "report.html"
    return {"name": run.parent.name, "time": run.name, "verdict": verdict, "href": href}
