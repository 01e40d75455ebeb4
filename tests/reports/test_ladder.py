"""Tests for ladder diagrams of traces."""

import itertools
import re
import xml.etree.ElementTree as ET
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from reports.ladder import ROW, ladder

SVG = "{http://www.w3.org/2000/svg}"


def segment(sender: str, sent: float, arrived: float | None, what: str = "", *flags: str, length: int = 0) -> Any:
    tcp = {"flags": [*flags, "ACK"], "length": length}
    return {"from": sender, "sent_ms": sent, "arrived_ms": arrived, "what": what, "tcp": tcp, "ip": {}}


def drawn(rows: list[Any], states: list[Any] = [], caption: str = "") -> ET.Element:  # noqa: B006 - never mutated
    ends = {host: {"address": "198.19.1.10", "port": 443} for host in ("client", "server")}
    return ET.fromstring(ladder({"packets": rows, "states": states, **ends}, "a <title>", caption))  # noqa: S314 - ours


def texts(picture: ET.Element) -> dict[str, float]:
    return {each.text or "": float(each.get("y", "nan")) for each in picture.iter(f"{SVG}text")}


def test_segments_are_arrows_with_their_flags_content_and_size() -> None:
    rows = [
        segment("client", 0.0, 10.0, "SYN", "SYN"),
        segment("server", 10.1, 20.1, "SYN-ACK", "SYN"),
        segment("client", 20.2, 30.2, "ClientHello", "PSH", length=1517),
        segment("client", 20.2, None, "ACK"),
        segment("client", 20.3, 30.3, "encrypted", "FIN", length=24),
    ]
    states = [{"ms": 0.0, "host": "client", "state": "SYN-SENT"}, {"ms": 30.3, "host": "server", "state": "CLOSE-WAIT"}]
    picture = drawn(rows, states, "Idle times are shortened.")
    found = texts(picture)
    words = {"SYN", "SYN-ACK", "ClientHello (1,517 B)", "ACK", "FIN encrypted (24 B)", "SYN-SENT", "CLOSE-WAIT"}
    assert words | {"a <title>", "0.0 ms", "20.2 ms", "Idle times are shortened."} <= found.keys()
    arrows = [each for each in picture.iter(f"{SVG}line") if each.get("class", "").startswith("l-")]
    assert len(arrows) == len(rows)
    assert [each.get("stroke-dasharray") for each in arrows].count("4 3") == 1  # the lost segment
    assert all(float(each.get("y1", "")) < float(each.get("y2", "")) for each in arrows)
    assert float(str(picture.get("height"))) > max(found.values())


def test_a_datagram_names_the_resolver() -> None:
    query = {
        "from": "client",
        "sent_ms": 0.0,
        "arrived_ms": 1.0,
        "what": "DNS query",
        "ip": {"destination": "198.19.2.53"},
    }
    assert "DNS query (to 198.19.2.53)" in texts(drawn([query]))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["client", "server"]),
            st.integers(0, 300),
            st.one_of(st.none(), st.integers(0, 200)),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_labels_of_one_host_never_overlap_and_later_is_lower(parts: list[tuple[str, int, int | None]]) -> None:
    rows = [segment(host, at, None if delay is None else at + delay, "x") for host, at, delay in parts]
    picture = drawn(rows)
    times = {"client": "end", "server": "start"}
    for host, anchor in times.items():
        labels = [
            (float(str(each.text).removesuffix(" ms")), float(each.get("y", "")))
            for each in picture.iter(f"{SVG}text")
            if re.fullmatch(r"\d+\.\d ms", each.text or "") and each.get("text-anchor") == anchor
        ]
        assert len(labels) == sum(each == host for each, _, _ in parts)
        by_place = sorted(labels, key=lambda each: each[1])
        assert [at for at, _ in by_place] == sorted(at for at, _ in labels)
        gaps = [low[1] - high[1] for high, low in itertools.pairwise(by_place)]
        assert all(gap >= ROW - 0.11 for gap in gaps)  # positions are rounded to a tenth of a pixel
