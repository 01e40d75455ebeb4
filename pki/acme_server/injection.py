"""Fault injection in ACME responses, per resource: error responses, lost responses, delays, wrong renewal information.

Each fault has the parameters ``count``, ``probability`` and ``seed`` (see `telemetry.faults`), so that the fault can
apply to the next n requests, or to a reproducible random sample of requests.
"""

import asyncio
from typing import Any

from aiohttp import web

from acme_server import problems
from telemetry import Faults

#: Resources of the ACME server; a fault's ``resource`` parameter selects one of them.
RESOURCES = (
    "any", "directory", "new-nonce", "new-account", "account", "new-order", "order", "finalize", "authorization",
    "challenge", "certificate", "revoke-cert", "key-change", "renewal-info",
)  # fmt: skip
#: Resources whose requests contain a nonce.
SIGNED = tuple(each for each in RESOURCES if each not in {"directory", "new-nonce", "renewal-info"})
#: Kinds of wrong renewal windows: in the past, ten years ahead, end before start, malformed time, no window.
WINDOWS = ("past", "far-future", "inverted", "malformed", "missing")
TEN_YEARS = 10 * 365 * 86400.0
#: Polling interval while the fault ``acme_hang`` is on, in seconds.
HANG_TICK = 0.1


def declare(faults: Faults) -> None:
    """Declare the faults of the ACME server."""
    faults.declare("acme_bad_nonce", "Refuse signed requests with badNonce", resource=SIGNED)
    faults.declare("acme_429", "Answer 429 rateLimited with Retry-After", resource=RESOURCES, retry_after=1)
    faults.declare("acme_503", "Answer 503 with Retry-After", resource=RESOURCES, retry_after=1)
    faults.declare("acme_500", "Answer 500 serverInternal", resource=RESOURCES)
    faults.declare("acme_empty", "Answer 200 without a body, and do not process the request", resource=RESOURCES)
    faults.declare("acme_slow", "Answer this many milliseconds late", resource=RESOURCES, ms=1000.0)
    faults.declare("acme_hang", "Accept requests and never answer them", resource=RESOURCES)
    faults.declare("acme_refuse", "Do not listen: connections are refused")
    faults.declare(
        "acme_drop",
        "Close the connection instead of answering: request (it is not processed) or response (it is processed)",
        resource=RESOURCES, loses=("request", "response"),
    )  # fmt: skip
    faults.declare(
        "acme_processing",
        "Show a validated authorization or an issued order as if it were still in progress",
        resource=("any", "authorization", "order"), retry_after=1,
    )  # fmt: skip
    faults.declare("acme_renewal_window", "Suggest a wrong renewal window (RFC 9773)", kind=WINDOWS)


def resource_of(path: str) -> str:
    """Return the resource in `RESOURCES` at the URL path *path*; for any other path, return its first segment."""
    parts = path.strip("/").split("/")
    if parts[0] != "acme" or len(parts) == 1:
        return parts[0]
    return "finalize" if parts[1] == "order" and parts[3:] == ["finalize"] else parts[1]


async def before(faults: Faults, request: web.Request) -> web.Response | None:
    """Apply the faults that take effect before *request* is processed.

    Returns:
        The response to send instead of processing the request; None if the request is to be processed.

    Raises:
        Problem: a fault requires an error response.
    """
    resource = resource_of(request.path)
    if (on := faults.hit("acme_429", resource=resource)) is not None:
        raise problems.rate_limited("the fault acme_429 is on", retry_after=int(on["retry_after"]))
    if (on := faults.hit("acme_503", resource=resource)) is not None:
        raise problems.unavailable("the fault acme_503 is on", retry_after=int(on["retry_after"]))
    if faults.hit("acme_500", resource=resource) is not None:
        raise problems.server_internal("the fault acme_500 is on")
    if resource in SIGNED and faults.hit("acme_bad_nonce", resource=resource) is not None:
        raise problems.bad_nonce("the fault acme_bad_nonce is on: retry with the nonce in this response")
    if (on := faults.hit("acme_slow", resource=resource)) is not None:
        await asyncio.sleep(float(on["ms"]) / 1000)  # the fault delays the response
    if faults.hit("acme_hang", resource=resource) is not None:
        while faults.get("acme_hang") is not None:  # noqa: ASYNC110 - polls: no event signals that a fault is switched off
            await asyncio.sleep(HANG_TICK)  # wait before checking the fault again
    if _drop(faults, request, "request") or faults.hit("acme_empty", resource=resource) is not None:
        return web.Response()
    return None


def after(faults: Faults, request: web.Request) -> None:
    """Apply the faults that take effect after *request* has been processed."""
    _drop(faults, request, "response")


def in_progress(faults: Faults, resource: str) -> int | None:
    """If a fault makes a finished *resource* appear to be in progress, return Retry-After in seconds; else None."""
    on = faults.hit("acme_processing", resource=resource) if faults.any_on else None
    return None if on is None else int(on["retry_after"])


def renewal_window(faults: Faults, start: float, end: float) -> tuple[float, float] | dict[str, Any] | None:
    """Return a wrong renewal window if the fault ``acme_renewal_window`` is on, otherwise None.

    Args:
        faults: the service's faults.
        start: start of the correct window, in seconds since the epoch.
        end: end of the correct window, in seconds since the epoch.

    Returns:
        Start and end of the wrong window in seconds since the epoch, or a malformed response body.
    """
    on = faults.hit("acme_renewal_window") if faults.any_on else None
    match None if on is None else on["kind"]:
        case "past":
            return start - TEN_YEARS, end - TEN_YEARS
        case "far-future":
            return start + TEN_YEARS, end + TEN_YEARS
        case "inverted":
            return end, start
        case "malformed":
            return {"suggestedWindow": {"start": "soon", "end": "later"}}
        case "missing":
            return {}
        case _:
            return None


def _drop(faults: Faults, request: web.Request, loses: str) -> bool:
    """Close the connection of *request* if the fault ``acme_drop`` applies; return whether the fault applied."""
    dropped = faults.hit("acme_drop", resource=resource_of(request.path), loses=loses) is not None
    if dropped and request.transport is not None:
        request.transport.abort()
    return dropped
