"""Locust users: HTTPS over new, pooled and resumed connections, plain TCP, and DNS.

    docker compose --profile load up -d --wait            then http://127.0.0.1:8089, with a picker for classes and
    shapes locust -f loadtest/locustfile.py --headless -u 20 -t 60s --host https://www.example.com FreshUser PooledUser
    locust … --shape ramp            users from 1 to --users; also step, spike locust … --arrival-rate 50       open
    loop: 50 requests per second and user, whether or not earlier ones are done

Compare the classes: FreshUser against PooledUser shows what opening a connection costs (theory.pool), FreshUser against
ResumedUser what authentication costs.  Each phase has its own entry in the statistics.  Every certificate chain is
verified.
"""

# First, before anything that imports ssl, because locust patches blocking calls.
from locust import User, between, events, task  # isort: split

import random
import ssl
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import gevent
from gevent.pool import Group

from generator import Kind, Schedule, Target, constant
from stub import Stub, system_servers
from swarm.arrivals import arrivals
from swarm.board import Report
from swarm.caller import Caller, Query
from swarm.options import add_options
from swarm.page import extend, poll
from swarm.recorder import Recorder
from swarm.shapes import SHAPES
from telemetry.command import endpoint

DNS_PORT = 53


class _LabUser(User):
    """Sends one request after the other or, with an arrival rate, each when it is due."""

    abstract = True
    host = "https://www.example.com"
    wait_time = between(0.05, 0.15)

    def on_start(self) -> None:
        """Take options and recorder from the environment."""
        self.options = self.environment.parsed_options
        self.recorder: Recorder = self.environment.firstbyte
        self.arriving = Group()

    def on_stop(self) -> None:
        """Abandon pending requests."""
        self.arriving.kill()

    def once(self, intended: float | None = None) -> None:
        """Send one request that should start at *intended* on `time.monotonic`, or now."""
        raise NotImplementedError

    @task
    def send(self) -> None:
        """Send one request, or an endless open loop of them."""
        if self.options.arrival_rate > 0:
            schedule = Schedule(constant(self.options.arrival_rate), self.options.arrivals, random.getrandbits(32))
            arrivals(schedule, self.once, self.arriving)
        else:
            self.once()


class _WebUser(_LabUser):
    """Requests pages of a web server; `kind` says over which connections."""

    abstract = True
    kind: ClassVar[Kind]

    def on_start(self) -> None:
        """Read the host as entered on the command line or the web page."""
        super().on_start()
        parts = urlsplit(self.host)
        if parts.scheme not in {"https", "http"} or not parts.hostname:
            raise ValueError(f"expected a host such as https://www.example.com, got {self.host!r}")
        https = parts.scheme == "https" and self.kind != "tcp"
        port = parts.port or (443 if parts.scheme == "https" else 80)
        target = Target(parts.hostname, port, "/", Path(self.options.trust), "https" if https else "http")
        context = shared_context(self.options.trust, self.options.tls) if https else None
        self.caller = Caller(target, self.kind, context, shared_stub(self.options.resolver))
        self.paths = self.options.paths.split()

    def on_stop(self) -> None:
        """Close idle connections."""
        super().on_stop()
        self.caller.close()

    def once(self, intended: float | None = None) -> None:
        """Request one page."""
        path = random.choice(self.paths)
        request = self.caller.get(path, intended)
        self.recorder.note(request, "GET", f"{path} ({self.kind})")


class FreshUser(_WebUser):
    """A new connection for each request, closed by the user: sockets in TIME-WAIT stay with the worker."""

    kind = "fresh"


class PooledUser(_WebUser):
    """Connections that are kept open."""

    kind = "pooled"


class ResumedUser(_WebUser):
    """A new connection for each request that resumes the TLS session of the last one."""

    kind = "resumed"


class TcpUser(_WebUser):
    """TCP connections that are opened and closed without a request."""

    kind = "tcp"

    def once(self, intended: float | None = None) -> None:
        """Open and close one connection."""
        request = self.caller.get("", intended)
        self.recorder.note(request, "TCP", f"{self.caller.target.host}:{self.caller.target.port}")


class DnsUser(_LabUser):
    """DNS queries to the system's resolver, or to the server of a host ``dns://ADDRESS[:PORT]``."""

    def on_start(self) -> None:
        """Choose server and names."""
        super().on_start()
        parts = urlsplit(self.host)
        own = parts.scheme == "dns" and parts.hostname
        self.query = Query([(str(parts.hostname), parts.port or DNS_PORT)] if own else servers(self.options.resolver))
        self.names = self.options.names.split()

    def once(self, intended: float | None = None) -> None:
        """Query one name; the statistics list it with its rcode, since every rcode is an answer."""
        name = random.choice(self.names)
        request, rcode = self.query.ask(name, intended=intended)
        self.recorder.note(request, "DNS", f"{name} {rcode or 'no answer'}", request.bytes_received)


@lru_cache
def shared_stub(resolver: str) -> Stub:
    """Return the stub resolver of this process: all users share its cache, which honours TTLs."""
    return Stub(servers(resolver))


def servers(resolver: str) -> list[tuple[str, int]]:
    """Return the name servers to query: *resolver* (``ADDRESS:PORT``), or the system's."""
    return [endpoint(resolver)] if resolver else system_servers()


@lru_cache
def shared_context(roots: str, version: str) -> ssl.SSLContext:
    """Return the verifying TLS context of this process; sessions resume only within one context."""
    made = Target("", 0, "", Path(roots), version=None if version == "best" else version).context()
    assert made is not None  # noqa: S101 - https has one
    return made


events.init_command_line_parser.add_listener(add_options)


@events.init.add_listener
def begin(environment: Any, runner: Any, web_ui: Any, **_: Any) -> None:
    """Connect recorder, shapes, worker reports and web page with Locust."""
    recorder = environment.firstbyte = Recorder(environment)
    board = recorder.board
    if environment.parsed_options.shape != "none":
        environment.shape_class = SHAPES[environment.parsed_options.shape]()
        environment.shape_class.runner = runner
    if web_ui is not None:
        environment.available_shape_classes = {cls.__name__: cls() for cls in SHAPES.values()}
        extend(web_ui, board)
        gevent.spawn(poll, board, runner)
    gevent.spawn(recorder.watch)

    @environment.events.report_to_master.add_listener
    def report(data: dict[str, Any], **_: Any) -> None:
        data["firstbyte"] = recorder.report().as_json()

    @environment.events.worker_report.add_listener
    def receive(client_id: str, data: dict[str, Any], **_: Any) -> None:
        if "firstbyte" in data:
            recorder.receive(client_id, Report(**data["firstbyte"]))

    @environment.events.test_start.add_listener
    def start(**_: Any) -> None:
        board.restart()
