"""Time to first byte against distance: a line in the round-trip time whose slope is the number of round trips.

An edge near the client does not shorten the path to the origin; it reduces how often that path is travelled (I.
Grigorik, "High Performance Browser Networking", chapter 1).
"""

from theory.handshake import Protocol, round_trips

#: Kilometres that light travels in fibre per millisecond: 300 in vacuum, divided by a refractive index of 1.47.
FIBRE_KM_PER_MS = 204.0


def floor_ms(kilometres: float) -> float:
    """Return the round-trip time in milliseconds that no network over a fibre of this length can beat."""
    return 2 * kilometres / FIBRE_KM_PER_MS


def direct_ms(rtt_ms: float, protocol: Protocol = "TLSv1.3", *, warm: bool = False, server_ms: float = 0.0) -> float:
    """Return milliseconds to the first byte from a server *rtt_ms* away; *warm*: over an open connection."""
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
        protocol: spoken on both legs.
        warm: whether the client's connection is already open.
        backhaul_warm: whether the edge has a pooled connection to the origin.
        server_ms: processing time of the origin.
    """
    near = direct_ms(near_ms, protocol, warm=warm)
    return near + direct_ms(backhaul_ms, protocol, warm=backhaul_warm, server_ms=server_ms)


def edge_saves_ms(backhaul_ms: float, protocol: Protocol = "TLSv1.3") -> float:
    """Return the milliseconds that a pooled edge on the path saves a new client: (1 + h) · backhaul RTT."""
    return backhaul_ms * (round_trips(protocol) - 1)
