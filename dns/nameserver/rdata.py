"""RDATA from the words of a master file (RFC 1035 section 3.3; CAA RFC 8659, SRV RFC 2782, AAAA RFC 3596).

dnslib has the wire format; this checks what it would accept silently, and says what was expected.
"""

import ipaddress
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import dnslib

from nameserver import name as names
from nameserver.errors import NameServerError
from nameserver.name import Name

#: A dnslib RDATA object (dnslib is untyped).
Rdata: TypeAlias = Any
MAX_U32 = 2**32 - 1
MAX_TTL = 2**31 - 1  # RFC 2181 section 8
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class RdataError(NameServerError):
    """The words after a type are not what that type needs."""


def types() -> list[str]:
    """Return the record types that a master file may hold."""
    return sorted(_BUILDERS)


def build(rtype: str, words: Sequence[str], origin: Name | None) -> Rdata:
    """Make RDATA of *rtype* from master-file *words*; relative names end in *origin*.

    Raises:
        RdataError: wrong number or kind of words, or a type that is not known.
    """
    entry = _BUILDERS.get(rtype.upper())
    if entry is None:
        raise RdataError(f"expected a record type of {', '.join(types())}; got {rtype!r}")
    fields, builder = entry
    if fields.endswith("…"):
        if not words:
            raise RdataError(f"expected {rtype.upper()} {fields}, got nothing")
    elif len(words) != len(fields.split()):
        raise RdataError(f"expected {rtype.upper()} {fields}, got {len(words)} words: {' '.join(words)}")
    try:
        return builder(words, origin)
    except names.BadNameError as error:
        raise RdataError(str(error)) from None


def target(rdata: Rdata) -> Name | None:
    """Return the name that an NS, CNAME, MX, SRV or PTR record points to."""
    label = getattr(rdata, "label", None) or getattr(rdata, "target", None)
    return None if label is None else tuple(part.lower() for part in label.label)


def seconds(text: str, what: str = "seconds", maximum: int = MAX_TTL) -> int:
    """Read ``3600`` or ``1h30m``."""
    if text.isascii() and text.isdigit():
        value = int(text)
    else:
        value, digits = 0, ""
        for char in text.lower():
            if char.isascii() and char.isdigit():
                digits += char
            elif char in UNITS and digits:
                value, digits = value + int(digits) * UNITS[char], ""
            else:
                raise RdataError(f"expected {what} as a number, or like 1h30m; got {text!r}")
        if digits or not text:
            raise RdataError(f"expected {what} as a number, or like 1h30m; got {text!r}")
    if value > maximum:
        raise RdataError(f"expected {what} of at most {maximum}, got {text}")
    return value


def _number(text: str, maximum: int) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > maximum:
        raise RdataError(f"expected a number from 0 to {maximum}, got {text!r}")
    return int(text)


def _label(text: str, origin: Name | None) -> dnslib.DNSLabel:
    return dnslib.DNSLabel(names.from_text(text, origin))


def _address(kind: Callable[[str], object], text: str, what: str) -> str:
    try:
        return str(kind(text))
    except ValueError:
        raise RdataError(f"expected an {what} address, got {text!r}") from None


def _texts(words: Sequence[str]) -> list[bytes]:
    octets = [_octets(word) for word in words]
    for each in octets:
        if len(each) > 255:
            raise RdataError(f"expected texts of at most 255 octets, got one of {len(each)}")
    return octets


def escape(text: str) -> str:
    """Return *text* so that `build` takes every character of it for what it is."""
    return text.replace("\\", "\\\\")


def _octets(word: str) -> bytes:
    r"""Return the octets of a character string: ``\DDD`` is one, ``\X`` is X (RFC 1035 section 5.1)."""
    raw, octets, i = word.encode(), bytearray(), 0
    while i < len(raw):
        digits = raw[i + 1 : i + 4]
        if raw[i] != 0x5C:
            octets.append(raw[i])
            i += 1
        elif len(digits) == 3 and digits.isdigit() and int(digits) < 256:
            octets.append(int(digits))
            i += 4
        elif digits and not digits[:1].isdigit():
            octets.append(digits[0])
            i += 2
        else:
            raise RdataError(f"expected a character or three digits up to 255 after the backslash in {word!r}")
    return bytes(octets)


def _tag(word: str) -> str:
    if not (word.isascii() and word.isalnum() and len(word) < 256):
        raise RdataError(f"expected a tag of letters and digits (RFC 8659 section 4.1), got {word!r}")
    return word.lower()


def _caa_value(word: str) -> str:
    try:
        return _octets(word).decode("ascii")
    except UnicodeDecodeError:
        raise RdataError(f"expected a value of ASCII characters, got {word!r}") from None


def _soa(words: Sequence[str], origin: Name | None) -> Rdata:
    numbers = (_number(words[2], MAX_U32), *(seconds(w) for w in words[3:]))
    return dnslib.SOA(_label(words[0], origin), _label(words[1], origin), numbers)


_BUILDERS: dict[str, tuple[str, Callable[[Sequence[str], Name | None], Rdata]]] = {
    "A": ("ADDRESS", lambda w, _: dnslib.A(_address(ipaddress.IPv4Address, w[0], "IPv4"))),
    "AAAA": ("ADDRESS", lambda w, _: dnslib.AAAA(_address(ipaddress.IPv6Address, w[0], "IPv6"))),
    "NS": ("NAME", lambda w, o: dnslib.NS(_label(w[0], o))),
    "CNAME": ("NAME", lambda w, o: dnslib.CNAME(_label(w[0], o))),
    "PTR": ("NAME", lambda w, o: dnslib.PTR(_label(w[0], o))),
    "MX": ("PREFERENCE NAME", lambda w, o: dnslib.MX(_label(w[1], o), _number(w[0], 65535))),
    "TXT": ("TEXT…", lambda w, _: dnslib.TXT(_texts(w))),
    "CAA": ("FLAGS TAG VALUE", lambda w, _: dnslib.CAA(_number(w[0], 255), _tag(w[1]), _caa_value(w[2]))),
    "SRV": (
        "PRIORITY WEIGHT PORT NAME",
        lambda w, o: dnslib.SRV(_number(w[0], 65535), _number(w[1], 65535), _number(w[2], 65535), _label(w[3], o)),
    ),
    "SOA": ("MNAME RNAME SERIAL REFRESH RETRY EXPIRE MINIMUM", _soa),
}
