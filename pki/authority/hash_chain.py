"""Hash chains of JSON lines: each line contains the hash of the previous line.

Verification detects changed, inserted, reordered and removed lines, except lines removed from the end.  This module
does not access files.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from authority.errors import AuthorityError

#: Value that the first line contains instead of the hash of a previous line.
START = "0" * 64
_encode = json.JSONEncoder(ensure_ascii=False).encode


class ChainError(AuthorityError):
    """A line of a hash chain is malformed, or does not contain the hash of the previous line."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a hash chain."""

    #: Time of the event, in seconds since the epoch.
    at: float
    event: str
    #: Details of the event, such as the hash of each file, keyed by path, or a certificate's subject and serial number.
    facts: dict[str, Any]
    #: SHA-256 of the previous line, in hexadecimal.
    previous: str

    def line(self) -> str:
        """Return the entry as one line of JSON, without a newline."""
        body = {"at": self.at, "event": self.event, **self.facts, "previous": self.previous}
        return _encode(body)


def line_hash(line: str) -> str:
    """Return the hash of *line* (without its newline), which the next line must contain."""
    return hashlib.sha256(line.encode()).hexdigest()


def read_chain(
    lines: Iterable[str], where: object, previous: str = START, first: int = 1
) -> Iterator[tuple[Entry, str]]:
    """Verify *lines* and yield each as an `Entry`, with its hash.

    Args:
        lines: lines without newlines.
        where: name of the file in error messages.
        previous: hash of the line before the first of *lines*.
        first: line number of the first of *lines*.

    Raises:
        ChainError: a line is malformed, or does not contain the hash of the previous line.
    """
    for number, line in enumerate(lines, first):
        try:
            body = json.loads(line)
            entry = Entry(body.pop("at"), body.pop("event"), body, body.pop("previous"))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise ChainError(f"{where}:{number}: expected an entry in JSON, got {line[:80]!r}") from None
        if entry.previous != previous or entry.line() != line:
            raise ChainError(f"{where}:{number}: this line or one before it was changed: the hashes do not match")
        previous = line_hash(line)
        yield entry, previous
