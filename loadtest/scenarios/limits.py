"""Scenario `limits`: what clients observe when queues, descriptors or ports are exhausted, and in reconnect storms."""

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
from scenarios.instruments import address_translation, subject
from scenarios.instruments.address_translation import ELSEWHERE, PORTS, TIMEOUT, Translated
from scenarios.instruments.openings import Opening, open_all, raise_limit, with_descriptors
from scenarios.instruments.storm import Storms
from telemetry.stall import AHEAD
from theory import accept_queue

PORT, OTHER_PORT = 80, 443
RTT_MS = 20.0
#: How long after the start of the stall the first connection is opened, in seconds.
MARGIN = 0.2
#: If connect() takes longer than this many seconds, its first SYN was dropped: SYNs are retransmitted after one second.
DROPPED = 0.5
#: Number of attempts after a resource is exhausted.
BEYOND = 60
#: First port of the small range that imitates the ports of one shared address; within the kernel's default range.
FIRST_PORT = 40_000
#: Minimum relative distance of a storm from the tipping point; closer to it, chance decides how the storm ends.
NEAR = 0.1
#: New connections per second through the NAT.
NAT_RATE = 100.0
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
    handshakes: float = parameter(
        200.0, quick=100.0, low=50, high=500, unit="handshakes/s", help="capacity of the server in a reconnect storm"
    )
    gives_up_s: float = parameter(0.5, quick=0.3, low=0.2, high=2, unit="s", help="time-out of the storm's clients")
    storms: tuple[float, ...] = parameter(
        (0.5, 0.8, 1.25, 1.5), quick=(0.7, 1.5), low=0.1, high=3, least=2,
        help="clients that reconnect at once, relative to the tipping point",
    )  # fmt: skip

    def __post_init__(self) -> None:
        if self.rate * (self.stall_s - 2 * MARGIN) < 1.2 * self.backlog:
            raise ParameterError("expected more connections in the stall than the queue holds: raise stall_s or rate")
        if near := [each for each in self.storms if abs(each - 1) < NEAR]:
            raise ParameterError(f"expected storms that are not within 10 % of the tipping point, got {near[0]:g}")
        if min(self.storms) > 1 or max(self.storms) < 1:
            raise ParameterError("expected storms below and above the tipping point, such as storms=0.7,1.5")


