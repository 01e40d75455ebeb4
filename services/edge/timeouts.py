"""How long the edge waits for clients and origins, in seconds, and the rates below which it stops waiting."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timeouts:
    """All of an edge's time limits; every field is in seconds unless it says otherwise."""

    #: A client's TLS handshake.
    handshake: float = 10.0
    #: A request's head, from its first byte to its last (slow loris).
    head: float = 10.0
    #: Silence within a request's body.
    body: float = 30.0
    #: Silence of a client between two requests.
    idle: float = 75.0
    #: A client that takes nothing of what is ready for it.
    send: float = 30.0
    #: The same while other requests wait for the origin connection that it holds up.
    send_contended: float = 2.0
    #: What a client that is still sending gets to read why it was refused, before its connection is reset.
    linger: float = 2.0
    #: Look-up, TCP and TLS to an origin together.
    connect: float = 5.0
    #: Silence of an origin, before and within its response.
    response: float = 30.0
    #: A request that waits for a pooled connection.
    pool: float = 5.0
    #: Requests in flight when the edge stops.
    drain: float = 10.0
    #: Bytes per second that a client must send of a body, and take of a response, on average over *rate_window*.
    min_rate: float = 240.0
    rate_window: float = 10.0
