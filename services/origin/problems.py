"""Error responses as problem documents (RFC 9457)."""

import json
from http import HTTPStatus

from aiohttp import web

#: Media type of a problem document.
MEDIA_TYPE = "application/problem+json"


class Problem(Exception):  # noqa: N818 - RFC 9457 calls it a problem
    """An error response; *detail* says what was expected, what was received, and what to do."""

    def __init__(self, status: int, detail: str, *, kind: str = "about:blank", **headers: str) -> None:
        """Create a problem response; the keyword argument ``retry_after="1"`` becomes the header ``Retry-After: 1``."""
        super().__init__(detail)
        self.status, self.detail, self.kind = status, detail, kind
        self.headers = {name.replace("_", "-").title(): value for name, value in headers.items()}

    def response(self, instance: str) -> web.Response:
        """Return the problem document for the request target *instance*."""
        return document(self.status, self.detail, instance, self.kind, self.headers)


def document(
    status: int, detail: str, instance: str, kind: str = "about:blank", headers: dict[str, str] | None = None
) -> web.Response:
    """Return a response with a problem document."""
    body = {"type": kind, "title": HTTPStatus(status).phrase, "status": status, "detail": detail, "instance": instance}
    return web.Response(
        status=status, body=json.dumps(body).encode() + b"\n", content_type=MEDIA_TYPE, headers=headers or {}
    )
