"""Domain names inside RDATA, and the conversion of RDATA from and to presentation format."""

from dnsmessage import rdtypes
from dnsmessage.name import Name
from dnsmessage.rdata_reader import from_text
from dnsmessage.rdata_words import seconds
from dnsmessage.rdata_writer import fits, name_end, quoted, to_text

__all__ = ["fits", "folded", "from_text", "names", "quoted", "seconds", "to_text"]


def names(rdtype: int, wire: bytes) -> list[Name]:
    """Return the domain names in uncompressed RDATA, in wire order."""
    found, at = [], 0
    for step in rdtypes.LAYOUTS.get(rdtype, ()):
        if step == "name":
            end = name_end(wire, at)
            found.append(Name(wire[at:end]))
            at = end
        elif step == "str":
            at += 1 + wire[at]
        else:
            at += int(step)
    return found


def folded(rdtype: int, wire: bytes) -> bytes:
    """Return uncompressed RDATA with its names in lower case, for comparing records without regard to case."""
    parts, at = [], 0
    for step in rdtypes.LAYOUTS.get(rdtype, ()):
        end = name_end(wire, at) if step == "name" else at + (1 + wire[at] if step == "str" else int(step))
        parts.append(wire[at:end].lower() if step == "name" else wire[at:end])
        at = end
    return b"".join((*parts, wire[at:]))
