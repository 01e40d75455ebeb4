"""Round trips and octets of opening a connection (RFC 9293 section 3.5, RFC 8446 sections 2, 4 and 5, RFC 5246 section 7.3).

Time to first byte is a line in the round-trip time: its slope is a whole number of round trips, its intercept CPU.  What
a server has to send before it is believed is counted octet by octet; beyond the initial window it costs round trips, too.
"""

import math
from collections.abc import Sequence
from typing import Literal

from theory.slow_start import rounds

#: plain is TCP without TLS.
Protocol = Literal["plain", "TLSv1.2", "TLSv1.3"]

#: Octets of a signature: ECDSA P-256 in DER (70 to 72), RSA 2048 (its modulus), FIPS 204 table 2.
SIGNATURE = {"ECDSA P-256": 71, "RSA 2048": 256, "ML-DSA-44": 2420, "ML-DSA-65": 3309}
#: Octets of the server's key share by group: RFC 7748; the hybrid adds ML-KEM-768's ciphertext (FIPS 203 table 3).
KEY_SHARE = {"X25519": 32, "X25519MLKEM768": 1088 + 32}
#: Octets of plaintext in one record at most, and what encryption adds to each: header, content type, tag (RFC 8446 section 5).
RECORD, RECORD_ADDS = 1 << 14, 5 + 1 + 16
#: Type and length before each handshake message (section 4).
MESSAGE_HEADER = 4
#: ServerHello without its key share: header, version, random, a session id to echo, suite, compression, supported_versions,
#: the head of key_share; after it a ChangeCipherSpec record that means nothing (section 4.1.3, appendix D.4).
SERVER_HELLO = 5 + MESSAGE_HEADER + 2 + 32 + (1 + 32) + 2 + 1 + 2 + 6 + 8
CHANGE_CIPHER_SPEC = 6
#: Octets by which a ServerHello grows that resumes: pre_shared_key (section 4.2.11).
PRE_SHARED_KEY = 6
#: Octets of Finished with the SHA-384 suites that OpenSSL likes best (section 4.4.4).
VERIFY_DATA = 48


def tls_round_trips(
    protocol: Protocol, *, resumed: bool = False, hello_retry: bool = False, server_flight: int = 0
) -> int:
    """Return round trips of the TLS handshake until the client may send its request.

    TLS 1.3 needs one, resumed or not (a PSK saves CPU and bytes; 0-RTT is not used here); TLS 1.2 needs two, one
    when resumed (RFC 5077).

    Args:
        protocol: what is spoken.
        resumed: whether a session is.
        hello_retry: whether the server asks for another group than the client guessed (RFC 8446 section 4.1.4); in
            TLS 1.2 the server chooses without a guess.
        server_flight: octets of the server's certificate flight; beyond the initial congestion window (a long chain
            of ML-DSA certificates) it takes more round trips.
    """
    if protocol == "plain":
        return 0
    more = 0 if resumed else max(0, rounds(server_flight) - 1)
    if protocol == "TLSv1.3":
        return 1 + hello_retry + more
    return (1 if resumed else 2) + more


def server_flight(certificates: Sequence[int], signature: int, key_share: int = KEY_SHARE["X25519"]) -> int:
    """Return octets of a TLS 1.3 server's first flight, records and all: what its initial window has to hold.

    ServerHello, empty EncryptedExtensions, Certificate, CertificateVerify, Finished (RFC 8446 section 2), each in records
    of its own.

    Args:
        certificates: octets (DER) of each that is sent: leaf and intermediates; a root need not be.
        signature: octets of the signature in CertificateVerify.
        key_share: of the group agreed on.
    """
    hello = SERVER_HELLO + key_share + CHANGE_CIPHER_SPEC
    return hello + _sealed(2) + identity(certificates, signature) + _sealed(VERIFY_DATA)


def identity(certificates: Sequence[int], signature: int) -> int:
    """Return octets of Certificate and CertificateVerify in TLS 1.3 (RFC 8446 sections 4.4.2 and 4.4.3).

    This is what either end sends to prove who it is, and what resumption spares; a client in mutual TLS sends no more.
    """
    chain = 1 + 3 + sum(3 + each + 2 for each in certificates)
    return _sealed(chain) + _sealed(2 + 2 + signature)


def _sealed(body: int) -> int:
    message = MESSAGE_HEADER + body
    return message + math.ceil(message / RECORD) * RECORD_ADDS


def round_trips(protocol: Protocol, *, resumed: bool = False) -> int:
    """Return round trips from nothing to the first byte, 2 + h: the slope of its time against the RTT."""
    return 2 + tls_round_trips(protocol, resumed=resumed)


def connect_ms(rtt_ms: float) -> float:
    """Return milliseconds until connect() returns: SYN there, SYN-ACK back."""
    return rtt_ms


def tls_ms(rtt_ms: float, protocol: Protocol, *, resumed: bool = False) -> float:
    """Return milliseconds of the TLS handshake, CPU not counted."""
    return rtt_ms * tls_round_trips(protocol, resumed=resumed)


def time_to_first_byte_ms(
    rtt_ms: float, protocol: Protocol, *, resumed: bool = False, server_ms: float = 0.0, names_ms: float = 0.0
) -> float:
    """Return RTT · (1 + h + 1) + S + names: connect, TLS, request; the slope against RTT is an integer.

    Args:
        rtt_ms: between client and server.
        protocol: what is spoken.
        resumed: whether a TLS session is.
        server_ms: what the server takes, and the CPU of the handshake at both ends.
        names_ms: what resolving took before.
    """
    return names_ms + rtt_ms * round_trips(protocol, resumed=resumed) + server_ms


def close_ms() -> float:
    """Return milliseconds that close() takes for who closes first: none, the kernel says goodbye by itself."""
    return 0.0
