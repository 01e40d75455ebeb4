"""Tests for the message encoding: round trips of all requests and replies, and rejection of invalid data."""

import socket
from typing import get_args

import pytest

from netns_engine import messages
from netns_engine.control import Connection
from netns_engine.errors import LabDownError, LabError, UnknownHostError
from netns_engine.messages import (
    Act,
    Done,
    Down,
    Exec,
    Exited,
    Failed,
    HostReport,
    Hosts,
    Join,
    Leave,
    Message,
    MessageError,
    OpenNamespaces,
    OpenSocket,
    Run,
    Signal,
    Status,
    Up,
)

REPORT = HostReport("running", "healthy", None, 0, "", one_shot=False, address="198.19.20.10", memory=2**20)
EVERY: list[Message] = [
    Up(("load",), (("edge", 443), ("resolver", 53))),
    Status(memory=True),
    Act("kill", "edge"),
    OpenSocket("edge", "udp"),
    OpenNamespaces("edge"),
    Exec("edge", ("sh", "-c", "exit 7")),
    Run("lab", ("trace", "https://www.example.com/")),
    Join("mine", "198.19.20.100", ("--name", "mine.example.com"), (("HOME", "/srv/subject"),), "/home/me"),
    Leave("mine"),
    Signal(2),
    Down(),
    Done(),
    Hosts({"edge": REPORT}),
    Exited(137),
    Failed("edge is paused, expected running", "down"),
]


def test_the_list_above_has_every_message() -> None:
    assert {type(message) for message in EVERY} == {*get_args(messages.Request), *get_args(messages.Reply)}


@pytest.mark.parametrize("message", EVERY, ids=lambda message: type(message).__name__)
def test_a_message_survives_encoding(message: Message) -> None:
    assert messages.decode(messages.encode(message)) == message


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"{", id="not-json"),
        pytest.param(b"[]", id="not-an-object"),
        pytest.param(b'{"do": "status"}', id="another-version"),
        pytest.param(b'{"type": "Reboot"}', id="unknown-type"),
        pytest.param(b'{"type": "Act", "host": "edge"}', id="field-missing"),
        pytest.param(b'{"type": "Down", "volumes": true}', id="unknown-field"),
        pytest.param(b'{"type": "Hosts", "hosts": {"edge": {"state": "running"}}}', id="half-a-report"),
        pytest.param(b"\xff\xfe", id="not-utf-8"),
    ],
)
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(MessageError, match="expected a message of this version"):
        messages.decode(data)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        pytest.param(UnknownHostError("nobody", ["edge", "ca"]), UnknownHostError, id="unknown-host"),
        pytest.param(LabDownError("edge is paused, expected running"), LabDownError, id="down"),
        pytest.param(LabError("no address is free"), LabError, id="other"),
    ],
)
def test_an_error_is_raised_by_the_client_as_it_was_by_the_supervisor(error: LabError, kind: type[LabError]) -> None:
    ours, theirs = (Connection(s) for s in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    theirs.send(Failed.of(error))
    with pytest.raises(kind) as caught:
        ours.receive_reply(Done)
    assert (type(caught.value), str(caught.value), caught.value.exit_code) == (kind, str(error), error.exit_code)
    theirs.send(Exited(0))
    with pytest.raises(LabError, match="expected Done from the lab's supervisor, got Exited"):
        ours.receive_reply(Done)
    theirs.close()
    with pytest.raises(LabDownError, match="supervisor ended"):
        ours.receive_reply(Done)
    ours.close()
