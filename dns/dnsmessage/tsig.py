"""Transaction signatures: HMACs over whole DNS messages with a shared key (RFC 8945).

A client signs a request with `sign` and checks the responses with a `Verifier`; a server checks a request with `verify`
and signs its responses with a `Signer`. Transfers of several messages are supported (section 5.3.1). Nothing here reads
a clock: *now* is always an argument, in seconds since 1970.
"""

import hmac
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from dnsmessage.errors import RemoteError
from dnsmessage.message import FORMERR, HEADER, MAX_RECORDS, NOTAUTH, error_response
from dnsmessage.name import Name

TSIG, _ANY = 250, 255
BADSIG, BADKEY, BADTIME, BADTRUNC = 16, 17, 18, 22
#: Names of the error codes in a TSIG record, for log lines (RFC 8945 section 3).
ERRORS = {BADSIG: "BADSIG", BADKEY: "BADKEY", BADTIME: "BADTIME", BADTRUNC: "BADTRUNC"}
#: Maximum clock difference between client and server, in seconds (recommended in RFC 8945 section 10).
FUDGE = 300
#: Maximum number of unsigned messages between two signed ones in a transfer (RFC 8945 section 5.3.1).
MAX_UNSIGNED = 99
#: Minimum length of a truncated MAC in bytes, even if the key allows shorter ones (RFC 8945 section 5.2.2.1).
MIN_MAC = 10
#: hashlib's name of each hash function, keyed by the algorithm's name in the TSIG record (RFC 8945 section 6).
ALGORITHMS = {
    Name.from_text(f"{name}."): hash_name
    for name, hash_name in {
        "hmac-md5.sig-alg.reg.int": "md5", "hmac-sha1": "sha1", "hmac-sha224": "sha224", "hmac-sha256": "sha256",
        "hmac-sha384": "sha384", "hmac-sha512": "sha512",
    }.items()
}  # fmt: skip
_SIZES = {"md5": 16, "sha1": 20, "sha224": 28, "sha256": 32, "sha384": 48, "sha512": 64}
_TYPE = struct.Struct("!HHIH")
_TIMES = struct.Struct("!HIHH")
_TAIL = struct.Struct("!3H")


@dataclass(frozen=True, slots=True)
class Key:
    """A secret shared by two servers, or by a server and its clients."""

    name: Name
    #: A name in `ALGORITHMS`.
    algorithm: Name
    secret: bytes = field(repr=False)
    #: Length of sent MACs and minimum length of accepted MACs, in bytes; 0: MACs are not truncated.
    mac_size: int = 0

    @property
    def full(self) -> int:
        """Length of an untruncated MAC, in bytes."""
        return _SIZES[ALGORITHMS[self.algorithm]]

    @property
    def overhead(self) -> int:
        """Maximum size of a signature, in bytes, including the six bytes of server time in a BADTIME error."""
        fixed = _TYPE.size + _TIMES.size + _TAIL.size + 6
        return len(self.name.wire) + len(self.algorithm.wire) + fixed + (self.mac_size or self.full)

    def mac(self, data: bytes) -> bytes:
        """Return the untruncated MAC of *data*."""
        mac: bytes = hmac.digest(self.secret, data, ALGORITHMS[self.algorithm])
        return mac


@dataclass(frozen=True, slots=True)
class Tsig:
    """The contents of a TSIG record (RFC 8945 section 4.2)."""

    name: Name
    algorithm: Name
    #: Seconds since 1970.
    time: int
    fudge: int
    mac: bytes = b""
    original_id: int = 0
    error: int = 0
    other: bytes = b""

    def timers(self) -> bytes:
        """Return the fields that the MAC of a transfer's second and later messages covers (RFC 8945 section 5.3.1)."""
        return struct.pack("!HIH", self.time >> 32, self.time & 0xFFFFFFFF, self.fudge)

    def variables(self) -> bytes:
        """Return the TSIG fields covered by the MAC of a message (RFC 8945 section 4.3.3)."""
        head = self.name.key + struct.pack("!HI", _ANY, 0) + self.algorithm.key
        return head + self.timers() + struct.pack("!HH", self.error, len(self.other)) + self.other

    def append(self, wire: bytes) -> bytes:
        """Return *wire* with this record appended."""
        rdata = self.algorithm.wire + self.timers() + struct.pack("!H", len(self.mac)) + self.mac
        rdata += _TAIL.pack(self.original_id, self.error, len(self.other)) + self.other
        additional = int.from_bytes(wire[10:12], "big")
        record = self.name.wire + _TYPE.pack(TSIG, _ANY, 0, len(rdata)) + rdata
        return wire[:10] + (additional + 1).to_bytes(2, "big") + wire[12:] + record


