r"""Master files (RFC 1035 section 5.1): text to records, with the line of each error.

``$ORIGIN``, ``$TTL`` (RFC 2308 section 4), ``$INCLUDE``, ``$GENERATE`` (as BIND has it), parentheses, quotes, escapes,
comments, types by number (RFC 3597).  Text is bytes: Latin-1 and UTF-8 are kept as they are.  Class IN only.
"""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dnsmessage import LocalError, Name, rdtypes
from dnsmessage import rdata as rdatas
from dnsmessage.message import MAX_TTL
from dnsmessage.name import shown
from nameserver.errors import NameServerError, ZoneError, ZoneFileError
from nameserver.zone import Zone, ZoneBuilder, kind

#: Bytes of a master file: a million names take some 40 MB; a typo must not read a whole disk.
MAX_FILE = 256 << 20
#: Files included inside each other, and records that one $GENERATE makes.
MAX_INCLUDES, MAX_GENERATED = 8, 65_536
#: Characters that split() does not understand.
_SPECIAL = re.compile(rb'["();\\]')
_TOKEN = re.compile(rb'"((?:[^"\\\n]|\\.)*)"|([()])|;[^\n]*|((?:[^\s"();\\]|\\.)+)|(["\\])', re.DOTALL)
_RANGE = re.compile(rb"([0-9]{1,9})-([0-9]{1,9})(?:/([0-9]{1,9}))?")
_DOLLAR = re.compile(rb"\\\$|\$\$|\$\{(-?[0-9]{1,9})(?:,([0-9]{1,3})(?:,([doxX]))?)?\}|\$")
_OTHER_CLASSES = frozenset({b"CH", b"HS", b"CS"})


@dataclass(slots=True)
class Entry:
    """One logical line: parentheses joined, comments removed."""

    line: int
    #: Whether it begins with white space, which means "the owner of the record before".
    indented: bool
    words: list[bytes]


def load(origin: str, path: Path) -> Zone:
    """Read the zone *origin* from the file *path*.

    Raises:
        ZoneFileError: the file cannot be read, or says something wrong.
    """
    try:
        with path.open("rb") as file:
            if path.is_file() and path.stat().st_size > MAX_FILE:
                raise ZoneFileError(str(path), 0, f"expected at most {MAX_FILE} bytes")
            return _Reader(origin, str(path), path.parent).read(file)
    except OSError as error:
        raise ZoneFileError(str(path), 0, f"cannot be read: {error.strerror}") from None


def parse(origin: str, text: str, source: str = "<text>") -> Zone:
    """Make the zone *origin* from the master file *text*; *source* names it in errors.  It cannot include files."""
    return _Reader(origin, source, None).read(io.BytesIO(text.encode()))


def words(text: str) -> list[bytes]:
    """Return the words of RDATA in presentation format, quotes removed and escapes kept; raise `ZoneError`."""
    found: list[bytes] = []
    try:
        depth = _tokens(text.encode(), found, 0, 1)
    except _AtLineError as error:
        raise ZoneError(str(error)) from None
    if depth:
        raise ZoneError("expected a closing )")
    return found


