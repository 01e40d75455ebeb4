"""Transcript of the key ceremony for auditors: JSON lines in a hash chain.

Each line contains the hash of the previous line, so that changed, removed or inserted lines are detected.  The
transcript contains file names, hashes and the subjects of certificates, but no secrets.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from authority.errors import AuthorityError
from hostfiles.atomic import atomic_write

#: Value of the previous hash in the first line.
START = "0" * 64


class TranscriptError(AuthorityError):
    """The transcript is damaged: a line is malformed, or does not contain the hash of the previous line."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the transcript."""

    #: Time, in seconds since the epoch.
    at: float
    event: str
    #: Details of the event, such as hashes of files by path, or a certificate's subject and serial number.
    facts: dict[str, Any]
    #: SHA-256 of the previous line, in hexadecimal.
    previous: str

    def line(self) -> str:
        """Return the entry as one line of JSON, without a newline."""
        body = {"at": self.at, "event": self.event, **self.facts, "previous": self.previous}
        return json.dumps(body, ensure_ascii=False)


class Transcript:
    """A transcript in a file."""

    def __init__(self, path: Path) -> None:
        """Read and verify the file at *path*; a missing file is an empty transcript.

        Raises:
            TranscriptError: the file is damaged.
        """
        self.path = path
        self.entries: list[Entry] = []
        self._hash = START
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        for number, line in enumerate(lines, 1):
            try:
                body = json.loads(line)
                entry = Entry(body.pop("at"), body.pop("event"), body, body.pop("previous"))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                raise TranscriptError(f"{path}:{number}: expected an entry of a ceremony, got {line[:80]!r}") from None
            if entry.previous != self._hash or entry.line() != line:
                raise TranscriptError(
                    f"{path}:{number}: this line or one before it was changed: the hashes do not match"
                )
            self._add(entry)

    def __repr__(self) -> str:
        return f"<Transcript entries={len(self.entries)} {self._hash[:8]}>"

    def append(self, at: float, event: str, **facts: Any) -> None:
        """Append an entry; it is on disk when the method returns."""
        entry = Entry(at, event, facts, self._hash)
        text = "".join(f"{each.line()}\n" for each in (*self.entries, entry))
        atomic_write(self.path, text.encode())
        self._add(entry)

    def _add(self, entry: Entry) -> None:
        self.entries.append(entry)
        self._hash = hashlib.sha256(entry.line().encode()).hexdigest()
