"""Minimal driver for headless Chromium through the DevTools protocol, for the page tests.

https://chromedevtools.github.io/devtools-protocol/.  No WebDriver is needed: aiohttp implements web sockets.
"""

import asyncio
import base64
import itertools
import json
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp

#: Command-line options that disable features of Chromium that need a network or a display.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
#: Timeout in seconds for Chromium to start, and for a page to satisfy a condition, on a busy machine.
PATIENCE = 60.0


class PageError(Exception):
    """The page, or a command sent to it, failed."""


@contextmanager
def running(program: str, profile: Path) -> Iterator[str]:
    """Run *program* with an empty *profile* folder; yield the URL of the browser's web socket."""
    process = subprocess.Popen(
        [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield _web_socket(process, profile / "DevToolsActivePort")
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _web_socket(process: subprocess.Popen[bytes], announced: Path) -> str:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if process.poll() is not None:
            raise PageError(f"expected Chromium to keep running, got exit code {process.returncode}")
        lines = announced.read_text(encoding="ascii").split() if announced.exists() else []
        if len(lines) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        time.sleep(0.05)  # poll for the file with the port, which Chromium writes
    raise PageError(f"expected {announced} within {PATIENCE:g} s, got none")


class Page:
    """One browser tab; `complaints` collects the errors and warnings that the page logs."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._session = ""
        self._loaded = asyncio.Event()
        self.complaints: list[str] = []

    async def attach(self) -> None:
        """Open the tab and subscribe to its events."""
        target = await self.command("Target.createTarget", url="about:blank")
        attached = await self.command("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.command(f"{domain}.enable")

    async def command(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one DevTools command and return its result."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_str(json.dumps(message))
        async with asyncio.timeout(PATIENCE):
            answer = await future
        if "error" in answer:
            raise PageError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    async def listen(self) -> None:
        """Dispatch responses and events until the web socket is closed."""
        async for message in self._socket:
            said = json.loads(message.data)
            if (future := self._waiting.pop(said.get("id", 0), None)) is not None:
                if not future.done():
                    future.set_result(said)
            else:
                self._note(said.get("method", ""), said.get("params", {}))

    def _note(self, event: str, params: dict[str, Any]) -> None:
        if event == "Page.loadEventFired":
            self._loaded.set()
        elif event == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description") or details["text"])
        elif event == "Runtime.consoleAPICalled" and params["type"] in {"error", "warning", "assert"}:
            self.complaints.append(" ".join(str(arg.get("value", arg.get("description"))) for arg in params["args"]))
        elif event == "Log.entryAdded" and params["entry"]["level"] in {"error", "warning"}:
            entry = params["entry"]
            # Ignore refused connections: a test may stop the console before it closes the tab.  A file that is missing
            # from the page has status 404 instead.
            if "ERR_CONNECTION_REFUSED" in entry["text"]:
                return
            self.complaints.append(f"{entry['text']} {entry.get('url', '')}".strip())

    async def look(self, width: int, *, height: int = 900, dark: bool = False, phone: bool = False) -> None:
        """Set the window to *width* × *height* CSS pixels, and the colour scheme to light or *dark*."""
        await self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.command("Emulation.setEmulatedMedia", features=[scheme])

    async def open(self, url: str) -> None:
        """Navigate to *url* and wait until the page is loaded."""
        self._loaded.clear()
        result = await self.command("Page.navigate", url=url)
        if result.get("errorText"):
            raise PageError(f"{url}: {result['errorText']}")
        async with asyncio.timeout(PATIENCE):
            await self._loaded.wait()

    async def evaluate(self, expression: str) -> Any:
        """Evaluate *expression* (JavaScript), await the result if it is a promise, and return it."""
        result = await self.command("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            raise PageError(details.get("exception", {}).get("description") or details["text"])
        return result["result"].get("value")

    async def text(self, selector: str) -> str:
        """Return the visible text of the first element that matches *selector*, with whitespace collapsed."""
        seen = await self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")
        return " ".join(seen.split())

    async def until(self, expression: str, patience: float = PATIENCE) -> None:
        """Wait until *expression* is true; the page evaluates it after each change of its document."""
        script = f"""new Promise((resolve) => {{
            const is = () => Boolean({expression});
            const done = (value) => {{ observer.disconnect(); clearTimeout(timer); resolve(value); }};
            const observer = new MutationObserver(() => is() && done(true));
            const timer = setTimeout(() => done(is()), {patience * 1000 - 1000:.0f});
            observer.observe(document, {{subtree: true, childList: true, attributes: true, characterData: true}});
            if (is()) done(true);
        }})"""
        if not await self.evaluate(script):
            raise PageError(
                f"expected {expression} within {patience:g} s, but the page shows: {await self.text('body')}"
            )

    async def picture(self, file: Path) -> None:
        """Save a screenshot of the whole page to *file* (PNG)."""
        shot = await self.command(
            "Page.captureScreenshot", captureBeyondViewport=True, format="png", clip=await self._whole()
        )
        file.write_bytes(base64.b64decode(shot["data"]))

    async def _whole(self) -> dict[str, Any]:
        size = (await self.command("Page.getLayoutMetrics"))["cssContentSize"]
        return {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}


@asynccontextmanager
async def tab(web_socket: str) -> AsyncIterator[Page]:
    """Open a tab in the browser with this *web_socket* URL, and close it at the end."""
    async with aiohttp.ClientSession() as session, session.ws_connect(web_socket, max_msg_size=0) as socket:
        page = Page(socket)
        listening = asyncio.create_task(page.listen())
        try:
            await page.attach()
            yield page
            await page.command("Page.close")
        finally:
            listening.cancel()
