"""What a client is told when it cannot be served: whose fault it is, which upstream, and why.

EdgeError
├─ BadRequestError   the client's fault: 4xx, and the connection closes
└─ UpstreamError     ours or the origin's: 502, 503, 504 as JSON
"""

import json

REASONS = {
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    414: "URI Too Long",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}


class EdgeError(Exception):
    """Base: carries the status and the body."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason

    def body(self) -> bytes:
        """Return the JSON that explains the status."""
        return json.dumps({"error": REASONS[self.status], "reason": self.reason}).encode() + b"\n"


class BadRequestError(EdgeError):
    """A request that is not forwarded."""


class UpstreamError(EdgeError):
    """No answer from an origin."""

    def __init__(self, status: int, reason: str, upstream: str, address: str = "") -> None:
        super().__init__(status, reason)
        self.upstream, self.address = upstream, address

    def body(self) -> bytes:
        """Return the JSON that says which upstream and why."""
        fields = {
            "error": REASONS[self.status],
            "upstream": self.upstream,
            "address": self.address,
            "reason": self.reason,
        }
        return json.dumps(fields).encode() + b"\n"
