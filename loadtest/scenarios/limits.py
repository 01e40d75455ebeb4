"""Scenario `limits`: what clients observe when an accept queue, descriptors or source ports are exhausted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from experiments import (
    Chart,
    Control,
    Curve,
    Dots,
    Estimate,
    Experiment,
    Lesson,
    Moment,
    Panel,
    ParameterError,
    Quantity,
    Run,
    parameter,
)
from linuxnet.source_ports import Source
from scenarios.instruments import subject
from scenarios.instruments.openings import Opening, open_all, raise_limit, with_descriptors
from telemetry.stall import AHEAD
from theory import accept_queue

PORT = 80
RTT_MS = 20.0
#: How long after the start of the stall the first connection is opened, in seconds.
MARGIN = 0.2
#: If connect() takes longer than this many seconds, its first SYN was dropped: SYNs are retransmitted after one second.
DROPPED = 0.5
#: Number of attempts after a resource is exhausted.
BEYOND = 60
#: First port of the small range that imitates the ports of one shared address; within the kernel's default range.
FIRST_PORT = 40_000
#: Tolerances: relative for a measured number of connections, and absolute in seconds for a measured time.
EXACT, EXACT_S = 0.05, 0.3
#: Maximum duration of a connect() that fails before any packet is sent, in seconds.
LOCAL = 0.05


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters that the user can vary."""

    host: str = parameter("www.example.com", help="HTTP server under test, with the fault `stall`")
    backlog: int = parameter(1024, low=16, high=4096, help="argument of the server's listen()")
    rate: float = parameter(500.0, low=50, high=1000, unit="connections/s", help="new connections to the server")
    stall_s: float = parameter(3.5, low=1, high=10, unit="s", help="time for which the server does not call accept()")
    spare: int = parameter(400, quick=150, low=50, high=5000, help="descriptors, and source ports, that are left")
    slow_rate: float = parameter(100.0, low=20, high=500, unit="connections/s", help="connections until these run out")

    def __post_init__(self) -> None:
        if self.rate * (self.stall_s - 2 * MARGIN) < 1.2 * self.backlog:
            raise ParameterError("expected more connections in the stall than the queue holds: raise stall_s or rate")