class TsigError(RemoteError):
    """A signature is missing, wrong, too short, from an unknown key or outside the time window; *error*: see `ERRORS`.

    A message whose TSIG record cannot be read raises a plain `RemoteError` with FORMERR instead.
    """

    def __init__(self, message: str, error: int, tsig: Tsig | None = None, key: Key | None = None) -> None:
        super().__init__(message, NOTAUTH)
        self.error, self.tsig, self.key = error, tsig, key


@dataclass(frozen=True, slots=True)
class Verified:
    """A request without its TSIG record. Its message ID is the received one, which a forwarder may have changed."""

    wire: bytes
    #: Key that signed the request; None for an unsigned request.
    key: Key | None = None
    #: The request's MAC, which the signature of the response covers.
    mac: bytes = b""


def sign(wire: bytes, key: Key, now: int) -> tuple[bytes, bytes]:
    """Return the request *wire* signed with *key*, and its MAC for the `Verifier` of the responses."""
    tsig = Tsig(key.name, key.algorithm, now, FUDGE, original_id=int.from_bytes(wire[:2], "big"))
    return _signed(wire, key, tsig, wire + tsig.variables())


def verify(wire: bytes, keys: Mapping[Name, Key], now: int) -> Verified:
    """Check the signature, if any, of a request in the order of RFC 8945 section 5.2: key, MAC, time, truncation.

    Raises:
        TsigError: the signature is not valid; `refusal` encodes the response.
        RemoteError: the message or its TSIG record is malformed.
    """
    plain, tsig = split(wire)
    if tsig is None:
        return Verified(wire)
    key = keys.get(tsig.name)
    if key is None or key.algorithm != tsig.algorithm:
        raise TsigError(f"expected a known key, got {tsig.name} with {tsig.algorithm}", BADKEY, tsig)
    _check(plain + tsig.variables(), tsig, key, now)
    return Verified(wire[:2] + plain[2:], key, tsig.mac)


def refusal(wire: bytes, error: TsigError, now: int) -> bytes:
    """Return the error response to the request *wire*.

    The response is signed only for BADTIME and BADTRUNC (RFC 8945 section 5.3.2).
    """
    response = error_response(wire, error.rcode)
    asked = error.tsig
    if asked is None:
        return response
    late = error.error == BADTIME
    other = struct.pack("!HI", now >> 32, now & 0xFFFFFFFF) if late else b""
    time, ident = asked.time if late else now, int.from_bytes(wire[:2], "big")
    tsig = Tsig(asked.name, asked.algorithm, time, asked.fudge, b"", ident, error.error, other)
    if error.key is None or error.error not in {BADTIME, BADTRUNC}:
        return tsig.append(response)
    return _signed(response, error.key, tsig, _prefixed(asked.mac) + response + tsig.variables())[0]


class Signer:
    """Signs the response to one request, which may have several messages (a transfer)."""

    def __init__(self, key: Key, request_mac: bytes) -> None:
        self.key = key
        self._mac, self._first = request_mac, True

    def sign(self, wire: bytes, now: int) -> bytes:
        """Sign *wire*, the next message of the response, and return the signed message."""
        tsig = Tsig(self.key.name, self.key.algorithm, now, FUDGE, original_id=int.from_bytes(wire[:2], "big"))
        covered = tsig.variables() if self._first else tsig.timers()
        signed, self._mac = _signed(wire, self.key, tsig, _prefixed(self._mac) + wire + covered)
        self._first = False
        return signed


class Verifier:
    """Verifies the response to one request, which may have several messages (a transfer)."""

    def __init__(self, key: Key, request_mac: bytes) -> None:
        self.key = key
        self._mac, self._first = request_mac, True
        self._unsigned: list[bytes] = []

    def verify(self, wire: bytes, now: int) -> bytes:
        """Verify the next message and return it without its TSIG record.

        A transfer may contain unsigned messages; these are verified only once `finish` has returned.

        Raises:
            TsigError: the signature is missing or not valid, or the server rejected the signature of the request.
            RemoteError: the message or its TSIG record is malformed.
        """
        plain, tsig = split(wire)
        if tsig is None:
            if self._first or len(self._unsigned) >= MAX_UNSIGNED:
                raise TsigError(f"expected a response signed with {self.key.name}, got none", BADSIG)
            self._unsigned.append(plain)
            return plain
        if tsig.name != self.key.name or tsig.algorithm != self.key.algorithm:
            raise TsigError(f"expected key {self.key.name}, got {tsig.name} with {tsig.algorithm}", BADKEY, tsig)
        if tsig.error and not tsig.mac:
            raise TsigError(f"the server reports {ERRORS.get(tsig.error, tsig.error)}", tsig.error, tsig)
        covered = tsig.variables() if self._first else tsig.timers()
        _check(_prefixed(self._mac) + b"".join(self._unsigned) + plain + covered, tsig, self.key, now)
        if tsig.error:
            raise TsigError(f"the server reports {ERRORS.get(tsig.error, tsig.error)}", tsig.error, tsig, self.key)
        self._mac, self._first = tsig.mac, False
        self._unsigned.clear()
        return wire[:2] + plain[2:]

    def finish(self) -> None:
        """Raise `TsigError` unless the last message was signed (RFC 8945 section 5.3.1)."""
        if self._first or self._unsigned:
            raise TsigError(f"expected the last message to be signed with {self.key.name}", BADSIG)


