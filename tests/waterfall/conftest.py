"""Fixtures and functions for certificates and servers on loopback, and for hand-made frames."""

import ipaddress

from tests.edge.conftest import bench
from tests.packets import tcp
from tests.peers import papers
from wireformat.pcapng import Frame

__all__ = ["CLIENT", "SERVER", "bench", "frame", "papers", "segment"]

CLIENT, SERVER = ("198.19.1.10", 40_000), ("198.19.20.10", 443)
MS = 1_000_000
FLAGS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16}
MACS = {CLIENT[0]: "02:00:c6:13:01:0a", SERVER[0]: "02:00:c6:13:14:0a", "wan": "02:00:c6:13:00:fe"}


def segment(
    source: tuple[str, int],
    target: tuple[str, int],
    flags: str,
    seq: int,
    ack: int = 0,
    payload: bytes = b"",
    *,
    options: bytes = b"",
    window: int = 64_240,
    ttl: int = 64,
    identification: int = 7,
) -> bytes:
    """Return an IPv4 packet with a TCP segment; *flags* are letters of `FLAGS`."""
    return tcp(
        payload, sum(FLAGS[flag] for flag in flags), seq=seq, ack=ack, source=source[0], target=target[0],
        ports=(source[1], target[1]), options=options, window=window, ttl=ttl, identification=identification,
    )  # fmt: skip


def frame(at_ms: float, outbound: bool, packet: bytes) -> Frame:
    """Return *packet* in an Ethernet frame that enters the network or, if *outbound*, leaves it."""
    source, target = (str(ipaddress.IPv4Address(packet[at : at + 4])) for at in (12, 16))
    ends = (MACS["wan"], MACS[target]) if outbound else (MACS[source], MACS["wan"])
    header = b"".join(bytes.fromhex(mac.replace(":", "")) for mac in reversed(ends)) + b"\x08\x00"
    return Frame(round(at_ms * MS), outbound, header + packet)
