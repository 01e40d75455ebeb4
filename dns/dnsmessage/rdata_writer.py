r"""Write RDATA in presentation format (RFC 1035 section 5.1), as described by `rdtypes.FIELDS`.

RDATA of a type without an entry in `FIELDS`, and RDATA that does not match its entry, is written as ``\# LENGTH HEX``
(RFC 3597 section 5).
"""

import base64
import socket
import struct
import time
from collections.abc import Callable, Mapping

from dnsmessage import rdtypes
from dnsmessage.errors import LocalError, RemoteError
from dnsmessage.name import Name

SVC_KEYS = ("mandatory", "alpn", "no-default-alpn", "port", "ipv4hint", "ech", "ipv6hint", "dohpath", "ohttp")
#: Field kinds whose value must not be empty.
_NEEDED = frozenset({"hex", "base64", "base32"})
#: Service parameters that need a value: all registered parameters except no-default-alpn.
_SVC_VALUED = frozenset({0, 1, 3, 4, 5, 6})

_B32 = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", b"0123456789ABCDEFGHIJKLMNOPQRSTUV")


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


def fits(rdtype: int, wire: bytes) -> bool:
    """Return whether *wire* is well-formed RDATA of a type that has its own presentation format."""
    try:
        return to_text(rdtype, wire)[:2] != "\\#"
    except LocalError:
        return False


def quoted(data: bytes) -> str:
    """Return *data* as a quoted character string in presentation format."""
    return '"' + "".join(
        f"\\{chr(c)}" if c in b'"\\' else chr(c) if 0x20 <= c < 0x7F else f"\\{c:03d}" for c in data
    ) + '"'  # fmt: skip


# --- field formatters: wire format to text ----------------------------------------------------------------------------


def _take(wire: bytes, at: int, size: int) -> bytes:
    if at + size > len(wire):
        raise ValueError("the RDATA is cut short")
    return wire[at : at + size]


def name_end(wire: bytes, at: int) -> int:
    """Return the offset after the uncompressed name at *at*; raise `ValueError` or `IndexError` if it is malformed."""
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
    end = name_end(wire, at)
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
    words, found = [], dict[int, bytes]()
    previous = -1
    while at < len(wire):
        number, size = struct.unpack_from("!HH", wire, at)
        if number <= previous or (not size and number in _SVC_VALUED):
            raise ValueError("not service parameters (RFC 9460 section 2.2)")
        previous = number
        value = found[number] = _take(wire, at + 4, size)
        at += 4 + size
        key = SVC_KEYS[number] if number < len(SVC_KEYS) else f"key{number}"
        words.append(key + ("=" + _svc_text(number, value) if value else ""))
    if not consistent(found):
        raise ValueError("service parameters that contradict each other")
    return " ".join(words), at


def consistent(parameters: Mapping[int, bytes]) -> bool:
    """Return whether *parameters*, the service parameters of one record by key, do not contradict each other.

    ``mandatory`` must list other parameters of the record in ascending order (RFC 9460 section 8), and
    ``no-default-alpn`` requires ``alpn`` (section 7.1.1).
    """
    listed = parameters.get(0, b"")
    keys = [int.from_bytes(listed[at : at + 2], "big") for at in range(0, len(listed), 2)]
    listed_once = keys == sorted(set(keys)) and 0 not in keys and all(key in parameters for key in keys)
    return listed_once and (2 not in parameters or 1 in parameters)


def _svc_text(number: int, value: bytes) -> str:
    if number == 0 and value:
        keys = struct.unpack(f"!{len(value) // 2}H", value)
        return ",".join(SVC_KEYS[key] if key < len(SVC_KEYS) else f"key{key}" for key in keys)
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


def _write_wks(wire: bytes, at: int) -> tuple[str, int]:
    protocol, bits = wire[at], wire[at + 1 :]
    if len(bits) > 8192 or bits.endswith(b"\0"):
        raise ValueError("not a bitmap of ports (RFC 1035 section 3.4.2)")
    ports = [place << 3 | bit for place, byte in enumerate(bits) for bit in range(8) if byte & 0x80 >> bit]
    return " ".join(map(str, (protocol, *ports))), len(wire)


def _write_ipseckey(wire: bytes, at: int) -> tuple[str, int]:
    kind = wire[at + 1]
    forms = (lambda _, at: (".", at)), _WRITE["ip4"], _WRITE["ip6"], _write_name
    gateway, end = forms[kind](wire, at + 3)
    key = base64.b64encode(wire[end:]).decode()
    return f"{wire[at]} {kind} {wire[at + 2]} {gateway} {key}".rstrip(), len(wire)


def _write_hip(wire: bytes, at: int) -> tuple[str, int]:
    tag, algorithm, key = struct.unpack_from("!BBH", wire, at)
    end = at + 4 + tag
    words = [str(algorithm), _take(wire, at + 4, tag).hex(), base64.b64encode(_take(wire, end, key)).decode()]
    if not tag or not key:
        raise ValueError("an empty field")
    end += key
    while end < len(wire):
        name, end = _write_name(wire, end)
        words.append(name)
    return " ".join(words), end


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
    "wks": _write_wks,
    "ipseckey": _write_ipseckey,
    "hip": _write_hip,
    "eui48": _pairs(6),
    "eui64": _pairs(8),
    "locator": lambda wire, at: (":".join(f"{part:04x}" for part in struct.unpack_from("!4H", wire, at)), at + 8),
}
