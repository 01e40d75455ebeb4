"""Round trips and bytes of connection set-up (RFC 9293 section 3.5, RFC 8446 section 2, RFC 5246 section 7.3).

Time to first byte is a linear function of the round-trip time: the slope is an integer number of round trips, the
intercept is CPU time.  The size of the server's first flight is computed byte by byte; if it exceeds the initial
congestion window, it takes additional round trips.
"""

import math
from collections.abc import Sequence
from typing import Literal

from theory.slow_start import rounds

#: Protocol of a connection; ``plain`` is TCP without TLS.
Protocol = Literal["plain", "TLSv1.2", "TLSv1.3"]

#: Size of a signature in bytes, keyed by key type: ECDSA P-256 in DER (70 to 72), RSA 2048 (its modulus), ML-DSA (FIPS
#: 204 table 2).
SIGNATURE = {"ECDSA P-256": 71, "RSA 2048": 256, "ML-DSA-44": 2420, "ML-DSA-65": 3309}
#: Size of the server's key share in bytes, keyed by group: X25519 (RFC 7748); the hybrid group adds the ML-KEM-768
#: ciphertext (FIPS 203 table 3).
KEY_SHARE = {"X25519": 32, "X25519MLKEM768": 1088 + 32}
#: Maximum plaintext of one TLS record in bytes, and the bytes that encryption adds: header, content type, tag (RFC 8446
#: section 5).
RECORD, RECORD_ADDS = 1 << 14, 5 + 1 + 16
#: Bytes of the type and length fields of each handshake message (RFC 8446 section 4).
MESSAGE_HEADER = 4
#: Bytes of a ServerHello record without its key share (RFC 8446 section 4.1.3) and of the dummy ChangeCipherSpec record
#: that follows (appendix D.4).  The ServerHello has: header, version, random, echoed session id, suite, compression,
#: supported_versions, header of key_share.
SERVER_HELLO = 5 + MESSAGE_HEADER + 2 + 32 + (1 + 32) + 2 + 1 + 2 + 6 + 8
CHANGE_CIPHER_SPEC = 6
#: Bytes that resumption adds to the ServerHello: the pre_shared_key extension (RFC 8446 section 4.2.11).
PRE_SHARED_KEY = 6
#: Bytes of verify_data in Finished, with the SHA-384 cipher suites that OpenSSL prefers (RFC 8446 section 4.4.4).
VERIFY_DATA = 48


def tls_round_trips(
    protocol: Protocol,
    *,
    resumed: bool = False,
    hello_retry: bool = False,
    server_flight: int = 0,
    early_data: bool = False,
) -> int:
    """Return the number of round trips of the TLS handshake before the client may send its request.

    TLS 1.3 takes one round trip, resumed or not: a PSK saves CPU time and bytes.  With early data it takes none
    (RFC 8446 section 2.3).  TLS 1.2 takes two, or one if resumed (RFC 5077).

    Args:
        protocol: TLS version, or ``plain`` for TCP without TLS.
        resumed: whether a session is resumed.
        hello_retry: whether the server rejects the group of the client's key share (RFC 8446 section 4.1.4).  TLS 1.2
            has no key share in the ClientHello, so this has no effect.
        server_flight: bytes of the server's first flight.  If it exceeds the initial congestion window, as with a long
            chain of ML-DSA certificates, it takes additional round trips.
        early_data: whether a resumed session of TLS 1.3 sends the request with the ClientHello.
    """
    if protocol == "plain" or (early_data and protocol == "TLSv1.3"):
        return 0
    more = 0 if resumed else max(0, rounds(server_flight) - 1)
    if protocol == "TLSv1.3":
        return 1 + hello_retry + more
    return (1 if resumed else 2) + more


def server_flight(certificates: Sequence[int], signature: int, key_share: int = KEY_SHARE["X25519"]) -> int:
    """Return the size of a TLS 1.3 server's first flight in bytes, record headers included.

    The flight consists of ServerHello, empty EncryptedExtensions, Certificate, CertificateVerify and Finished (RFC 8446
    section 2), each in its own records.

    Args:
        certificates: DER size in bytes of each certificate sent: leaf and intermediates.  The root is usually not sent.
        signature: size of the signature in CertificateVerify, in bytes.
        key_share: size of the server's key share in bytes, from `KEY_SHARE`.
    """
    hello = SERVER_HELLO + key_share + CHANGE_CIPHER_SPEC
    return hello + _sealed(2) + identity(certificates, signature) + _sealed(VERIFY_DATA)


def identity(certificates: Sequence[int], signature: int) -> int:
    """Return the size of Certificate and CertificateVerify in TLS 1.3 (RFC 8446 sections 4.4.2 and 4.4.3) in bytes.

    The client or the server sends these two messages to authenticate itself; a resumed handshake omits them.
    """
    chain = 1 + 3 + sum(3 + each + 2 for each in certificates)
    return _sealed(chain) + _sealed(2 + 2 + signature)


def _sealed(body: int) -> int:
    message = MESSAGE_HEADER + body
    return message + math.ceil(message / RECORD) * RECORD_ADDS


def round_trips(protocol: Protocol, *, resumed: bool = False, early_data: bool = False) -> int:
    """Return the number of round trips until the first byte on a new connection: 2 + h.

    The TLS handshake takes h round trips.  The result is the slope of the time to first byte as a function of the
    round-trip time.
    """
    return 2 + tls_round_trips(protocol, resumed=resumed, early_data=early_data)


def connect_ms(rtt_ms: float) -> float:
    """Return the duration of connect() in milliseconds: one round trip for SYN and SYN-ACK."""
    return rtt_ms


def tls_ms(rtt_ms: float, protocol: Protocol, *, resumed: bool = False) -> float:
    """Return the duration of the TLS handshake in milliseconds, without CPU time."""
    return rtt_ms * tls_round_trips(protocol, resumed=resumed)


def time_to_first_byte_ms(
    rtt_ms: float, protocol: Protocol, *, resumed: bool = False, server_ms: float = 0.0, names_ms: float = 0.0
) -> float:
    """Return the time to first byte in milliseconds: RTT · (1 + h + 1) + S + names.

    The round trips are one for TCP connect, h for the TLS handshake and one for the request.

    Args:
        rtt_ms: round-trip time between client and server.
        protocol: TLS version, or ``plain`` for TCP without TLS.
        resumed: whether a TLS session is resumed.
        server_ms: S, the processing time of the server plus the CPU time of the handshake at both ends.
        names_ms: time to resolve the host name before connecting.
    """
    return names_ms + rtt_ms * round_trips(protocol, resumed=resumed) + server_ms


def close_ms() -> float:
    """Return the time in ms for which close() blocks: 0, because the kernel completes the close in the background."""
    return 0.0
