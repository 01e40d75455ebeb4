"""A stub resolver that honours TTLs, with a blocking and an asyncio interface (RFC 1034 section 5.3.1).

`socket.getaddrinfo` neither returns nor honours TTLs, but connection pools, load generators and traces need them.
"""

from stub.authoritative import ask_name_servers, zone_of
from stub.errors import MalformedReplyError, NoAddress, NoSuchName, ServerFailure, StubError, Timeout
from stub.message import Answer
from stub.resolve import AsyncStub, Stub, system_servers
from stub.transport import TCP, UDP, Transport, https, opportunistic, strict

__all__ = [
    "TCP",
    "UDP",
    "Answer",
    "AsyncStub",
    "MalformedReplyError",
    "NoAddress",
    "NoSuchName",
    "ServerFailure",
    "Stub",
    "StubError",
    "Timeout",
    "Transport",
    "ask_name_servers",
    "https",
    "opportunistic",
    "strict",
    "system_servers",
    "zone_of",
]
