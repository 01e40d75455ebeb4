"""Round trips of encrypted DNS: UDP, TCP, TLS (RFC 7858) and HTTPS (RFC 8484)."""

from typing import Literal

Transport = Literal["udp", "tcp", "dot", "doh"]
#: Round trips before the first query: TCP's handshake, and TLS 1.3's.
_SETUP: dict[Transport, int] = {"udp": 0, "tcp": 1, "dot": 2, "doh": 2}
#: Largest UDP response in bytes that crosses any path unfragmented (DNS flag day 2020).
DATAGRAM = 1232


def round_trips(transport: Transport, questions: int = 1) -> float:
    """Return the mean round trips per query if *questions* consecutive queries share a connection: 1 + s/N."""
    return 1 + _SETUP[transport] / questions


def question_ms(transport: Transport, rtt_ms: float, questions: int = 1, *, size: int = 0) -> float:
    """Return the mean milliseconds per query.

    Args:
        transport: of the query.
        rtt_ms: round-trip time to the resolver.
        questions: queries per connection.
        size: bytes of the response; one that exceeds `DATAGRAM` is truncated over UDP and asked for again over TCP.
    """
    cut = transport == "udp" and size > DATAGRAM
    return rtt_ms * (round_trips(transport, questions) + (round_trips("tcp") if cut else 0))


def readable(transport: Transport) -> bool:
    """Return whether an observer on the path can read the queried name."""
    return transport in {"udp", "tcp"}
