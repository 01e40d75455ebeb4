"""HTTP server for browsers: the page, the lab's state as JSON and as events, and the reports.  Accepts only GET."""

import asyncio
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from aiohttp import web

from console import reports
from console.feed import Feed
from console.state import State
from telemetry import Clock

#: Content Security Policy of the page: only its own files, no inline scripts.
PAGE_POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
#: Content Security Policy of reports.  They are on a volume that other services write to, so their scripts are blocked.
#: They keep their origin, because otherwise browsers block their images (Cross-Origin-Resource-Policy).
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline' 'self'; img-src data: 'self'; font-src data:; "
    "sandbox allow-same-origin; frame-ancestors 'none'"
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
#: File that is served instead of a listing if the folder contains it.
INDEX = "index.html"
#: Timeout in seconds for sending one event to a browser.  A slower browser is disconnected and reconnects by itself.
WRITE_TIMEOUT = 10.0
ASSETS = {
    "/": ("index.html", "text/html"),
    "/app.js": ("app.js", "text/javascript"),
    "/dom.js": ("dom.js", "text/javascript"),
    "/map.js": ("map.js", "text/javascript"),
    "/waterfall.js": ("waterfall.js", "text/javascript"),
    "/style.css": ("style.css", "text/css"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


class Site:
    """The console's HTTP routes."""

    def __init__(self, state: State, feed: Feed, clock: Clock, results: Path) -> None:
        self.state, self.feed, self.clock, self.results = state, feed, clock, results
        folder = files("console") / "page"
        self._assets = {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in ASSETS.items()}

    def application(self) -> web.Application:
        """Return the aiohttp application with all routes."""
        application = web.Application()
        for path in ASSETS:
            application.router.add_get(path, self.asset)
        application.router.add_get("/api/state", self.api_state)
        application.router.add_get("/events", self.events)
        application.router.add_get("/results", self.to_results)
        application.router.add_get("/results/{path:.*}", self.result)
        application.on_response_prepare.append(_headers)
        return application

    def publish_state(self) -> None:
        """Send the current state to all connected browsers."""
        self.feed.publish("state", _json(self.state.snapshot(self.clock.time())))

    def publish_trace(self) -> None:
        """Send the last trace to all connected browsers."""
        self.feed.publish("trace", _json(self.state.trace))

    async def asset(self, request: web.Request) -> web.Response:
        """Serve a static file of the page."""
        body, kind = self._assets[request.path]
        return web.Response(body=body, content_type=kind, charset="utf-8")

    async def api_state(self, _: web.Request) -> web.Response:
        """Serve the state and the last trace as JSON."""
        body = {**self.state.snapshot(self.clock.time()), "trace": self.state.trace}
        return web.Response(text=_json(body), content_type="application/json")

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Serve the event stream until the browser disconnects or the console stops."""
        if self.feed.full or self.feed.closed:
            raise web.HTTPServiceUnavailable(
                text=f"expected at most {self.feed.max_clients} open pages\n", headers={"Retry-After": "10"}
            )
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        stream = self.feed.stream()
        try:
            await response.prepare(request)
            async for message in stream:
                async with asyncio.timeout(WRITE_TIMEOUT):
                    await response.write(message)
        except (OSError, TimeoutError):
            pass  # the page was closed or suspended; the browser reconnects if necessary
        finally:
            await stream.aclose()
        return response

    async def to_results(self, _: web.Request) -> web.Response:
        """Redirect to the listing of the results folder."""
        raise web.HTTPFound("/results/")

    async def result(self, request: web.Request) -> web.StreamResponse:
        """Serve a file or a listing from the results folder."""
        path = request.match_info["path"]
        try:
            found = reports.locate(self.results, path)
        except reports.NotFoundError:
            if path:
                raise web.HTTPNotFound(text=f"there is nothing at {request.path}\n") from None
            # The results folder does not exist until the first experiment has run.
            return web.Response(text=reports.page("", []), content_type="text/html")
        if found.is_dir():
            if path and not path.endswith("/"):
                raise web.HTTPFound(request.path + "/")
            if not (found / INDEX).is_file():
                return web.Response(text=reports.page(path, reports.listing(found)), content_type="text/html")
            found /= INDEX  # the overview of all runs, written by `experiments`
        kind = reports.TYPES.get(found.suffix)
        headers = {"Content-Type": kind or "application/octet-stream", "Content-Security-Policy": REPORT_POLICY}
        if kind is None:
            headers["Content-Disposition"] = "attachment"
        return web.FileResponse(found, headers=headers)


async def _headers(_: web.Request, response: web.StreamResponse) -> None:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Content-Security-Policy", PAGE_POLICY)
    response.headers["Server"] = "firstbyte"


def _json(value: Any) -> str:
    # The data of an event is a single line.  NaN and infinity are not valid JSON, and the poller rejects them.
    return json.dumps(value, separators=(",", ":"), allow_nan=False, default=str)
