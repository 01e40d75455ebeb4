"""Admin API for captures: IP packets as they enter the network (`pcap`), and Ethernet frames of one host (`frames`).

At most one capture of each kind runs at a time.  The last capture is kept until the next one starts.
"""

import asyncio
import base64
import time
from typing import Any

from hostfiles.layout import ADMIN_PORT
from telemetry import AdminError, Request, Response, Telemetry, log
from wan import frames, pcap
from wan.admin import perform
from wan.checks import address
from wan.errors import SettingError
from wan.router import Router
from wireformat import pcapng

logger = log.get("wan.captures")


class PacketCaptures:
    """Handlers for requests to /admin/pcap."""

    def __init__(self, telemetry: Telemetry, router: Router) -> None:
        self.router = router
        self.capture: pcap.Capture | None = None
        telemetry.route("POST", "/admin/pcap", self.start)
        telemetry.route("GET", "/admin/pcap", self.get)
        telemetry.route("DELETE", "/admin/pcap", self.stop)

    async def start(self, request: Request) -> dict[str, Any]:
        """Start a packet capture and discard the previous one."""
        body, seconds = _body(request, "filter", '{"seconds": N, "filter": {…}}', pcap.MAX_SECONDS)
        now = time.monotonic_ns()
        if self.capture is not None and self.capture.state(now) == "running":
            raise AdminError(409, "a capture is running: wait until it ends, or DELETE /admin/pcap")
        try:
            only = pcap.Filter.of(body.get("filter") or {})
        except SettingError as error:
            raise AdminError(400, str(error)) from None
        capture = pcap.Capture(now, seconds, time.time_ns() - now, only)
        await perform(self.router, lambda: setattr(self.router, "capture", capture))
        self.capture = capture
        logger.info("capture_started", seconds=seconds, filter=only.as_dict())
        return capture.as_dict(now)

    def get(self, request: Request) -> dict[str, Any] | Response:
        """Return the last capture: as JSON with the pcap file in base64, or as the pcap file itself."""
        if self.capture is None:
            raise AdminError(404, 'no capture: POST /admin/pcap {"seconds": N} starts one')
        wanted = request.query.get("format", "json")
        if wanted not in {"json", "pcap"}:
            raise AdminError(400, f"expected format to be json or pcap, got {wanted!r}")
        if wanted == "pcap":
            return Response(self.capture.file(), "application/vnd.tcpdump.pcap")
        state = self.capture.as_dict(time.monotonic_ns())
        return {**state, "pcap": base64.b64encode(self.capture.file()).decode()}

    def stop(self, _: Request) -> dict[str, Any]:
        """Stop the capture; its file is kept until the next capture starts."""
        if self.capture is None:
            raise AdminError(404, "no capture")
        self.capture.stopped = True
        return self.capture.as_dict(time.monotonic_ns())


class FrameCaptures:
    """Handlers for requests to /admin/frames."""

    def __init__(self, telemetry: Telemetry, tap: frames.Tap | None) -> None:
        """Register the routes; if *tap* is None, every request gets status 503."""
        self._tap = tap
        self._end: asyncio.TimerHandle | None = None
        telemetry.route("POST", "/admin/frames", self.start)
        telemetry.route("GET", "/admin/frames", self.get)
        telemetry.route("DELETE", "/admin/frames", self.stop)

    def start(self, request: Request) -> dict[str, Any]:
        """Start a capture of one host's frames and discard the previous capture."""
        tap = self.tap
        body, seconds = _body(request, "host", '{"seconds": N, "host": "IPv4 address"}', frames.MAX_SECONDS)
        if self._end is not None:
            raise AdminError(409, "a capture of frames is running: wait until it ends, or DELETE /admin/frames")
        try:
            host = address("host", body.get("host"))
        except SettingError as error:
            raise AdminError(400, str(error)) from None
        tap.start(frames.FrameCapture(time.time_ns() + round(seconds * 1e9)), host, ADMIN_PORT)
        self._end = asyncio.get_running_loop().call_later(seconds, self._finish)
        logger.info("frames_started", seconds=seconds, host=host, device=tap.device)
        return {"state": "running", "device": tap.device, "host": host, "seconds": seconds}

    def get(self, _: Request) -> Response:
        """Return the frames captured so far as a pcapng file."""
        tap = self.tap
        if tap.capture is None:
            raise AdminError(404, 'no frames: POST /admin/frames {"seconds": N, "host": …} starts a capture')
        return Response(pcapng.write(tap.capture.recording(), tap.device), "application/x-pcapng")

    def stop(self, _: Request) -> dict[str, Any]:
        """Stop the capture; its frames are kept until the next capture starts."""
        tap = self.tap
        self._finish()
        if tap.capture is None:
            raise AdminError(404, "no frames were captured")
        return {"state": "done", "frames": len(tap.capture.frames), "dropped": tap.capture.dropped}

    @property
    def tap(self) -> frames.Tap:
        """The packet socket.

        Raises:
            AdminError: 503, the service has no packet socket.
        """
        if self._tap is None:
            raise AdminError(503, "no packet socket: start the router with `python -m wan.frames`, with CAP_NET_RAW")
        return self._tap

    def _finish(self) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None
            self.tap.stop()
            logger.info("frames_stopped")


def _body(request: Request, key: str, expected: str, max_seconds: float) -> tuple[dict[str, Any], float]:
    """Validate a request body with ``seconds`` and, optionally, *key*; return the body and the number of seconds."""
    body = request.json()
    if not isinstance(body, dict) or body.keys() - {"seconds", key}:
        raise AdminError(400, f"expected {expected}, got {request.body[:80]!r}")
    seconds = body.get("seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds <= max_seconds:
        raise AdminError(400, f"expected seconds to be more than 0 and at most {max_seconds:g}, got {seconds!r}")
    return body, float(seconds)