class _Reader:
    """The state while one zone is read: origin, default TTL, last owner."""

    def __init__(self, origin: str, source: str, folder: Path | None) -> None:
        self.apex = self.origin = Name.from_text(origin if origin.endswith(".") else origin + ".")
        self.source, self.folder = source, folder
        self.builder = ZoneBuilder(self.apex)
        self.default_ttl: int | None = None
        self.last_ttl: int | None = None
        self.owner: bytes | None = None
        self._depth = 0

    def read(self, file: BinaryIO) -> Zone:
        """Read the whole zone."""
        self._file(file)
        try:
            return self.builder.zone()
        except NameServerError as error:
            raise ZoneFileError(self.source, 0, str(error)) from None

    def _file(self, file: BinaryIO) -> None:
        line, record = 0, self._record
        try:
            for entry in _entries(file):
                line = entry.line
                if entry.words[0][:1] == b"$" and not entry.indented:
                    self._directive(entry.words)
                else:
                    record(entry.indented, entry.words)
        except _AtLineError as error:
            raise ZoneFileError(self.source, error.line, str(error)) from None
        except ZoneFileError:
            raise
        except (NameServerError, LocalError) as error:
            raise ZoneFileError(self.source, line, str(error)) from None

    def _directive(self, words: list[bytes]) -> None:
        name = words[0].upper()
        if name == b"$ORIGIN" and len(words) == 2:
            self.origin = Name.from_text(words[1], self.origin)
        elif name == b"$TTL" and len(words) == 2:
            self.default_ttl = _ttl(words[1])
        elif name == b"$INCLUDE" and len(words) in {2, 3}:
            self._include(words)
        elif name == b"$GENERATE" and len(words) >= 4:
            self._generate(words)
        else:
            forms = "$ORIGIN NAME, $TTL SECONDS, $INCLUDE FILE [NAME] or $GENERATE FROM-TO OWNER TYPE RDATA"
            raise ZoneError(f"expected {forms}; got {shown(b' '.join(words)[:60])}")

    def _include(self, words: list[bytes]) -> None:
        """Read another file in place; its origin and owner end with it (RFC 1035 section 5.1)."""
        if self.folder is None or self._depth >= MAX_INCLUDES:
            raise ZoneError(f"expected $INCLUDE in a file, at most {MAX_INCLUDES} deep; got {shown(words[1])}")
        path = self.folder / shown(words[1])
        kept = self.origin, self.owner, self.source
        if len(words) == 3:
            self.origin = Name.from_text(words[2], self.origin)
        self._depth += 1
        try:
            if path.stat().st_size > MAX_FILE:
                raise ZoneError(f"expected at most {MAX_FILE} bytes in {path}")
            with path.open("rb") as file:
                self.source = str(path)
                self._file(file)
        except OSError as error:
            raise ZoneError(f"{path} cannot be read: {error.strerror}") from None
        self._depth -= 1
        self.origin, self.owner, self.source = kept

    def _generate(self, words: list[bytes]) -> None:
        match = _RANGE.fullmatch(words[1])
        first, last, step = (int(each or 1) for each in match.groups()) if match else (1, 0, 0)
        if step < 1 or last < first or (last - first) // step >= MAX_GENERATED:
            raise ZoneError(
                f"expected $GENERATE FROM-TO[/STEP] of at most {MAX_GENERATED} records, got {shown(words[1])}"
            )
        for number in range(first, last + 1, step):
            self._record(indented=False, words=[_numbered(word, number) for word in words[2:]])

    def _record(self, indented: bool, words: list[bytes]) -> None:
        at = 0
        if not indented:
            self.owner = self._owner(words[0])
            at = 1
        if self.owner is None:
            raise ZoneError("expected an owner name on the first record")
        ttl: int | None = None
        rdtype = 0
        for word in words[at:]:
            at += 1
            upper = word.upper()
            if upper == b"IN":
                continue
            if ttl is None and word[:1].isdigit():
                ttl = _ttl(word)
                continue
            if upper in _OTHER_CLASSES:
                raise ZoneError(f"expected class IN, got {shown(word)}")
            rdtype = rdtypes.from_text(shown(upper))
            break
        if not rdtype:
            raise ZoneError("expected a record type, got the end of the line")
        if rdtype in rdtypes.META:
            raise ZoneError(f"expected a type of data, got {rdtypes.to_text(rdtype)}")
        data = rdatas.from_text(rdtype, words[at:], self.origin)
        if ttl is None:
            ttl = self.default_ttl if self.default_ttl is not None else self.last_ttl
            if ttl is None:
                raise ZoneError("expected a TTL: neither the record nor $TTL gives one")
        self.last_ttl = ttl
        self.builder.add(self.owner + kind(rdtype), ttl, data)

    def _owner(self, word: bytes) -> bytes:
        if b"." not in word and b"\\" not in word and word != b"@" and 0 < len(word) < 64:
            key = bytes((len(word),)) + word.lower() + self.origin.key
            if len(key) > 255:
                raise ZoneError(f"expected a name of at most 255 bytes, got {shown(word)!r} below {self.origin}")
            name: Name | None = None
        else:
            name = Name.from_text(word, self.origin)
            key = name.key
        if self.origin is not self.apex or name is not None:
            name = name or Name(key)
            if not name.is_below(self.apex):
                raise ZoneError(f"expected names in {self.apex}, got {name}")
        return key


class _AtLineError(NameServerError):
    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def _ttl(word: bytes) -> int:
    """Read a TTL; beyond 31 bits it counts as 0 (RFC 2181 section 8)."""
    ttl = rdatas.seconds(word, "a TTL")
    return ttl if ttl <= MAX_TTL else 0


def _numbered(word: bytes, number: int) -> bytes:
    """Put *number* in place of each ``$`` and ``${OFFSET,WIDTH,BASE}``; ``$$`` and an escaped dollar are one dollar."""

    def place(match: re.Match[bytes]) -> bytes:
        if match[0] in {b"\\$", b"$$"}:
            return b"$"
        value = number + int(match[1] or 0)
        base = (match[3] or b"d").decode()
        return f"{value:0{int(match[2] or 0)}{base}}".encode()

    return _DOLLAR.sub(place, word)


def _entries(file: BinaryIO) -> Iterator[Entry]:
    """Cut a file into logical lines."""
    special, entry, number = _SPECIAL.search, Entry(0, False, []), 0
    lines = iter(file)
    for line in lines:
        number += 1
        if not special(line):
            words = line.split()
            if words:
                entry.line, entry.indented, entry.words = number, line[:1] in b" \t", words
                yield entry
            continue
        start, depth, words = number, 0, list[bytes]()
        text = line
        while True:
            depth = _tokens(text, words, depth, number)
            if depth == 0:
                break
            text = next(lines, b"")
            number += 1
            if not text:
                raise _AtLineError(start, "expected a closing )")
        if words:
            entry.line, entry.indented, entry.words = start, line[:1] in b" \t", words
            yield entry


def _tokens(text: bytes, words: list[bytes], depth: int, number: int) -> int:
    """Append the words of one physical line; return how many parentheses are open."""
    for match in _TOKEN.finditer(text):
        quoted, bracket, word, wrong = match.groups()
        if wrong is not None:
            raise _AtLineError(
                number, 'expected a closing "' if wrong == b'"' else "expected a character after the backslash"
            )
        if bracket is not None:
            depth += 1 if bracket == b"(" else -1
            if depth < 0:
                raise _AtLineError(number, "expected an opening ( before )")
        elif quoted is not None:
            words.append(quoted)
        elif word is not None:
            words.append(word.rstrip(b"\n") if word.endswith(b"\\\n") else word)
    return depth
