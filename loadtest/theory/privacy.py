"""Round trips of DNS over UDP, TCP, TLS (RFC 7858) and HTTPS (RFC 8484)."""

from typing import Literal

Transport = Literal["udp", "tcp", "dot", "doh"]
#: Round trips before the first query, keyed by transport: TCP handshake, and TLS 1.3 handshake.
_SETUP: dict[Transport, int] = {"udp": 0, "tcp": 1, "dot": 2, "doh": 2}
#: Largest UDP response that every path should carry unfragmented, in bytes (DNS flag day 2020).
DATAGRAM = 1232


def round_trips(transport: Transport, questions: int = 1) -> float:
    """Return the mean number of round trips per query if *questions* consecutive queries share a connection: 1 + s/N.

    Here s is the number of set-up round trips, and N is *questions*.
    """
    return 1 + _SETUP[transport] / questions


def question_ms(transport: Transport, rtt_ms: float, questions: int = 1, *, size: int = 0) -> float:
    """Return the mean time per query in milliseconds.

    Args:
        transport: transport of the query.
        rtt_ms: round-trip time to the resolver.
        questions: queries per connection.
        size: size of the response in bytes.  Over UDP, a response larger than `DATAGRAM` is truncated, and the client
            repeats the query over TCP.
    """
    cut = transport == "udp" and size > DATAGRAM
    return rtt_ms * (round_trips(transport, questions) + (round_trips("tcp") if cut else 0))


def readable(transport: Transport) -> bool:
    """Return whether an observer on the path can read the queried name."""
    return transport in {"udp", "tcp"}


def padded(size: int, block: int) -> int:
    """Return the size of a DNS message of *size* bytes after it is padded to a multiple of *block* (RFC 8467)."""
    return -(-size // block) * block


def record_bytes(message: int) -> int:
    """Return the size of the TLS 1.3 record that carries one DNS message of *message* bytes over TLS.

    TLS adds a length prefix of 2 bytes (RFC 1035 section 4.2.2), a record header of 5 bytes, 1 byte for the content
    type, and a tag of 16 bytes (RFC 8446 section 5.2).
    """
    return 2 + message + 5 + 1 + 16
