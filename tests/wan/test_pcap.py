"""Tests for packet captures: limits on time and size, and files that tcpdump can read."""

import struct
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import judges
from wan.errors import SettingError
from wan.pcap import Capture, Filter
from wireformat.pcap import LINKTYPE_RAW, file_header

SECOND = 1_000_000_000


def tcp(source: str = "198.19.1.10", target: str = "198.19.20.10", ports: tuple[int, int] = (40_000, 443)) -> bytes:
    addresses = b"".join(bytes(map(int, address.split("."))) for address in (source, target))
    header = struct.pack("!BBHHHBBH", 0x45, 0, 40, 1, 0, 62, 6, 0) + addresses
    return header + struct.pack("!HHIIBBHHH", *ports, 1, 0, 0x50, 2, 64_000, 0, 0)


def test_a_record_has_the_wall_time_and_the_whole_packet() -> None:
    capture = Capture(5, 10, 1_700_000_000 * SECOND, Filter())
    assert capture.offer(tcp(), 7)
    assert capture.file() == file_header(LINKTYPE_RAW) + struct.pack("=IIII", 1_700_000_000, 7, 40, 40) + tcp()
    assert capture.as_dict(5 + SECOND)["seconds_left"] == 9


def test_time_size_and_stop_end_a_capture() -> None:
    by_time = Capture(0, 1, 0, Filter())
    assert by_time.offer(tcp(), SECOND - 1)
    assert not by_time.offer(tcp(), SECOND)
    by_size = Capture(0, 1, 0, Filter(), max_bytes=24 + 2 * 56)
    assert [by_size.offer(tcp(), 0) for _ in range(3)] == [True, True, False]
    assert by_size.as_dict(0) | {"full": True, "packets": 2, "state": "done"} == by_size.as_dict(0)
    stopped = Capture(0, 1, 0, Filter())
    stopped.stopped = True
    assert not stopped.offer(tcp(), 0)


@pytest.mark.parametrize(
    ("values", "matches"),
    [
        ({}, True),
        ({"host": "198.19.20.10"}, True),
        ({"host": "198.19.1.10", "port": 443, "protocol": "tcp"}, True),
        ({"port": 40_000}, True),
        ({"port": 80}, False),
        ({"protocol": "udp"}, False),
        ({"host": "198.19.20.11"}, False),
    ],
    ids=str,
)
def test_every_field_of_a_filter_must_match_in_either_direction(values, matches) -> None:
    assert Filter.of(values).matches(tcp()) is matches


@pytest.mark.parametrize(
    "values",
    [
        [],
        {"net": 1},
        {"host": "edge"},
        {"host": 7},
        {"port": 0},
        {"port": True},
        {"protocol": "sctp"},
        {"protocol": []},
    ],
    ids=str,
)
def test_an_invalid_filter_is_refused(values) -> None:
    with pytest.raises(SettingError):
        Filter.of(values)


@given(st.binary(max_size=80), st.sampled_from([{}, {"port": 7}, {"host": "1.2.3.4"}, {"protocol": "tcp", "port": 7}]))
def test_no_packet_raises_in_a_capture(data, values) -> None:
    assert Capture(0, 1, 0, Filter.of(values)).offer(data, 0)


def test_tcpdump_reads_it(tmp_path) -> None:
    capture = Capture(0, 1, 0, Filter())
    capture.offer(tcp(), 0)
    (tmp_path / "wan.pcap").write_bytes(capture.file())
    command = [*judges.command("tcpdump"), "-nn", "-r", str(tmp_path / "wan.pcap")]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "IP 198.19.1.10.40000 > 198.19.20.10.443: Flags [S]" in shown
