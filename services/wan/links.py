"""Parser for the links file (TOML), which declares the regions and the settings of the links between them.

``[regions]`` maps region names to IP prefixes.  ``[default]`` has the settings for all pairs without their own entry.
Each ``[[link]]`` configures one pair: ``between = ["a", "b"]`` in both directions, or ``from = "a"`` and ``to = "b"``
in one direction.  ``"*"`` stands for any other region; an entry that names both regions takes precedence, regardless
of its position in the file.  Two entries for the same pair are an error.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from hostfiles.toml import TomlFile
from wan.errors import LinksFileError, SettingError
from wan.settings import LinkSettings

#: Wildcard in the links file for any other region.
ANY = "*"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
_ENDS = ("between", "from", "to")
Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class LinksFile:
    """The parsed content of a links file."""

    regions: dict[str, IPv4Network]
    #: Link settings for every ordered pair of different regions.
    links: dict[Pair, LinkSettings]


def load(path: Path) -> LinksFile:
    """Read and validate the links file at *path*.

    Raises:
        LinksFileError: the file cannot be read or is invalid; the message starts with FILE:LINE.
    """
    return _LinksFile.load(path).read()


def parse(text: str, name: str = "links.toml") -> LinksFile:
    """Parse and validate the *text* of a links file; error messages refer to it as *name*.

    Raises:
        LinksFileError: the text is not a valid links file.
    """
    return _LinksFile(text, name).read()


class _LinksFile(TomlFile):
    kind = "links file"
    known = ("regions", "default", "link")
    error = LinksFileError

    def read(self) -> LinksFile:
        regions = self.regions(self.tables.get("regions"))
        default = self.settings(self.tables.get("default", {}), "default", 0)
        named: dict[Pair, LinkSettings] = {}
        starred: dict[Pair, LinkSettings] = {}
        seen: set[Pair] = set()
        for index, entry in enumerate(self.entries("link")):
            values = {key: value for key, value in entry.items() if key not in _ENDS}
            pairs = self.pairs(entry, index, regions)
            settings = self.settings(values, "link", index, default)
            for a, b in pairs:
                if (a, b) in seen:
                    self.refuse(self.line("link", index), "each pair once", words=f"{a} to {b} again")
                seen.add((a, b))
                if ANY not in (a, b):
                    named[a, b] = settings
                    continue
                for pair in _expand((a, b), regions):
                    if starred.setdefault(pair, settings) != settings:
                        got = f"{pair[0]} to {pair[1]} twice"
                        self.refuse(self.line("link", index), "at most one '*' entry per pair", words=got)
        every = dict.fromkeys(_expand((ANY, ANY), regions), default)
        return LinksFile(regions, {**every, **starred, **named})

    def regions(self, table: Any) -> dict[str, IPv4Network]:
        if not isinstance(table, dict) or len(table) < 2:
            self.refuse(self.line("regions"), "[regions] with at least two regions", table)
        regions: dict[str, IPv4Network] = {}
        for name, prefix in table.items():
            line = self.line("regions", 0, name)
            if not _NAME.fullmatch(name):
                self.refuse(line, "a region name of lower-case letters, digits and '-'", name)
            try:
                network = IPv4Network(prefix if isinstance(prefix, str) else "")
            except ValueError:
                self.refuse(line, "an IPv4 prefix such as '198.19.1.0/24'", prefix)
            for other, taken in regions.items():
                if taken.overlaps(network):
                    self.refuse(line, f"a prefix that does not overlap {other}'s {taken}", prefix)
            regions[name] = network
        return regions

    def settings(self, values: Any, table: str, index: int, base: LinkSettings | None = None) -> LinkSettings:
        if not isinstance(values, dict):
            self.refuse(self.line(table, index), f"[{table}] to be a table", values)
        try:
            return (base or LinkSettings()).changed(values)
        except SettingError as error:
            self.refuse(self.line(table, index, error.key), error.expected, error.got)

    def pairs(self, entry: dict[str, Any], index: int, regions: dict[str, IPv4Network]) -> list[Pair]:
        """Return the ordered pairs that an entry names, with ``*`` not yet expanded."""
        ends = entry.keys() & set(_ENDS)
        if ends == {"between"}:
            both = entry["between"]
            if not isinstance(both, list) or len(both) != 2:
                self.refuse(self.line("link", index, "between"), "between = [REGION, REGION]", both)
            named = [("between", both[0]), ("between", both[1])]
        elif ends == {"from", "to"}:
            named = [("from", entry["from"]), ("to", entry["to"])]
        else:
            got = " and ".join(repr(end) for end in sorted(ends)) or "neither"
            self.refuse(self.line("link", index), "either 'between' or 'from' and 'to'", words=got)
        for key, region in named:
            if region != ANY and (not isinstance(region, str) or region not in regions):
                self.refuse(self.line("link", index, key), f"one of the regions {', '.join(regions)}", region)
        a, b = named[0][1], named[1][1]
        if a == b:
            self.refuse(self.line("link", index, named[1][0]), "two different regions", words=f"{a} twice")
        return [(a, b)] if "from" in ends else [(a, b), (b, a)]


def _expand(pair: Pair, regions: dict[str, IPv4Network]) -> Iterator[Pair]:
    """Yield the concrete region pairs that match a *pair* that may contain ``*``."""
    for a in regions if pair[0] == ANY else (pair[0],):
        for b in regions if pair[1] == ANY else (pair[1],):
            if a != b:
                yield a, b