def split(wire: bytes) -> tuple[bytes, Tsig | None]:
    """Return a message without its TSIG record and with its original ID, and the TSIG record or None.

    Raises:
        RemoteError: FORMERR; the message is cut short, or a TSIG record is malformed or not the last record.
    """
    try:
        return _split(wire)
    except (IndexError, struct.error):
        raise RemoteError("the message is cut short", FORMERR) from None


def _split(wire: bytes) -> tuple[bytes, Tsig | None]:
    _, _, questions, answers, authorities, additionals = HEADER.unpack_from(wire)
    if not additionals:
        return wire, None
    if questions > 1 or answers + authorities + additionals > MAX_RECORDS:
        raise RemoteError(f"expected at most one question and {MAX_RECORDS} records", FORMERR)
    at = HEADER.size
    for _ in range(questions):
        at = _name_end(wire, at) + 4
    last = answers + authorities + additionals
    for number in range(1, last + 1):
        start, at = at, _name_end(wire, at)
        rdtype, rdclass, ttl, length = _TYPE.unpack_from(wire, at)
        at += _TYPE.size + length
        if rdtype == TSIG:
            if number != last or at != len(wire) or rdclass != _ANY or ttl:
                raise RemoteError("expected TSIG as the last record, with class ANY and TTL 0", FORMERR)
            return _read(wire, start, at - length)
    return wire, None


def _read(wire: bytes, start: int, at: int) -> tuple[bytes, Tsig]:
    """Split a message at its TSIG record, which begins at offset *start* and whose RDATA begins at *at*."""
    name, algorithm = (wire[begin : _name_end(wire, begin)] for begin in (start, at))
    if name[-1] or algorithm[-1] or len(name) > 255 or len(algorithm) > 255:
        raise RemoteError("expected TSIG without compressed names", FORMERR)
    at += len(algorithm)
    high, low, fudge, size = _TIMES.unpack_from(wire, at)
    at += _TIMES.size
    original_id, error, length = _TAIL.unpack_from(wire, at + size)
    end = at + size + _TAIL.size
    if end + length != len(wire):
        raise RemoteError("expected TSIG to fill its RDATA", FORMERR)
    tsig = Tsig(
        Name(name), Name(algorithm), high << 32 | low, fudge, wire[at : at + size], original_id, error, wire[end:]
    )
    additionals = int.from_bytes(wire[10:12], "big")
    return original_id.to_bytes(2, "big") + wire[2:10] + (additionals - 1).to_bytes(2, "big") + wire[12:start], tsig


def _name_end(wire: bytes, at: int) -> int:
    """Return the offset after the name at *at*; the name may end in a compression pointer."""
    while length := wire[at]:
        if length >= 0xC0:
            return at + 2
        if length > 63:
            raise RemoteError("expected a label or a pointer in a name", FORMERR)
        at += 1 + length
    return at + 1


def _check(covered: bytes, tsig: Tsig, key: Key, now: int) -> None:
    size = len(tsig.mac)
    if size > key.full or size < max(MIN_MAC, key.full // 2):
        raise RemoteError(f"expected a MAC of {max(MIN_MAC, key.full // 2)} to {key.full} bytes, got {size}", FORMERR)
    if not hmac.compare_digest(key.mac(covered)[:size], tsig.mac):
        raise TsigError(f"the signature with key {key.name} is wrong", BADSIG, tsig)
    if abs(now - tsig.time) > tsig.fudge:
        raise TsigError(f"signed at {tsig.time}, {tsig.time - now:+d} s from our clock", BADTIME, tsig, key)
    if size < (key.mac_size or key.full):
        raise TsigError(f"expected a MAC of {key.mac_size or key.full} bytes, got {size}", BADTRUNC, tsig, key)


def _signed(wire: bytes, key: Key, tsig: Tsig, covered: bytes) -> tuple[bytes, bytes]:
    mac = key.mac(covered)[: key.mac_size or key.full]
    signed = Tsig(tsig.name, tsig.algorithm, tsig.time, tsig.fudge, mac, tsig.original_id, tsig.error, tsig.other)
    return signed.append(wire), mac


def _prefixed(mac: bytes) -> bytes:
    return len(mac).to_bytes(2, "big") + mac
