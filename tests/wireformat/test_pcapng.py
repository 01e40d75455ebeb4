"""Tests for pcapng files: our reader and tshark can read written files, and unsupported files are rejected."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import judges
from wireformat.pcapng import Frame, PcapngError, Recording, read, write

frames = st.builds(Frame, st.integers(0, (1 << 64) - 1), st.booleans(), st.binary(max_size=70))
recordings = st.builds(Recording, st.lists(frames, max_size=5).map(tuple), st.integers(0, (1 << 64) - 1))
ONE = Recording((Frame(1_700_000_000_123_456_789, True, bytes(60)),), 3)


@given(recordings)
def test_reading_returns_what_was_written(recording: Recording) -> None:
    assert read(write(recording, "eth0")) == recording


@given(st.binary(max_size=80), st.data())
def test_no_input_raises_anything_but_a_pcapng_error(noise: bytes, data: st.DataObject) -> None:
    whole = bytearray(write(ONE, "eth0"))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at : at + data.draw(st.integers(0, 4))] = noise[:4]
    for each in (noise, bytes(whole), bytes(whole[:at])):
        try:
            found = read(each)
        except PcapngError:
            continue
        assert isinstance(found, Recording)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected a pcapng section"),
        (b"\xd4\xc3\xb2\xa1" + bytes(20), "expected a whole block at 0"),
        (write(ONE, "eth0")[:-4], "expected a whole block"),
        (write(ONE, "eth0")[28:], "expected a little-endian pcapng section"),
    ],
    ids=["empty", "pcap", "truncated", "no-section"],
)
def test_other_files_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(PcapngError, match=message):
        read(data)


def test_tshark_reads_time_and_direction(tmp_path) -> None:
    (tmp_path / "f.pcapng").write_bytes(write(ONE, "eth0"))
    fields = ("frame.time_epoch", "frame.packet_flags_direction", "frame.len", "frame.interface_name")
    command = [
        *judges.command("tshark"),
        "-r",
        str(tmp_path / "f.pcapng"),
        "-T",
        "fields",
        *(f"-e{field}" for field in fields),
    ]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert shown.split() == ["1700000000.123456789", "0x00000002", "60", "eth0"]
