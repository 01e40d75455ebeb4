"""Range requests (RFC 9110 section 14): the parts of a representation that a client requests.

Sans-IO.  A Range field is ignored, as section 14.2 allows, if it is malformed, uses another unit, or requests more
bytes than the whole representation: many small or overlapping ranges cost the server more than they save the client.
"""

import re
from dataclasses import dataclass

#: Maximum number of ranges in a request; a request with more ranges gets the whole representation.
MAX_RANGES = 16
_SPEC = re.compile(r"(\d*)-(\d*)", re.ASCII)
_MAX_DIGITS = 19


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Positions of the first and last byte, both inclusive."""

    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first + 1

    def content_range(self, length: int) -> str:
        """Return the value of Content-Range for a representation of *length* bytes."""
        return f"bytes {self.first}-{self.last}/{length}"


class UnsatisfiableError(Exception):
    """No requested range overlaps the representation; the response must have status 416."""


def parse(text: str, length: int) -> tuple[ByteRange, ...]:
    """Return the satisfiable ranges that a Range field asks for, in the client's order.

    Args:
        text: value of the field.
        length: size of the selected representation in bytes.

    Returns:
        The ranges; empty if the field must be ignored.

    Raises:
        UnsatisfiableError: the field is valid, but no range overlaps the representation.
    """
    unit, equals, rest = text.partition("=")
    if not equals or unit.strip().lower() != "bytes":
        return ()
    found, specs = [], 0
    for element in rest.split(","):
        spec = element.strip(" \t")
        if not spec:  # RFC 9110 section 5.6.1: empty elements of a list are ignored
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
            if length == 0:  # a suffix of an empty representation is satisfiable, but Content-Range cannot express it
                return ()
        if one.first < length:
            found.append(one)
    if specs == 0 or specs > MAX_RANGES or sum(len(each) for each in found) > length:
        return ()
    if not found:
        raise UnsatisfiableError
    return tuple(found)
