"""SVG elements, and the text in them: estimated widths, truncation, wrapping."""

import textwrap
from html import escape

#: Average width of a letter in pixels, in a label and in a small label.
LETTER, SMALL = 6.8, 5.8


def wide(words: str) -> float:
    """Return the approximate width of a label in pixels."""
    return len(words) * LETTER


def cut(words: str, room: int) -> str:
    """Truncate *words* to *room* letters with an ellipsis; return "" if too few would be left."""
    if len(words) <= room:
        return words
    return f"{words[: room - 1].rstrip()}…" if room >= 4 else ""


def wrap(words: str, room: int) -> list[str]:
    """Wrap *words* into lines of *room* letters, at least one line; a longer word is not broken."""
    return textwrap.wrap(words, room, break_long_words=False, break_on_hyphens=False) or [""]


def element(tag: str, content: str = "", css: str = "", **attributes: object) -> str:
    """Return an SVG element.

    Args:
        tag: its name.
        content: markup inside.
        css: its class.
        attributes: underscores become hyphens, floats get one decimal, None leaves an attribute out.
    """
    words = [tag, f"class='{css}'"] if css else [tag]
    for name, value in attributes.items():
        if value is not None:
            words.append(f"{name.replace('_', '-')}='{f'{value:.1f}' if isinstance(value, float) else value}'")
    head = " ".join(words)
    return f"<{head}>{content}</{tag}>" if content else f"<{head}/>"


def text(words: str, x: float, y: float, css: str = "", **attributes: object) -> str:
    """Return *words*, escaped, as an SVG text whose baseline begins at (x, y)."""
    return element("text", escape(words), css, x=float(x), y=float(y), **attributes)
