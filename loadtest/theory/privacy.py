"""What keeping questions from being read costs: round trips of DNS over UDP, TCP, TLS (RFC 7858) and HTTPS (RFC 8484)."""

from typing import Literal

Transport = Literal["udp", "tcp", "dot", "doh"]
#: Round trips before the first question: TCP's handshake, and TLS 1.3's.
_SETUP: dict[Transport, int] = {"udp": 0, "tcp": 1, "dot": 2, "doh": 2}
#: Octets of UDP answer that cross any path unfragmented (DNS flag day 2020).
DATAGRAM = 1232


def round_trips(transport: Transport, questions: int = 1) -> float:
    """Return mean round trips per question when *questions* share a connection, one after the other: 1 + s/N."""
    return 1 + _SETUP[transport] / questions


def question_ms(transport: Transport, rtt_ms: float, questions: int = 1, *, octets: int = 0) -> float:
    """Return mean milliseconds per question.

    Args:
        transport: of the question.
        rtt_ms: to the resolver.
        questions: on one connection.
        octets: of the answer; one that does not fit a datagram is cut, and asked for again over TCP.
    """
    cut = transport == "udp" and octets > DATAGRAM
    return rtt_ms * (round_trips(transport, questions) + (round_trips("tcp") if cut else 0))


def readable(transport: Transport) -> bool:
    """Return whether an observer on the path reads the name asked for."""
    return transport in {"udp", "tcp"}