class Limits(Experiment[Parameters]):
    """Opens connections at a fixed rate and keeps them open until a resource is exhausted."""

    name = "limits"
    claim = (
        "Each limit is reached after its size divided by the rate, and each one looks different from outside; a server "
        "recovers from a reconnect storm only below the tipping point, or with a mitigation."
    )
    says = (
        "The textbook says that a server must be listening, and that a process may have a limited number of open "
        "sockets. In practice there are several limits, and each fails in its own way. A full accept queue is silent: "
        "the first clients are connected but get no answer, later ones wait for seconds and then connect. Descriptors "
        "and ports fail at once, without sending a packet, so that dashboards of the network show nothing. A NAT "
        "without a free port is silent again. And when all clients reconnect at once and soon give up, the server can "
        "spend all its time on clients that have gone."
    )
    source = (
        "listen(2), net.core.somaxconn, RLIMIT_NOFILE (getrlimit(2)), ip_local_port_range, RFC 6298 (SYN retries), RFC "
        "5382 (NAT); N. Bronson et al., “Metastable Failures in Distributed Systems” (HotOS 2021); M. Brooker, "
        "“Exponential Backoff And Jitter” (2015)."
    )
    production = (
        "Alert on ListenOverflows, on descriptors in use relative to the limit, and on ports in use per destination. "
        "Give listen() a backlog that holds the connections of the longest pause of accept(): rate × pause, and raise "
        "net.core.somaxconn with it. A connect() that takes 1, 3 or 7 seconds is a dropped SYN, not a slow network. A "
        "NAT has the same budget of ports per destination as one host, shared by all clients behind it. Let clients "
        "back off exponentially with jitter, and give them a time-out longer than the server's queue. Let servers "
        "refuse at once what they cannot serve in time, or keep the listen queue that short."
    )
    settings = Parameters
    control = Control(
        "the stall (the server keeps calling accept()) and the short time-out of the storm's clients",
        ("accept queue: connections until it is full",),
    )
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
        Lesson(
            "A server completes 100 handshakes per second (200 in a full run). Clients give up after 0.3 s (0.5 s) and "
            "back off exponentially with jitter. 90 of them (300) reconnect at once. After how many seconds are 95 % "
            "connected?",
            "storm, back-off with jitter: 95% connected after", "s", 2.0,
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
        #: Attempts through the NAT; None if this kernel tracks no connections.
        self.nat: Translated | None = None
        p = parameters
        self.storms = Storms(p.handshakes, p.gives_up_s, p.storms, patient=negative)
        self.host = ""

    def duration(self) -> float:
        """Return the expected duration in seconds."""
        local = 2 * (self.p.spare + BEYOND) / self.p.slow_rate
        return 8 + self.p.stall_s + 3 + local + (PORTS + BEYOND) / NAT_RATE + TIMEOUT + self.storms.duration()

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
            "NAT: connections until no port is left": Quantity(PORTS, "connections"),
            "NAT: no port left after": Quantity(PORTS / NAT_RATE, "s"),
            **self.storms.predict(),
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
        self.queue = await open_all((to.address, PORT), self.p.rate, [Source()] * count, 2 * self.p.stall_s + 3)
        await self._is_up(run)
        attempts = self.p.spare + BEYOND
        run.phase(f"a process with {self.p.spare} descriptors left")
        self.descriptors, self.begun = await with_descriptors(
            (to.address, PORT), self.p.slow_rate, self.p.spare, attempts
        )
        await self._is_up(run)
        run.phase(f"one address with {self.p.spare} ports")
        window = Source(ports=(FIRST_PORT, FIRST_PORT + self.p.spare - 1))
        self.ports = await open_all((to.address, PORT), self.p.slow_rate, [window] * attempts, 10.0)
        await self._is_up(run)
        if address_translation.tracked() is not None:
            run.phase(f"a NAT with {PORTS} ports")
            self.nat = await address_translation.exhaust(to.address, (PORT, OTHER_PORT), NAT_RATE, PORTS + BEYOND)
            await self._is_up(run)
        await self.storms.measure(run)

    async def _is_up(self, run: Run) -> None:
        """End the run if the server's host does not answer, instead of measuring the time-outs of a dead host."""
        await run.lab.call(self.host, "GET", "/admin/faults")

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
        self._translation(run)
        found.chart(self._connects())
        self.storms.conclude(run)

    def _translation(self, run: Run) -> None:
        """Check when the NAT runs out of ports, and that it then silently drops the packets of new connections."""
        found, nat = run.findings, self.nat
        if nat is None or not nat.largest:
            found.leave_out(
                "NAT: the kernel tracks no connections here (it needs nf_conntrack, and the host lab needs nft)"
            )
            return
        found.gate("tracked connections before the first one", "0", str(nat.before), nat.before == 0)
        opened = sum(not each.error for each in nat.openings)
        failures = [each for each in nat.openings if each.error]
        row = found.row("NAT: connections until no port is left", float(opened))
        found.check(row.name, f"{PORTS}", str(opened), opened == PORTS)
        first = min((each.at for each in failures), default=float("nan"))
        found.check_near(found.row("NAT: no port left after", first), EXACT_S, absolute=True)
        silent = sum(each.error == "TimeoutError" for each in failures)
        got = f"{silent} of {len(failures)}"
        found.check("NAT: failures that only a time-out ends", "all", got, 0 < silent == len(failures))
        others = sum(not each.error for each in nat.elsewhere)
        found.check(
            "NAT: connections to another port of the server, meanwhile",
            f"{ELSEWHERE}",
            str(others),
            others == ELSEWHERE,
        )
        table = PORTS + ELSEWHERE
        found.check("NAT: entries in the kernel's table", f"{table}", str(nat.largest), nat.largest == table)
        found.chart(self._table(nat))

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

    def _table(self, nat: Translated) -> Chart:
        full, end = PORTS / NAT_RATE, nat.table[-1][0]
        theory = [(0.0, 0.0), (full, float(PORTS)), (end, float(PORTS))]
        counted = [(at, float(count)) for at, count in nat.table]
        marks = [
            Curve("theory, first destination", theory, 0, dashed=True),
            Curve("measured", counted, 1, measured=True),
        ]
        return Chart(
            "A NAT without a free port is silent: its table stops growing, and SYNs vanish",
            [Panel(marks, y="tracked connections", height=200)],
            x="seconds since the first connection",
            caption=f"The kernel translates connections to one of {PORTS} ports. The measured line ends higher "
            f"because {ELSEWHERE} connections to another port of the server follow: a NAT can use each port once per "
            "destination.",
            moments=[Moment(full, "no port left")],
            low=0.0,
            high=end,
            name="limits-nat",
        )

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
