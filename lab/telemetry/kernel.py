"""Metrics and admin requests for this host's kernel counters, TCP sockets and recorder (package `linuxnet`)."""

import time
from typing import Any

from linuxnet import counters, sock_diag
from linuxnet.recorder import MAX_HZ, Recorder, Watch
from linuxnet.tcp_info import STATES
from telemetry.admin import AdminError, Request
from telemetry.metrics import Metrics


def export(metrics: Metrics) -> None:
    """Register gauges for this process and for its host's TCP sockets; they are updated before each scrape."""
    rss = metrics.gauge("process_resident_memory_bytes", "Resident memory of this process", across="worker")
    cpu = metrics.gauge("process_cpu_seconds_total", "CPU time of this process, user and system")
    sockets = metrics.gauge(
        "firstbyte_sockets", "TCP sockets of this host by state, from /proc/net/sockstat", "state", across="max"
    )

    def refresh() -> None:
        rss.set(counters.resident_bytes())
        cpu.set(time.process_time())
        found = counters.sockets()
        sockets.set(found["tcp_inuse"], state="inuse")
        sockets.set(found["tcp_tw"], state="tw")

    metrics.before_render(refresh)


def sockets(request: Request) -> list[dict[str, str]]:
    """Return the host's TCP sockets in one state, like ss(8): ``GET /admin/sockets?state=TIME-WAIT&local_port=80``."""
    state, port = request.query.get("state", "ESTABLISHED"), request.query.get("local_port", "0")
    if state not in STATES[1:]:
        raise AdminError(400, f"expected state to be one of {', '.join(STATES[1:])}, got {state!r}")
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise AdminError(400, f"expected local_port from 0 (any) to 65535, got {port!r}")
    try:
        found = list(sock_diag.sockets(state, local_port=int(port)))
    except sock_diag.SockDiagError as error:
        raise AdminError(501, str(error)) from None
    return [{"local": "{}:{}".format(*each.local), "remote": "{}:{}".format(*each.remote)} for each in found]


class RecorderApi:
    """Admin requests for the recorder of kernel counters.

    POST /admin/recorder {"hz": 10, "seconds": 120, "sockets": {"local_port": 443}}     start a recording
    GET /admin/recorder                                                                 return the recording so far
    DELETE /admin/recorder                                                              stop, return and discard it
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    async def post(self, request: Request) -> dict[str, Any]:
        """Start a recording with the parameters in the request body."""
        body = request.json()
        if not isinstance(body, dict) or body.keys() - {"hz", "seconds", "sockets"}:
            raise AdminError(400, f'expected {{"hz": …, "seconds": …, "sockets": {{…}}}}, got {request.body[:80]!r}')
        hz, seconds = _number(body, "hz", 10.0, MAX_HZ), _number(body, "seconds", 600.0, 3600.0)
        ports = body.get("sockets")
        if ports is not None and (not isinstance(ports, dict) or ports.keys() - {"local_port", "remote_port"}):
            raise AdminError(400, f'expected sockets to be {{"local_port": …, "remote_port": …}}, got {ports!r}')
        watch = None if ports is None else Watch(**{key: int(_number(ports, key, 0, 65535)) for key in ports})
        self._recorder.start(hz, seconds, watch)
        return {"hz": hz, "seconds": seconds}

    def get(self, _: Request) -> dict[str, Any]:
        """Return the recording so far."""
        if self._recorder.recording is None:
            raise AdminError(404, "there is no recording: POST /admin/recorder starts one")
        return self._recorder.recording.as_json()

    def delete(self, _: Request) -> dict[str, Any]:
        """Stop the recording, return it and discard it."""
        recording = self._recorder.stop()
        self._recorder.recording = None
        return {} if recording is None else recording.as_json()


def _number(body: dict[str, Any], name: str, default: float, highest: float) -> float:
    value = body.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= highest:
        raise AdminError(400, f"expected {name} from 0 to {highest:g}, got {value!r}")
    return float(value)
