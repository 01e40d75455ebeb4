r"""Parse RDATA in presentation format (RFC 1035 section 5.1), as described by `rdtypes.FIELDS`.

The form ``\# LENGTH HEX`` (RFC 3597 section 5) is accepted for every type. `rdata_words` parses single words;
this module combines them, and parses the formats specific to one record type.
"""

import re
import struct
from collections.abc import Callable, Iterator, Sequence

from dnsmessage import rdata_words as parse
from dnsmessage import rdtypes
from dnsmessage.errors import NameSyntaxError, RdataSyntaxError
from dnsmessage.name import Name, shown
from dnsmessage.rdata_writer import SVC_KEYS, consistent, fits

MAX_RDATA = 65_535
#: Expected form of each kind of field, for error messages.
_FORMS = {
    "ip4": "IPv4-ADDRESS", "ip6": "IPv6-ADDRESS", "str": "TEXT", "str+": "TEXT…", "svcparams": "KEY=VALUE…",
    "loc": "LOCATION…", "apl": "PREFIX…", "bitmap": "TYPE…", "hex": "HEX…", "base64": "BASE64…", "text": "TEXT",
    "wks": "PROTOCOL PORT…", "ipseckey": "PRECEDENCE TYPE ALGORITHM GATEWAY KEY…", "hip": "ALGORITHM HIT KEY SERVER…",
}  # fmt: skip
#: Numbers of the certificate types of CERT records, keyed by mnemonic (RFC 4398 section 2.1).
_CERTIFICATES = {
    b"PKIX": 1, b"SPKI": 2, b"PGP": 3, b"IPKIX": 4, b"ISPKI": 5, b"IPGP": 6, b"ACPKIX": 7, b"IACPKIX": 8, b"URI": 253,
    b"OID": 254,
}  # fmt: skip
#: Numbers of the DNSSEC algorithms, keyed by mnemonic (IANA registry).
_ALGORITHMS = {
    b"DELETE": 0, b"RSAMD5": 1, b"DH": 2, b"DSA": 3, b"RSASHA1": 5, b"DSA-NSEC3-SHA1": 6, b"RSASHA1-NSEC3-SHA1": 7,
    b"RSASHA256": 8, b"RSASHA512": 10, b"ECC-GOST": 12, b"ECDSAP256SHA256": 13, b"ECDSAP384SHA384": 14, b"ED25519": 15,
    b"ED448": 16, b"INDIRECT": 252, b"PRIVATEDNS": 253, b"PRIVATEOID": 254,
}  # fmt: skip
#: Port numbers in WKS records, keyed by service name; each service uses the same port over TCP and UDP.
_SERVICES = {
    b"ECHO": 7, b"DISCARD": 9, b"DAYTIME": 13, b"FTP-DATA": 20, b"FTP": 21, b"SSH": 22, b"TELNET": 23, b"SMTP": 25,
    b"TIME": 37, b"DOMAIN": 53, b"TFTP": 69, b"FINGER": 79, b"HTTP": 80, b"POP3": 110, b"SUNRPC": 111, b"NNTP": 119,
    b"NTP": 123, b"IMAP": 143, b"SNMP": 161, b"HTTPS": 443,
}  # fmt: skip
#: Field kinds that consume all remaining words.
_REST = frozenset({"str+", "hex", "base64", "bitmap", "svcparams", "apl", "loc", "wks", "ipseckey", "hip"})


