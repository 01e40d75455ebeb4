"""Where the server stands: a line in the round-trip time, whose slope is the number of round trips.

An edge near the client does not shorten the way to the origin; it shortens how often that way is gone (I. Grigorik,
"High Performance Browser Networking", chapter 1).
"""

from theory.handshake import Protocol, round_trips

#: Kilometres that light goes in a fibre in one millisecond: 300 in a vacuum, divided by an index of 1.47.
FIBRE_KM_PER_MS = 204.0


def floor_ms(kilometres: float) -> float:
    """Return the round-trip time in milliseconds that no network over a fibre of this length can beat."""
    return 2 * kilometres / FIBRE_KM_PER_MS


def direct_ms(rtt_ms: float, protocol: Protocol = "TLSv1.3", *, warm: bool = False, server_ms: float = 0.0) -> float:
    """Return milliseconds to the first byte from a server *rtt_ms* away; *warm*: on a connection that is open."""
    return rtt_ms * (1 if warm else round_trips(protocol)) + server_ms


def through_edge_ms(
    near_ms: float,
    backhaul_ms: float,
    protocol: Protocol = "TLSv1.3",
    *,
    warm: bool = False,
    backhaul_warm: bool = True,
    server_ms: float = 0.0,
) -> float:
    """Return milliseconds to the first byte through an edge that forwards to the origin.

    Args:
        near_ms: round-trip time between client and edge.
        backhaul_ms: round-trip time between edge and origin.
        protocol: what is spoken on both legs.
        warm: whether the client's connection is open.
        backhaul_warm: whether the edge has a pooled connection to the origin.
        server_ms: what the origin takes.
    """
    near = direct_ms(near_ms, protocol, warm=warm)
    return near + direct_ms(backhaul_ms, protocol, warm=backhaul_warm, server_ms=server_ms)


def edge_saves_ms(backhaul_ms: float, protocol: Protocol = "TLSv1.3") -> float:
    """Return what a pooled edge saves a cold client whose way to the origin leads past it: (1 + h) · backhaul RTT."""
    return backhaul_ms * (round_trips(protocol) - 1)