class Limits(Experiment[Parameters]):
    """Opens connections at a fixed rate and keeps them open until a resource is exhausted."""

    name = "limits"
    claim = "Each limit is reached after its size divided by the rate, and each one looks different from outside."
    says = (
        "The textbook says that a server must be listening, and that a process may have a limited number of open "
        "sockets. In practice there are several limits, and each fails in its own way. A full accept queue is silent: "
        "the first clients are connected but get no answer, later ones wait for seconds and then connect. Descriptors "
        "and ports fail at once, without sending a packet, so that dashboards of the network show nothing."
    )
    source = "listen(2), net.core.somaxconn, RLIMIT_NOFILE (getrlimit(2)), ip_local_port_range, RFC 6298 (SYN retries)."
    production = (
        "Alert on ListenOverflows, on descriptors in use relative to the limit, and on ports in use per destination. "
        "Give listen() a backlog that holds the connections of the longest pause of accept(): rate × pause, and raise "
        "net.core.somaxconn with it. A connect() that takes 1, 3 or 7 seconds is a dropped SYN, not a slow network. A "
        "NAT has the same budget of ports per destination as one host, shared by all clients behind it."
    )
    settings = Parameters
    control = Control("the stall: the server keeps calling accept()", ("accept queue: connections until it is full",))
    paths = ("edge",)
    subject = ("TcpExt.ListenOverflows",)
    lessons = (
        Lesson(
            "A server with listen(1024) stops calling accept(), and 500 clients connect per second. After how many "
            "seconds is the queue full?",
            "accept queue: full after", "s", 0.3,
        ),
        Lesson(
            "The queue is full, and the server is back after about a second. How many seconds does connect() take at "
            "the median client whose SYN was dropped?",
            "accept queue: connect() after a dropped SYN", "s", 0.5,
        ),
    )  # fmt: skip

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.queue: list[Opening] = []
        #: Seconds from the first connection to the end of the stall.
        self.back = parameters.stall_s - MARGIN
        self.descriptors: list[Opening] = []
        #: Number of connections that the kernel started for the process after its descriptors were exhausted.
        self.begun = 0
        self.ports: list[Opening] = []
        self.host = ""

    def duration(self) -> float:
        """Return the expected duration in seconds."""
        return 8 + self.p.stall_s + 3 + 2 * (self.p.spare + BEYOND) / self.p.slow_rate

    def predict(self) -> Mapping[str, Quantity]:
        """Predict when each limit is reached, and how connect() fails."""
        rtt = RTT_MS / 1000
        # The client also counts connections whose SYN was answered just before the queue was full.
        full = accept_queue.full_at(self.p.rate, self.p.backlog) + rtt
        dropped = [full + i / self.p.rate for i in range(round((self.back - full) * self.p.rate))]
        takes = [accept_queue.connect_s(self.back - at, rtt) or float("nan") for at in dropped]
        return {
            "accept queue: connections until it is full": Quantity(
                self.p.backlog + 1 + self.p.rate * rtt, "connections"
            ),
            "accept queue: full after": Quantity(full, "s"),
            "accept queue: connect() after a dropped SYN": Quantity(median(takes), "s"),
            "descriptors: connections until none is left": Quantity(self.p.spare, "connections"),
            "descriptors: none left after": Quantity(self.p.spare / self.p.slow_rate, "s"),
            "ports: connections until none is left": Quantity(self.p.spare, "connections"),
            "ports: none left after": Quantity(self.p.spare / self.p.slow_rate, "s"),
        }

    async def measure(self, run: Run) -> None:
        """Open connections to a server that does not accept them, then with few descriptors, then from few ports."""
        to = await subject.find(run, self.p.host)
        if not to.host:
            run.skip(f"{self.p.host} is no host of the lab, so nothing here can stop it")
        self.host = to.host
        count = round(self.p.rate * (self.back - MARGIN))
        if (limit := raise_limit(count + 200)) < count + 200:
            run.skip(f"this process may open {limit} descriptors, and {count + 200} are needed: raise `ulimit -Hn`")
        await run.lab.link(subject.CLIENTS, to.region, rtt_ms=RTT_MS)
        await run.recorders.start(to.host)
        run.phase(f"{count} connections to a server that does not call accept()")
        if not self.negative:
            await run.lab.fault(to.host, "stall", ms=1000 * (self.p.stall_s + AHEAD))
            await run.until(run.now() + AHEAD + MARGIN)
        self.queue = await open_all((to.address, PORT), self.p.rate, count, Source(), 15.0)
        attempts = self.p.spare + BEYOND
        run.phase(f"a process with {self.p.spare} descriptors left")
        self.descriptors, self.begun = await run.blocking(
            with_descriptors, (to.address, PORT), self.p.slow_rate, self.p.spare, attempts
        )
        run.phase(f"one address with {self.p.spare} ports")
        window = Source(ports=(FIRST_PORT, FIRST_PORT + self.p.spare - 1))
        self.ports = await open_all((to.address, PORT), self.p.slow_rate, attempts, window, 10.0)

    # --- conclusions ------------------------------------------------------------------------------------------------

    def conclude(self, run: Run) -> None:
        """Compare when the limits were reached, and how connect() failed, with the prediction."""
        found = run.findings
        slow = [each for each in self.queue if each.took > DROPPED and not each.error]
        first = min((each.at for each in slow), default=float("nan"))
        before = sum(each.at < first for each in self.queue) if slow else len(self.queue)
        found.check_near(found.row("accept queue: connections until it is full", float(before)), EXACT)
        found.check_near(found.row("accept queue: full after", first), EXACT_S, absolute=True)
        waited = Estimate.of(each.took for each in slow)
        found.check_near(found.row("accept queue: connect() after a dropped SYN", waited), EXACT_S, absolute=True)
        failed = sum(bool(each.error) for each in self.queue)
        found.gate("connections that failed for another reason", "0", str(failed), failed == 0)
        if (server := run.recorders.series.get(self.host)) is not None:
            overflows, name = int(server.rise("TcpExt.ListenOverflows")), "overflows that the server's kernel counted"
            found.check(
                name, f">= {len(slow)}, one for each slow connect", str(overflows), overflows >= max(1, len(slow))
            )
        self._local(run, "descriptors", self.descriptors, "EMFILE")
        self._local(run, "ports", self.ports, "EADDRNOTAVAIL")
        opened = sum(not each.error for each in self.descriptors)
        name = "packets sent for connections without a descriptor"
        found.check(name, "0", str(self.begun - opened), self.begun == opened)
        found.leave_out("conntrack: its table fills only with firewall rules, which no host of the lab may create")
        found.chart(self._connects())

    def _local(self, run: Run, name: str, openings: Sequence[Opening], error: str) -> None:
        """Check the time after which connections fail immediately with *error*."""
        found = run.findings
        failures = [each for each in openings if each.error == error]
        first = min((each.at for each in failures), default=float("nan"))
        opened = sum(not each.error for each in openings)
        row = found.row(f"{name}: connections until none is left", float(opened))
        found.check(row.name, f"{self.p.spare}", f"{opened}, then {len(failures)} {error}", opened == self.p.spare)
        found.check_near(found.row(f"{name}: none left after", first), EXACT_S, absolute=True)
        slowest = max((each.took for each in failures), default=float("nan"))
        name = f"{name}: slowest failure with {error}"
        found.check(name, f"< {1000 * LOCAL:g} ms", f"{1000 * slowest:.1f} ms", slowest < LOCAL)

    def _connects(self) -> Chart:
        rtt = RTT_MS / 1000
        full = accept_queue.full_at(self.p.rate, self.p.backlog) + rtt
        times = [self.back * i / 400 for i in range(401)]
        theory = [(at, rtt if at < full else accept_queue.connect_s(self.back - at, rtt) or rtt) for at in times]
        dots = [(each.at, each.took, each.took, each.took) for each in self.queue[::8]]
        marks: list[Curve | Dots] = [Curve("theory", theory, 0, steps=True), Dots("measured, every eighth", dots, 1)]
        return Chart(
            "A full accept queue is silent: connects succeed at once, then they take seconds",
            [Panel(marks, y="connect(), s")],
            x="seconds since the first connection",
            caption="The server does not call accept(). Until its queue is full, its kernel completes every handshake. "
            "Then it drops SYNs; clients send them again after 1, 2, 3 … s, and the first one after the server is back "
            "succeeds.",
            moments=[Moment(full, "the queue is full"), Moment(self.back, "the server is back")],
            low=0.0,
            name="limits",
        )