def from_text(rdtype: int, words: Sequence[bytes], origin: Name | None) -> bytes:
    r"""Return the wire form of the RDATA *words* of a master file, which have no quotes but still have their escapes.

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
                f"expected {rdtypes.to_text(rdtype)} as \\# LENGTH HEX (RFC 3597), got {parse.joined(words)}"
            )
        rest = fields[-1] in _REST
        required = len(fields) - (fields[-1] in {"bitmap", "svcparams", "apl"})
        if len(words) < required or (len(words) > len(fields) and not rest):
            form = " ".join(_FORMS.get(each, each.upper()) for each in fields)
            raise RdataSyntaxError(
                f"expected {rdtypes.to_text(rdtype)} {form}, "
                f"got {len(words)} word{'s' * (len(words) != 1)}: {parse.joined(words)}"
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


def _generic(rdtype: int, words: Sequence[bytes]) -> bytes:
    length = parse.number(words[0], MAX_RDATA) if words else -1
    wire = parse.unhex(words[1:])
    if len(wire) != length:
        raise RdataSyntaxError(f"expected \\# LENGTH HEX with LENGTH bytes, got {length} and {len(wire)} bytes")
    if rdtypes.EXACT.get(rdtype, length) != length or (rdtype in rdtypes.LAYOUTS and not fits(rdtype, wire)):
        raise RdataSyntaxError(f"expected {rdtypes.to_text(rdtype)} in its own format, got \\# {length}")
    return wire


def _apl(words: Sequence[bytes]) -> bytes:
    wire = b""
    for word in words:
        match = re.fullmatch(rb"(!?)([12]):([0-9A-Fa-f.:]+)/([0-9]{1,3})", word)
        if match is None:
            raise RdataSyntaxError(
                f"expected an address prefix as 1:192.0.2.0/24 (RFC 3123), got {parse.short(word)!r}"
            )
        negated, family, address, prefix = match.groups()
        packed = parse.ip4(address) if family == b"1" else parse.ip6(address)
        length = parse.number(prefix, len(packed) * 8)
        packed = packed.rstrip(b"\0")
        wire += struct.pack("!HBB", int(family), length, len(packed) | 0x80 * bool(negated)) + packed
    return wire


def _svcparams(words: Sequence[bytes]) -> bytes:
    found: dict[int, bytes] = {}
    for word in words:
        key, equals, value = word.partition(b"=")
        name = shown(key)
        if name in SVC_KEYS:
            number = SVC_KEYS.index(name)
        elif name.startswith("key") and name[3:].isascii() and name[3:].isdigit() and int(name[3:]) < 65_536:
            number = int(name[3:])
        else:
            raise RdataSyntaxError(
                f"expected a service parameter such as alpn=h2 (RFC 9460), got {parse.short(word)!r}"
            )
        if number in found:
            raise RdataSyntaxError(f"expected {name} once (RFC 9460 section 2.2)")
        if value[:1] == value[-1:] == b'"' and len(value) > 1:
            value = value[1:-1]
        found[number] = _svc_value(number, value, bool(equals))
    if not consistent(found):
        raise RdataSyntaxError(
            "expected mandatory to list other parameters of this record, each once (RFC 9460 section 8), "
            "and no-default-alpn only with alpn"
        )
    return b"".join(struct.pack("!HH", number, len(value)) + value for number, value in sorted(found.items()))


def _protocols(value: bytes) -> Iterator[bytes]:
    """Parse a comma-separated list; yield each item with a one-byte length prefix (RFC 9460 appendix A.1).

    Two levels of escapes are decoded: those of the character string, then those of the list.
    """
    data = parse.string_bytes(value)
    if not re.fullmatch(rb"(?:[^,\\]|\\.)+(?:,(?:[^,\\]|\\.)+)*", data, re.DOTALL):
        raise RdataSyntaxError(f"expected protocols such as alpn=h2,h3, got {parse.short(value)!r}")
    for part in re.findall(rb"(?:[^,\\]|\\.)+", data, re.DOTALL):
        protocol = re.sub(rb"\\(.)", rb"\1", part, flags=re.DOTALL)
        if len(protocol) > 255:
            raise RdataSyntaxError(f"expected protocols of at most 255 bytes, got one of {len(protocol)}")
        yield bytes([len(protocol)]) + protocol


def _svc_value(number: int, value: bytes, given: bool) -> bytes:
    parts = value.split(b",")
    if number == 0:
        keys = [SVC_KEYS.index(shown(p)) if shown(p) in SVC_KEYS else parse.number(p[3:], 65_535) for p in parts]
        return b"".join(struct.pack("!H", key) for key in sorted(keys))
    if number == 1:
        return b"".join(_protocols(value))
    if number == 2:
        if given:
            raise RdataSyntaxError("expected no-default-alpn without a value (RFC 9460 section 7.1)")
        return b""
    if number == 3:
        return struct.pack("!H", parse.number(value, 65_535))
    if number in {4, 6}:
        return b"".join((parse.ip4 if number == 4 else parse.ip6)(part) for part in parts)
    return parse.unbase64([value]) if number == 5 else parse.string_bytes(value)


def _loc(words: Sequence[bytes]) -> bytes:
    """Parse LOC RDATA (RFC 1876 section 3): latitude, longitude, altitude, size, horizontal and vertical precision."""
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
            raise RdataSyntaxError(
                f"expected LOC DEGREES MINUTES SECONDS N|S … E|W ALTITUDEm, got {parse.joined(words)!r}"
            )
        total = round(sum(float(part) * 3_600_000 / (1, 60, 3600)[place] for place, part in enumerate(parts)))
        if total > limit * 3_600_000:
            raise RdataSyntaxError(f"expected at most {limit} degrees, got {parse.joined(words)!r}")
        return 2**31 + (total if left.pop(0).upper() == plus else -total)

    def centimetres(word: bytes) -> int:
        if not re.fullmatch(rb"-?[0-9]{1,8}(\.[0-9]{1,2})?m?", word):
            raise RdataSyntaxError(f"expected metres such as 10m, got {parse.short(word)!r}")
        return round(float(word.rstrip(b"m")) * 100)

    def precision(word: bytes) -> int:
        exponent, value = 0, max(0, centimetres(word))
        while value >= 10 and exponent < 9:
            value, exponent = value // 10, exponent + 1
        return min(value, 9) << 4 | exponent

    latitude, longitude = angle(b"N", b"S", 90), angle(b"E", b"W", 180)
    if not 1 <= len(left) <= 4:
        raise RdataSyntaxError(
            f"expected an altitude such as 10m and up to three precisions, got {parse.joined(left)!r}"
        )
    altitude = centimetres(left[0]) + 10_000_000
    sizes = [precision(word) for word in left[1:]] + [0x12, 0x16, 0x13][len(left) - 1 :]
    if not 0 <= altitude <= parse.MAX_U32:
        raise RdataSyntaxError(f"expected an altitude above -100000m, got {parse.short(left[0])}")
    return struct.pack("!BBBBIII", 0, *sizes, latitude, longitude, altitude)


def _wks(words: Sequence[bytes], _: Name | None) -> bytes:
    """Parse the protocol and ports of a WKS record (RFC 1035 section 3.4.2), each written as a number or a name."""
    protocol, ports = parse.coded(words[0], 1, {b"TCP": 6, b"UDP": 17}), bytearray()
    for word in words[1:]:
        port = int.from_bytes(parse.coded(word, 2, _SERVICES), "big")
        ports.extend(bytes(port // 8 + 1 - len(ports)))
        ports[port // 8] |= 0x80 >> port % 8
    return protocol + ports


def _ipseckey(words: Sequence[bytes], origin: Name | None) -> bytes:
    """Parse IPSECKEY RDATA (RFC 4025 section 3); the gateway type determines the format of the gateway field."""
    if len(words) < 4:
        raise RdataSyntaxError(f"expected IPSECKEY {_FORMS['ipseckey']}, got {parse.joined(words)}")
    head = bytes(parse.number(word, 255) for word in words[:3])
    if head[1] > 3 or (head[1] == 0 and words[3] != b"."):
        raise RdataSyntaxError(f"expected a gateway of type 1, 2 or 3, or 0 and a dot; got {parse.joined(words[:4])}")
    gateways = (b"", parse.ip4, parse.ip6, lambda word: Name.from_text(word, origin).wire)
    gateway = gateways[head[1]]
    return head + (gateway(words[3]) if callable(gateway) else gateway) + parse.unbase64(words[4:])


def _hip(words: Sequence[bytes], origin: Name | None) -> bytes:
    """Parse HIP RDATA (RFC 8005 section 5): algorithm, host identity tag, public key and rendezvous servers' names."""
    if len(words) < 3:
        raise RdataSyntaxError(f"expected HIP {_FORMS['hip']}, got {parse.joined(words)}")
    tag, key = parse.hex8(words[1]), parse.unbase64([words[2]])
    head = tag[:1] + bytes([parse.number(words[0], 255)]) + struct.pack("!H", min(len(key), 0xFFFF))
    return head + tag[1:] + key + b"".join(Name.from_text(word, origin).wire for word in words[3:])


