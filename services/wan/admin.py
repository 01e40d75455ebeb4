"""What an operator sees and changes: links, counters, captures, metrics.

| request | answer |
|---|---|
| GET /admin/links | ``{"links": [{from, to, rtt_ms, …}], "regions": {name: prefix}}`` |
| PUT /admin/links/{a}/{b} | changes what the body names, in both directions or with ``?direction=one`` from a to b |
| DELETE /admin/links/{a}/{b}, /admin/links | the settings of the start again, of one pair or all |
| GET /admin/counters | counters of every link and of what took none |
| POST /admin/drops | drops the next TCP segment that matches: ``{"source", "target", "port", "flags", …}`` |
| GET /admin/drops, DELETE /admin/drops | every such order and what it dropped; ends and forgets them |
| POST /admin/pcap | starts a capture: ``{"seconds": 10, "filter": {"host": …, "port": …, "protocol": …}}`` |
| GET /admin/pcap | its state and, in base64, its file so far; ``?format=pcap``: the file itself |
| DELETE /admin/pcap | ends it |
| POST /admin/frames | Ethernet frames of one host: ``{"seconds": 10, "host": "198.19.1.10"}``; the admin port is left out |
| GET /admin/frames | the file so far (pcapng, with directions) |
| DELETE /admin/frames | ends it |
"""

import asyncio
import base64
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

from telemetry import AdminError, Request, Response, Telemetry, log
from wan import tun
from wan.drops import Drop, Pattern
from wan.frames import MAX_SECONDS as MAX_FRAME_SECONDS
from wan.frames import FrameCapture, Tap
from wan.link import Link
from wan.pcap import MAX_SECONDS, Capture, Filter
from wan.pcapng import write
from wan.router import Router
from wan.settings import SettingError, UnknownLinkError

#: Seconds by which packets leave late: what the bench promises (0.5 ms, 2 ms) lies in the middle.
LATE_BUCKETS = (0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05)

#: Orders to drop segments at a time; each is looked at for every packet.
MAX_DROPS = 16
#: Where every service has its admin API.
ADMIN_PORT = 9900

logger = log.get("wan.admin")
T = TypeVar("T")


