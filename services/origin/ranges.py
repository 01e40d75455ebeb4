"""Range requests (RFC 9110 section 14): which bytes of a representation does a client want?

Sans-IO.  A field that is malformed, uses another unit, or asks for more than the whole is ignored, as section 14.2
allows: many small or overlapping ranges would cost the server more than they save the client.
"""

import re
from dataclasses import dataclass

#: Ranges in one request; more are answered with the whole representation.
MAX_RANGES = 16
_SPEC = re.compile(r"(\d*)-(\d*)", re.ASCII)
_MAX_DIGITS = 19


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Positions of the first and last byte, both included."""

    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first + 1

    def content_range(self, length: int) -> str:
        """Return the value of Content-Range for a representation of *length* bytes."""
        return f"bytes {self.first}-{self.last}/{length}"


class UnsatisfiableError(Exception):
    """No range overlaps the representation: 416."""


def parse(text: str, length: int) -> tuple[ByteRange, ...]:
    """Return the satisfiable ranges that a Range field asks for, in the client's order.

    Args:
        text: value of the field.
        length: bytes of the selected representation.

    Returns:
        The ranges; none if the field is to be ignored.

    Raises:
        UnsatisfiableError: the field is valid, but every range lies outside.
    """
    unit, equals, rest = text.partition("=")
    if not equals or unit.strip().lower() != "bytes":
        return ()
    found, specs = [], 0
    for element in rest.split(","):
        spec = element.strip(" \t")
        if not spec:  # section 5.6.1: empty elements of a list are ignored
            continue
        match = _SPEC.fullmatch(spec)
        if match is None or spec == "-" or max(map(len, match.groups())) > _MAX_DIGITS:
            return ()
        specs += 1
        first, last = match.groups()
        if first and last and int(first) > int(last):
            return ()
        if first:
            one = ByteRange(int(first), min(int(last), length - 1) if last else length - 1)
        elif int(last) == 0:
            continue
        else:
            one = ByteRange(max(0, length - int(last)), length - 1)
            if length == 0:  # a suffix of an empty representation is the whole, which no Content-Range can express
                return ()
        if one.first < length:
            found.append(one)
    if specs == 0 or specs > MAX_RANGES or sum(len(each) for each in found) > length:
        return ()
    if not found:
        raise UnsatisfiableError
    return tuple(found)
