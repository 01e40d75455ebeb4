"""Requests that the edge answers itself: http-01 challenges, redirects to HTTPS, and its own TRACE and OPTIONS."""

from collections.abc import Callable

from edge.heads import RequestHead
from edge.interfaces import Responder

#: Path prefix of the CA's http-01 validation requests (RFC 8555 section 8.3).
CHALLENGE = "/.well-known/acme-challenge/"
#: Methods of requests that the edge may answer itself; over plain HTTP, any method can be redirected.
METHODS = frozenset({b"TRACE", b"OPTIONS"})
#: Prefixes of header fields that a TRACE response omits, because they may hold secrets (RFC 9110 section 9.3.8).
_SENSITIVE = (b"authorization:", b"cookie:", b"proxy-", b"x-forwarded-")
_ALLOW = b"allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE\r\n"


def answer(
    client: Responder, head: RequestHead, challenge: Callable[[str], str | None], *, redirect: bool
) -> int | None:
    """Answer a request that the edge handles itself; return the status, or None if the request must be forwarded.

    Args:
        client: client that receives the response.
        head: request head.
        challenge: returns the response to an http-01 token, or None if the token is unknown.
        redirect: whether plain HTTP is redirected to HTTPS.
    """
    if client.scheme == "http" and head.path.startswith(CHALLENGE):
        text = challenge(head.path[len(CHALLENGE) :])
        status = 404 if text is None else 200
        client.respond(status, (text or "").encode(), b"text/plain", head_only=head.method == b"HEAD")
        return status
    if redirect and client.scheme == "http" and head.host:
        host = head.host.partition(b":")[0] if not head.host.startswith(b"[") else head.host
        client.respond(308, b"", b"text/plain", more=b"location: https://%b%b\r\n" % (host, head.target))
        return 308
    if (head.hops == 0 or head.target == b"*") and head.method in METHODS:  # RFC 9110 section 7.6.2
        if head.method == b"OPTIONS":
            client.respond(200, b"", b"text/plain", more=_ALLOW)
        else:
            lines = head.forward.split(b"\r\n")[:-1]
            reflected = [line for line in lines if not line.lower().startswith(_SENSITIVE)]
            client.respond(200, b"\r\n".join([*reflected, b"", b""]), b"message/http")
        return 200
    return None
