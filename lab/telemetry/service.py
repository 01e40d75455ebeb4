"""Telemetry of one service: metrics, health, faults, clock, admin port, and waiting for SIGTERM."""

import argparse
import asyncio
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from linuxnet import counters
from linuxnet.recorder import Recorder
from telemetry import kernel, log
from telemetry.admin import AdminError, AdminServer, Handler, Request, Response
from telemetry.clock import Clock
from telemetry.faults import Faults, UnknownFaultError
from telemetry.health import Health
from telemetry.metrics import Metrics, Part

logger = log.get("telemetry.service")


class Telemetry:
    """Metrics, health, faults, clock and admin port of one service."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.metrics = Metrics()
        self.health = Health()
        self.faults = Faults()
        self.clock = Clock()
        #: Descriptions of settings that a drill has changed, keyed by setting name; /health lists them next to the
        #: faults.
        self.altered: dict[str, str] = {}
        self.recorder = Recorder()
        self.admin = AdminServer()
        #: Host and port of the admin port while it is listening.
        self.admin_address: tuple[str, int] | None = None
        self._stop = asyncio.Event()
        kernel.export(self.metrics)
        faults_on = self.metrics.gauge("firstbyte_fault_on", "1 while this fault is switched on", "fault", across="max")
        fault_hits = self.metrics.gauge(
            "firstbyte_fault_hits", "How often this fault has acted since it was switched on", "fault"
        )

        def refresh() -> None:
            for name, fault in self.faults.as_dict().items():
                faults_on.set(int(fault["on"]), fault=name)
                fault_hits.set(fault["hits"], fault=name)

        self.metrics.before_render(refresh)
        self._routes()

    def route(self, method: str, path: str, handler: Handler) -> None:
        """Register a route of the admin port; see `AdminServer.route`."""
        self.admin.route(method, path, handler)

    @asynccontextmanager
    async def serving(self, args: argparse.Namespace) -> AsyncIterator[None]:
        """Serve the admin port, if ``--admin`` is given, and handle SIGTERM and SIGINT, which end `until_stopped`.

        A service that handles SIGHUP must set its handler first, because this method unblocks the signals of a worker
        process.
        """
        self.admin.token_file = args.token_file
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self.stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
        try:
            if isinstance(args.admin, socket.socket):
                await self.admin.serve(args.admin)
            elif args.admin is not None:
                self.admin_address = await self._listen(*args.admin)
            yield
        finally:
            self.recorder.stop()
            await self.admin.close()
            for signum in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(signum)

    async def _listen(self, host: str, port: int) -> tuple[str, int]:
        try:
            address = await self.admin.start(host, port)
        except OSError as error:
            print(f"{self.service}: error: cannot listen on {host}:{port}: {error.strerror}", file=sys.stderr)
            raise SystemExit(2) from None
        print(f"listening on {address[0]}:{address[1]} (admin)", flush=True)
        return address

    def stop(self) -> None:
        """Request that the service drain and exit."""
        self._stop.set()

    @property
    def stopping(self) -> bool:
        """Whether the service has been requested to exit."""
        return self._stop.is_set()

    async def until_stopped(self) -> None:
        """Wait for SIGTERM, SIGINT or a call of `stop`."""
        await self._stop.wait()
        logger.info("stopping", service=self.service)

    def _unusual(self) -> list[str]:
        """Return the names of active faults, the clock offset if any, and the changed settings."""
        clock = [f"clock {self.clock.offset:+g} s"] if self.clock.offset else []
        return [*self.faults.active(), *clock, *(f"{name} {words}" for name, words in self.altered.items())]

    def _routes(self) -> None:
        def metrics(request: Request) -> Response | list[Part]:
            if "parts" in request.query:  # requested by the front, which merges the metrics of several workers
                return self.metrics.parts()
            return Response(self.metrics.render().encode(), "text/plain; version=0.0.4; charset=utf-8")

        def health(_: Request) -> Response:
            body = {"service": self.service, **self.health.as_dict(), "faults": self._unusual()}
            return Response(json.dumps(body).encode() + b"\n", "application/json", 200 if self.health.ok else 503)

        def faults(_: Request) -> dict[str, Any]:
            return self.faults.as_dict()

        def fault_on(request: Request) -> dict[str, Any]:
            name = request.params["name"]
            parameters = request.json()
            if not isinstance(parameters, dict):
                raise AdminError(400, f"expected a JSON object of parameters, got {parameters!r}")
            try:
                self.faults.switch_on(name, parameters)
            except UnknownFaultError as error:
                raise AdminError(404, str(error)) from None
            except ValueError as error:
                raise AdminError(400, str(error)) from None
            logger.warning("fault_on", fault=name, **parameters)
            return {name: self.faults.as_dict()[name]}

        def fault_off(request: Request) -> dict[str, Any]:
            try:
                self.faults.switch_off(request.params["name"])
            except UnknownFaultError as error:
                raise AdminError(404, str(error)) from None
            return self.faults.as_dict()

        def faults_off(_: Request) -> dict[str, Any]:
            self.faults.clear()
            return self.faults.as_dict()

        def clock(_: Request) -> dict[str, float]:
            return {"offset_s": self.clock.offset, "time": self.clock.time()}

        def set_clock(request: Request) -> dict[str, float]:
            offset = request.json().get("offset_s")
            if not isinstance(offset, (int, float)) or isinstance(offset, bool):
                raise AdminError(400, f'expected {{"offset_s": seconds}}, got {request.body[:80]!r}')
            self.clock.offset = float(offset)
            logger.warning("clock_offset", offset_s=offset)
            return clock(request)

        recorder = kernel.RecorderApi(self.recorder)
        for method, path, handler in (
            ("GET", "/metrics", metrics),
            ("GET", "/health", health),
            ("GET", "/admin/faults", faults),
            ("DELETE", "/admin/faults", faults_off),
            ("POST", "/admin/faults/{name}", fault_on),
            ("DELETE", "/admin/faults/{name}", fault_off),
            ("GET", "/admin/clock", clock),
            ("PUT", "/admin/clock", set_clock),
            ("GET", "/admin/kernel", lambda _: counters.sample()),
            ("GET", "/admin/sockets", kernel.sockets),
            ("POST", "/admin/recorder", recorder.post),
            ("GET", "/admin/recorder", recorder.get),
            ("DELETE", "/admin/recorder", recorder.delete),
        ):
            self.route(method, path, handler)
