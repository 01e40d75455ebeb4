"""HTTP resources of the origin: test responses of a given size or delay, ``/whoami``, and a catalog or a newsroom.

All paths also work below ``/news`` and ``/far``, because the edge forwards paths unchanged.
"""

import asyncio
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from origin.content import ARTICLES, ITEMS, listing
from telemetry import Telemetry
from telemetry.metrics import Counter

#: Maximum response size that ``/bytes/N`` accepts, in bytes.
MAX_BYTES = 1 << 30
#: Size of each write to the response body, in bytes.
CHUNK = 64 * 1024
#: Maximum delay that a request may ask for, in milliseconds.
MAX_DELAY = 60_000
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_PATTERN = bytes(range(256)) * (CHUNK // 256)


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of one origin server."""

    name: str
    #: Type of content: ``catalog`` or ``news``.
    kind: str
    #: DNS names of the clients that mutual TLS accepts; if empty, any client with a certificate from the CA.
    client_names: tuple[str, ...] = ()
    #: Random seed of the exponentially distributed delays.
    seed: int = 0


def request_counter(telemetry: Telemetry) -> Counter:
    """Declare the request counter that all listeners of an origin share."""
    return telemetry.metrics.counter("firstbyte_origin_requests_total", "Requests by path and status", "path", "status")


def build(options: Options, requests: Counter, *, mutual: bool) -> web.Application:
    """Return the application for one listener; if *mutual*, the client certificate must have one of `client_names`."""
    rng = random.Random(options.seed)

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        status = 500
        try:
            if mutual and options.client_names:
                names = _client_names(request)
                if not set(names) & set(options.client_names):
                    raise web.HTTPForbidden(
                        text=f"expected a client certificate for {' or '.join(options.client_names)}; "
                        f"got {names or 'none'}\n"
                    )
            response = await handler(request)
            status = response.status
        except web.HTTPException as error:
            status = error.status
            raise
        finally:
            requests.inc(path=_path_class(request), status=str(status))
        return response

    async def front(_: web.Request) -> web.Response:
        return web.json_response(listing(options.kind, options.name))

    async def whoami(request: web.Request) -> web.Response:
        return web.json_response(describe(request, options))

    async def body_of_size(request: web.Request) -> web.StreamResponse:
        size = _number(request, "size", MAX_BYTES)
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream", "Content-Length": str(size)})
        await response.prepare(request)
        async for chunk in _chunks(size):
            await response.write(chunk)
        return response

    async def delay(request: web.Request) -> web.Response:
        return await _after(_number(request, "ms", MAX_DELAY) / 1000)

    async def exponential(request: web.Request) -> web.Response:
        mean = _number(request, "ms", MAX_DELAY) / 1000
        return await _after(min(rng.expovariate(1 / mean), MAX_DELAY / 1000) if mean else 0.0)

    async def record(request: web.Request) -> web.Response:
        records = ARTICLES if options.kind == "news" else ITEMS
        found = records.get(request.match_info["id"])
        if found is None:
            raise web.HTTPNotFound(text=f"expected one of {', '.join(records)}\n")
        return web.json_response({"origin": options.name, **found})

    application = web.Application(middlewares=[guard], client_max_size=16 << 20)
    plural = "articles" if options.kind == "news" else "items"
    for prefix in ("", "/news", "/far"):
        application.router.add_get(prefix or "/", front)
        if prefix:
            application.router.add_get(prefix + "/", front)
        application.router.add_get(f"{prefix}/whoami", whoami)
        application.router.add_get(f"{prefix}/bytes/{{size}}", body_of_size)
        application.router.add_get(f"{prefix}/delay/{{ms}}", delay)
        application.router.add_get(f"{prefix}/delay/exp/{{ms}}", exponential)
        application.router.add_get(f"{prefix}/{plural}", front)
        application.router.add_get(f"{prefix}/{plural}/{{id}}", record)
    return application


def answer_challenges(application: web.Application, answer: Callable[[str], str | None]) -> web.Application:
    """Add the resource for http-01 challenges (RFC 8555 section 8.3) to *application*, and return *application*."""

    async def challenge(request: web.Request) -> web.Response:
        found = answer(request.match_info["token"])
        if found is None:
            raise web.HTTPNotFound(text="no such challenge\n")
        return web.Response(text=found)

    application.router.add_get("/.well-known/acme-challenge/{token}", challenge)
    return application


def describe(request: web.Request, options: Options) -> dict[str, Any]:
    """Return addresses, TLS parameters and identities of a request and its connection."""
    tls: ssl.SSLObject | None = request.get_extra_info("ssl_object")
    peer, local = request.get_extra_info("peername"), request.get_extra_info("sockname")
    fields = {name.lower(): value for name, value in request.headers.items()}
    body: dict[str, Any] = {
        "origin": options.name,
        "peer": f"{peer[0]}:{peer[1]}" if peer else None,
        "local": f"{local[0]}:{local[1]}" if local else None,
        "http_version": f"{request.version.major}.{request.version.minor}",
        "forwarded": {name: value for name, value in fields.items() if name.startswith("x-forwarded-")},
        "via": request.headers.get("Via"),
        "tls": None,
    }
    if tls is not None:
        cipher = tls.cipher()
        group = getattr(tls, "group", None)  # `group` is available from Python 3.15
        body["tls"] = {
            "version": tls.version(),
            "cipher": cipher[0] if cipher else None,
            "group": group() if callable(group) else None,
            "resumed": bool(tls.session_reused),
            "client": _client_names(request),
        }
    return body


def _client_names(request: web.Request) -> list[str]:
    """Return the DNS names in the client's certificate, which OpenSSL has verified."""
    certificate = request.get_extra_info("peercert")
    return [value for kind, value in (certificate or {}).get("subjectAltName", ()) if kind == "DNS"]


def _number(request: web.Request, name: str, maximum: int) -> int:
    text = request.match_info[name]
    if not (text.isascii() and text.isdigit()) or len(text) > 12 or int(text) > maximum:
        raise web.HTTPBadRequest(text=f"expected a number from 0 to {maximum}, got {text[:40]!r}\n")
    return int(text)


async def _chunks(size: int) -> AsyncIterator[bytes]:
    while size > 0:
        chunk = _PATTERN[: min(size, CHUNK)]
        size -= len(chunk)
        yield chunk


async def _after(seconds: float) -> web.Response:
    began = time.perf_counter()
    await asyncio.sleep(seconds)  # delay requested by the client
    return web.json_response(
        {"asked_ms": round(seconds * 1000, 3), "waited_ms": round((time.perf_counter() - began) * 1000, 3)}
    )


def _path_class(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "other"
