"""TOML files edited by people: errors name the file and the line.

A subclass holds the rules of one kind of file.  tomllib keeps no line numbers, so a line is searched for in the text once
an error is known.
"""

import re
import tomllib
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Self


class TomlFile:
    """The tables of one file; every error reads ``FILE:LINE: expected …, got …``."""

    #: What messages call the file.
    kind: ClassVar[str]
    #: The tables that the file may have.
    known: ClassVar[tuple[str, ...]]
    #: The class of every error.
    error: ClassVar[type[Exception]]

    def __init__(self, text: str, name: str) -> None:
        """Parse *text*; messages call the file *name*.  Raises `error`."""
        self.name, self.lines = name, text.splitlines()
        try:
            self.tables = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            at = re.search(r"line (\d+)", str(error))
            raise self.error(f"{name}:{at[1] if at else self.end}: expected TOML, got: {error}") from None
        for table in self.tables:
            if table not in self.known:
                self.refuse(self.line(table), f"one of {', '.join(self.known)}", table)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file at *path*; raise `error`."""
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise cls.error(f"{path}: expected a readable {cls.kind}, got: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise cls.error(f"{path}: expected UTF-8, got {error.reason} at byte {error.start}") from None
        return cls(text, str(path))

    @property
    def end(self) -> int:
        """The last line, to report something that is missing."""
        return max(1, len(self.lines))

    def line(self, table: str, index: int = 0, key: str = "") -> int:
        """Return the line of *key* in the *index*-th *table*; without it, the line of the table's header, or 1."""
        table = re.escape(table)
        found = self._matching(rf"\s*(\[\[?\s*{table}\s*\]?\]|{table}\s*[=.])") or self._matching(
            rf"\s*\[+\s*{table}\b"
        )
        if index >= len(found):
            return found[-1] if found else 1
        start = found[index]
        if key:
            wanted = re.compile(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=")
            for number, text in enumerate(self.lines[start:], start + 1):
                if wanted.match(text):
                    return number
                if text.lstrip().startswith("["):
                    break
        return start

    def entries(self, table: str) -> list[dict[str, Any]]:
        """Return the [[table]] entries, none if there are none; refuse anything else of that name."""
        entries = self.tables.get(table, [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            self.refuse(self.line(table), f"[[{table}]] tables", entries)
        return entries

    def _matching(self, pattern: str) -> list[int]:
        return [number for number, text in enumerate(self.lines, 1) if re.match(pattern, text)]

    def refuse(self, line: int, expected: str, got: object = None, *, words: str = "") -> NoReturn:
        """Raise `error`.  *got* is the wrong value; *words* describe what was found where it is not a single value."""
        raise self.error(f"{self.name}:{line}: expected {expected}, got {words or repr(got)}") from None
