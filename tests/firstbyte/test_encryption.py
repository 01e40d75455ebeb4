"""Tests for `firstbyte encryption`: which places are reported to see the plain text, and that a leak fails."""

import pytest

from firstbyte.encryption import LeakError, _text, judge
from runtime import UsageError
from scenarios.instruments.vantage_points import Evidence, View, views_of
from tests.packets import CLIENT, SERVER, tcp

WAYS = ("http", "https", "note", "letter")


def evidence(*, wire: bytes = b"", edge: bytes = b"", database: bytes = b"") -> Evidence:
    """Return synthetic evidence of a lab without leaks; *wire*, *edge* and *database* are added to the recordings."""
    sent = {way: f"hello ({way})".encode() for way in ("http", "https", "note")} | {"letter": b"sealed letter"}
    ways = [
        {"way": way, "text": f"hello ({way})", "path": f"/{way}", "port": 40_000 + number,
         "sent": sent[way].hex(), "reads": f"hello ({way})".encode().hex()}
        for number, way in enumerate(WAYS)
    ]  # fmt: skip
    secured = {"http": b"hello (http)", **dict.fromkeys(WAYS[1:], b"\x17\x03\x03 random")}
    segments = [
        (40_000 + number, seq, data)
        for number, way in enumerate(WAYS)
        for seq, data in ((7, secured[way][5:]), (2, secured[way][:5]), (2, secured[way][:5]))
    ]
    packets = [
        tcp(data, seq=seq, source=CLIENT, target=SERVER, ports=(port, 80 if port == 40_000 else 443))
        for port, seq, data in [*segments, (40_003, 90, wire)]
    ]
    return Evidence(
        {"fingerprint": "0000", "ways": ways}, tuple(packets), b"|".join(sent.values()) + edge,
        {f"/{way}": data for way, data in sent.items()},
        b"hello (http) hello (https) sealed note sealed letter" + database, b"sealed note",
    )  # fmt: skip


def test_each_kind_of_encryption_keeps_its_promise() -> None:
    found = list(views_of(evidence()))
    judge(found)
    blind = {"network": WAYS[1:], "database": WAYS[2:], "edge": WAYS[3:], "origin": WAYS[3:]}
    expected = {(place, way) for place, ways in blind.items() for way in ways}
    assert {(each.place, each.way) for each in found if not each.reads} == expected
    assert next(each for each in found if (each.place, each.way) == ("network", "http")).data == b"hello (http)"


@pytest.mark.parametrize(
    ("leak", "words"),
    [
        ({"wire": b"hello (https)"}, "packets at wan: reads it"),
        ({"edge": b"hello (letter)"}, "edge, after TLS: reads it"),
        ({"database": b"hello (note)"}, "database file: reads it"),
        ({"database": b"hello (letter)"}, "database file: reads it"),
    ],
)
def test_a_text_anywhere_where_it_must_not_be_is_a_leak(leak: dict[str, bytes], words: str) -> None:
    with pytest.raises(LeakError, match=words):
        judge(list(views_of(evidence(**leak))))


def test_a_place_that_has_nothing_proves_nothing() -> None:
    with pytest.raises(LeakError, match="does not have the message"):
        judge([View("database", "letter", "x", b"", reads=False)])


@pytest.mark.parametrize("text", ["", 'a"b', "a\\b", "ä", "a\nb", "x" * 201])
def test_a_text_that_a_place_would_write_differently_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected 1 to 200 printable"):
        _text(text)
