"""Transcript of the key ceremony for auditors: JSON lines in a hash chain.

The transcript contains file names, hashes and the subjects of certificates, but no secrets.
"""

from pathlib import Path
from typing import Any

from authority.hash_chain import START, Entry, line_hash, read_chain
from hostfiles.atomic import atomic_write


class Transcript:
    """A transcript in a file."""

    def __init__(self, path: Path) -> None:
        """Read and verify the file at *path*; a missing file is an empty transcript.

        Raises:
            ChainError: the file is damaged.
        """
        self.path = path
        self.entries: list[Entry] = []
        self._hash = START
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        for entry, _ in read_chain(lines, path):
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
        self._hash = line_hash(entry.line())
