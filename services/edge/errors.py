"""What a client hears when it cannot be served: whose fault it is, which upstream, and why.

EdgeError
├─ BadRequestError   the client's fault: 4xx or 501, and the connection closes
└─ UpstreamError     ours or the origin's: 502, 503, 504 as JSON
"""

import json

REASONS = {
    308: "Permanent Redirect",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    414: "URI Too Long",
    417: "Expectation Failed",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}


class EdgeError(Exception):
    """Base: carries the status and the body of the response."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason

    def body(self) -> bytes:
        """Return the JSON that explains the status."""
        return json.dumps({"error": REASONS[self.status], "reason": self.reason}).encode() + b"\n"


class BadRequestError(EdgeError):
    """A request that is not forwarded."""


class BadResponseError(ValueError):
    """An origin's response that cannot be read; the reason is the message."""


class UpstreamError(EdgeError):
    """No response from an origin."""

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
