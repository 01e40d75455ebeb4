"""The origin as an aiohttp application: routes, access control by client certificate, and error responses.

All paths also work below ``/news`` and ``/far``, because the edge forwards paths unchanged.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Container
from dataclasses import dataclass, field

from aiohttp import web

from origin.conditions import ETag, Validators
from origin.connection import client_names, client_serial, describe
from origin.content import ARTICLES, listing
from origin.database import BusyError, Database, DatabaseError, FullError
from origin.items import Items
from origin.key_exchange import Groups
from origin.keyring import KeyringError
from origin.mailbox import Mailbox
from origin.measuring import Measuring
from origin.notes import Notes
from origin.problems import Problem, document
from origin.representations import Representation, send
from telemetry import Telemetry
from telemetry.metrics import Counter
from telemetry.tap import Tap

PREFIXES = ("", "/news", "/far")
#: Maximum size of a request body in bytes; ``/slow-read`` has no limit.
MAX_BODY = 1 << 20
#: Retry-After in seconds, for a busy database and for a full database.
RETRY_BUSY, RETRY_FULL = "1", "60"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of one origin server."""

    name: str
    #: Type of content: ``catalog`` or ``news``.
    kind: str
    #: DNS names of the clients that mutual TLS accepts; if empty, all clients with a certificate from the CA.
    client_names: tuple[str, ...] = ()
    #: Seed for the random number generator of the exponentially distributed delays.
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Parts:
    """State shared by all listeners of an origin."""

    #: The database of a catalog; None for a newsroom.
    database: Database | None = None
    groups: Groups = field(default_factory=Groups)
    #: Function that is called after a write is on disk and before the write is acknowledged.
    before_reply: Callable[[], None] = lambda: None
    #: The notes of a catalog.
    notes: Notes | None = None
    #: Recorder of the request bodies that this origin receives, after TLS.
    tap: Tap | None = None
    #: Serial numbers of client certificates that the CA has revoked.
    revoked: Container[int] = frozenset()


def request_counter(telemetry: Telemetry) -> Counter:
    """Declare the request counter that all listeners of an origin share."""
    return telemetry.metrics.counter("firstbyte_origin_requests_total", "Requests by path and status", "path", "status")


def _refusal(request: web.Request, options: Options, parts: Parts) -> str:
    """Return why the client's certificate is refused; empty if it is accepted.

    Check the certificate on each request, so that a revocation also applies to resumed sessions and open connections.
    """
    names = client_names(request) if options.client_names else []
    if options.client_names and not set(names) & set(options.client_names):
        return f"expected a client certificate for {' or '.join(options.client_names)}; got {names or 'none'}"
    if (serial := client_serial(request)) in parts.revoked:
        return f"expected a client certificate that is not revoked; got serial number {serial:x}"
    return ""


def build(options: Options, requests: Counter, *, mutual: bool, parts: Parts | None = None) -> web.Application:
    """Return the application for one listener; if *mutual*, the client certificate must have one of `client_names`."""
    parts = parts or Parts()

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        status = 500
        refusal = _refusal(request, options, parts) if mutual else ""
        try:
            if refusal:
                raise Problem(403, refusal)
            if parts.tap is not None and parts.tap.on and "/slow-read/" not in request.path:
                parts.tap.record(f"{request.method} {request.path}", await request.read())
            response = await handler(request)
            status = response.status
        except (Problem, DatabaseError, KeyringError, web.HTTPException) as error:
            failed = _answer(error, request)
            status = failed.status
            if refusal:
                failed.force_close()  # all requests on this connection would be refused
            return failed
        finally:
            requests.inc(path=_path_class(request), status=str(status))
        return response

    async def whoami(request: web.Request) -> web.Response:
        return web.json_response(describe(request, options.name, parts.groups))

    application = web.Application(middlewares=[guard], client_max_size=MAX_BODY)
    router, measuring = application.router, Measuring(options.seed)
    stored: list[Items | Notes | Mailbox] = []
    if parts.database is not None:
        stored = [Items(parts.database, options.name, parts.before_reply), Mailbox(parts.database)]
    if parts.notes is not None:
        stored.append(parts.notes)
    front = _page(listing(options.kind, options.name))
    articles = {key: _page({"origin": options.name, **each}) for key, each in ARTICLES.items()}

    async def article(request: web.Request) -> web.StreamResponse:
        page = articles.get(request.match_info["id"])
        if page is None:
            raise Problem(404, f"expected one of {', '.join(articles)}")
        return await page(request)

    for prefix in PREFIXES:
        for path in (prefix or "/", prefix + "/") if prefix else ("/",):
            router.add_get(path, front)
        router.add_get(f"{prefix}/whoami", whoami)
        measuring.add_to(router, prefix)
        for resources in stored:
            resources.add_to(router, prefix)
        if options.kind == "news":
            router.add_get(f"{prefix}/articles", front)
            router.add_get(f"{prefix}/articles/{{id}}", article)
    application.on_shutdown.append(measuring.stop)
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


def _page(content: object) -> Handler:
    """Return a handler that responds with the constant *content*."""
    body = json.dumps(content).encode()
    tag = ETag(f'"{hashlib.sha256(body).hexdigest()[:20]}"')
    what = Representation.of(body, "application/json; charset=utf-8", Validators(tag))

    async def page(request: web.Request) -> web.StreamResponse:
        return await send(request, what)

    return page


def _answer(error: Problem | DatabaseError | KeyringError | web.HTTPException, request: web.Request) -> web.Response:
    """Return the problem document for *error*; errors are mapped to responses only here."""
    where = request.path_qs[:200]
    match error:
        case Problem():
            return error.response(where)
        case BusyError():
            return document(503, f"{error}; nothing was changed", where, headers={"Retry-After": RETRY_BUSY})
        case FullError():
            return document(507, f"{error}; nothing was changed", where, headers={"Retry-After": RETRY_FULL})
        case DatabaseError():
            return document(500, f"the database failed: {error}; nothing was changed", where)
        case KeyringError():
            return document(500, f"{error}; nothing was changed", where)
    kept = {name: value for name, value in error.headers.items() if name in {"Allow", "Location"}}
    return document(error.status, (error.text or error.reason).strip(), where, headers=kept)


def _path_class(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "other"
