"""Time to first byte by distance: a linear function of the round-trip time whose slope is the number of round trips.

An edge near the client does not shorten the path to the origin; it reduces the number of round trips on that path (I.
Grigorik, "High Performance Browser Networking", chapter 1).
"""

from theory.handshake import Protocol, round_trips

#: Speed of light in fibre in kilometres per millisecond: 300 in vacuum, divided by a refractive index of 1.47.
FIBRE_KM_PER_MS = 204.0


def floor_ms(kilometres: float) -> float:
    """Return the minimum round-trip time in milliseconds over *kilometres* of fibre, given by the speed of light."""
    return 2 * kilometres / FIBRE_KM_PER_MS


def direct_ms(rtt_ms: float, protocol: Protocol = "TLSv1.3", *, warm: bool = False, server_ms: float = 0.0) -> float:
    """Return the time to first byte in ms from a server *rtt_ms* away; *warm*: the connection is already open."""
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
    """Return the time to first byte in milliseconds through an edge that forwards the request to the origin.

    Args:
        near_ms: round-trip time between client and edge.
        backhaul_ms: round-trip time between edge and origin.
        protocol: protocol on both connections.
        warm: whether the client's connection is already open.
        backhaul_warm: whether the edge has an open connection to the origin in its pool.
        server_ms: processing time of the origin.
    """
    near = direct_ms(near_ms, protocol, warm=warm)
    return near + direct_ms(backhaul_ms, protocol, warm=backhaul_warm, server_ms=server_ms)


def edge_saves_ms(backhaul_ms: float, protocol: Protocol = "TLSv1.3") -> float:
    """Return the time in ms that an edge with pooled connections saves a new client: (1 + h) · backhaul RTT.

    Here h is the number of round trips of the TLS handshake.
    """
    return backhaul_ms * (round_trips(protocol) - 1)
