"""TCP state machine that infers an endpoint's state from the segments it sent and received (RFC 9293 section 3.3.2).

Sans-IO.  Application calls are invisible, so the state changes when a segment reveals the call: for example, sending a
FIN implies an earlier close().
"""

from dataclasses import dataclass

CLOSED, LISTEN, SYN_SENT, SYN_RECEIVED, ESTABLISHED = "CLOSED", "LISTEN", "SYN-SENT", "SYN-RECEIVED", "ESTABLISHED"
FIN_WAIT_1, FIN_WAIT_2, CLOSING, TIME_WAIT = "FIN-WAIT-1", "FIN-WAIT-2", "CLOSING", "TIME-WAIT"
CLOSE_WAIT, LAST_ACK = "CLOSE-WAIT", "LAST-ACK"
#: TCP state transitions (RFC 9293 figure 5) that can be inferred from observed segments, and those caused by a RST
#: (RFC 9293 section 3.10.7).
ARROWS: dict[str, frozenset[str]] = {
    CLOSED: frozenset({SYN_SENT}),
    LISTEN: frozenset({SYN_RECEIVED, SYN_SENT}),
    SYN_SENT: frozenset({ESTABLISHED, SYN_RECEIVED, CLOSED}),
    SYN_RECEIVED: frozenset({ESTABLISHED, FIN_WAIT_1, CLOSED}),
    ESTABLISHED: frozenset({FIN_WAIT_1, CLOSE_WAIT, CLOSED}),
    FIN_WAIT_1: frozenset({FIN_WAIT_2, CLOSING, CLOSED}),
    FIN_WAIT_2: frozenset({TIME_WAIT, CLOSED}),
    CLOSING: frozenset({TIME_WAIT, CLOSED}),
    CLOSE_WAIT: frozenset({LAST_ACK, CLOSED}),
    LAST_ACK: frozenset({CLOSED}),
    TIME_WAIT: frozenset({CLOSED}),
}
MODULUS = 1 << 32


@dataclass(frozen=True, slots=True)
class Segment:
    """The fields of a TCP segment that can change the state of an endpoint."""

    seq: int
    #: Acknowledgement number; None if the ACK flag is not set.
    ack: int | None = None
    #: Payload length in bytes.
    length: int = 0
    syn: bool = False
    fin: bool = False
    rst: bool = False

    @property
    def end(self) -> int:
        """The sequence number after the segment; SYN and FIN count as one byte each."""
        return (self.seq + self.length + self.syn + self.fin) % MODULUS


def before(one: int, other: int) -> bool:
    """Return whether sequence number *one* precedes *other*, modulo 2**32 (RFC 9293 section 3.4)."""
    return 0 < (other - one) % MODULUS < MODULUS // 2


class Endpoint:
    """One endpoint of a connection, initially in state ``CLOSED`` (the connecting side) or ``LISTEN``."""

    def __init__(self, state: str) -> None:
        self.state = state
        #: All states so far, in chronological order.
        self.history = [state]
        #: Sequence number after this endpoint's SYN; None before the SYN.
        self._syn_end: int | None = None
        #: Sequence number after this endpoint's FIN; None before the FIN.
        self._fin_end: int | None = None
        #: Sequence number after the peer's FIN; None before the FIN.
        self._peer_fin: int | None = None
        #: Sequence number that is expected next from the peer; None before the peer's SYN.
        self._next: int | None = None
        self._early: list[tuple[int, int]] = []

    def __repr__(self) -> str:
        return f"<Endpoint {self.state}>"

    def sent(self, segment: Segment) -> None:
        """Process a segment that this endpoint sent."""
        if segment.rst:
            self._become(CLOSED)
            return
        if segment.syn and self._syn_end is None:
            self._syn_end = (segment.seq + 1) % MODULUS
        if segment.syn and segment.ack is None and self.state in {CLOSED, LISTEN}:
            self._become(SYN_SENT)
        if segment.fin and self.state in {ESTABLISHED, SYN_RECEIVED, CLOSE_WAIT}:
            self._fin_end = segment.end
            self._become(LAST_ACK if self.state == CLOSE_WAIT else FIN_WAIT_1)

    def received(self, segment: Segment) -> None:
        """Process a segment that this endpoint received."""
        if segment.rst:
            if self.state != LISTEN:
                self._become(CLOSED)
            return
        if self.state in {CLOSED, TIME_WAIT}:
            return
        if segment.syn and self.state in {LISTEN, SYN_SENT}:
            self._next = (segment.seq + 1) % MODULUS
            accepted = self._acknowledges(segment, self._syn_end)
            self._become(ESTABLISHED if self.state == SYN_SENT and accepted else SYN_RECEIVED)
        if self._next is None:
            return
        if self.state == SYN_RECEIVED and self._acknowledges(segment, self._syn_end):
            self._become(ESTABLISHED)
        if self._acknowledges(segment, self._fin_end):
            after = {FIN_WAIT_1: FIN_WAIT_2, CLOSING: TIME_WAIT, LAST_ACK: CLOSED}
            self._become(after.get(self.state, self.state))
        self._take(segment)
        if self._peer_fin is not None and self._next == self._peer_fin:
            after = {ESTABLISHED: CLOSE_WAIT, FIN_WAIT_1: CLOSING, FIN_WAIT_2: TIME_WAIT}
            self._become(after.get(self.state, self.state))

    def _take(self, segment: Segment) -> None:
        """Advance the next expected sequence number over all data received without a gap."""
        if segment.fin:
            self._peer_fin = segment.end
        if self._next is not None and not segment.syn:
            self._early.append((segment.seq, segment.end))
            for seq, end in sorted(self._early, key=lambda each: (each[0] - self._base) % MODULUS):
                if not before(self._next, seq) and before(self._next, end):
                    self._next = end
            self._early = [each for each in self._early if before(self._next, each[1])]

    @property
    def _base(self) -> int:
        return ((self._next or 0) - MODULUS // 4) % MODULUS

    @staticmethod
    def _acknowledges(segment: Segment, number: int | None) -> bool:
        return number is not None and segment.ack is not None and not before(segment.ack, number)

    def _become(self, state: str) -> None:
        if state != self.state:
            self.state = state
            self.history.append(state)
