"""A small DNS hierarchy on loopback for the resolver tests: real name servers at 127.0.1.x, all on one port."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

import serving
from nameserver import Responder, parse

ROOT, COM, EXAMPLE, OTHER = "127.0.1.1", "127.0.1.2", "127.0.1.3", "127.0.1.4"
HEAD = "$TTL 300\n@ IN SOA ns.{0} hm.{0} 1 2 3 4 5\n"

ZONES = {
    ROOT: {
        ".": f"$TTL 300\n@ IN SOA a.root. hm. 1 2 3 4 5\n@ IN NS a.root.\na.root. IN A {ROOT}\n"
        f"com. IN NS ns.com.\nns.com. IN A {COM}\n"
    },
    COM: {
        "com.": HEAD.format("com.")
        + f"@ IN NS ns\nns IN A {COM}\nexample IN NS ns.example\nns.example IN A {EXAMPLE}\n"
        + "glueless IN NS ns.other\nother IN NS ns.other\nns.other IN A 127.0.1.4\n"
        "loop-a IN NS ns.loop-b\nloop-b IN NS ns.loop-a\n"
    },
    EXAMPLE: {
        "example.com.": HEAD.format("example.com.")
        + f"@ IN NS ns\nns IN A {EXAMPLE}\nwww 30 IN A 192.0.2.1\nzero 0 IN A 192.0.2.2\nalias 20 IN CNAME www\n"
        + "away IN CNAME www.other.com.\nself IN CNAME self\nping IN CNAME pong\npong IN CNAME ping\n"
        + "".join(f'big IN TXT "{i:03d} {"x" * 200}"\n' for i in range(12))
    },
    OTHER: {
        "other.com.": HEAD.format("other.com.") + f"@ IN NS ns\nns IN A {OTHER}\nwww IN A 192.0.2.9\n",
        "glueless.com.": HEAD.format("glueless.com.") + "@ IN NS ns.other.com.\nwww IN A 192.0.2.8\n",
    },
}  # fmt: skip


class Internet:
    """The name servers by address; a test can override the replies of any server."""

    def __init__(self) -> None:
        self.port = 0
        self.asked: list[tuple[str, str]] = []
        self.override: dict[str, Any] = {}
        self.responders = {
            a: Responder({z.apex: z for o, t in zones.items() for z in [parse(o, t)]}) for a, zones in ZONES.items()
        }

    def handler(self, address: str):
        def handle(wire: bytes, client, transport):
            self.asked.append((address, transport))
            if address in self.override:
                return self.override[address](wire, transport)
            response = self.responders[address].respond(wire, udp=transport == "udp")
            return None if response is None else response.wire

        return handle


@pytest.fixture
async def internet() -> AsyncIterator[Internet]:
    net = Internet()
    async with contextlib.AsyncExitStack() as stack:
        for address in ZONES:
            listener = await serving.start((address, net.port), net.handler(address))
            stack.push_async_callback(listener.close)
            net.port = listener.address[1]
        yield net
