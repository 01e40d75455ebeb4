r"""Convert RDATA between wire and presentation format (RFC 1035 section 5.1), as described by `rdtypes.FIELDS`.

Types without an entry in `FIELDS` are written as ``\# LENGTH HEX`` (RFC 3597 section 5). The parser accepts that form
for every type.
"""

import base64
import binascii
import calendar
import ipaddress
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from dnsmessage import rdtypes
from dnsmessage.errors import LocalError, NameSyntaxError, RdataSyntaxError, RemoteError
from dnsmessage.name import Name, shown, unescape

MAX_RDATA = 65_535
MAX_U32 = 2**32 - 1
_UNITS = {b"s": 1, b"m": 60, b"h": 3600, b"d": 86400, b"w": 604800}
_DURATION = re.compile(rb"(?:[0-9]{1,10}[smhdw])+", re.IGNORECASE)
_SVC_KEYS = ("mandatory", "alpn", "no-default-alpn", "port", "ipv4hint", "ech", "ipv6hint", "dohpath", "ohttp")
#: Placeholder for each kind of field in error messages.
_FORMS = {
    "ip4": "IPv4-ADDRESS", "ip6": "IPv6-ADDRESS", "str": "TEXT", "str+": "TEXT…", "svcparams": "KEY=VALUE…",
    "loc": "LOCATION…", "apl": "PREFIX…", "bitmap": "TYPE…", "hex": "HEX…", "base64": "BASE64…", "text": "TEXT",
}  # fmt: skip
#: Numbers of certificate types by mnemonic (RFC 4398 section 2.1).
_CERTIFICATES = {
    b"PKIX": 1, b"SPKI": 2, b"PGP": 3, b"IPKIX": 4, b"ISPKI": 5, b"IPGP": 6, b"ACPKIX": 7, b"IACPKIX": 8, b"URI": 253,
    b"OID": 254,
}  # fmt: skip
#: Numbers of DNSSEC algorithms by mnemonic (IANA registry).
_ALGORITHMS = {
    b"DELETE": 0, b"RSAMD5": 1, b"DH": 2, b"DSA": 3, b"RSASHA1": 5, b"DSA-NSEC3-SHA1": 6, b"RSASHA1-NSEC3-SHA1": 7,
    b"RSASHA256": 8, b"RSASHA512": 10, b"ECC-GOST": 12, b"ECDSAP256SHA256": 13, b"ECDSAP384SHA384": 14, b"ED25519": 15,
    b"ED448": 16, b"INDIRECT": 252, b"PRIVATEDNS": 253, b"PRIVATEOID": 254,
}  # fmt: skip
#: Field kinds that consume all remaining words.
_REST = frozenset({"str+", "hex", "base64", "bitmap", "svcparams", "apl", "loc"})
#: Field kinds that must not be empty.
_NEEDED = frozenset({"hex", "base64", "base32"})
#: Service parameters that need a value: all registered parameters except no-default-alpn.
_SVC_VALUED = frozenset({0, 1, 3, 4, 5, 6})

