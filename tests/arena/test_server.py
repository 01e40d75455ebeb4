"""Tests that run `python -m arena` as a process: sessions over UDP and TCP, limits, and metrics."""

import re
import socket
import subprocess
import sys
import urllib.request
from dataclasses import replace

import pytest

from arena import messages
from arena.messages import Join, Mode
from scenarios.instruments.arena_players import PlayerError, play
from scenarios.instruments.connection import Address
from tests.waiting import comes_true

JOIN = Join(100.0, 100, 0.3)


@pytest.fixture(scope="module")
def ports():
    """Yield the game port and the admin port of a running arena."""
    command = [sys.executable, "-m", "arena", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            found: dict[str, int] = {}
            while len(found) < 2:
                line = process.stdout.readline()
                assert line, "the arena has ended"
                if match := re.match(r"listening on 127.0.0.1:(\d+) \((\w+)", line):
                    found[match[2]] = int(match[1])
            yield found["UDP"], found["admin"]
        finally:
            process.terminate()
            assert process.wait(10) == 0


def metric(port, name):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def test_every_protocol_delivers_all_snapshots_in_time(ports):
    joins = [("udp", JOIN), ("tcp", JOIN), ("newest", replace(JOIN, mode=Mode.NEWEST))]
    players = play(Address("arena", "127.0.0.1", ports[0]), joins)
    assert [player.newest for player in players] == [29] * 3
    assert [player.missing for player in players] == [0] * 3
    assert all(0 < player.mean_age < 1 for player in players)
    assert comes_true(lambda: metric(ports[1], "firstbyte_arena_sessions") == 0)


def test_a_join_with_a_wrong_cookie_gets_no_answer(ports):
    refused = metric(ports[1], "firstbyte_arena_refused_total")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", ports[0]))
        sock.settimeout(5)
        sock.send(JOIN.encode())
        assert comes_true(lambda: metric(ports[1], "firstbyte_arena_refused_total") == refused + 1)
        sock.send(messages.hello())
        assert messages.cookie_of(sock.recv(2048))  # the first message is the cookie, so no snapshot was sent


def test_a_player_that_leaves_gets_no_more_snapshots(ports):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", ports[0]))
        sock.settimeout(5)
        sock.send(messages.hello())
        sock.send(replace(JOIN, duration=60.0, cookie=messages.cookie_of(sock.recv(2048))).encode())
        sock.recv(2048)
        assert metric(ports[1], "firstbyte_arena_sessions") == 1
        sock.send(messages.leave())
        assert comes_true(lambda: metric(ports[1], "firstbyte_arena_sessions") == 0)


def test_a_connection_that_sends_something_else_is_closed(ports):
    with socket.create_connection(("127.0.0.1", ports[0]), timeout=5) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: arena.example.com\r\n\r\n")
        assert sock.recv(100) == b""


def test_without_an_arena_the_player_says_so():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        with pytest.raises(PlayerError, match=f"arena:{port}: "):
            play(Address("arena", "127.0.0.1", port), [("tcp", JOIN)])
