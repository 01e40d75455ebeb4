"""The shell towards browsers: one page, its state as JSON and as events, and the reports; GET only."""

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

#: The page loads nothing from elsewhere and runs nothing that stands in its markup.
PAGE_POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
#: Reports come from a volume that others write, so none of their scripts run.  They keep their origin, without which
#: a browser would block their pictures (Cross-Origin-Resource-Policy).
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
#: What a folder of results may bring instead of a listing.
INDEX = "index.html"
#: Seconds for a browser to take one message; one that does not is let go and comes back by itself.
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
        """Tell every page how things are now."""
        self.feed.publish("state", _json(self.state.snapshot(self.clock.time())))

    def publish_trace(self) -> None:
        """Tell every page the last trace."""
        self.feed.publish("trace", _json(self.state.trace()))

    async def asset(self, request: web.Request) -> web.Response:
        """Answer with a file of the page."""
        body, kind = self._assets[request.path]
        return web.Response(body=body, content_type=kind, charset="utf-8")

    async def api_state(self, _: web.Request) -> web.Response:
        """Answer with everything the page knows, and the last trace."""
        body = {**self.state.snapshot(self.clock.time()), "trace": self.state.trace()}
        return web.Response(text=_json(body), content_type="application/json")

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Answer with events until the browser goes or the console ends."""
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
            pass  # the page was closed, or sleeps: it comes back by itself
        finally:
            await stream.aclose()
        return response

    async def to_results(self, _: web.Request) -> web.Response:
        """Lead to the folder."""
        raise web.HTTPFound("/results/")

    async def result(self, request: web.Request) -> web.StreamResponse:
        """Answer with a file or a listing below the results folder."""
        path = request.match_info["path"]
        try:
            found = reports.locate(self.results, path)
        except reports.NotFoundError:
            if path:
                raise web.HTTPNotFound(text=f"nothing is at {request.path}\n") from None
            return web.Response(text=reports.page("", []), content_type="text/html")  # no run yet: no folder yet
        if found.is_dir():
            if path and not path.endswith("/"):
                raise web.HTTPFound(request.path + "/")
            if not (found / INDEX).is_file():
                return web.Response(text=reports.page(path, reports.listing(found)), content_type="text/html")
            found /= INDEX  # the framework's own page about all runs
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
    # One line, as an event needs it; NaN and infinity are no JSON and never reach a snapshot.
    return json.dumps(value, separators=(",", ":"), allow_nan=False, default=str)