Reader = Callable[[Sequence[bytes], Name | None], bytes]
_READ: dict[str, Reader] = {
    "u8": lambda w, _: bytes([parse.number(w[0], 255)]),
    "u16": lambda w, _: struct.pack("!H", parse.number(w[0], 65_535)),
    "algorithm": lambda w, _: parse.coded(w[0], 1, _ALGORITHMS),
    "certificate": lambda w, _: parse.coded(w[0], 2, _CERTIFICATES),
    "u32": lambda w, _: struct.pack("!I", parse.number(w[0], parse.MAX_U32)),
    "ttl": lambda w, _: struct.pack("!I", parse.seconds(w[0])),
    "name": lambda w, origin: Name.from_text(w[0], origin).wire,
    "ip4": lambda w, _: parse.ip4(w[0]),
    "ip6": lambda w, _: parse.ip6(w[0]),
    "str": lambda w, _: parse.string(w[0]),
    "str+": lambda w, _: b"".join(map(parse.string, w)),
    "hex": lambda w, _: parse.unhex(w),
    "base64": lambda w, _: parse.unbase64(w),
    "hex8": lambda w, _: parse.hex8(w[0]),
    "base32": lambda w, _: parse.base32(w[0]),
    "type": lambda w, _: struct.pack("!H", rdtypes.from_text(shown(w[0]))),
    "bitmap": lambda w, _: parse.bitmap(w),
    "time": lambda w, _: parse.moment(w[0]),
    "tag": lambda w, _: parse.tag(w[0]),
    "text": lambda w, _: parse.string_bytes(w[0]),
    "svcparams": lambda w, _: _svcparams(w),
    "apl": lambda w, _: _apl(w),
    "loc": lambda w, _: _loc(w),
    "wks": _wks,
    "ipseckey": _ipseckey,
    "hip": _hip,
    "eui48": lambda w, _: parse.eui(w[0], 6),
    "eui64": lambda w, _: parse.eui(w[0], 8),
    "locator": lambda w, _: parse.locator(w[0]),
}