class Admin:
    """The admin routes and metrics of one router."""

    def __init__(self, telemetry: Telemetry, router: Router, device: str | None = None, tap: Tap | None = None) -> None:
        """Declare metrics and routes; *device* is the TUN device whose drops are shown, *tap* gives frames."""
        self.router, self.network, self.device, self.tap = router, router.network, device, tap
        self.capture: Capture | None = None
        self._frames_end: asyncio.TimerHandle | None = None
        self._metrics(telemetry)
        for method, path, handler in (
            ("GET", "/admin/links", self.links),
            ("DELETE", "/admin/links", self.restore_all),
            ("PUT", "/admin/links/{a}/{b}", self.change),
            ("DELETE", "/admin/links/{a}/{b}", self.restore),
            ("GET", "/admin/counters", self.counters),
            ("POST", "/admin/drops", self.drop),
            ("GET", "/admin/drops", self.drops),
            ("DELETE", "/admin/drops", self.drops_end),
            ("POST", "/admin/pcap", self.capture_start),
            ("GET", "/admin/pcap", self.capture_get),
            ("DELETE", "/admin/pcap", self.capture_stop),
            ("POST", "/admin/frames", self.frames_start),
            ("GET", "/admin/frames", self.frames_get),
            ("DELETE", "/admin/frames", self.frames_stop),
        ):
            telemetry.route(method, path, handler)

    # --- links ------------------------------------------------------------------------------------------------------

    def links(self, _: Request) -> dict[str, Any]:
        """Return every link and every region."""
        return {
            "links": list(self.network.describe()),
            "regions": {name: str(prefix) for name, prefix in self.network.regions.items()},
            "seed": self.network.seed,
        }

    async def change(self, request: Request) -> dict[str, Any]:
        """Change one link, or its two directions."""
        links, body = self._named(request), request.json()
        if not isinstance(body, dict) or not body:
            raise AdminError(400, f'expected a JSON object of settings such as {{"rtt_ms": 80}}, got {body!r}')
        try:
            # All are checked before the first is changed: half a change is none.
            settings = [link.settings.changed(body) for link in links]
        except SettingError as error:
            raise AdminError(400, str(error)) from None

        def configure() -> None:
            for link, new in zip(links, settings, strict=True):
                link.configure(new)

        await self._perform(configure)
        for link in links:
            logger.warning("link_changed", source=link.source, target=link.target, **body)
        return self._shown(links)

    async def restore(self, request: Request) -> dict[str, Any]:
        """Give a pair its declared settings back."""
        links = self._named(request)

        def configure() -> None:
            for link in links:
                link.configure(self.network.declared(link.source, link.target))

        await self._perform(configure)
        for link in links:
            logger.info("link_restored", source=link.source, target=link.target)
        return self._shown(links)

    async def restore_all(self, request: Request) -> dict[str, Any]:
        """Give every link its declared settings back."""
        await self._perform(self.network.restore)
        logger.info("links_restored")
        return self.links(request)

    def _named(self, request: Request) -> list[Link]:
        a, b = request.params["a"], request.params["b"]
        direction = request.query.get("direction", "both")
        if direction not in {"one", "both"} or request.query.keys() - {"direction"}:
            raise AdminError(400, f"expected no query, or direction=one or both, got {request.query!r}")
        try:
            links = [self.network.link(a, b)]
            return links if direction == "one" else [*links, self.network.link(b, a)]
        except UnknownLinkError as error:
            raise AdminError(404, str(error)) from None

    def _shown(self, links: list[Link]) -> dict[str, Any]:
        network = self.network
        return {
            "links": [
                network.show(link, changed=link.settings != network.declared(link.source, link.target))
                for link in links
            ]
        }

    # --- counters ---------------------------------------------------------------------------------------------------

    def counters(self, _: Request) -> dict[str, Any]:
        """Return every counter."""
        network = self.network
        return {
            "links": [link.counters() for link in network.links.values()],
            "held": len(network),
            "local": network.local.packets,
            "not_ipv4": network.not_ipv4,
            "unroutable": network.unroutable,
            "write_errors": self.router.write_errors,
            "tun_dropped": tun.dropped(self.device) if self.device else 0,
            "real_time": os.sched_getscheduler(0) in {os.SCHED_RR, os.SCHED_FIFO},
        }

    def _metrics(self, telemetry: Telemetry) -> None:
        metrics, ends = telemetry.metrics, ("from", "to")
        packets = metrics.counter("firstbyte_wan_packets_total", "Packets that entered a link", *ends)
        octets = metrics.counter("firstbyte_wan_bytes_total", "Bytes of IP packets that entered a link", *ends)
        dropped = metrics.counter("firstbyte_wan_dropped_total", "Packets dropped on a link", *ends, "reason")
        duplicated = metrics.counter("firstbyte_wan_duplicated_total", "Packets that arrive twice", *ends)
        reordered = metrics.counter("firstbyte_wan_reordered_total", "Packets held back for others to overtake", *ends)
        corrupted = metrics.counter("firstbyte_wan_corrupted_total", "Packets whose payload was damaged", *ends, "mode")
        queued = metrics.gauge("firstbyte_wan_queued_packets", "Packets on the way", *ends)
        rtt = metrics.gauge("firstbyte_wan_link_rtt_seconds", "Round trip time a link is set to", *ends)
        other = metrics.counter("firstbyte_wan_refused_total", "Packets that took no link, or came not back", "reason")

        def refresh() -> None:
            counters = self.counters(Request("GET", "/admin/counters"))
            for link in self.network.links.values():
                pair = {"from": link.source, "to": link.target}
                packets.inc(link.packets - packets.value(**pair), **pair)
                octets.inc(link.bytes - octets.value(**pair), **pair)
                # Series of what never happened would make every scrape twice as long, at the packets' cost.
                for counter, count in ((duplicated, link.duplicated), (reordered, link.reordered)):
                    if count:
                        counter.inc(count - counter.value(**pair), **pair)
                for mode, count in link.corrupted.items():
                    if count:
                        corrupted.inc(count - corrupted.value(mode=mode, **pair), mode=mode, **pair)
                for reason in ("loss", "queue", "filter"):
                    count = getattr(link, f"dropped_{reason}")
                    dropped.inc(count - dropped.value(reason=reason, **pair), reason=reason, **pair)
                queued.set(link.queued, **pair)
                rtt.set(link.settings.rtt_ms / 1e3, **pair)
            for reason in ("not_ipv4", "unroutable", "write_errors", "tun_dropped"):
                other.inc(counters[reason] - other.value(reason=reason), reason=reason)

        metrics.before_render(refresh)

    # --- drops ------------------------------------------------------------------------------------------------------

    async def drop(self, request: Request) -> dict[str, Any]:
        """Drop the next segments that match."""
        if len(self.network.drops) >= MAX_DROPS:
            raise AdminError(409, f"expected at most {MAX_DROPS} orders at a time: DELETE /admin/drops")
        try:
            pattern = Pattern.of(request.json())
        except SettingError as error:
            raise AdminError(400, str(error)) from None
        order = Drop(pattern)
        await self._perform(lambda: self.network.drops.append(order))
        logger.warning("drop_ordered", **order.as_dict())
        return self.drops(request)

    def drops(self, _: Request) -> dict[str, Any]:
        """Return every order, and what it dropped."""
        return {"drops": [order.as_dict() for order in self.network.drops]}

    async def drops_end(self, request: Request) -> dict[str, Any]:
        """Forget every order."""
        await self._perform(self.network.drops.clear)
        logger.info("drops_ended")
        return self.drops(request)

    # --- captures ---------------------------------------------------------------------------------------------------

    async def capture_start(self, request: Request) -> dict[str, Any]:
        """Start a capture; the one before is forgotten."""
        body = request.json()
        if not isinstance(body, dict) or body.keys() - {"seconds", "filter"}:
            raise AdminError(400, f'expected {{"seconds": N, "filter": {{…}}}}, got {request.body[:80]!r}')
        seconds = body.get("seconds")
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds <= MAX_SECONDS:
            raise AdminError(400, f"expected seconds to be between 0 and {MAX_SECONDS:g}, got {seconds!r}")
        now = time.monotonic_ns()
        if self.capture is not None and self.capture.state(now) == "running":
            raise AdminError(409, "a capture is running: wait for it, or DELETE /admin/pcap")
        try:
            only = Filter.of(body.get("filter") or {})
        except SettingError as error:
            raise AdminError(400, str(error)) from None
        capture = Capture(now, float(seconds), time.time_ns() - now, only)

        def begin() -> None:
            self.router.capture = capture

        await self._perform(begin)
        self.capture = capture
        logger.info("capture_started", seconds=seconds, filter=only.as_dict())
        return capture.as_dict(now)

    def capture_get(self, request: Request) -> dict[str, Any] | Response:
        """Return the last capture."""
        if self.capture is None:
            raise AdminError(404, 'no capture: POST /admin/pcap {"seconds": N} starts one')
        wanted = request.query.get("format", "json")
        if wanted not in {"json", "pcap"}:
            raise AdminError(400, f"expected format to be json or pcap, got {wanted!r}")
        if wanted == "pcap":
            return Response(self.capture.file(), "application/vnd.tcpdump.pcap")
        state = self.capture.as_dict(time.monotonic_ns())
        return {**state, "pcap": base64.b64encode(self.capture.file()).decode()}

    def capture_stop(self, _: Request) -> dict[str, Any]:
        """End a capture; what it recorded stays until the next one."""
        if self.capture is None:
            raise AdminError(404, "no capture")
        self.capture.stopped = True
        return self.capture.as_dict(time.monotonic_ns())

    # --- frames -----------------------------------------------------------------------------------------------------

    def frames_start(self, request: Request) -> dict[str, Any]:
        """Open the packet socket for one host; the capture before is forgotten."""
        tap, body = self._tap(), request.json()
        if not isinstance(body, dict) or body.keys() - {"seconds", "host"} or "host" not in body:
            raise AdminError(400, f'expected {{"seconds": N, "host": "IPv4 address"}}, got {request.body[:80]!r}')
        seconds = body.get("seconds")
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds <= MAX_FRAME_SECONDS:
            raise AdminError(400, f"expected seconds to be between 0 and {MAX_FRAME_SECONDS:g}, got {seconds!r}")
        if self._frames_end is not None:
            raise AdminError(409, "frames are being captured: wait for it, or DELETE /admin/frames")
        try:
            host = Filter.of({"host": body["host"]}).host or ""
        except SettingError as error:
            raise AdminError(400, str(error)) from None
        tap.open(FrameCapture(time.time_ns() + round(seconds * 1e9)), host, ADMIN_PORT)
        self._frames_end = asyncio.get_running_loop().call_later(seconds, self._shut)
        logger.info("frames_started", seconds=seconds, host=host, device=tap.device)
        return {"state": "running", "device": tap.device, "host": host, "seconds": seconds}

    def frames_get(self, _: Request) -> Response:
        """Return what was captured so far."""
        tap = self._tap()
        if tap.capture is None:
            raise AdminError(404, 'no frames: POST /admin/frames {"seconds": N, "host": …} starts a capture')
        return Response(write(tap.capture.recording(), tap.device), "application/x-pcapng")

    def frames_stop(self, _: Request) -> dict[str, Any]:
        """Shut the packet socket; what was captured stays until the next capture."""
        tap = self._tap()
        self._shut()
        if tap.capture is None:
            raise AdminError(404, "no frames were captured")
        return {"state": "done", "frames": len(tap.capture.frames), "dropped": tap.capture.dropped}

    def _tap(self) -> Tap:
        if self.tap is None:
            raise AdminError(
                503, "this router has no packet socket: start it below `python -m wan.frames`, with CAP_NET_RAW"
            )
        return self.tap

    def _shut(self) -> None:
        if self._frames_end is not None and self.tap is not None:
            self._frames_end.cancel()
            self._frames_end = None
            self.tap.shut()
            logger.info("frames_stopped")

    async def _perform(self, function: Callable[[], T]) -> T:
        if not self.router.running:
            raise AdminError(503, "the router has stopped")
        return await asyncio.wrap_future(self.router.submit(function))
