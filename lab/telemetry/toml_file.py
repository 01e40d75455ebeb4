"""A TOML file that people write, and the line on which it breaks a rule.

The rules are those of whoever reads the file: a subclass.  tomllib keeps no lines, so that they are looked up in the text
once something is wrong.
"""

import re
import tomllib
from pathlib import Path
from typing import ClassVar, NoReturn, Self


class TomlFile:
    """The tables of one file; every refusal reads ``FILE:LINE: expected …, got …``."""

    #: What it is, in messages.
    kind: ClassVar[str]
    #: The tables that it may have.
    known: ClassVar[tuple[str, ...]]
    #: Raised for whatever is wrong.
    error: ClassVar[type[Exception]]

    def __init__(self, text: str, name: str) -> None:
        """Read the tables of *text*; *name* stands in messages.  Raises `error`."""
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
        """The last line: where something is missing."""
        return max(1, len(self.lines))

    def line(self, table: str, index: int = 0, key: str = "") -> int:
        """Return the line of *key* in the *index*-th *table*, else of its header, else 1."""
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

    def _matching(self, pattern: str) -> list[int]:
        return [number for number, text in enumerate(self.lines, 1) if re.match(pattern, text)]

    def refuse(self, line: int, expected: str, got: object = None, *, words: str = "") -> NoReturn:
        """Raise `error`: *got* is the value at fault, *words* say what is there where it is no single value."""
        raise self.error(f"{self.name}:{line}: expected {expected}, got {words or repr(got)}") from None