_B32 = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", b"0123456789ABCDEFGHIJKLMNOPQRSTUV")
_B32_BACK = bytes.maketrans(b"0123456789ABCDEFGHIJKLMNOPQRSTUV", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")


def from_text(rdtype: int, words: Sequence[bytes], origin: Name | None) -> bytes:
    r"""Return the RDATA for *words* from a master file, with quotes removed and escapes kept.

    Relative names are completed with *origin*.

    Raises:
        RdataSyntaxError: a word is missing, superfluous or invalid, or the RDATA exceeds 65,535 bytes.
    """
    if words and words[0] == b"\\#":
        wire = _generic(rdtype, words[1:])
    else:
        fields = rdtypes.FIELDS.get(rdtype)
        if fields is None:
            raise RdataSyntaxError(
                f"expected {rdtypes.to_text(rdtype)} as \\# LENGTH HEX (RFC 3597), got {_joined(words)}"
            )
        rest = fields[-1] in _REST
        required = len(fields) - (fields[-1] in {"bitmap", "svcparams", "apl"})
        if len(words) < required or (len(words) > len(fields) and not rest):
            form = " ".join(_FORMS.get(each, each.upper()) for each in fields)
            raise RdataSyntaxError(
                f"expected {rdtypes.to_text(rdtype)} {form}, got {len(words)} words: {_joined(words)}"
            )
        try:
            parts = [
                _READ[kind]([word], origin) for kind, word in zip(fields, words, strict=False) if kind not in _REST
            ]
            if rest:
                parts.append(_READ[fields[-1]](words[len(fields) - 1 :], origin))
            wire = b"".join(parts)
        except NameSyntaxError as error:
            raise RdataSyntaxError(str(error)) from None
    if len(wire) > MAX_RDATA:
        raise RdataSyntaxError(f"expected RDATA of at most {MAX_RDATA} bytes, got {len(wire)}")
    return wire


def to_text(rdtype: int, wire: bytes) -> str:
    r"""Return *wire* in presentation format, or as ``\# LENGTH HEX`` if it does not match the format of its type."""
    try:
        at, words = 0, []
        for kind in rdtypes.FIELDS[rdtype]:
            text, at = _WRITE[kind](wire, at)
            if text in {"", "-"} and kind in _NEEDED:
                raise ValueError("an empty field")
            words.append(text)
        if at == len(wire):
            return " ".join(word for word in words if word)
    except (KeyError, IndexError, ValueError, struct.error, OSError, RemoteError):
        pass
    return f"\\# {len(wire)} {wire.hex()}".rstrip()


def names(rdtype: int, wire: bytes) -> list[Name]:
    """Return the domain names in uncompressed RDATA, in wire order."""
    found, at = [], 0
    for step in rdtypes.LAYOUTS.get(rdtype, ()):
        if step == "name":
            end = _name_end(wire, at)
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
        end = _name_end(wire, at) if step == "name" else at + (1 + wire[at] if step == "str" else int(step))
        parts.append(wire[at:end].lower() if step == "name" else wire[at:end])
        at = end
    return b"".join((*parts, wire[at:]))


def seconds(word: bytes, what: str = "seconds", maximum: int = MAX_U32) -> int:
    """Parse a duration such as ``3600`` or ``1h30m`` into seconds; raise `RdataSyntaxError`."""
    if word.isdigit() and len(word) <= 10:
        value = int(word)
    elif _DURATION.fullmatch(word):
        value = sum(int(part[:-1]) * _UNITS[part[-1:].lower()] for part in re.findall(rb"[0-9]+[A-Za-z]", word))
    else:
        raise RdataSyntaxError(f"expected {what} as a number, or like 1h30m; got {_short(word)!r}")
    if value > maximum:
        raise RdataSyntaxError(f"expected {what} of at most {maximum}, got {_short(word)}")
    return value


def quoted(data: bytes) -> str:
    """Return a character string in presentation format, with quotes."""
    return '"' + "".join(
        f"\\{chr(c)}" if c in b'"\\' else chr(c) if 0x20 <= c < 0x7F else f"\\{c:03d}" for c in data
    ) + '"'  # fmt: skip


def _short(word: bytes) -> str:
    return shown(word if len(word) <= 60 else word[:57] + b"...")


def _joined(words: Sequence[bytes]) -> str:
    return _short(b" ".join(words))


def _generic(rdtype: int, words: Sequence[bytes]) -> bytes:
    length = _number(words[0], MAX_RDATA) if words else -1
    wire = _unhex(words[1:])
    if len(wire) != length:
        raise RdataSyntaxError(f"expected \\# LENGTH HEX with LENGTH bytes, got {length} and {len(wire)} bytes")
    if rdtypes.EXACT.get(rdtype, length) != length or (rdtype in rdtypes.LAYOUTS and not fits(rdtype, wire)):
        raise RdataSyntaxError(f"expected {rdtypes.to_text(rdtype)} in its own format, got \\# {length}")
    return wire


def fits(rdtype: int, wire: bytes) -> bool:
    """Return whether *wire* is well-formed RDATA of a type that has its own presentation format."""
    try:
        return to_text(rdtype, wire)[:2] != "\\#"
    except LocalError:
        return False


def _string_bytes(word: bytes) -> bytes:
    if b"\\" not in word:
        return word
    data, at = bytearray(), 0
    while at < len(word):
        if word[at] == 0x5C:
            byte, at = unescape(word, at)
            data.append(byte)
        else:
            data.append(word[at])
            at += 1
    return bytes(data)


# --- field parsers: words to wire format ------------------------------------------------------------------------------


def _number(word: bytes, maximum: int) -> int:
    if not word.isdigit() or len(word) > 10 or int(word) > maximum:
        raise RdataSyntaxError(f"expected a number from 0 to {maximum}, got {_short(word)!r}")
    return int(word)


def _coded(word: bytes, size: int, codes: Mapping[bytes, int]) -> bytes:
    """Parse a number of *size* bytes, or its mnemonic in any case."""
    number = codes.get(word.upper())
    if number is None and not word.isdigit():
        known = ", ".join(each.decode() for each in codes)
        raise RdataSyntaxError(f"expected a number or one of {known}; got {_short(word)!r}")
    return (_number(word, 256**size - 1) if number is None else number).to_bytes(size, "big")


def _ip4(word: bytes) -> bytes:
    text = shown(word)
    try:
        if text.count(".") != 3:
            raise ValueError
        return ipaddress.IPv4Address(text).packed if not text.isascii() or text[:1] == "0" else _aton(text)
    except ValueError:
        raise RdataSyntaxError(f"expected an IPv4 address, got {_short(word)!r}") from None


def _aton(text: str) -> bytes:
    try:
        return socket.inet_pton(socket.AF_INET, text)
    except OSError:
        raise ValueError from None


def _ip6(word: bytes) -> bytes:
    try:
        return socket.inet_pton(socket.AF_INET6, word.decode("ascii"))
    except (OSError, ValueError):
        raise RdataSyntaxError(f"expected an IPv6 address, got {_short(word)!r}") from None


def _string(word: bytes) -> bytes:
    data = _string_bytes(word)
    if len(data) > 255:
        raise RdataSyntaxError(f"expected texts of at most 255 bytes, got one of {len(data)}")
    return bytes([len(data)]) + data


def _unhex(words: Sequence[bytes]) -> bytes:
    try:
        return binascii.unhexlify(b"".join(words))
    except ValueError:
        raise RdataSyntaxError(f"expected hexadecimal digits in pairs, got {_joined(words)!r}") from None


def _unbase64(words: Sequence[bytes]) -> bytes:
    try:
        return base64.b64decode(b"".join(words), validate=True)
    except ValueError:
        raise RdataSyntaxError(f"expected base64, got {_joined(words)!r}") from None


def _hex8(word: bytes) -> bytes:
    wire = b"" if word == b"-" else _unhex([word])
    if len(wire) > 255:
        raise RdataSyntaxError(f"expected at most 255 bytes in hexadecimal, got {len(wire)}")
    return bytes([len(wire)]) + wire


def _base32(word: bytes) -> bytes:
    try:
        text = word.upper().translate(_B32_BACK)
        wire = base64.b32decode(text + b"=" * (-len(text) % 8))
    except ValueError:
        raise RdataSyntaxError(f"expected base32hex (RFC 4648), got {_short(word)!r}") from None
    return bytes([len(wire)]) + wire


def _time(word: bytes) -> bytes:
    try:
        if len(word) == 14:
            return struct.pack("!I", calendar.timegm(time.strptime(word.decode(), "%Y%m%d%H%M%S")) & MAX_U32)
    except ValueError:
        raise RdataSyntaxError(f"expected a time as YYYYMMDDHHMMSS, got {_short(word)!r}") from None
    return struct.pack("!I", _number(word, MAX_U32))


def _bitmap(words: Sequence[bytes]) -> bytes:
    windows: dict[int, bytearray] = {}
    for number in sorted({rdtypes.from_text(shown(word)) for word in words}):
        window = windows.setdefault(number >> 8, bytearray())
        low = number & 0xFF
        window.extend(bytes(low // 8 + 1 - len(window)))
        window[low // 8] |= 0x80 >> low % 8
    return b"".join(bytes([number, len(window)]) + window for number, window in windows.items())


def _tag(word: bytes) -> bytes:
    if not (word.isalnum() and len(word) < 256):
        raise RdataSyntaxError(f"expected a tag of letters and digits (RFC 8659 section 4.1), got {_short(word)!r}")
    return bytes([len(word)]) + word.lower()


def _eui(word: bytes, size: int) -> bytes:
    if not re.fullmatch(rb"[0-9A-Fa-f]{2}(?:-[0-9A-Fa-f]{2}){%d}" % (size - 1), word):
        raise RdataSyntaxError(f"expected {size} bytes as 00-11-22-…, got {_short(word)!r}")
    return bytes.fromhex(word.decode().replace("-", ""))


def _locator(word: bytes) -> bytes:
    if not re.fullmatch(rb"[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4}){3}", word):
        raise RdataSyntaxError(f"expected a 64-bit locator as 2001:db8:1140:1000, got {_short(word)!r}")
    return struct.pack("!4H", *(int(part, 16) for part in word.split(b":")))


def _apl(words: Sequence[bytes]) -> bytes:
    wire = b""
    for word in words:
        match = re.fullmatch(rb"(!?)([12]):([0-9A-Fa-f.:]+)/([0-9]{1,3})", word)
        if match is None:
            raise RdataSyntaxError(f"expected an address prefix as 1:192.0.2.0/24 (RFC 3123), got {_short(word)!r}")
        negated, family, address, prefix = match.groups()
        packed = _ip4(address) if family == b"1" else _ip6(address)
        length = _number(prefix, len(packed) * 8)
        packed = packed.rstrip(b"\0")
        wire += struct.pack("!HBB", int(family), length, len(packed) | 0x80 * bool(negated)) + packed
    return wire


def _svcparams(words: Sequence[bytes]) -> bytes:
    found: dict[int, bytes] = {}
    for word in words:
        key, equals, value = word.partition(b"=")
        name = shown(key)
        if name in _SVC_KEYS:
            number = _SVC_KEYS.index(name)
        elif name.startswith("key") and name[3:].isascii() and name[3:].isdigit() and int(name[3:]) < 65_536:
            number = int(name[3:])
        else:
            raise RdataSyntaxError(f"expected a service parameter such as alpn=h2 (RFC 9460), got {_short(word)!r}")
        if number in found:
            raise RdataSyntaxError(f"expected {name} once (RFC 9460 section 2.2)")
        if value[:1] == value[-1:] == b'"' and len(value) > 1:
            value = value[1:-1]
        found[number] = _svc_value(number, value, bool(equals))
    return b"".join(struct.pack("!HH", number, len(value)) + value for number, value in sorted(found.items()))


def _protocols(value: bytes) -> Iterator[bytes]:
    """Parse a comma-separated list; yield its items, each with a length byte (RFC 9460 appendix A.1).

    Two levels of escapes are decoded: those of the character string, then those of the list.
    """
    data = _string_bytes(value)
    if not re.fullmatch(rb"(?:[^,\\]|\\.)+(?:,(?:[^,\\]|\\.)+)*", data, re.DOTALL):
        raise RdataSyntaxError(f"expected protocols such as alpn=h2,h3, got {_short(value)!r}")
    for part in re.findall(rb"(?:[^,\\]|\\.)+", data, re.DOTALL):
        protocol = re.sub(rb"\\(.)", rb"\1", part, flags=re.DOTALL)
        if len(protocol) > 255:
            raise RdataSyntaxError(f"expected protocols of at most 255 bytes, got one of {len(protocol)}")
        yield bytes([len(protocol)]) + protocol


def _svc_value(number: int, value: bytes, given: bool) -> bytes:
    parts = value.split(b",")
    if number == 0:
        keys = [_SVC_KEYS.index(shown(p)) if shown(p) in _SVC_KEYS else _number(p[3:], 65_535) for p in parts]
        return b"".join(struct.pack("!H", key) for key in sorted(keys))
    if number == 1:
        return b"".join(_protocols(value))
    if number == 2:
        if given:
            raise RdataSyntaxError("expected no-default-alpn without a value (RFC 9460 section 7.1)")
        return b""
    if number == 3:
        return struct.pack("!H", _number(value, 65_535))
    if number in {4, 6}:
        return b"".join((_ip4 if number == 4 else _ip6)(part) for part in parts)
    return _unbase64([value]) if number == 5 else _string_bytes(value)


def _loc(words: Sequence[bytes]) -> bytes:
    """Parse LOC (RFC 1876 section 3): latitude, longitude, altitude, size, horizontal and vertical precision."""
    left = list(words)

    def angle(plus: bytes, minus: bytes, limit: int) -> int:
        parts: list[bytes] = []
        while left and left[0].upper() not in {plus, minus}:
            parts.append(left.pop(0))
        if (
            not left
            or not 1 <= len(parts) <= 3
            or not all(re.fullmatch(rb"[0-9]{1,3}(\.[0-9]{1,3})?", p) for p in parts)
        ):
            raise RdataSyntaxError(f"expected LOC DEGREES MINUTES SECONDS N|S … E|W ALTITUDEm, got {_joined(words)!r}")
        total = round(sum(float(part) * 3_600_000 / (1, 60, 3600)[place] for place, part in enumerate(parts)))
        if total > limit * 3_600_000:
            raise RdataSyntaxError(f"expected at most {limit} degrees, got {_joined(words)!r}")
        return 2**31 + (total if left.pop(0).upper() == plus else -total)

    def centimetres(word: bytes) -> int:
        if not re.fullmatch(rb"-?[0-9]{1,8}(\.[0-9]{1,2})?m?", word):
            raise RdataSyntaxError(f"expected metres such as 10m, got {_short(word)!r}")
        return round(float(word.rstrip(b"m")) * 100)

    def precision(word: bytes) -> int:
        exponent, value = 0, max(0, centimetres(word))
        while value >= 10 and exponent < 9:
            value, exponent = value // 10, exponent + 1
        return min(value, 9) << 4 | exponent

    latitude, longitude = angle(b"N", b"S", 90), angle(b"E", b"W", 180)
    if not 1 <= len(left) <= 4:
        raise RdataSyntaxError(f"expected an altitude such as 10m and up to three precisions, got {_joined(left)!r}")
    altitude = centimetres(left[0]) + 10_000_000
    sizes = [precision(word) for word in left[1:]] + [0x12, 0x16, 0x13][len(left) - 1 :]
    if not 0 <= altitude <= MAX_U32:
        raise RdataSyntaxError(f"expected an altitude above -100000m, got {_short(left[0])}")
    return struct.pack("!BBBBIII", 0, *sizes, latitude, longitude, altitude)


Reader = Callable[[Sequence[bytes], Name | None], bytes]
_READ: dict[str, Reader] = {
    "u8": lambda w, _: bytes([_number(w[0], 255)]),
    "u16": lambda w, _: struct.pack("!H", _number(w[0], 65_535)),
    "algorithm": lambda w, _: _coded(w[0], 1, _ALGORITHMS),
    "certificate": lambda w, _: _coded(w[0], 2, _CERTIFICATES),
    "u32": lambda w, _: struct.pack("!I", _number(w[0], MAX_U32)),
    "ttl": lambda w, _: struct.pack("!I", seconds(w[0])),
    "name": lambda w, origin: Name.from_text(w[0], origin).wire,
    "ip4": lambda w, _: _ip4(w[0]),
    "ip6": lambda w, _: _ip6(w[0]),
    "str": lambda w, _: _string(w[0]),
    "str+": lambda w, _: b"".join(map(_string, w)),
    "hex": lambda w, _: _unhex(w),
    "base64": lambda w, _: _unbase64(w),
    "hex8": lambda w, _: _hex8(w[0]),
    "base32": lambda w, _: _base32(w[0]),
    "type": lambda w, _: struct.pack("!H", rdtypes.from_text(shown(w[0]))),
    "bitmap": lambda w, _: _bitmap(w),
    "time": lambda w, _: _time(w[0]),
    "tag": lambda w, _: _tag(w[0]),
    "text": lambda w, _: _string_bytes(w[0]),
    "svcparams": lambda w, _: _svcparams(w),
    "apl": lambda w, _: _apl(w),
    "loc": lambda w, _: _loc(w),
    "eui48": lambda w, _: _eui(w[0], 6),
    "eui64": lambda w, _: _eui(w[0], 8),
    "locator": lambda w, _: _locator(w[0]),
}


# --- field formatters: wire format to text ----------------------------------------------------------------------------


def _take(wire: bytes, at: int, size: int) -> bytes:
    if at + size > len(wire):
        raise ValueError("the RDATA is cut short")
    return wire[at : at + size]


def _name_end(wire: bytes, at: int) -> int:
    start, length = at, 0
    while length := wire[at]:
        if length > 63:
            raise ValueError("a compressed name")
        at += 1 + length
    if at - start >= 255:
        raise ValueError("a name over 255 bytes")
    return at + 1


def _unsigned(size: int) -> Callable[[bytes, int], tuple[str, int]]:
    return lambda wire, at: (str(int.from_bytes(_take(wire, at, size), "big")), at + size)


def _write_name(wire: bytes, at: int) -> tuple[str, int]:
    end = _name_end(wire, at)
    return str(Name(wire[at:end])), end


def _write_string(wire: bytes, at: int) -> tuple[str, int]:
    return quoted(_take(wire, at + 1, wire[at])), at + 1 + wire[at]


def _write_strings(wire: bytes, at: int) -> tuple[str, int]:
    words: list[str] = []
    while at < len(wire) or not words:
        word, at = _write_string(wire, at)
        words.append(word)
    return " ".join(words), at


def _write_type(wire: bytes, at: int) -> tuple[str, int]:
    return rdtypes.to_text(int.from_bytes(_take(wire, at, 2), "big")), at + 2


def _write_bitmap(wire: bytes, at: int) -> tuple[str, int]:
    words = []
    previous = -1
    while at < len(wire):
        window, bits = wire[at], _take(wire, at + 2, wire[at + 1])
        if window <= previous or not 1 <= len(bits) <= 32 or not bits[-1]:
            raise ValueError("not a type bitmap (RFC 4034 section 4.1.2)")
        previous = window
        words += [
            rdtypes.to_text(window << 8 | place << 3 | bit)
            for place, byte in enumerate(bits)
            for bit in range(8)
            if byte & 0x80 >> bit
        ]
        at += 2 + len(bits)
    return " ".join(words), at


def _write_time(wire: bytes, at: int) -> tuple[str, int]:
    moment = time.gmtime(int.from_bytes(_take(wire, at, 4), "big"))
    return time.strftime("%Y%m%d%H%M%S", moment), at + 4


def _write_counted(render: Callable[[bytes], str]) -> Callable[[bytes, int], tuple[str, int]]:
    return lambda wire, at: (render(_take(wire, at + 1, wire[at])) or "-", at + 1 + wire[at])


def _write_tag(wire: bytes, at: int) -> tuple[str, int]:
    tag = _take(wire, at + 1, wire[at])
    if not tag.isalnum() or not tag.isascii():
        raise ValueError("not a property tag")
    return tag.decode().lower(), at + 1 + len(tag)


def _write_apl(wire: bytes, at: int) -> tuple[str, int]:
    words = []
    while at < len(wire):
        family, prefix, flags = struct.unpack_from("!HBB", wire, at)
        size = {1: 4, 2: 16}[family]
        if prefix > 8 * size:
            raise ValueError("not an address prefix (RFC 3123 section 4)")
        packed = _take(wire, at + 4, flags & 0x7F).ljust(size, b"\0")
        text = socket.inet_ntop(socket.AF_INET if family == 1 else socket.AF_INET6, packed)
        words.append(f"{'!' if flags & 0x80 else ''}{family}:{text}/{prefix}")
        at += 4 + (flags & 0x7F)
    return " ".join(words), at


def _write_svcparams(wire: bytes, at: int) -> tuple[str, int]:
    words = []
    previous = -1
    while at < len(wire):
        number, size = struct.unpack_from("!HH", wire, at)
        if number <= previous or (not size and number in _SVC_VALUED):
            raise ValueError("not service parameters (RFC 9460 section 2.2)")
        previous = number
        value = _take(wire, at + 4, size)
        at += 4 + size
        key = _SVC_KEYS[number] if number < len(_SVC_KEYS) else f"key{number}"
        words.append(key + ("=" + _svc_text(number, value) if value else ""))
    return " ".join(words), at


def _svc_text(number: int, value: bytes) -> str:
    if number == 0 and value:
        keys = struct.unpack(f"!{len(value) // 2}H", value)
        return ",".join(_SVC_KEYS[key] if key < len(_SVC_KEYS) else f"key{key}" for key in keys)
    if number == 1:
        protocols, at = [], 0
        while at < len(value):
            protocols.append(_take(value, at + 1, value[at]).replace(b"\\", b"\\\\").replace(b",", b"\\,"))
            at += 1 + value[at]
        return quoted(b",".join(protocols))
    if number == 3:
        return str(struct.unpack("!H", value)[0])
    if number in {4, 6}:
        size, family = (4, socket.AF_INET) if number == 4 else (16, socket.AF_INET6)
        return ",".join(socket.inet_ntop(family, value[i : i + size]) for i in range(0, len(value), size))
    return base64.b64encode(value).decode() if number == 5 else quoted(value)


def _write_loc(wire: bytes, at: int) -> tuple[str, int]:
    version, size, horizontal, vertical, latitude, longitude, altitude = struct.unpack_from("!BBBBIII", wire, at)
    if version:
        raise ValueError("not version 0 of LOC")

    def angle(value: int, plus: str, minus: str, limit: int) -> str:
        off = abs(value - 2**31)
        if off > limit * 3_600_000:
            raise ValueError("not an angle of LOC")
        degrees, rest = divmod(off, 3_600_000)
        minutes, milliseconds = divmod(rest, 60_000)
        return f"{degrees} {minutes} {milliseconds / 1000:.3f} {plus if value >= 2**31 else minus}"

    def metres(value: int) -> str:
        return f"{(value >> 4) * 10 ** (value & 15) / 100:.2f}m"

    height = f"{(altitude - 10_000_000) / 100:.2f}m"
    words = [
        angle(latitude, "N", "S", 90),
        angle(longitude, "E", "W", 180),
        height,
        *map(metres, (size, horizontal, vertical)),
    ]
    return " ".join(words), at + 16


def _rest(render: Callable[[bytes], str]) -> Callable[[bytes, int], tuple[str, int]]:
    return lambda wire, at: (render(wire[at:]), len(wire))


def _pairs(size: int) -> Callable[[bytes, int], tuple[str, int]]:
    return lambda wire, at: (_take(wire, at, size).hex("-"), at + size)


_WRITE: dict[str, Callable[[bytes, int], tuple[str, int]]] = {
    "u8": _unsigned(1),
    "u16": _unsigned(2),
    "algorithm": _unsigned(1),
    "certificate": _unsigned(2),
    "u32": _unsigned(4),
    "ttl": _unsigned(4),
    "name": _write_name,
    "ip4": lambda wire, at: (socket.inet_ntop(socket.AF_INET, _take(wire, at, 4)), at + 4),
    "ip6": lambda wire, at: (socket.inet_ntop(socket.AF_INET6, _take(wire, at, 16)), at + 16),
    "str": _write_string,
    "str+": _write_strings,
    "hex": _rest(bytes.hex),
    "base64": _rest(lambda data: base64.b64encode(data).decode()),
    "hex8": _write_counted(bytes.hex),
    "base32": _write_counted(lambda data: base64.b32encode(data).translate(_B32).decode().rstrip("=").lower()),
    "type": _write_type,
    "bitmap": _write_bitmap,
    "time": _write_time,
    "tag": _write_tag,
    "text": _rest(quoted),
    "svcparams": _write_svcparams,
    "apl": _write_apl,
    "loc": _write_loc,
    "eui48": _pairs(6),
    "eui64": _pairs(8),
    "locator": lambda wire, at: (":".join(f"{part:04x}" for part in struct.unpack_from("!4H", wire, at)), at + 8),
}
