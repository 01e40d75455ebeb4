"""Record types: numbers, mnemonics and RDATA fields (RFC 1035 section 3.3 and the IANA registry).

RDATA of a type that is not in `FIELDS` is treated as opaque bytes (RFC 3597). Field kinds:

====================  ================================================================================
``u8 u16 u32``        unsigned numbers; ``ttl`` is a u32 that may be written as ``1h30m``
``name``              a domain name
``ip4 ip6``           IPv4 and IPv6 addresses
``str``               a character string of at most 255 bytes; ``str+``: one or more of them
``hex base64``        the rest of the RDATA; ``hex8`` and ``base32`` are preceded by a length byte
``type bitmap``       the mnemonic of a type; the type bitmap of NSEC
``algorithm``         a u8 that may be written as the mnemonic of a DNSSEC algorithm (RFC 4034 appendix A.1)
``certificate``       a u16 that may be written as the mnemonic of a certificate type (RFC 4398 section 2.1)
``time``              seconds since 1970, written as ``YYYYMMDDHHMMSS``
``tag text``          the property tag of CAA; the rest of the RDATA as one quoted string
``svcparams apl loc wks ipseckey hip eui48 eui64 locator``   formats specific to the types that use them
====================  ================================================================================
"""

from collections.abc import Sequence

from dnsmessage.errors import RdataSyntaxError

A, NS, CNAME, SOA, PTR, MX, TXT, AAAA, SRV, DNAME, OPT, DS = 1, 2, 5, 6, 12, 15, 16, 28, 33, 39, 41, 43
IXFR, AXFR, ANY = 251, 252, 255
IN, NONE = 1, 254

_KEY, _DS = "u16 u8 algorithm base64", "u16 algorithm u8 hex"
_SIG = "type algorithm u8 ttl time time u16 name base64"
_TABLE: dict[int, tuple[str, str]] = {
    1: ("A", "ip4"), 2: ("NS", "name"), 3: ("MD", "name"), 4: ("MF", "name"), 5: ("CNAME", "name"),
    6: ("SOA", "name name u32 ttl ttl ttl ttl"), 7: ("MB", "name"), 8: ("MG", "name"), 9: ("MR", "name"),
    10: ("NULL", ""), 11: ("WKS", "ip4 wks"), 12: ("PTR", "name"), 13: ("HINFO", "str str"), 14: ("MINFO", "name name"),
    15: ("MX", "u16 name"), 16: ("TXT", "str+"), 17: ("RP", "name name"), 18: ("AFSDB", "u16 name"), 19: ("X25", "str"),
    20: ("ISDN", "str+"), 21: ("RT", "u16 name"), 22: ("NSAP", ""), 23: ("NSAP-PTR", "name"), 24: ("SIG", _SIG),
    25: ("KEY", _KEY), 26: ("PX", "u16 name name"), 27: ("GPOS", "str str str"), 28: ("AAAA", "ip6"),
    29: ("LOC", "loc"), 30: ("NXT", "name hex"), 33: ("SRV", "u16 u16 u16 name"),
    35: ("NAPTR", "u16 u16 str str str name"), 36: ("KX", "u16 name"), 37: ("CERT", "certificate u16 algorithm base64"),
    38: ("A6", ""), 39: ("DNAME", "name"), 41: ("OPT", ""), 42: ("APL", "apl"), 43: ("DS", _DS),
    44: ("SSHFP", "u8 u8 hex"), 45: ("IPSECKEY", "ipseckey"), 46: ("RRSIG", _SIG), 47: ("NSEC", "name bitmap"),
    48: ("DNSKEY", _KEY), 49: ("DHCID", "base64"), 50: ("NSEC3", "u8 u8 u16 hex8 base32 bitmap"),
    51: ("NSEC3PARAM", "u8 u8 u16 hex8"), 52: ("TLSA", "u8 u8 u8 hex"), 53: ("SMIMEA", "u8 u8 u8 hex"),
    55: ("HIP", "hip"), 59: ("CDS", _DS), 60: ("CDNSKEY", _KEY), 61: ("OPENPGPKEY", "base64"),
    62: ("CSYNC", "u32 u16 bitmap"), 63: ("ZONEMD", "u32 u8 u8 hex"), 64: ("SVCB", "u16 name svcparams"),
    65: ("HTTPS", "u16 name svcparams"),
    99: ("SPF", "str+"), 104: ("NID", "u16 locator"), 105: ("L32", "u16 ip4"), 106: ("L64", "u16 locator"),
    107: ("LP", "u16 name"), 108: ("EUI48", "eui48"), 109: ("EUI64", "eui64"), 249: ("TKEY", ""), 250: ("TSIG", ""),
    251: ("IXFR", ""), 252: ("AXFR", ""), 253: ("MAILB", ""), 254: ("MAILA", ""), 255: ("ANY", ""),
    256: ("URI", "u16 u16 text"), 257: ("CAA", "u8 tag text"), 32768: ("TA", _DS), 32769: ("DLV", _DS),
}  # fmt: skip

NAMES: dict[int, str] = {number: name for number, (name, _) in _TABLE.items()}
_NUMBERS: dict[str, int] = {name: number for number, name in NAMES.items()}
#: Field kinds of each type that has its own presentation format, in wire order.
FIELDS: dict[int, tuple[str, ...]] = {number: tuple(fields.split()) for number, (_, fields) in _TABLE.items() if fields}
#: Types for queries and transactions, which must not appear in a zone (RFC 6895 section 3.1).
META = frozenset({OPT, *range(128, 256)}) - {0}

_SIZES = {"u8": 1, "algorithm": 1, "u16": 2, "u32": 4, "ttl": 4, "time": 4, "type": 2, "ip4": 4, "ip6": 16}
Layout = tuple[int | str, ...]


def _layout(fields: Sequence[str]) -> Layout:
    """Return the parsing steps up to the last name: a number of bytes to copy, ``name``, or ``str``."""
    last = len(fields) - fields[::-1].index("name")
    return tuple(_SIZES.get(field, field) for field in fields[:last])


#: Parsing steps that locate the names in RDATA, for each type that contains names: those listed in RFC 3597 section 4
#: and all later types with a name.
LAYOUTS: dict[int, Layout] = {number: _layout(fields) for number, fields in FIELDS.items() if "name" in fields}
#: Types whose RDATA names may be compressed in a message: only those of RFC 1035 (RFC 3597 section 4).
COMPRESSIBLE = frozenset({2, 3, 4, 5, 6, 7, 8, 9, 12, 14, 15})
#: Exact RDATA length in bytes, for types with a fixed length.
EXACT = {A: 4, AAAA: 16}


def to_text(rdtype: int) -> str:
    """Return the mnemonic of a type; ``TYPE<number>`` if it has none, for example ``TYPE65280``."""
    return NAMES.get(rdtype) or f"TYPE{rdtype}"


def from_text(text: str) -> int:
    """Return the type number for a mnemonic in any case or ``TYPE65280``; raise `RdataSyntaxError` on failure."""
    word = text.upper()
    number = _NUMBERS.get(word)
    if number is None and word.startswith("TYPE") and word[4:].isascii() and word[4:].isdigit() and len(word) < 10:
        number = int(word[4:])
    if number is None or number > 0xFFFF:
        raise RdataSyntaxError(f"expected a record type such as A, MX or TYPE65280; got {text!r}")
    return number
