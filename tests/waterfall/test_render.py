"""Tests for rendered traces: they fit the terminal width and are complete."""

import io
from typing import Any

import pytest
from rich.console import Console

from tests.waterfall.conftest import CLIENT, SERVER
from tests.waterfall.test_packets import EXCHANGE, network
from tests.waterfall.test_predict import WALK, measured, predicted
from waterfall import render
from waterfall.packets import dissect
from wireformat.pcapng import Recording

CHAIN = [
    {"subject": f"CN={name}", "seconds_left": 2520, "issuer": "", "serial": "1", "not_after": "", "bytes": 500}
    for name in ("www.example.com", "firstbyte lab issuing CA 1", "firstbyte lab root")
]


def body(url: str = "https://www.example.com/", packets: bool = False) -> dict:
    def one(version: str, **more) -> dict:
        trace = measured(SERVER[0], version, **more)
        trace.url, trace.status = url, "HTTP/1.1 200 OK"
        trace.phase("tls").detail |= {"cipher": "TLS_AES_256_GCM_SHA384", "chain": CHAIN}
        trace.phase("close").detail["state"] = "TIME-WAIT"
        trace.phase("dns").detail["resolver"] = "198.19.2.53:53"
        predicted(trace, WALK if not more.get("cached") else ())
        at = 0.0
        for phase in trace.phases:
            phase.start_ms, at = at, at + phase.measured_ms
        return trace.as_json()

    timing = {"connection": "fresh", "pool": 0.0, "dns": 34.2, "connect": 0.2, "tls": 2.5, "upstream": 1.6}
    found: dict[str, Any] = {
        "url": url,
        "cold": one("TLSv1.3", timing=timing),
        "warm": one("TLSv1.3", cached=True, resumed=True),
    }
    if packets:
        found["cold"]["packets"] = dissect(
            Recording(tuple(network(EXCHANGE))), CLIENT, SERVER, began_ns=0, first_byte_ms=41, tls=False
        )
    return found


def drawn(found: dict, width: int) -> list[str]:
    out = io.StringIO()
    Console(width=width, file=out, force_terminal=False, color_system=None).print(render(found, width))
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [54, 60, 80, 100, 120, 200])
@pytest.mark.parametrize("packets", [False, True], ids=["plain", "packets"])
def test_no_line_is_wider_than_the_terminal_or_ends_in_blanks(width: int, packets: bool) -> None:
    lines = drawn(body("https://www.example.com/" + "long/" * 40, packets), width)
    assert [line for line in lines if len(line) > width] == []
    assert [line for line in lines if line != line.rstrip()] == []


@pytest.mark.parametrize("width", [60, 80, 120])
def test_every_phase_has_one_line_with_its_figures(width: int) -> None:
    lines = drawn(body(), width)
    for label in ("names", "connect", "TLS", "request", "first byte", "body", "close"):
        assert len([line for line in lines if line.startswith(label) and " 99.0 " in line]) == 2, label
    assert any("99.0      50.0    +49.0     4" in line for line in lines)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_sentences_wrap_behind_their_label(width: int) -> None:
    lines = drawn(body(), width)
    begin = next(i for i, line in enumerate(lines) if line.startswith("  TLS"))
    end = next(i for i, line in enumerate(lines) if line.startswith("  edge"))
    assert all(line.startswith(" " * 9) for line in lines[begin + 1 : end])
    text = " ".join(line[9:] for line in lines[begin:end])
    assert text == (
        "TLSv1.3, TLS_AES_256_GCM_SHA384; verified: www.example.com ← firstbyte lab issuing CA 1 ← "
        "firstbyte lab root; the leaf has 42 min left"
    )
    assert any("firstbyte lab issuing CA 1" in line for line in lines), "a name is not broken"


def test_a_wide_terminal_shows_questions_bytes_and_cpu_and_a_narrow_one_bars() -> None:
    assert "cpu ms" in drawn(body(), 80)[2]
    assert "cpu ms" not in drawn(body(), 60)[2]
    assert any("www.example.com. A" in line for line in drawn(body(), 120))
    assert max(line.count("█") for line in drawn(body(), 60)) >= 2


def test_a_resumed_session_is_reported() -> None:
    assert any("resumed: no certificate was sent" in line for line in drawn(body(), 120))


def test_the_ladder_shows_segments_and_states() -> None:
    text = "\n".join(drawn(body(packets=True), 120))
    for expected in (
        "client 198.19.1.10:40000  02:00:c6:13:01:0a ⇄ 02:00:c6:13:00:fe wan",
        "the client is SYN-SENT at 0.0",
        "the client is FIN-WAIT-2, then TIME-WAIT at 61.2",
        "GET / HTTP/1.1",
        "64→62",
        "2 round trips to the first byte",
    ):
        assert expected in text


def test_a_trace_without_a_packet_says_why() -> None:
    found = body()
    found["cold"]["packets"] = dissect(Recording(), CLIENT, SERVER, began_ns=0, first_byte_ms=1, tls=True)
    assert any("both ends are in one region" in line for line in drawn(found, 100))
