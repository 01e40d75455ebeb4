"""Terminal output: character encoding, colours, tables, error messages and dates."""

import codecs
import datetime as dt
import difflib
import json
import os
import sys
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

#: ASCII replacements for other characters; a single-column character has a single-column replacement if tables or bars
#: depend on its width.
ASCII = {
    **dict.fromkeys("▏▎▍▌▐", "|"), **dict.fromkeys("▋▊▉█", "#"), **dict.fromkeys("┬└", "+"),
    **dict.fromkeys("–—−─", "-"), **dict.fromkeys("“”„", '"'), **dict.fromkeys("‘’", "'"), **dict.fromkeys("⌈⌉⌊⌋", "|"),
    "\N{NO-BREAK SPACE}": " ", "×": "x", "·": ".", "✓": "+", "✗": "x", "←": "<", "→": ">", "⇄": "-",
    "µ": "u", "μ": "mu", "±": "+/-", "≥": ">=", "≤": "<=", "≈": "~", "…": "...", "√": "sqrt", "∞": "inf",
    "▲": "^", "○": "o", "●": "*",
    "²": "^2", "ⁿ": "^n", "⁺": "+", "₂": "2", "ᵢ": "_i", "λ": "lambda", "ρ": "rho", "Δ": "delta", "Σ": "sum",
}  # fmt: skip
#: Name of the codec error handler that applies the replacements in `ASCII`.
HANDLER = "firstbyte.ascii"


def prepare(*, ascii_only: bool = False) -> None:
    """Make standard output and standard error accept every character that we print.

    Args:
        ascii_only: restrict output to ASCII.  Output is also restricted with ``LC_ALL=C`` (for which Python would use
            UTF-8), and if the stream's encoding, for example from ``PYTHONIOENCODING``, lacks arrows or bars.
    """
    codecs.register_error(HANDLER, _replace)
    ascii_only = ascii_only or is_ascii()
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is None:  # the stream was replaced by an object that is not a text file
            continue
        if ascii_only:
            reconfigure(encoding="ascii", errors=HANDLER)
        elif codecs.lookup(stream.encoding).name != "utf-8":
            reconfigure(errors=HANDLER)


def is_ascii() -> bool:
    """Return whether the locale or the encoding of standard output is ASCII."""
    if os.environ.get("LC_ALL") in {"C", "POSIX"}:
        return True
    return codecs.lookup(sys.stdout.encoding or "ascii").name == "ascii"


def console() -> Console:
    """Return a console that omits escape codes if the output is a pipe or a dumb terminal, or ``NO_COLOR`` is set."""
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") in {"dumb", "unknown"}
    return Console(highlight=False, color_system=None if plain else "auto", force_terminal=False if plain else None)


def table(*titles: str, numbers: Iterable[str] = (), keys: Iterable[str] = ()) -> Table:
    """Return a table that wraps cells that are too wide for the terminal instead of truncating them.

    Args:
        titles: column titles; an empty title makes a column without one.
        numbers: titles of right-aligned columns.
        keys: titles of columns that never wrap, because users copy values from them.
    """
    made = Table(box=None, header_style="bold", pad_edge=False)
    for title in titles:
        justify = "right" if title in numbers else "left"
        made.add_column(title, justify=justify, overflow="fold", no_wrap=title in keys)  # type: ignore[arg-type]  # rich declares the parameter as a Literal
    return made


def complain(verb: str | None, message: str, exit_code: int, *, as_json: bool) -> int:
    """Print one error to standard error, as a line of text or JSON; return *exit_code*."""
    if as_json:
        text = json.dumps({"error": {"command": verb, "message": message, "exit_code": exit_code}})
    else:
        text = f"firstbyte{f' {verb}' if verb else ''}: error: {message}"
    print(text, file=sys.stderr, flush=True)
    return exit_code


def meant(word: str, known: Iterable[str]) -> str:
    """Return a suggestion such as ``"; did you mean 'edge'?"`` for the closest *known* name, or "" if none is close."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def utc(moment: float | str) -> dt.datetime:
    """Parse a time given in seconds since 1970 or in the format of a run's folder name (``20261124T220000Z``)."""
    if isinstance(moment, str):
        return dt.datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)
    return dt.datetime.fromtimestamp(moment, dt.UTC)


def date(moment: float | str) -> str:
    """Format a time for people: ``2026-11-24 22:00 UTC``."""
    return _format(moment, "%Y-%m-%d %H:%M UTC")


def iso(moment: float | str) -> str:
    """Format a time for programs (RFC 3339): ``2026-11-24T22:00:00Z``."""
    return _format(moment, "%Y-%m-%dT%H:%M:%SZ")


def _format(moment: float | str, form: str) -> str:
    try:
        return utc(moment).strftime(form)
    except ValueError:  # the run's folder was renamed, so its name is not a time
        return str(moment)


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    wrong = error.object[error.start : error.end]
    return "".join(ASCII.get(each, "?") for each in wrong), error.end
