"""Users for Locust: HTTPS over fresh, pooled and resumed connections, bare TCP, and DNS.

    docker compose --profile load up -d --wait            http://127.0.0.1:8089, with a picker of classes and shapes
    locust -f loadtest/locustfile.py --headless -u 20 -t 60s --host https://www.example.com FreshUser PooledUser
    locust … --shape ramp            users from 1 to --users; also step, spike
    locust … --arrival-rate 50       open loop: 50 requests per second and user, whether or not earlier ones are done

Compare the classes: fresh against pooled is what opening a connection costs (theory.pool), fresh against resumed what
proving an identity costs.  Each phase is an entry of its own in the statistics.  Every chain is verified.
"""

# First, before anything that imports ssl: it patches what blocks.
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
from swarm.page import extend, look
from swarm.recorder import Recorder
from swarm.shapes import SHAPES
from telemetry.command import endpoint

DNS_PORT = 53


class _LabUser(User):
    """Sends one request after the other, or, with an arrival rate, each when it is due."""

    abstract = True
    host = "https://www.example.com"
    wait_time = between(0.05, 0.15)

    def on_start(self) -> None:
        """Keep what is asked for later."""
        self.options = self.environment.parsed_options
        self.recorder: Recorder = self.environment.firstbyte
        self.arriving = Group()

    def on_stop(self) -> None:
        """Give up what is under way."""
        self.arriving.kill()

    def once(self, intended: float | None = None) -> None:
        """Send one request, which should begin at *intended* on `time.monotonic`, or now."""
        raise NotImplementedError

    @task
    def send(self) -> None:
        """Send as the options say."""
        if self.options.arrival_rate > 0:
            schedule = Schedule(constant(self.options.arrival_rate), self.options.arrivals, random.getrandbits(32))
            arrivals(schedule, self.once, self.arriving)
        else:
            self.once()


class _WebUser(_LabUser):
    """Asks a web server; `kind` says over which connections."""

    abstract = True
    kind: ClassVar[Kind]

    def on_start(self) -> None:
        """Take the host as it was entered in the web page."""
        super().on_start()
        parts = urlsplit(self.host)
        if parts.scheme not in {"https", "http"} or not parts.hostname:
            raise ValueError(f"expected a host such as https://www.example.com, got {self.host!r}")
        https = parts.scheme == "https" and self.kind != "tcp"
        port = parts.port or (443 if parts.scheme == "https" else 80)
        target = Target(parts.hostname, port, "/", Path(self.options.trust), "https" if https else "http")
        context = trusting(self.options.trust, self.options.tls) if https else None
        self.caller = Caller(target, self.kind, context, names(self.options.resolver))
        self.paths = self.options.paths.split()

    def on_stop(self) -> None:
        """Close what was kept."""
        super().on_stop()
        self.caller.close()

    def once(self, intended: float | None = None) -> None:
        """Fetch one page."""
        path = random.choice(self.paths)
        request = self.caller.get(path, intended)
        self.recorder.note(request, "GET", f"{path} ({self.kind})")


class FreshUser(_WebUser):
    """A connection for each request, closed by us: TIME-WAIT stays with the worker."""

    kind = "fresh"


class PooledUser(_WebUser):
    """Keeps its connections."""

    kind = "pooled"


class ResumedUser(_WebUser):
    """A connection for each request, whose TLS session is that of the one before."""

    kind = "resumed"


class TcpUser(_WebUser):
    """Opens a TCP connection and closes it, nothing else."""

    kind = "tcp"

    def once(self, intended: float | None = None) -> None:
        """Connect."""
        request = self.caller.get("", intended)
        self.recorder.note(request, "TCP", f"{self.caller.target.host}:{self.caller.target.port}")


class DnsUser(_LabUser):
    """Asks for names: this host's resolver, or the server in a host ``dns://ADDRESS[:PORT]``."""

    def on_start(self) -> None:
        """Choose the server and the names."""
        super().on_start()
        parts = urlsplit(self.host)
        own = parts.scheme == "dns" and parts.hostname
        self.query = Query([(str(parts.hostname), parts.port or DNS_PORT)] if own else servers(self.options.resolver))
        self.names = self.options.names.split()

    def once(self, intended: float | None = None) -> None:
        """Ask for one name; the entry bears the rcode, and every rcode is an answer."""
        name = random.choice(self.names)
        request, rcode = self.query.ask(name, intended=intended)
        self.recorder.note(request, "DNS", f"{name} {rcode or 'no answer'}", request.bytes_received)


@lru_cache
def names(resolver: str) -> Stub:
    """Return the stub of this process: all its users share one cache, which honours TTLs."""
    return Stub(servers(resolver))


def servers(resolver: str) -> list[tuple[str, int]]:
    """Return the name servers to ask: *resolver* as ``ADDRESS:PORT``, or the host's own."""
    return [endpoint(resolver)] if resolver else system_servers()


@lru_cache
def trusting(roots: str, version: str) -> ssl.SSLContext:
    """Return the verifying context of this process; sessions can only be resumed within one."""
    made = Target("", 0, "", Path(roots), version=None if version == "best" else version).context()
    assert made is not None  # noqa: S101 - https has one
    return made


events.init_command_line_parser.add_listener(add_options)


@events.init.add_listener
def begin(environment: Any, runner: Any, web_ui: Any, **_: Any) -> None:
    """Join recorder, shapes, reports between processes, and web page."""
    recorder = environment.firstbyte = Recorder(environment)
    board = recorder.board
    if environment.parsed_options.shape != "none":
        environment.shape_class = SHAPES[environment.parsed_options.shape]()
        environment.shape_class.runner = runner
    if web_ui is not None:
        environment.available_shape_classes = {cls.__name__: cls() for cls in SHAPES.values()}
        extend(web_ui, board)
        gevent.spawn(look, board, runner)
    gevent.spawn(recorder.watch)

    @environment.events.report_to_master.add_listener
    def tell(data: dict[str, Any], **_: Any) -> None:
        data["firstbyte"] = recorder.report().as_json()

    @environment.events.worker_report.add_listener
    def hear(client_id: str, data: dict[str, Any], **_: Any) -> None:
        if "firstbyte" in data:
            recorder.hear(client_id, Report(**data["firstbyte"]))

    @environment.events.test_start.add_listener
    def start(**_: Any) -> None:
        board.restart()
