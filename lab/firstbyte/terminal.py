"""What the command line writes to a terminal: characters that it can show, colours only where they help, errors, dates."""

import codecs
import datetime as dt
import difflib
import json
import os
import sys
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

#: ASCII for characters beyond it.  One column stays one column where tables and bars depend on it.
ASCII = {
    **dict.fromkeys("▏▎▍▌▐", "|"), **dict.fromkeys("▋▊▉█", "#"),
    **dict.fromkeys("–—−", "-"), **dict.fromkeys("“”„", '"'), **dict.fromkeys("‘’", "'"), **dict.fromkeys("⌈⌉⌊⌋", "|"),
    "\N{NO-BREAK SPACE}": " ", "×": "x", "·": ".", "✓": "+", "✗": "x", "←": "<", "→": ">", "⇄": "-", "µ": "u", "μ": "mu",
    "±": "+/-", "≥": ">=", "≤": "<=", "≈": "~", "…": "...", "√": "sqrt", "∞": "inf", "²": "^2", "ⁿ": "^n", "⁺": "+", "₂": "2",
    "ᵢ": "_i", "λ": "lambda", "ρ": "rho", "Δ": "delta", "Σ": "sum",
}  # fmt: skip
#: Name of the codec error handler that uses `ASCII`.
HANDLER = "firstbyte.ascii"


def prepare(*, ascii_only: bool = False) -> None:
    """Make standard output and standard error accept every character that we print.

    Args:
        ascii_only: write nothing beyond ASCII.  Also the case with ``LC_ALL=C`` (which Python otherwise ignores in favour
            of UTF-8) and wherever the stream's own encoding, for instance from ``PYTHONIOENCODING``, has no arrows or bars.
    """
    codecs.register_error(HANDLER, _replace)
    ascii_only = ascii_only or is_ascii()
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is None:  # replaced by something that is no text file
            continue
        if ascii_only:
            reconfigure(encoding="ascii", errors=HANDLER)
        elif codecs.lookup(stream.encoding).name != "utf-8":
            reconfigure(errors=HANDLER)


def is_ascii() -> bool:
    """Return whether the caller's locale, or the encoding of standard output, is ASCII."""
    if os.environ.get("LC_ALL") in {"C", "POSIX"}:
        return True
    return codecs.lookup(sys.stdout.encoding or "ascii").name == "ascii"


def console() -> Console:
    """Return a console without any escape code in a pipe, with ``NO_COLOR`` set, or on a dumb terminal."""
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") in {"dumb", "unknown"}
    return Console(highlight=False, color_system=None if plain else "auto", force_terminal=False if plain else None)


def table(*titles: str, numbers: Iterable[str] = (), keys: Iterable[str] = ()) -> Table:
    """Return a table that wraps what is too wide for the terminal and cuts nothing off.

    Args:
        titles: of its columns; an empty one is a column without a title.
        numbers: titles of columns that are aligned on the right.
        keys: titles of columns that stay on one line, since a user copies from them.
    """
    made = Table(box=None, header_style="bold", pad_edge=False)
    for title in titles:
        justify = "right" if title in numbers else "left"
        made.add_column(title, justify=justify, overflow="fold", no_wrap=title in keys)  # type: ignore[arg-type]  # rich wants a Literal
    return made


def complain(verb: str | None, message: str, exit_code: int, *, as_json: bool) -> int:
    """Write one error to standard error, as a line of text or of JSON; return *exit_code*."""
    if as_json:
        text = json.dumps({"error": {"command": verb, "message": message, "exit_code": exit_code}})
    else:
        text = f"firstbyte{f' {verb}' if verb else ''}: error: {message}"
    print(text, file=sys.stderr, flush=True)
    return exit_code


def meant(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'edge'?"`` for the nearest of *known* names, or nothing when none is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def utc(moment: float | str) -> dt.datetime:
    """Return a moment, in seconds since 1970 or as the folder of a run names it (``20261124T220000Z``)."""
    if isinstance(moment, str):
        return dt.datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)
    return dt.datetime.fromtimestamp(moment, dt.UTC)


def date(moment: float | str) -> str:
    """Return a moment for people: ``2026-11-24 22:00 UTC``."""
    return _format(moment, "%Y-%m-%d %H:%M UTC")


def iso(moment: float | str) -> str:
    """Return a moment for programs (RFC 3339): ``2026-11-24T22:00:00Z``."""
    return _format(moment, "%Y-%m-%dT%H:%M:%SZ")


def _format(moment: float | str, form: str) -> str:
    try:
        return utc(moment).strftime(form)
    except ValueError:  # somebody has renamed the folder of a run
        return str(moment)


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    wrong = error.object[error.start : error.end]
    return "".join(ASCII.get(each, "?") for each in wrong), error.end
