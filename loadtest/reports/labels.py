"""Text in pictures: estimated widths, truncation, wrapping."""

import textwrap

#: Pixels that one letter of a label takes, about; and of a small label.
LETTER, SMALL = 6.8, 5.8


def wide(words: str) -> float:
    """Return the pixels that a label takes, about."""
    return len(words) * LETTER


def cut(words: str, room: int) -> str:
    """Return as much of *words* as *room* letters hold; nothing where that would say nothing."""
    if len(words) <= room:
        return words
    return f"{words[: room - 1].rstrip()}…" if room >= 4 else ""


def wrap(words: str, room: int) -> list[str]:
    """Return *words* in lines of *room* letters, at least one; a longer word sticks out."""
    return textwrap.wrap(words, room, break_long_words=False, break_on_hyphens=False) or [""]
