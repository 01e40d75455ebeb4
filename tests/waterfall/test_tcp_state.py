"""Tests for inferred TCP states: the figures of RFC 9293, and random segments that must follow its state diagram."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waterfall.tcp_state import ARROWS, CLOSED, LISTEN, MODULUS, Endpoint, Segment, before


class Seg(NamedTuple):
    """A segment in the notation of RFC 9293's figures."""

    by: str
    seq: int
    ack: int | None
    flags: str
    length: int = 0
    lost: bool = False


OPEN = [Seg("a", 100, None, "S"), Seg("b", 300, 101, "S"), Seg("a", 101, 301, "")]
OPENED_A, OPENED_B = ["CLOSED", "SYN-SENT", "ESTABLISHED"], ["LISTEN", "SYN-RECEIVED", "ESTABLISHED"]


def run(segments: list[Seg], crossing: int = 0) -> tuple[list[str], list[str]]:
    """Deliver segments one by one, except the last *crossing*, which are all sent before the first of them arrives."""
    ends = {"a": Endpoint(CLOSED), "b": Endpoint(LISTEN)}
    straight = len(segments) - crossing
    for chunk in [[each] for each in segments[:straight]] + ([segments[straight:]] if crossing else []):
        made = [
            (s, Segment(s.seq % MODULUS, s.ack, s.length, "S" in s.flags, "F" in s.flags, "R" in s.flags))
            for s in chunk
        ]
        for s, segment in made:
            ends[s.by].sent(segment)
        for s, segment in made:
            if not s.lost:
                ends["b" if s.by == "a" else "a"].received(segment)
    return ends["a"].history, ends["b"].history


@pytest.mark.parametrize(
    ("segments", "a", "b"),
    [
        (OPEN, [], []),
        (  # normal close (RFC 9293 figure 12)
            [*OPEN, Seg("a", 101, 301, "F"), Seg("b", 301, 102, ""), Seg("b", 301, 102, "F"), Seg("a", 102, 302, "")],
            ["FIN-WAIT-1", "FIN-WAIT-2", "TIME-WAIT"],
            ["CLOSE-WAIT", "LAST-ACK", "CLOSED"],
        ),
        (  # the second FIN acknowledges the first
            [*OPEN, Seg("a", 101, 301, "F"), Seg("b", 301, 102, "F"), Seg("a", 102, 302, "")],
            ["FIN-WAIT-1", "FIN-WAIT-2", "TIME-WAIT"],
            ["CLOSE-WAIT", "LAST-ACK", "CLOSED"],
        ),
        (  # data precedes the FIN
            [*OPEN, Seg("a", 101, 301, "", 50), Seg("b", 301, 151, "", 10), Seg("b", 311, 151, "F")],
            ["CLOSE-WAIT"],
            ["FIN-WAIT-1"],
        ),
        (  # a lost FIN is retransmitted
            [*OPEN, Seg("a", 101, 301, "F", lost=True), Seg("a", 101, 301, "F"), Seg("b", 301, 102, "")],
            ["FIN-WAIT-1", "FIN-WAIT-2"],
            ["CLOSE-WAIT"],
        ),
        (  # a FIN that overtakes data is processed after the data
            [*OPEN, Seg("a", 111, 301, "F"), Seg("a", 101, 301, "", 10)],
            ["FIN-WAIT-1"],
            ["CLOSE-WAIT"],
        ),
        ([*OPEN, Seg("b", 301, 101, "R")], ["CLOSED"], ["CLOSED"]),
    ],
    ids=["open", "close", "fin-with-ack", "server-first", "lost-fin", "early-fin", "reset"],
)
def test_connections(segments: list[Seg], a: list[str], b: list[str]) -> None:
    assert run(segments) == ([*OPENED_A, *a], [*OPENED_B, *b])


def test_a_refused_connection() -> None:
    assert run([Seg("a", 100, None, "S"), Seg("b", 0, 101, "R")])[0] == ["CLOSED", "SYN-SENT", "CLOSED"]


def test_figure_13_both_close_at_once() -> None:
    fins = [Seg("a", 101, 301, "F"), Seg("b", 301, 101, "F")]
    acks = [Seg("a", 102, 302, ""), Seg("b", 302, 102, "")]
    a, b = run([*OPEN, *fins], crossing=2)
    assert (a[-2:], b[-2:]) == (["FIN-WAIT-1", "CLOSING"], ["FIN-WAIT-1", "CLOSING"])
    ends = [Endpoint(CLOSED), Endpoint(LISTEN)]
    for end in ends:
        end.state = "ESTABLISHED"
        end._next = 0
    for end, own, other in zip(ends, fins, reversed(fins), strict=True):
        end._next = other.seq
        end.sent(Segment(own.seq, own.ack, fin=True))
        end.received(Segment(other.seq, other.ack, fin=True))
    for end, ack in zip(ends, reversed(acks), strict=True):
        end.received(Segment(ack.seq, ack.ack))
    assert [end.state for end in ends] == ["TIME-WAIT", "TIME-WAIT"]


def test_figure_8_both_open_at_once() -> None:
    ends = Endpoint(CLOSED), Endpoint(CLOSED)
    syns = Segment(100, syn=True), Segment(300, syn=True)
    for end, own, other in zip(ends, syns, reversed(syns), strict=True):
        end.sent(own)
        end.received(other)
    assert [end.state for end in ends] == ["SYN-RECEIVED", "SYN-RECEIVED"]
    ends[0].received(Segment(300, 101, syn=True))
    assert ends[0].state == "ESTABLISHED"


def test_sequence_numbers_wrap_around() -> None:
    assert before(MODULUS - 1, 0)
    assert not before(0, MODULUS - 1)
    start = MODULUS - 1
    segments = [
        Seg("a", start, None, "S"),
        Seg("b", 300, 0, "S"),
        Seg("a", 0, 301, "F"),
        Seg("b", 301, 1, "F"),
    ]
    assert run(segments)[0][-1] == "TIME-WAIT"


numbers = st.sampled_from([0, 1, 2, 3, 100, MODULUS - 1, MODULUS // 2])
segments = st.builds(
    Segment, numbers, st.none() | numbers, st.integers(0, 3), st.booleans(), st.booleans(), st.booleans()
)


@given(st.lists(st.tuples(st.booleans(), segments), max_size=30), st.sampled_from([CLOSED, LISTEN]))
def test_no_segments_leave_the_state_diagram(events: list[tuple[bool, Segment]], start: str) -> None:
    end = Endpoint(start)
    for sent, segment in events:
        (end.sent if sent else end.received)(segment)
    for one, other in zip(end.history, end.history[1:], strict=False):
        assert other in ARROWS[one] | {CLOSED}
