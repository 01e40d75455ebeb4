"""Tests for the packet socket: opened with privileges, idle until a capture starts, limited to one host's frames."""

import asyncio
import os
import socket
import subprocess
import sys
import time

import pytest

from telemetry import AdminError, Request, Telemetry
from wan.captures import FrameCaptures
from wan.frames import ETH_P_IDLE, FD_VARIABLE, FrameCapture, Tap, inherited
from wireformat.pcapng import Frame, read

HOST, OTHER, ADMIN = "127.0.0.7", "127.0.0.1", 9900


def may_capture() -> bool:
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
    except PermissionError:
        return False
    return True


needs_raw = pytest.mark.skipif(not may_capture(), reason="only CAP_NET_RAW opens a packet socket")


@pytest.fixture
def tap():
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.bind(("lo", ETH_P_IDLE))
    made = Tap(sock)
    yield made
    made.close()


def capture(seconds: float = 10.0, **more) -> FrameCapture:
    return FrameCapture(time.time_ns() + round(seconds * 1e9), **more)


def send(payload: bytes, source: str = HOST, port: int = 53_000) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink,
    ):
        sink.bind((OTHER, port))
        sock.bind((source, 0))
        sock.sendto(payload, (OTHER, port))


def payloads(made: FrameCapture) -> list[tuple[bool, bytes]]:
    return [(frame.outbound, frame.data[-4:]) for frame in made.frames]


@needs_raw
async def test_a_capture_has_one_hosts_frames_both_ways_and_none_of_the_admin_port(tap: Tap) -> None:
    made = capture()
    send(b"soon")
    tap.start(made, HOST, ADMIN)
    send(b"mine")
    send(b"else", source="127.0.0.8")
    send(b"call", port=ADMIN)
    tap.stop()
    send(b"late")
    await asyncio.sleep(0.02)  # allows time for the arrival of frames that must not be captured
    assert payloads(made) == [(True, b"mine"), (False, b"mine")]
    assert abs(made.frames[0].time_ns - time.time_ns()) < 5e9
    assert made.dropped == 0


@needs_raw
async def test_frames_that_do_not_fit_are_counted(tap: Tap) -> None:
    made = capture(max_bytes=100)
    tap.start(made, HOST, ADMIN)
    for _ in range(3):
        send(b"mine" * 10)
    tap.stop()
    assert (len(made.frames), made.dropped) == (1, 5)


@needs_raw
async def test_a_second_capture_starts_empty(tap: Tap) -> None:
    for word in (b"one.", b"two."):
        made = capture()
        tap.start(made, HOST, ADMIN)
        send(word)
        tap.stop()
        assert payloads(made) == [(True, word), (False, word)]


def test_a_capture_ends_at_its_time() -> None:
    made = FrameCapture(until_ns=10)
    for at in (9, 10, 11):
        made.offer(Frame(at, False, b"x"))
    assert [frame.time_ns for frame in made.frames] == [9]


# --- the opener -----------------------------------------------------------------------------------------------------

SHOW = (
    f"import os, socket; n = os.environ.get('{FD_VARIABLE}'); "
    "print(n and socket.socket(fileno=int(n)).getsockname()[:2])"
)


@needs_raw
def test_the_command_inherits_an_idle_socket() -> None:
    command = [sys.executable, "-m", "wan.frames", "--device", "lo", "--", sys.executable, "-c", SHOW]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == str(("lo", ETH_P_IDLE))


def test_without_the_device_the_command_runs_without_frames() -> None:
    command = [sys.executable, "-m", "wan.frames", "--device", "none0", "--", sys.executable, "-c", SHOW]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "None"
    assert "frames cannot be captured" in done.stderr


def test_a_missing_command_is_one_clear_line() -> None:
    command = [sys.executable, "-m", "wan.frames", "--device", "none0", "--", "/nowhere/command"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "wan.frames: error: /nowhere/command: No such file or directory"


@pytest.mark.parametrize("value", [None, "", "x", "99999"], ids=str)
def test_without_a_usable_descriptor_there_is_no_tap(value: str | None, monkeypatch) -> None:
    monkeypatch.delenv(FD_VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(FD_VARIABLE, value)
    assert inherited() is None


def test_a_socket_of_another_family_is_not_used(monkeypatch) -> None:
    with socket.socket() as sock:
        monkeypatch.setenv(FD_VARIABLE, str(sock.fileno()))
        assert inherited() is None
        os.fstat(sock.fileno())


# --- the admin API ----------------------------------------------------------------------------------------------------


def admin(tap: Tap | None) -> FrameCaptures:
    return FrameCaptures(Telemetry("wan"), tap)


def post(body: bytes) -> Request:
    return Request("POST", "/admin/frames", body=body)


async def test_a_router_without_the_socket_says_so() -> None:
    with pytest.raises(AdminError, match="CAP_NET_RAW") as refused:
        admin(None).start(post(b'{"host": "198.19.1.10", "seconds": 1}'))
    assert refused.value.status == 503


@needs_raw
async def test_start_get_stop(tap: Tap) -> None:
    api = admin(tap)
    with pytest.raises(AdminError, match="no frames"):
        api.get(Request("GET", "/admin/frames"))
    assert api.start(post(b'{"host": "127.0.0.7", "seconds": 5}'))["device"] == "lo"
    with pytest.raises(AdminError, match="is running"):
        api.start(post(b'{"host": "127.0.0.7", "seconds": 5}'))
    send(b"mine")
    assert api.stop(Request("DELETE", "/admin/frames")) == {"state": "done", "frames": 2, "dropped": 0}
    assert len(read(api.get(Request("GET", "/admin/frames")).body).frames) == 2


@needs_raw
@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{}",
        b'{"host": "edge", "seconds": 1}',
        b'{"host": "127.0.0.7"}',
        b'{"host": "127.0.0.7", "seconds": 0}',
        b'{"host": "127.0.0.7", "seconds": true}',
        b'{"host": "127.0.0.7", "seconds": 1, "port": 1}',
    ],
    ids=str,
)
async def test_an_invalid_request_is_refused(tap: Tap, body: bytes) -> None:
    with pytest.raises(AdminError, match="expected"):
        admin(tap).start(post(body))
