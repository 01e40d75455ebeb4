"""Edge server: terminates TLS and forwards requests to origins over pooled mTLS connections (RFC 9110, RFC 9112).

Clients may use HTTP/2, HTTP/1.1, HTTP/1.0 and WebSocket; origins are reached over HTTP/1.1. There is no cache.
"""

from edge.errors import BadRequestError, EdgeError, UpstreamError
from edge.pool import Limits, Open, Outcome, Pool, Refuse, Use, Wait
from edge.routes import Route, parse_route
from edge.targets import Target
from edge.timeouts import Timeouts

__all__ = [
    "BadRequestError",
    "EdgeError",
    "Limits",
    "Open",
    "Outcome",
    "Pool",
    "Refuse",
    "Route",
    "Target",
    "Timeouts",
    "UpstreamError",
    "Use",
    "Wait",
    "parse_route",
]
