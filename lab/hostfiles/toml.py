"""Base class for hand-edited TOML files; its error messages contain the file name and the line number.

Each subclass defines the rules for one kind of file. tomllib does not record line numbers, so after an error, the
line is searched for in the text.
"""

import re
import tomllib
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Self


class TomlFile:
    """Parsed TOML file; every error message has the form ``FILE:LINE: expected …, got …``."""

    #: Name of this kind of file in error messages.
    kind: ClassVar[str]
    #: Names of the permitted tables.
    known: ClassVar[tuple[str, ...]]
    #: Exception class of all errors.
    error: ClassVar[type[Exception]]

    def __init__(self, text: str, name: str) -> None:
        """Parse *text*; *name* is the file name in error messages.

        Raises:
            self.error: *text* is not valid TOML or has an unknown table.
        """
        self.name, self.lines = name, text.splitlines()
        try:
            self.tables = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            at = re.search(r"line (\d+)", str(error))
            raise self.error(f"{name}:{at[1] if at else self.end}: expected TOML, got: {error}") from None
        except (
            ValueError,
            RecursionError,
        ) as error:  # for example a number with thousands of digits, or too many nested arrays
            longest = max(range(len(self.lines)), key=lambda index: len(self.lines[index]))
            raise self.error(f"{name}:{longest + 1}: expected TOML, got: {error}") from None
        for table in self.tables:
            if table not in self.known:
                self.refuse(self.line(table), f"one of {', '.join(self.known)}", table)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Load the file at *path*.

        Raises:
            cls.error: the file cannot be read or is invalid.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise cls.error(f"{path}: expected a readable {cls.kind}, got: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise cls.error(f"{path}: expected UTF-8, got {error.reason} at byte {error.start}") from None
        return cls(text, str(path))

    @property
    def end(self) -> int:
        """Number of the last line, for errors about missing tables or keys."""
        return max(1, len(self.lines))

    def line(self, table: str, index: int = 0, key: str = "") -> int:
        """Return the line number of *key* in the *index*-th *table*.

        If *key* is empty or absent, return the line of the table's header; if that is also absent, return 1.
        """
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
        """Return the entries of the [[table]] array, or an empty list if it is absent; reject any other type."""
        entries = self.tables.get(table, [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            self.refuse(self.line(table), f"[[{table}]] tables", entries)
        return entries

    def _matching(self, pattern: str) -> list[int]:
        return [number for number, text in enumerate(self.lines, 1) if re.match(pattern, text)]

    def refuse(self, line: int, expected: str, got: object = None, *, words: str = "") -> NoReturn:
        """Raise `error`; *got* is the invalid value, or *words* describe a problem that involves several values."""
        raise self.error(f"{self.name}:{line}: expected {expected}, got {words or repr(got)}") from None
