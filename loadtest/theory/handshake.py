"""Round trips and bytes of opening a connection (RFC 9293 section 3.5, RFC 8446 section 2, RFC 5246 section 7.3).

Time to first byte is a line in the round-trip time: the slope is a whole number of round trips, the intercept CPU time.
The server's first flight is computed byte by byte; beyond the initial congestion window it costs additional round
trips.
"""

import math
from collections.abc import Sequence
from typing import Literal

from theory.slow_start import rounds

#: plain is TCP without TLS.
Protocol = Literal["plain", "TLSv1.2", "TLSv1.3"]

#: Bytes of a signature: ECDSA P-256 in DER (70 to 72), RSA 2048 (its modulus), FIPS 204 table 2.
SIGNATURE = {"ECDSA P-256": 71, "RSA 2048": 256, "ML-DSA-44": 2420, "ML-DSA-65": 3309}
#: Bytes of the server's key share by group: RFC 7748; the hybrid adds ML-KEM-768's ciphertext (FIPS 203 table 3).
KEY_SHARE = {"X25519": 32, "X25519MLKEM768": 1088 + 32}
#: Largest plaintext of one record, and what encryption adds to it: header, content type, tag (RFC 8446 section 5).
RECORD, RECORD_ADDS = 1 << 14, 5 + 1 + 16
#: Type and length in front of each handshake message (section 4).
MESSAGE_HEADER = 4
#: ServerHello without its key share: header, version, random, echoed session id, suite, compression,
#: supported_versions, header of key_share.  A ChangeCipherSpec record without meaning follows it (section 4.1.3,
#: appendix D.4).
SERVER_HELLO = 5 + MESSAGE_HEADER + 2 + 32 + (1 + 32) + 2 + 1 + 2 + 6 + 8
CHANGE_CIPHER_SPEC = 6
#: Bytes that resumption adds to the ServerHello: pre_shared_key (section 4.2.11).
PRE_SHARED_KEY = 6
#: Bytes of Finished with the SHA-384 suites that OpenSSL prefers (section 4.4.4).
VERIFY_DATA = 48


def tls_round_trips(
    protocol: Protocol, *, resumed: bool = False, hello_retry: bool = False, server_flight: int = 0
) -> int:
    """Return the round trips of the TLS handshake before the client may send its request.

    TLS 1.3 needs one, resumed or not: a PSK saves CPU and bytes, and 0-RTT is not used here.  TLS 1.2 needs two, or one
    when resumed (RFC 5077).

    Args:
        protocol: version of TLS, or ``plain``.
        resumed: whether a session is resumed.
        hello_retry: whether the server wants another group than the client guessed (RFC 8446 section 4.1.4); TLS 1.2
            has no guess.
        server_flight: bytes of the server's first flight; beyond the initial congestion window, as with a long chain of
            ML-DSA certificates, it takes more round trips.
    """
    if protocol == "plain":
        return 0
    more = 0 if resumed else max(0, rounds(server_flight) - 1)
    if protocol == "TLSv1.3":
        return 1 + hello_retry + more
    return (1 if resumed else 2) + more


def server_flight(certificates: Sequence[int], signature: int, key_share: int = KEY_SHARE["X25519"]) -> int:
    """Return the bytes of a TLS 1.3 server's first flight, record headers included.

    ServerHello, empty EncryptedExtensions, Certificate, CertificateVerify and Finished (RFC 8446 section 2), each in
    records of its own.

    Args:
        certificates: DER bytes of each certificate sent: leaf and intermediates; the root need not be.
        signature: bytes of the signature in CertificateVerify.
        key_share: bytes of the server's key share, of `KEY_SHARE`.
    """
    hello = SERVER_HELLO + key_share + CHANGE_CIPHER_SPEC
    return hello + _sealed(2) + identity(certificates, signature) + _sealed(VERIFY_DATA)


def identity(certificates: Sequence[int], signature: int) -> int:
    """Return the bytes of Certificate and CertificateVerify in TLS 1.3 (RFC 8446 sections 4.4.2 and 4.4.3).

    Either end sends these two messages to authenticate; resumption omits them.
    """
    chain = 1 + 3 + sum(3 + each + 2 for each in certificates)
    return _sealed(chain) + _sealed(2 + 2 + signature)


def _sealed(body: int) -> int:
    message = MESSAGE_HEADER + body
    return message + math.ceil(message / RECORD) * RECORD_ADDS


def round_trips(protocol: Protocol, *, resumed: bool = False) -> int:
    """Return the round trips until the first byte on a new connection, 2 + h: the slope of its time against the RTT."""
    return 2 + tls_round_trips(protocol, resumed=resumed)


def connect_ms(rtt_ms: float) -> float:
    """Return milliseconds until connect() returns: SYN, then SYN-ACK."""
    return rtt_ms


def tls_ms(rtt_ms: float, protocol: Protocol, *, resumed: bool = False) -> float:
    """Return milliseconds of the TLS handshake without CPU time."""
    return rtt_ms * tls_round_trips(protocol, resumed=resumed)


def time_to_first_byte_ms(
    rtt_ms: float, protocol: Protocol, *, resumed: bool = False, server_ms: float = 0.0, names_ms: float = 0.0
) -> float:
    """Return RTT · (1 + h + 1) + S + names: connect, TLS, request; the slope against the RTT is an integer.

    Args:
        rtt_ms: round-trip time between client and server.
        protocol: version of TLS, or ``plain``.
        resumed: whether a TLS session is resumed.
        server_ms: S, processing time of the server and CPU time of the handshake at both ends.
        names_ms: time to resolve the name before.
    """
    return names_ms + rtt_ms * round_trips(protocol, resumed=resumed) + server_ms


def close_ms() -> float:
    """Return the milliseconds that close() blocks the side that closes first: none, the kernel does the rest."""
    return 0.0
