"""`time-wait`: who closes first keeps the port for a minute; quick connections run out of ports, and then nothing works.

A window of ports of its own for each arm (IP_LOCAL_PORT_RANGE, ip(7)) makes seconds of what takes half a minute with
Linux's 28,232 ports, and spares whatever else runs on this host.
"""

import asyncio
import errno
import re
import socket
import struct
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import theory
from experiments import Chart, Control, Curve, Dots, Experiment, Line, Moment, Panel, Quantity, Run, parameter
from experiments.chart import Bars
from stub import Stub
from telemetry import sock_diag
from theory.time_wait import WAIT

#: <linux/in.h>; Python has no name for it before 3.14.
IP_LOCAL_PORT_RANGE = 51
#: First port of the first window: above the beginning of the usual range, since ports outside it are ignored.
FIRST_PORT = 33_000
LAST_PORT = 60_900
HOST, PORT, OTHER_PORT = "www.example.com", 80, 443
REQUEST = f"GET /whoami HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
LAST_REQUEST = f"GET /whoami HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode()
#: Seconds between two counts of the sockets in TIME-WAIT.
COUNTING = 0.25
#: Linux's TCP_TIMEWAIT_LEN is 60 s; its timer wheel may add up to a sixteenth.
LONGEST_WAIT = 64.5
#: Seconds that an attempt may take.
TIMEOUT = 5.0
#: How late an attempt may start at the 99th percentile: a twentieth of the earliest exhaustion.
MAX_LAG = 0.1


@dataclass(frozen=True, slots=True)
class Parameters:
    """What can be varied."""

    ports: int = parameter(1024, quick=256, low=32, high=3000, help="ports that each arm may use")
    rate: float = parameter(32.0, quick=64.0, unit="connections/s", low=1, high=400, help="of every arm but the two that vary it")  # fmt: skip
    seconds: float = parameter(150.0, quick=14.0, unit="s", low=3, high=600, help="how long connections are made")
    reuse: int = parameter(10, low=2, high=1000, help="requests per connection of the arm that keeps them")


@dataclass(slots=True)
class Arm:
    """One way to make connections, and what became of them."""

    name: str
    rate: float
    #: First and last port.
    window: tuple[int, int]
    #: client, server or abort (a reset instead of a goodbye).
    closes: str = "client"
    #: Ports of the server, in turn.
    to: tuple[int, ...] = (PORT,)
    #: Requests on one connection; 0: none, it is opened and closed.
    uses: int = 0
    #: (intended, begun, error) of each attempt; seconds since the start.
    attempts: list[tuple[float, float, str]] = field(default_factory=list)
    #: (second, sockets in TIME-WAIT) within the window.
    waiting: list[tuple[float, int]] = field(default_factory=list)

    @property
    def exhausted_at(self) -> float | None:
        """The second in which no port was left for the first time."""
        return next((intended for intended, _, error in self.attempts if error == "no port left"), None)

    def succeeded(self, begin: float, end: float) -> int:
        """Count attempts of that time that went well."""
        return sum(1 for intended, _, error in self.attempts if begin <= intended < end and not error)


