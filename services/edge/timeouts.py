"""Time-outs of the edge for clients and origins, in seconds, and minimum transfer rates."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timeouts:
    """All time-outs and minimum rates of an edge; values are in seconds unless stated otherwise."""

    #: Maximum duration of a client's TLS handshake.
    handshake: float = 10.0
    #: Maximum time from the first to the last byte of a request head (protects against slow loris attacks).
    head: float = 10.0
    #: Maximum time without data while a request body is being received.
    body: float = 30.0
    #: Keep-alive time-out: maximum idle time of a client connection between two requests.
    idle: float = 75.0
    #: Maximum time that a client may read nothing while response data is waiting for it.
    send: float = 30.0
    #: Stricter value of `send` while other requests are queued for the origin connection that the slow client occupies.
    send_contended: float = 2.0
    #: How long a refused client that is still sending may read the error response before its connection is reset.
    linger: float = 2.0
    #: Maximum time for opening an origin connection: DNS look-up, TCP and TLS together.
    connect: float = 5.0
    #: Maximum time without data from an origin, before and during its response.
    response: float = 30.0
    #: Maximum time that a request waits for a pooled connection.
    pool: float = 5.0
    #: Maximum time for requests in flight to finish when the edge stops.
    drain: float = 10.0
    #: Minimum average rate at which a client must send a request body and read a response, in bytes per second.
    min_rate: float = 240.0
    #: Time window over which `min_rate` is measured, in seconds.
    rate_window: float = 10.0
