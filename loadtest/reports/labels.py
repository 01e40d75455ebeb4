"""Builds SVG elements; estimates the width of their text, truncates it and wraps it."""

import textwrap
from html import escape

#: Average width of a character in a label and in a small label, in pixels.
LETTER, SMALL = 6.8, 5.8


def wide(words: str) -> float:
    """Return the approximate width of *words* as a label, in pixels."""
    return len(words) * LETTER


def cut(words: str, room: int) -> str:
    """Truncate *words* to *room* characters, including an ellipsis; return "" if *room* is less than 4."""
    if len(words) <= room:
        return words
    return f"{words[: room - 1].rstrip()}…" if room >= 4 else ""


def wrap(words: str, room: int) -> list[str]:
    """Wrap *words* into lines of at most *room* characters; longer words are not broken.  "" gives one empty line."""
    return textwrap.wrap(words, room, break_long_words=False, break_on_hyphens=False) or [""]


def element(tag: str, content: str = "", css: str = "", **attributes: object) -> str:
    """Return an SVG element.

    Args:
        tag: tag name.
        content: markup inside the element, already escaped.
        css: CSS class; "": none.
        attributes: attributes of the element.  Underscores in names become hyphens, floats are formatted with one
            decimal, and attributes that are None are omitted.
    """
    words = [tag, f"class='{css}'"] if css else [tag]
    for name, value in attributes.items():
        if value is not None:
            words.append(f"{name.replace('_', '-')}='{f'{value:.1f}' if isinstance(value, float) else value}'")
    head = " ".join(words)
    return f"<{head}>{content}</{tag}>" if content else f"<{head}/>"


def text(words: str, x: float, y: float, css: str = "", **attributes: object) -> str:
    """Return an SVG text element with *words*, escaped, whose baseline starts at (x, y)."""
    return element("text", escape(words), css, x=float(x), y=float(y), **attributes)
