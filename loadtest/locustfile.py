"""Locust users: HTTPS over new, pooled and resumed connections, plain TCP, and DNS.

With the web page http://127.0.0.1:8089, where user classes and shapes can be selected:

    docker compose --profile load up -d --wait

Without the web page:

    locust -f loadtest/locustfile.py --headless -u 20 -t 60s --host https://www.example.com FreshUser PooledUser

With a ramp from 1 to ``--users`` users (other shapes: step, spike):

    locust … --shape ramp

With an open loop of 50 requests per second per user; requests start even if earlier ones are not complete:

    locust … --arrival-rate 50

With thresholds, for CI (exit code 1 if a threshold is crossed, 4 if there were too few requests to evaluate one):

    locust … --fail-if 'p99>80ms, errors>0.1%' --junit load.xml

The difference between FreshUser and PooledUser is the cost of opening a connection (`theory.pool`); the difference
between FreshUser and ResumedUser is the cost of authentication.  Each phase has its own entry in the statistics.  Every
certificate chain is verified.
"""

# Import locust before any module that imports ssl, because locust patches blocking calls.
from locust import User, between, events, task  # isort: split

from locust.runners import WorkerRunner  # isort: split

import itertools
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
from swarm.arrivals import arrivals, schedule_seed
from swarm.board import Report
from swarm.caller import Caller, Query
from swarm.judge import Judge
from swarm.options import add_options
from swarm.page import extend, poll
from swarm.recorder import Recorder
from swarm.shapes import SHAPES
from telemetry.command import endpoint

DNS_PORT = 53
#: Source of the numbers of users in this process; a user takes the next number when its open loop begins.
NUMBERS = itertools.count()


class _LabUser(User):
    """Base class: sends requests one after the other or, with an arrival rate, each at its scheduled time."""

    abstract = True
    host = "https://www.example.com"
    wait_time = between(0.05, 0.15)

    def on_start(self) -> None:
        """Get the options and the recorder from Locust's environment."""
        self.options = self.environment.parsed_options
        self.recorder: Recorder = self.environment.firstbyte
        self.arriving = Group()

    def on_stop(self) -> None:
        """Abandon pending requests."""
        self.arriving.kill()

    def once(self, intended: float | None = None) -> None:
        """Send one request; *intended* is its intended start on `time.monotonic` (None: now)."""
        raise NotImplementedError

    @task
    def send(self) -> None:
        """Send one request or, with an arrival rate, run the open loop until the user is stopped."""
        if self.options.arrival_rate > 0:
            seed = schedule_seed(self.options.arrival_seed, self.environment.runner.worker_index, next(NUMBERS))
            schedule = Schedule(constant(self.options.arrival_rate), self.options.arrivals, seed)
            arrivals(schedule, self.once, self.arriving)
        else:
            self.once()


class _WebUser(_LabUser):
    """Base class for users that request pages from a web server, over connections of the class's `kind`."""

    abstract = True
    kind: ClassVar[Kind]

    def on_start(self) -> None:
        """Parse the host from the command line or the web page, and create the HTTP client.

        Raises:
            ValueError: the host is not an http or https URL.
        """
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
        """Request one page, with a random path."""
        path = random.choice(self.paths)
        request = self.caller.get(path, intended)
        self.recorder.note(request, "GET", f"{path} ({self.kind})")


class FreshUser(_WebUser):
    """Opens a connection for each request and sends the first FIN, so that the worker holds the TIME-WAIT sockets."""

    kind = "fresh"


class PooledUser(_WebUser):
    """Sends requests over pooled connections, which stay open."""

    kind = "pooled"


class ResumedUser(_WebUser):
    """Opens a new connection for each request and resumes the TLS session of the previous connection."""

    kind = "resumed"


class TcpUser(_WebUser):
    """Opens TCP connections and closes them without sending a request."""

    kind = "tcp"

    def once(self, intended: float | None = None) -> None:
        """Open and close one connection."""
        request = self.caller.get("", intended)
        self.recorder.note(request, "TCP", f"{self.caller.target.host}:{self.caller.target.port}")


class DnsUser(_LabUser):
    """Sends DNS queries to the system's resolver or, if the host is ``dns://ADDRESS[:PORT]``, to that server."""

    def on_start(self) -> None:
        """Select the name server, and the names to query."""
        super().on_start()
        parts = urlsplit(self.host)
        own = parts.scheme == "dns" and parts.hostname
        self.query = Query([(str(parts.hostname), parts.port or DNS_PORT)] if own else servers(self.options.resolver))
        self.names = self.options.names.split()

    def once(self, intended: float | None = None) -> None:
        """Query one random name and record it under its name and rcode, since a reply with any rcode is a success."""
        name = random.choice(self.names)
        request, rcode = self.query.ask(name, intended=intended)
        self.recorder.note(request, "DNS", f"{name} {rcode or 'no answer'}", request.bytes_received)


@lru_cache
def shared_stub(resolver: str) -> Stub:
    """Return the stub resolver of this process, whose cache all users share; it honours TTLs."""
    return Stub(servers(resolver))


def servers(resolver: str) -> list[tuple[str, int]]:
    """Return the name servers to query: *resolver* (``ADDRESS:PORT``), or the system's if it is ""."""
    return [endpoint(resolver)] if resolver else system_servers()


@lru_cache
def shared_context(roots: str, version: str) -> ssl.SSLContext:
    """Return the TLS context of this process, which all users share, since sessions resume only within one context.

    Args:
        roots: path of the PEM file with the root certificates.
        version: the only TLS version allowed, ``1.2`` or ``1.3``; ``best`` allows both.
    """
    made = Target("", 0, "", Path(roots), version=None if version == "best" else version).context()
    assert made is not None  # noqa: S101 - the context is None only for plain HTTP
    return made


events.init_command_line_parser.add_listener(add_options)


@events.init.add_listener
def begin(environment: Any, runner: Any, web_ui: Any, **_: Any) -> None:
    """When Locust's ``init`` event fires, attach firstbyte's recorder, thresholds, shapes, reports and web page."""
    recorder = environment.firstbyte = Recorder(environment)
    Judge(environment, recorder)
    # Locust calls the listeners of `quitting` in reverse order: this one runs before the judge, which needs the tally.
    environment.events.quitting.add_listener(lambda **_: recorder.finish())
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

    @environment.events.test_stop.add_listener
    def stop(**_: Any) -> None:
        if isinstance(runner, WorkerRunner):
            # Otherwise a worker reports its last requests only after the master has evaluated the test.
            runner._send_stats()  # noqa: SLF001 - Locust has no public method that sends a report immediately

    @environment.events.test_start.add_listener
    def start(**_: Any) -> None:
        board.restart()
