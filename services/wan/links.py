"""The links file: regions, and what lies between them, in TOML.

``[regions]`` maps names to prefixes, ``[default]`` holds for every pair that nothing else names, and each ``[[link]]``
sets one pair: ``between = ["a", "b"]`` in both directions, ``from = "a"`` and ``to = "b"`` in one.  ``"*"`` stands for
any other region; a named pair beats it, wherever it stands.  The same pair set twice is an error.
"""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, NoReturn

from wan.settings import LinkSettings, LinksFileError, SettingError

#: Any other region.
ANY = "*"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
_TABLES = ("regions", "default", "link")
_ENDS = ("between", "from", "to")


@dataclass(frozen=True, slots=True)
class LinksFile:
    """What a links file declares."""

    regions: dict[str, IPv4Network]
    #: Settings of every ordered pair of different regions.
    links: dict[tuple[str, str], LinkSettings]


def load(path: Path) -> LinksFile:
    """Read and check the file at *path*.

    Raises:
        LinksFileError: it can not be read, or breaks a rule; the message starts with FILE:LINE.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise LinksFileError(f"{path}: expected a readable links file, got: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise LinksFileError(f"{path}: expected UTF-8, got {error.reason} at byte {error.start}") from None
    return parse(text, str(path))


def parse(text: str, name: str = "links.toml") -> LinksFile:
    """Check the *text* of a links file; *name* stands in messages.

    Raises:
        LinksFileError: the text breaks a rule.
    """
    return _Reader(text, name).read()


class _Reader:
    def __init__(self, text: str, name: str) -> None:
        self.name, self.text = name, text
        self.lines = text.splitlines()

    def read(self) -> LinksFile:
        try:
            tables = tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            match = re.search(r"line (\d+)", str(error))
            line = int(match[1]) if match else max(1, len(self.lines))
            raise LinksFileError(f"{self.name}:{line}: expected TOML, got: {error}") from None
        for key in tables:
            if key not in _TABLES:
                self.refuse(self.line(key, 0, ""), f"one of {', '.join(_TABLES)}", key)
        regions = self.regions(tables.get("regions"))
        default = self.settings(tables.get("default", {}), "default", 0)
        entries = tables.get("link", [])
        if not isinstance(entries, list):
            self.refuse(self.line("link", 0, ""), "[[link]] tables", entries)
        named: dict[tuple[str, str], LinkSettings] = {}
        starred: dict[tuple[str, str], LinkSettings] = {}
        seen: set[tuple[str, str]] = set()
        for index, entry in enumerate(entries):
            if not isinstance(entry, dict):
                self.refuse(self.line("link", 0, ""), "[[link]] tables", entries)
            declared = self.pairs(entry, index, regions)
            values = {key: value for key, value in entry.items() if key not in _ENDS}
            settings = self.settings(values, "link", index, default)
            for pair in declared:
                if pair in seen:
                    self.refuse(self.line("link", index, ""), "each pair once", f"{pair[0]} to {pair[1]} again")
                seen.add(pair)
                if ANY not in pair:
                    named[pair] = settings
                    continue
                for other in _expand(pair, regions):
                    if starred.setdefault(other, settings) != settings:
                        self.refuse(
                            self.line("link", index, ""), "one '*' per pair", f"{other[0]} to {other[1]} by two"
                        )
        links = {(a, b): named.get((a, b), starred.get((a, b), default)) for a in regions for b in regions if a != b}
        return LinksFile(regions, links)

    def regions(self, table: Any) -> dict[str, IPv4Network]:
        if not isinstance(table, dict) or len(table) < 2:
            self.refuse(self.line("regions", 0, ""), "[regions] with at least two regions", table)
        regions: dict[str, IPv4Network] = {}
        for name, prefix in table.items():
            line = self.line("regions", 0, name)
            if not _NAME.fullmatch(name):
                self.refuse(line, "a region's name of lower-case letters, digits and '-'", name)
            try:
                network = IPv4Network(prefix if isinstance(prefix, str) else "")
            except ValueError:
                self.refuse(line, "an IPv4 prefix such as '198.19.1.0/24'", prefix)
            for other, taken in regions.items():
                if taken.overlaps(network):
                    self.refuse(line, f"a prefix apart from {other}'s {taken}", prefix)
            regions[name] = network
        return regions

    def settings(self, values: Any, table: str, index: int, base: LinkSettings | None = None) -> LinkSettings:
        if not isinstance(values, dict):
            self.refuse(self.line(table, index, ""), f"[{table}] to be a table", values)
        try:
            return (base or LinkSettings()).changed(values)
        except SettingError as error:
            self.refuse(self.line(table, index, error.key), error.expected, error.got)

    def pairs(self, entry: dict[str, Any], index: int, regions: dict[str, IPv4Network]) -> list[tuple[str, str]]:
        ends = entry.keys() & set(_ENDS)
        if ends == {"between"}:
            both = entry["between"]
            if not isinstance(both, list) or len(both) != 2:
                self.refuse(self.line("link", index, "between"), "between = [REGION, REGION]", both)
            named = [("between", both[0]), ("between", both[1])]
        elif ends == {"from", "to"}:
            named = [("from", entry["from"]), ("to", entry["to"])]
        else:
            got = " and ".join(sorted(ends)) or "neither"
            self.refuse(self.line("link", index, ""), "either 'between' or 'from' and 'to'", got)
        for key, region in named:
            if region != ANY and (not isinstance(region, str) or region not in regions):
                self.refuse(self.line("link", index, key), f"a region among {', '.join(regions)}", region)
        a, b = named[0][1], named[1][1]
        if a == b:
            self.refuse(self.line("link", index, named[1][0]), "two different regions", f"{a} twice")
        return [(a, b)] if "from" in ends else [(a, b), (b, a)]

    def line(self, table: str, index: int, key: str) -> int:
        """Return the line of *key* in the *index*-th *table*, else of its header, else 1; tomllib keeps no lines."""
        header = re.compile(rf"\s*(\[\[?\s*{re.escape(table)}\s*\]?\]|{re.escape(table)}\s*[=.])")
        found = [number for number, text in enumerate(self.lines, 1) if header.match(text)]
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

    def refuse(self, line: int, expected: str, got: object) -> NoReturn:
        shown = got if isinstance(got, str) and " " in got else repr(got)
        raise LinksFileError(f"{self.name}:{line}: expected {expected}, got {shown}") from None


def _expand(pair: tuple[str, str], regions: dict[str, IPv4Network]) -> Iterator[tuple[str, str]]:
    """Yield the pairs that a pair with ``*`` stands for."""
    for a in regions if pair[0] == ANY else (pair[0],):
        for b in regions if pair[1] == ANY else (pair[1],):
            if a != b:
                yield a, b
