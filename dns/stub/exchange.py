"""Code shared by the blocking and the asyncio exchanges; no I/O."""

import socket
from dataclasses import dataclass

from dnsmessage import Message
from stub.message import parse

Server = tuple[str, int]


@dataclass(slots=True)
class Exchange:
    """Statistics of one resolution: start time, and bytes and round trips so far."""

    began: float
    sent: int = 0
    received: int = 0
    round_trips: int = 0


def family(server: Server) -> socket.AddressFamily:
    """Return the address family of a server's IP address."""
    return socket.AF_INET6 if ":" in server[0] else socket.AF_INET


def reply_to(wire: bytes, reply: bytes) -> Message:
    """Decode the reply to the query *wire*, ignoring the ID, which `Channel` has changed and checked."""
    return parse(wire, wire[:2] + reply[2:])
