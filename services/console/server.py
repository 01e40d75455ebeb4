"""The HTTP server for browsers: the page, its state as JSON and as events, and the reports; GET only."""

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

#: The page loads only its own files, and runs no inline scripts.
PAGE_POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
#: Reports come from a volume that other services write to, so their scripts do not run.  They keep their origin; without
#: one, a browser would block their images (Cross-Origin-Resource-Policy).
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
#: A folder that has this file is not listed.
INDEX = "index.html"
#: Seconds for a browser to accept one message; if it takes longer, it is disconnected, and reconnects by itself.
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
    """The routes of the page."""

    def __init__(self, state: State, feed: Feed, clock: Clock, results: Path) -> None:
        self.state, self.feed, self.clock, self.results = state, feed, clock, results
        folder = files("console") / "page"
        self._assets = {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in ASSETS.items()}

    def application(self) -> web.Application:
        """Return the application."""
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
        """Send the current state to every page."""
        self.feed.publish("state", _json(self.state.snapshot(self.clock.time())))

    def publish_trace(self) -> None:
        """Send the last trace to every page."""
        self.feed.publish("trace", _json(self.state.trace))

    async def asset(self, request: web.Request) -> web.Response:
        """Serve a file of the page."""
        body, kind = self._assets[request.path]
        return web.Response(body=body, content_type=kind, charset="utf-8")

    async def api_state(self, _: web.Request) -> web.Response:
        """Serve the state and the last trace as JSON."""
        body = {**self.state.snapshot(self.clock.time()), "trace": self.state.trace}
        return web.Response(text=_json(body), content_type="application/json")

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Serve events until the browser disconnects or the console stops."""
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
            pass  # the page was closed or suspended; it reconnects by itself
        finally:
            await stream.aclose()
        return response

    async def to_results(self, _: web.Request) -> web.Response:
        """Redirect to the results folder."""
        raise web.HTTPFound("/results/")

    async def result(self, request: web.Request) -> web.StreamResponse:
        """Serve a file or listing below the results folder."""
        path = request.match_info["path"]
        try:
            found = reports.locate(self.results, path)
        except reports.NotFoundError:
            if path:
                raise web.HTTPNotFound(text=f"there is nothing at {request.path}\n") from None
            return web.Response(text=reports.page("", []), content_type="text/html")  # the first run creates the folder
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
    # An event is one line.  NaN and infinity are not JSON, and polling rejects them.
    return json.dumps(value, separators=(",", ":"), allow_nan=False, default=str)