class TimeWait(Experiment[Parameters]):
    """Connections at a constant rate from a window of ports, and what avoids running out."""

    name = "time-wait"
    claim = "Who closes a connection first keeps its port for a minute: at a rate of λ, P ports are gone after P/λ seconds, and then every connection fails."
    says = (
        "The seed: closing a connection leaves the socket waiting, and a client that makes many quick connections runs out of them. "
        "More subtle: the wait is fixed, so the rate is not thinned out. Success is a square wave: all until the ports are gone, none until the first "
        "minute is over, then all again. And it is only the side that closes first, only towards one address and port."
    )
    source = "RFC 9293 section 3.3.2; V. Bernat, “Coping with the TCP TIME-WAIT state on busy Linux servers”; ip(7), IP_LOCAL_PORT_RANGE."
    production = (
        "One client address reaches one server address and port with at most 28,232 / 60 s ≈ 470 new connections per second. Keep connections "
        "(with ten requests on each the limit is ten times higher), let the server close where it can afford the memory, spread over several "
        "destination ports or addresses, widen ip_local_port_range, or set tcp_tw_reuse=1 on the client (a port is free again after a second). "
        "Do not avoid the wait by resetting connections: it protects the next connection from the last one's stray segments. "
        "EADDRNOTAVAIL fails within a millisecond and so improves every latency graph: alarm on the share of failures."
    )
    settings = Parameters
    control = Control("the server closes first, so that nothing waits here", ("ports exhausted",))
    records = ("edge",)
    paths = ("edge",)

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.arms: dict[str, Arm] = {}
        self._began = 0.0
        self._offset = 0.0

    def duration(self) -> float:
        """One window; every arm runs at the same time."""
        return self.p.seconds + 3

    def _rates(self) -> tuple[float, ...]:
        return (self.p.rate / 2, self.p.rate, self.p.rate * 2)

    def predict(self) -> Mapping[str, Quantity]:
        """Return ramp, instants of exhaustion and the cures' multipliers."""
        p = self.p
        said = {"sockets in TIME-WAIT, growth": Quantity(p.rate, "per s")}
        for rate in self._rates():
            moment = theory.exhausted_at(rate, p.ports)
            if moment is not None and moment < p.seconds - 1:
                said[f"ports exhausted, {rate:g}/s"] = Quantity(moment, "s")
        both = theory.exhausted_at(p.rate, 2 * p.ports)
        if both is not None and both < p.seconds - 1:
            said["ports exhausted, two destinations"] = Quantity(both, "s")
        if p.seconds > LONGEST_WAIT + 1:
            said["the wait"] = Quantity(WAIT, "s")
        return said

    async def measure(self, run: Run) -> None:
        """Every arm at once, each from a window of its own."""
        address = (await run.blocking(Stub().resolve, HOST)).rdata[0]
        self._lay_out(run, {s.local[1] for s in sock_diag.sockets("TIME-WAIT", "FIN-WAIT-2", "ESTABLISHED")})
        run.phase(f"{sum(arm.rate for arm in self.arms.values()):.0f} connections/s in {len(self.arms)} arms")
        self._offset, self._began = run.now(), time.monotonic()
        counting = asyncio.create_task(self._count())
        moments = {"ports are gone": theory.exhausted_at(self.p.rate, self.p.ports), "the first minute is over": 60.0}
        telling = asyncio.create_task(_tell(run, {k: v for k, v in moments.items() if v and v < self.p.seconds}))
        try:
            await asyncio.gather(*(self._drive(arm, address) for arm in self.arms.values()))
        finally:
            counting.cancel()
            telling.cancel()

    def _lay_out(self, run: Run, taken: set[int]) -> None:
        """Give each arm a window in which no port is *taken* by what waits from a run before."""
        p = self.p
        first = "server" if self.negative else "client"
        wanted = [
            *((f"{rate:g}/s", rate, {"closes": first}) for rate in self._rates()),
            ("server closes first", p.rate, {"closes": "server"}),
            ("two destinations", p.rate, {"closes": first, "to": (PORT, OTHER_PORT)}),
            (f"{p.reuse} requests each", p.rate, {"closes": first, "uses": p.reuse}),
            ("reset instead", p.rate, {"closes": "abort"}),
        ]
        low = FIRST_PORT
        for name, rate, about in wanted:
            while inside := [port for port in taken if low <= port < low + p.ports]:
                low = max(inside) + 1
            if low + p.ports > LAST_PORT:
                run.skip("too few ports are free here: sockets of a run before still wait; try again in a minute")
            self.arms[name] = Arm(name, rate, (low, low + p.ports - 1), **about)  # type: ignore[arg-type]  # a row of the table above
            low += p.ports

    @property
    def base(self) -> Arm:
        """The arm that everything else is compared with."""
        return self.arms[f"{self.p.rate:g}/s"]

    # --- connections ------------------------------------------------------------------------------------------------

    async def _drive(self, arm: Arm, address: str) -> None:
        """Begin attempts when the schedule says; wait for those under way."""
        under_way: set[asyncio.Task[None]] = set()
        kept: list[_Kept] = []
        for number in range(int(self.p.seconds * arm.rate)):
            intended = number / arm.rate
            await asyncio.sleep(max(0.0, self._began + intended - time.monotonic()))
            to = (address, arm.to[number % len(arm.to)])
            task = asyncio.create_task(self._attempt(arm, to, intended, kept))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        if under_way:
            await asyncio.wait(under_way, timeout=TIMEOUT)
        for each in kept:
            each.sock.close()

    async def _attempt(self, arm: Arm, to: tuple[str, int], intended: float, kept: "list[_Kept]") -> None:
        begun, error = time.monotonic() - self._began, ""
        try:
            async with asyncio.timeout(TIMEOUT):
                await (_use(arm, to, kept) if arm.uses else _open_and_close(arm, to))
        except TimeoutError:
            error = "timeout"
        except OSError as refused:
            error = "no port left" if refused.errno == errno.EADDRNOTAVAIL else refused.strerror or str(refused)
        arm.attempts.append((intended, begun, error))

    async def _count(self) -> None:
        while True:
            now = time.monotonic() - self._began
            ports = Counter[str]()
            for each in sock_diag.sockets("TIME-WAIT"):
                for arm in self.arms.values():
                    if arm.window[0] <= each.local[1] <= arm.window[1]:
                        ports[arm.name] += 1
            for arm in self.arms.values():
                arm.waiting.append((now, ports[arm.name]))
            await asyncio.sleep(COUNTING)

    # --- conclusions ------------------------------------------------------------------------------------------------

    def conclude(self, run: Run) -> None:
        """Ramp, instants, nothing afterwards; then the cures."""
        for arm in self.arms.values():
            arm.attempts.sort()
        run.raw["attempts"] = {name: arm.attempts for name, arm in self.arms.items()}
        run.raw["waiting"] = {name: arm.waiting for name, arm in self.arms.items()}
        self._gates(run)
        self._ramp(run)
        self._instants(run)
        self._square_wave(run)
        self._cures(run)
        run.chart(self._picture(run))
        run.chart(self._cumulative())
        run.chart(self._hyperbola())

    def _gates(self, run: Run) -> None:
        lags = sorted(begun - intended for arm in self.arms.values() for intended, begun, _ in arm.attempts)
        lag = lags[int(0.99 * len(lags))] if lags else float("inf")
        run.gate("send lag p99", f"<= {MAX_LAG * 1e3:g} ms", f"{lag * 1e3:.1f} ms", lag <= MAX_LAG)
        other = Counter(e for arm in self.arms.values() for _, _, e in arm.attempts if e and e != "no port left")
        run.gate(
            "failures of another kind", "none", ", ".join(f"{n} {e}" for e, n in other.items()) or "none", not other
        )

    def _ramp(self, run: Run) -> None:
        end = theory.exhausted_at(self.p.rate, self.p.ports) or self.p.seconds
        points = [(at, float(n)) for at, n in self.base.waiting if 0.2 * end < at < 0.95 * end]
        if len(points) > 2:
            row = run.row("sockets in TIME-WAIT, growth", Line.through(points).slope)
            run.check_near(row, 0.05)

    def _instants(self, run: Run) -> None:
        for name, said in self.predict().items():
            if not name.startswith("ports exhausted"):
                continue
            arm = self.arms[name.partition(", ")[2]]
            got = arm.exhausted_at
            if got is not None:
                run.row(name, got)
            ok = got is not None and abs(got - said.value) <= 0.05 * said.value
            label = "ports exhausted" if arm is self.base else name
            run.check(label, f"{said.value:.2f} s ± 5 %", "never" if got is None else f"{got:.2f} s", ok, value=got, low=0.95 * said.value, high=1.05 * said.value)  # fmt: skip
        gone = self.base.exhausted_at
        if gone is not None:
            until = min(self.p.seconds, WAIT)
            later, of = self.base.succeeded(gone, until), sum(1 for i, *_ in self.base.attempts if gone <= i < until)
            # A connection that the server resets, since it has too much to do, leaves no TIME-WAIT and frees its port.
            run.check(f"connections afterwards, until {until:g} s", f"<= 1 % of {of}", str(later), later <= 0.01 * of)

    def _square_wave(self, run: Run) -> None:
        """Only a run that outlasts the wait shows what comes after it."""
        if "the wait" not in self.predict():
            run.leave_out("the square wave after the first minute: a full run shows it")
            return
        gone = self.base.exhausted_at
        again = next((i for i, _, e in self.base.attempts if gone is not None and i > gone and not e), None)
        if again is None:
            run.check("the wait", f"60 to {LONGEST_WAIT:g} s", "it never ended", ok=False)
            return
        run.row("the wait", again)
        run.check("the wait", f"60 to {LONGEST_WAIT:g} s", f"{again:.2f} s", WAIT <= again <= LONGEST_WAIT, value=again, low=WAIT, high=LONGEST_WAIT)  # fmt: skip
        right = [
            (theory.success_share(self.p.rate, at, self.p.ports, again) > 0.5) == (not error)
            for at, _, error in self.base.attempts
        ]
        share = sum(right) / len(right)
        run.check("attempts that end as the square wave says", ">= 97 %", f"{share:.1%}", share >= 0.97)

    def _cures(self, run: Run) -> None:
        p = self.p
        if self.negative:
            return
        for name in ("server closes first", f"{p.reuse} requests each", "reset instead"):
            arm = self.arms[name]
            would = p.ports * (p.reuse if arm.uses else 1) / p.rate
            if arm.uses and would < p.seconds:
                continue
            failed = sum(1 for *_, error in arm.attempts if error)
            run.check(f"no failure: {name}", "0", str(failed), failed == 0)
        run.fact("sockets in TIME-WAIT here at the end, by arm", {a.name: a.waiting[-1][1] for a in self.arms.values() if a.waiting})  # fmt: skip
        if "edge" in run.series:
            points = run.series["edge"].of("tcp_tw")
            run.fact("sockets in TIME-WAIT on the edge, before and after", [points[0][1], points[-1][1]])
            # Only the arm that lets the server close leaves them there.
            left = points[-1][1] - points[0][1]
            least = 0.9 * theory.ports_held(p.rate, p.seconds, p.ports)
            run.check("who closes first has them", f">= {least:.0f} on the edge", f"{left:.0f}", left >= least)
        run.leave_out(
            "tcp_tw_reuse=1 (a port is free after a second): a setting of the whole host, which a container can not change for one arm"
        )

    # --- pictures ---------------------------------------------------------------------------------------------------

    def _picture(self, run: Run) -> Chart:
        p, base = self.p, self.base
        step = 0.5 if p.seconds < 60 else 2.0
        good, bad = Counter[int](), Counter[int]()
        for intended, _, error in base.attempts:
            (bad if error else good)[int(intended / step)] += 1
        bars = [
            Bars(label, [(i * step, (i + 1) * step, n / step) for i, n in sorted(counts.items())], colour)
            for label, counts, colour in (("connected", good, "good"), ("no port left", bad, "bad"))
        ]
        wait = next((row.measured.value for row in run.result.rows if row.name == "the wait"), WAIT)
        ramp = [(at, _waiting(p.rate, at, p.ports, wait)) for at in _grid(p.seconds)]
        panels = [
            Panel(bars, y="connections per second", height=170),
            Panel(
                [Curve("theory", ramp, 0), Dots("counted", [(at, n, n, n) for at, n in base.waiting[:: max(1, len(base.waiting) // 60)]], 1)],
                y="sockets in TIME-WAIT",
                height=170,
            ),
        ]  # fmt: skip
        gone = theory.exhausted_at(p.rate, p.ports)
        moments = [Moment(gone, f"P/λ = {gone:.3g} s")] if gone is not None and gone < p.seconds else []
        return Chart(
            f"{p.rate:g} connections per second from {p.ports} ports: all, then none",
            panels,
            x="seconds since the first connection",
            caption="Each connection is closed here first and then keeps its port for a minute. When the last port is taken, every further attempt "
            "fails within a millisecond.",
            moments=moments,
            low=0.0,
            high=p.seconds,
            name="time-wait",
        )

    def _cumulative(self) -> Chart:
        p = self.p
        marks: list[Curve] = []
        shown = (
            f"{p.rate:g}/s",
            "two destinations",
            f"{p.reuse} requests each",
            "server closes first",
            "reset instead",
        )
        for i, name in enumerate(shown):
            arm, total = self.arms[name], 0
            points: list[tuple[float, float]] = [(0.0, 0.0)]
            for intended, _, error in arm.attempts:
                total += not error
                points.append((intended, total))
            label = "closed here first" if arm is self.base else name
            marks.append(Curve(label, _thin(points), i, measured=True, dashed=i > 2))
        return Chart(
            "Requests served, by how connections are closed and kept",
            [Panel(marks, y="requests that went well", height=260)],
            x="seconds since the first connection",
            caption=f"Theory: the first stops at {p.ports:,}, two destinations at {2 * p.ports:,}; the others do not stop within this window. “Reset "
            "instead” works too, and gives up what TIME-WAIT is for.",
            low=0.0,
            high=p.seconds,
            name="time-wait-cures",
        )

    def _hyperbola(self) -> Chart:
        p, rates = self.p, self._rates()
        curve = [(r, p.ports / r) for r in _geometric(rates[0] / 1.5, rates[-1] * 1.5)]
        dots = []
        for rate in rates:
            got = self.arms[f"{rate:g}/s"].exhausted_at
            if got is not None:
                dots.append((rate, got, got, got))
        return Chart(
            "When the ports are gone, against the rate",
            [Panel([Curve(f"theory: {p.ports}/λ", curve, 0), Dots("measured", dots, 1)], y="seconds until exhausted", height=200, low=0)],
            x="connections per second, λ",
            caption="Linux's 28,232 ports last 28 s at 1,000 connections per second: the same curve, 110 times higher.",
            log=True,
            name="time-wait-exhaustion",
        )  # fmt: skip


@dataclass(slots=True)
class _Kept:
    """A connection that is kept, and how often it was used."""

    sock: socket.socket
    uses: int = 0


async def _tell(run: Run, moments: Mapping[str, float]) -> None:
    for text, at in sorted(moments.items(), key=lambda item: item[1]):
        await asyncio.sleep(max(0.0, at - run.now()))
        run.phase(f"by theory: {text}")


async def _open(arm: Arm, to: tuple[str, int]) -> socket.socket:
    sock = socket.socket()
    try:
        sock.setblocking(False)
        low, high = arm.window
        sock.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, struct.pack("=I", high << 16 | low))
        await asyncio.get_running_loop().sock_connect(sock, to)
    except BaseException:
        sock.close()
        raise
    return sock


async def _open_and_close(arm: Arm, to: tuple[str, int]) -> None:
    loop = asyncio.get_running_loop()
    sock = await _open(arm, to)
    try:
        if arm.closes == "server":
            await loop.sock_sendall(sock, LAST_REQUEST)
            while await loop.sock_recv(sock, 65536):
                pass
        elif arm.closes == "abort":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    finally:
        sock.close()


async def _use(arm: Arm, to: tuple[str, int], kept: list[_Kept]) -> None:
    """Send one request over a connection that is there, or over a new one; close it after so many."""
    loop = asyncio.get_running_loop()
    chosen = kept.pop() if kept else _Kept(await _open(arm, to))
    chosen.uses += 1
    last = chosen.uses >= arm.uses
    try:
        await loop.sock_sendall(chosen.sock, LAST_REQUEST if last and arm.closes == "server" else REQUEST)
        await _answer(chosen.sock, until_closed=last and arm.closes == "server")
    except BaseException:
        chosen.sock.close()
        raise
    if last:
        with suppress(OSError):
            chosen.sock.close()
    else:
        kept.append(chosen)


async def _answer(sock: socket.socket, *, until_closed: bool) -> None:
    """Read one whole response: octets left unread would turn our close into a reset, and spare us TIME-WAIT."""
    loop = asyncio.get_running_loop()
    data = b""
    while True:
        piece = await loop.sock_recv(sock, 65536)
        data += piece
        head, found, body = data.partition(b"\r\n\r\n")
        if not piece:
            if until_closed and found:
                return
            raise ConnectionResetError(errno.ECONNRESET, "closed by the server")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE) if found else None
        if length and len(body) >= int(length[1]) and not until_closed:
            return


def _waiting(rate: float, at: float, ports: int, wait: float) -> float:
    """Sockets that wait after *at* seconds of the square wave."""
    on = min(wait, ports / rate)  # of each period
    period, inside = divmod(at, wait)
    made = min(inside, on) * rate
    # Those of the period before leave as they came.
    left = max(0.0, on - inside) * rate if period >= 1 else 0.0
    return made + left


def _grid(seconds: float) -> Sequence[float]:
    return [seconds * i / 300 for i in range(301)]


def _geometric(low: float, high: float) -> Sequence[float]:
    return [low * (high / low) ** (i / 60) for i in range(61)]


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Keep what a picture can show."""
    step = max(1, len(points) // 300)
    return [*points[::step], points[-1]]
