"""Errors that the edge reports to clients, with status code, upstream and reason.

EdgeError
├─ BadRequestError   the client's fault: status 4xx or 501; the connection is closed
└─ UpstreamError     the edge's or the origin's fault: status 502, 503 or 504 with a JSON body
"""

import json

REASONS = {
    308: "Permanent Redirect",
    400: "Bad Request",
    403: "Forbidden",
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
    """Base class: an error response with its status and reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason

    def body(self) -> bytes:
        """Return the JSON response body that explains the status."""
        return json.dumps({"error": REASONS[self.status], "reason": self.reason}).encode() + b"\n"


class BadRequestError(EdgeError):
    """The request is invalid or not allowed, and is not forwarded."""


class BadResponseError(ValueError):
    """An origin's response is malformed; the message gives the reason."""


class UpstreamError(EdgeError):
    """No response could be obtained from an origin."""

    def __init__(self, status: int, reason: str, upstream: str, address: str = "") -> None:
        super().__init__(status, reason)
        self.upstream, self.address = upstream, address

    def body(self) -> bytes:
        """Return the JSON response body with the upstream, its address and the reason."""
        fields = {
            "error": REASONS[self.status],
            "upstream": self.upstream,
            "address": self.address,
            "reason": self.reason,
        }
        return json.dumps(fields).encode() + b"\n"
