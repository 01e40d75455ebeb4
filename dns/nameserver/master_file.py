"""Master files (RFC 1035 section 5.1): text to records, with the line of whatever is wrong.

``$ORIGIN``, ``$TTL`` (RFC 2308 section 4), parentheses, quotes, escapes, comments.  Not ``$INCLUDE``, not classes
other than IN.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nameserver import name as names
from nameserver import rdata
from nameserver.errors import NameServerError, ZoneError, ZoneFileError
from nameserver.name import Name
from nameserver.zone import Record, Zone

#: Octets of a master file.  The largest zone of the lab is a few kilobytes; a typo must not read a disk.
MAX_FILE = 16 << 20
#: Not what `str.isdigit` takes for digits: ``²`` is one.
DIGITS = tuple("0123456789")


@dataclass(frozen=True, slots=True)
class Entry:
    """One logical line: parentheses joined, comments gone."""

    line: int
    #: Whether it begins with white space, which means "the owner of the record before".
    indented: bool
    words: tuple[str, ...]


def load(origin: str, path: Path) -> Zone:
    """Read the zone *origin* from the file *path*.

    Raises:
        ZoneFileError: the file can not be read, or says something wrong.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE + 1).decode("utf-8")
    except OSError as error:
        raise ZoneFileError(str(path), 0, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ZoneFileError(str(path), 0, f"expected UTF-8 text, got octet 0x{error.object[error.start]:02x}") from None
    if len(text) > MAX_FILE:
        raise ZoneFileError(str(path), 0, f"expected at most {MAX_FILE} octets")
    return parse(origin, text, str(path))


def parse(origin: str, text: str, source: str = "<text>") -> Zone:
    """Make the zone *origin* of the master file *text*; *source* names it in errors."""
    apex = names.from_text(origin if origin.endswith(".") else origin + ".")
    line = 0
    records: list[Record] = []
    try:
        for record_line, record in _records(apex, text):
            line = record_line
            if not names.is_below(record.name, apex):
                raise ZoneError(f"expected names in {names.to_text(apex)}, got {names.to_text(record.name)}")
            records.append(record)
        line = 0
        return Zone(apex, records)
    except _AtLineError as error:
        raise ZoneFileError(source, error.line, str(error)) from None
    except NameServerError as error:
        raise ZoneFileError(source, line, str(error)) from None


class _AtLineError(NameServerError):
    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def _records(apex: Name, text: str) -> Iterator[tuple[int, Record]]:
    origin, default_ttl, owner = apex, None, None
    last_ttl: int | None = None
    for entry in _entries(text):
        try:
            words = list(entry.words)
            if words[0] == "$ORIGIN":
                _expect(words, 2, "$ORIGIN NAME")
                origin = names.from_text(words[1], origin)
                continue
            if words[0] == "$TTL":
                _expect(words, 2, "$TTL SECONDS")
                default_ttl = rdata.seconds(words[1], "a TTL")
                continue
            if words[0].startswith("$"):
                raise ZoneError(f"expected $ORIGIN or $TTL, got {words[0]}")
            if not entry.indented:
                owner = names.from_text(words.pop(0), origin)
            if owner is None:
                raise ZoneError("expected an owner name on the first record")
            ttl, rtype = None, None
            while words and rtype is None:
                word = words.pop(0)
                if word.upper() == "IN":
                    continue
                if word.upper() in {"CH", "HS", "CS"}:
                    raise ZoneError(f"expected class IN, got {word}")
                if ttl is None and word[:1] in DIGITS:
                    ttl = rdata.seconds(word, "a TTL")
                else:
                    rtype = word.upper()
            if rtype is None:
                raise ZoneError("expected a record type, got the end of the line")
            data = rdata.build(rtype, words, origin)
            if ttl is None:
                ttl = default_ttl if default_ttl is not None else last_ttl
            if ttl is None:
                raise ZoneError("expected a TTL: neither the record nor $TTL gives one")
            last_ttl = ttl
            yield entry.line, Record(owner, rtype, ttl, data)
        except NameServerError as error:
            raise _AtLineError(entry.line, str(error)) from None


def _expect(words: list[str], count: int, form: str) -> None:
    if len(words) != count:
        raise ZoneError(f"expected {form}, got {' '.join(words)}")


def _entries(text: str) -> Iterator[Entry]:
    """Cut *text* into logical lines."""
    words: list[str] = []
    word: list[str] | None = None
    quoted, depth, start, indented = False, 0, 1, False
    i, line, line_start = 0, 1, True
    size = len(text)
    while i <= size:
        char = text[i] if i < size else "\n"
        i += 1
        if quoted:
            assert word is not None  # noqa: S101 - a quote opens a word
            if char == '"':
                quoted = False
                words.append("".join(word))
                word = None
            elif char == "\n":
                raise _AtLineError(line, 'expected a closing "')
            else:
                word.append(char)
                if char == "\\" and i < size and text[i] != "\n":  # whoever reads the word unescapes it
                    word.append(text[i])
                    i += 1
            continue
        if char in ' \t\r\n;()"' and word is not None:
            words.append("".join(word))
            word = None
        if char == "\n":
            if depth == 0 or i > size:
                if depth:
                    raise _AtLineError(start, "expected a closing )")
                if words:
                    yield Entry(start, indented, tuple(words))
                words = []
            line, line_start = line + 1, depth == 0
            continue
        if line_start and depth == 0:
            start, indented, line_start = line, char in " \t", False
        if char == ";":
            while i < size and text[i] != "\n":
                i += 1
        elif char == '"':
            quoted, word = True, []
        elif char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
            if depth < 0:
                raise _AtLineError(line, "expected an opening ( before )")
        elif char not in " \t\r":
            word = [] if word is None else word
            word.append(char)
            if char == "\\" and i < size and text[i] != "\n":
                word.append(text[i])
                i += 1
