"""The edge: terminates TLS and forwards to origins over pooled mTLS connections (RFC 9110, RFC 9112).

HTTP/1.1 and 1.0; no HTTP/2, no cache, no upgrade.
"""

from edge.errors import BadRequestError, EdgeError, UpstreamError
from edge.pool import Limits, Open, Pool, Refuse, Use, Wait
from edge.routes import Route, Target, parse_route

__all__ = [
    "BadRequestError",
    "EdgeError",
    "Limits",
    "Open",
    "Pool",
    "Refuse",
    "Route",
    "Target",
    "UpstreamError",
    "Use",
    "Wait",
    "parse_route",
]
