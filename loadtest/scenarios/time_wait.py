"""`time-wait`: who closes first keeps the port for a minute; quick connections run out of ports, and then nothing works.

Here: what is claimed and concluded.  The connections are `scenarios.instruments.port_windows`', the pictures `scenarios.instruments.time_wait_charts`'.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments import Control, Experiment, Line, Quantity, Run, parameter
from scenarios.instruments import time_wait_charts
from scenarios.instruments.port_windows import HOST, OTHER_PORT, PORT, Arm, Drive, waiting_ports
from stub import Stub
from theory import time_wait
from theory.time_wait import WAIT, cure_factor
from waterfall.churn import NO_PORT

#: First port of the first window: above the beginning of the usual range, since ports outside it are ignored.
FIRST_PORT = 33_000
LAST_PORT = 60_900
#: Linux's TCP_TIMEWAIT_LEN is 60 s; its timer wheel may add up to a sixteenth.
LONGEST_WAIT = 64.5
#: Ticks per second that Linux is built with (CONFIG_HZ): by them its timer wheel rounds the minute up.
TICKS = (100, 250, 300, 1000)
#: How late an attempt may start at the 99th percentile, in seconds and as a share of the earliest exhaustion.
MAX_LAG, MAX_LAG_SHARE = 0.1, 0.05
#: Ports of a window without which chance alone could fail a check: an instant of exhaustion may be off by 5 %.
FEWEST_PORTS = 128
#: Seconds that a port is in use before it waits: a round trip to connect, one to close, on the path to the edge (links.toml).
BUSY = 2 * 0.020
#: The host whose kernel has ``tcp_tw_reuse`` = 1 and two addresses (docker-compose.yml), and its arms: addresses used.
REUSER = "client"
REUSING = {"tcp_tw_reuse": 1, "tcp_tw_reuse, two addresses": 2}
#: Of the connections per second that its ports could carry for ever, those of one address: above what two carry, too.
OVERLOAD = 4
#: Seconds that it takes part: ten times its wait.
REUSE_SECONDS = 12.0


@dataclass(frozen=True, slots=True)
class Parameters:
    """What can be varied."""

    ports: int = parameter(1024, quick=256, low=32, high=3000, help="ports that each arm may use")
    rate: float = parameter(32.0, quick=64.0, unit="connections/s", low=1, high=400, help="of every arm but the two that vary it")  # fmt: skip
    seconds: float = parameter(150.0, quick=14.0, unit="s", low=3, high=600, help="how long connections are made")
    reuse: int = parameter(10, low=2, high=1000, help="requests per connection of the arm that keeps them")


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
        "destination ports or addresses, widen ip_local_port_range, or set tcp_tw_reuse=1 on the client: a port is free again after a second, sixty times the limit, "
        "where both ends send TCP timestamps; it does nothing for a server. "
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
        #: What `REUSER` says of its attempts, by arm, and of its kernel.
        self.reusing: dict[str, list[tuple[float, float, str]]] = {}
        self.reuser: dict[str, Any] = {}
        #: Sockets in TIME-WAIT on the edge at the end, towards the ports of the arm that lets it close.
        self.on_the_edge = 0
        #: By how much each cure multiplied.
        self.multiplied: dict[str, float] = {}
        #: Step of the kernel's timer wheel and a moment at which it turned; next to no step until it is known.
        self._wheel = (1e-3, 0.0)
        #: Arms whose ports last longer, and those whose ports last for ever, or nearly.
        self._spread = ("two destinations", "twice the ports")
        self._spared = (f"{parameters.reuse} requests each", "server closes first", "reset instead")

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
            moment = time_wait.exhausted_at(rate, p.ports)
            if moment is not None and moment < p.seconds - 1:
                said[f"ports exhausted, {rate:g}/s"] = Quantity(moment, "s")
        said[f"growth, {p.reuse} requests each"] = Quantity(p.rate / p.reuse, "per s")
        said |= {f"growth, {name}": Quantity(0.0, "per s") for name in ("server closes first", "reset instead")}
        said["on the edge, which closes first"] = Quantity(time_wait.ports_held(p.rate, p.seconds, p.ports), "sockets")
        both = time_wait.exhausted_at(p.rate, 2 * p.ports)
        if both is not None and both < p.seconds - 1:
            said |= {
                f"ports exhausted, {name}": Quantity(both, "s") for name in ("two destinations", "twice the ports")
            }
        said |= {f"multiplier, {name}": Quantity(value, "×") for name, value in self._multipliers().items()}
        if p.seconds > LONGEST_WAIT + 1 and time_wait.exhausted_at(p.rate, p.ports) is not None:
            said["the wait"] = Quantity(WAIT, "s")
        return said

    def _multipliers(self) -> dict[str, float]:
        """Return by how much each cure multiplies the rate that lasts for ever."""
        both = time_wait.exhausted_at(self.p.rate, 2 * self.p.ports)
        shown = both is not None and both < self.p.seconds - 1
        return {
            **({"two destinations": cure_factor(destinations=2), "twice the ports": cure_factor(ports_ratio=2)} if shown else {}),
            f"{self.p.reuse} requests each": cure_factor(reused=1 - 1 / self.p.reuse),
            **{name: cure_factor(tw_reuse=True, sources=n, busy=BUSY) for name, n in REUSING.items()},
        }  # fmt: skip

    async def measure(self, run: Run) -> None:
        """Every arm at once, each from a window of its own; the host that reuses ports takes part."""
        address = (await run.blocking(Stub().resolve, HOST)).rdata[0]
        self._lay_out(run, set(waiting_ports("TIME-WAIT", "FIN-WAIT-2", "ESTABLISHED")))
        run.phase(f"{sum(arm.rate for arm in self.arms.values()):.0f} connections/s in {len(self.arms)} arms")
        moments = {
            "ports are gone": time_wait.exhausted_at(self.p.rate, self.p.ports),
            "the first minute is over": 60.0,
        }
        telling = asyncio.create_task(_tell(run, {k: v for k, v in moments.items() if v and v < self.p.seconds}))
        elsewhere = [] if self.negative else [self._reuse(run, address, name) for name in REUSING]
        try:
            await asyncio.gather(Drive(self.arms, address, self.p.seconds).run(), *elsewhere)
        finally:
            telling.cancel()
        # Named one by one: the edge may hold others, of a run before, and they end meanwhile.
        held = await run.lab.call("edge", "GET", f"/admin/sockets?state=TIME-WAIT&local_port={PORT}")
        closed = self.arms["server closes first"]
        self.on_the_edge = sum(int(each["remote"].rpartition(":")[2]) in closed for each in held)

    @property
    def reuse_ports(self) -> int:
        """Ports of each window of the host that reuses them: few, so that a minute would be far too long."""
        return max(8, round(self.p.rate * 3 / 8))

    async def _reuse(self, run: Run, address: str, name: str) -> None:
        """Let `REUSER` open and close connections, more than its few ports could carry."""
        ports, low = self.reuse_ports, FIRST_PORT + list(REUSING).index(name) * self.reuse_ports
        order = {
            "address": address, "port": PORT, "rate": OVERLOAD * ports, "seconds": min(self.p.seconds, REUSE_SECONDS),
            "ports": [low, low + ports - 1], "sources": REUSING[name],
        }  # fmt: skip
        answer = await run.lab.call(REUSER, "POST", "/admin/churn", order, timeout=REUSE_SECONDS + 30)
        self.reusing[name] = [(intended, begun, error) for intended, begun, error in answer.pop("attempts")]
        self.reuser = answer

    def _lay_out(self, run: Run, taken: set[int]) -> None:
        """Give each arm a window in which no port is *taken* by what waits from a run before."""
        p = self.p
        first = "server" if self.negative else "client"
        wanted = [
            *((f"{rate:g}/s", rate, {"closes": first}) for rate in self._rates()),
            ("server closes first", p.rate, {"closes": "server"}),
            ("two destinations", p.rate, {"closes": first, "to": (PORT, OTHER_PORT)}),
            ("twice the ports", p.rate, {"closes": first}),
            (f"{p.reuse} requests each", p.rate, {"closes": first, "uses": p.reuse}),
            ("reset instead", p.rate, {"closes": "abort"}),
        ]
        low = FIRST_PORT
        for name, rate, about in wanted:
            ports = p.ports * (2 if name == "twice the ports" else 1)
            while inside := [port for port in taken if low <= port < low + ports]:
                low = max(inside) + 1
            if low + ports > LAST_PORT:
                run.skip("too few ports are free here: sockets of a run before still wait; try again in a minute")
            self.arms[name] = Arm(name, rate, (low, low + ports - 1), **about)  # type: ignore[arg-type]  # a row of the table above
            low += ports

    @property
    def base(self) -> Arm:
        """The arm that everything else is compared with."""
        return self.arms[f"{self.p.rate:g}/s"]

    # --- conclusions ------------------------------------------------------------------------------------------------

    def conclude(self, run: Run) -> None:
        """Ramp, instants, nothing afterwards; then the cures."""
        for arm in self.arms.values():
            arm.attempts.sort()
        run.raw["attempts"] = {name: arm.attempts for name, arm in self.arms.items()}
        run.raw["reusing"] = self.reusing
        run.raw["waiting"] = {name: arm.waiting for name, arm in self.arms.items()}
        self._gates(run)
        self._ramp(run)
        self._instants(run)
        self._square_wave(run)
        self._cures(run)
        run.findings.chart(time_wait_charts.square_wave(self.base, self.p.ports, self.p.seconds, self._wheel))
        run.findings.chart(
            time_wait_charts.cumulative(
                self.base, [self.arms[name] for name in (*self._spread, *self._spared)], self.p.seconds, self.p.ports
            )
        )
        run.findings.chart(
            time_wait_charts.exhaustion([self.arms[f"{rate:g}/s"] for rate in self._rates()], self.p.ports)
        )
        if self.multiplied:
            run.findings.chart(time_wait_charts.multipliers(self._multipliers(), self.multiplied))

    def _gates(self, run: Run) -> None:
        lags = sorted(begun - intended for attempts in self._attempts() for intended, begun, _ in attempts)
        lag = lags[int(0.99 * len(lags))] if lags else float("inf")
        earliest = time_wait.exhausted_at(max(self._rates()), self.p.ports) or math.inf
        allowed = min(MAX_LAG, MAX_LAG_SHARE * earliest)
        run.findings.gate("send lag p99", f"<= {allowed * 1e3:g} ms", f"{lag * 1e3:.1f} ms", lag <= allowed)
        run.findings.enough("ports in a window", self.p.ports, FEWEST_PORTS)
        other = Counter(e for attempts in self._attempts() for _, _, e in attempts if e and e != NO_PORT)
        run.findings.gate(
            "failures of another kind", "none", ", ".join(f"{n} {e}" for e, n in other.items()) or "none", not other
        )

    def _attempts(self) -> list[list[tuple[float, float, str]]]:
        return [*(arm.attempts for arm in self.arms.values()), *self.reusing.values()]

    def _ramp(self, run: Run) -> None:
        growth = self._growth(self.base)
        if growth is not None:
            run.findings.check_near(run.findings.row("sockets in TIME-WAIT, growth", growth), 0.05)

    def _growth(self, arm: Arm) -> float | None:
        """Return sockets per second that enter TIME-WAIT, while ports last and none is free again."""
        ends = (time_wait.exhausted_at(arm.rate, arm.ports) or WAIT) if arm.exhausted_at is not None else WAIT
        ends = min(ends, self.p.seconds)
        points = [(at, float(n)) for at, n in arm.waiting if 0.2 * ends < at < 0.95 * ends]
        return Line.through(points).slope if len(points) > 2 else None

    def _instants(self, run: Run) -> None:
        for name, said in self.predict().items():
            if not name.startswith("ports exhausted"):
                continue
            arm = self.arms[name.partition(", ")[2]]
            got = arm.exhausted_at
            if got is not None:
                run.findings.row(name, got)
            ok = got is not None and abs(got - said.value) <= 0.05 * said.value
            label = "ports exhausted" if arm is self.base else name
            run.findings.check(label, f"{said.value:.2f} s ± 5 %", "never" if got is None else f"{got:.2f} s", ok, value=got, low=0.95 * said.value, high=1.05 * said.value)  # fmt: skip
        gone = self.base.exhausted_at
        if gone is not None:
            until = min(self.p.seconds, WAIT)
            later, of = self.base.succeeded(gone, until), sum(1 for i, *_ in self.base.attempts if gone <= i < until)
            # A connection that the server resets, since it has too much to do, leaves no TIME-WAIT and frees its port.
            run.findings.check(
                f"connections afterwards, until {until:g} s", f"<= 1 % of {of}", str(later), later <= 0.01 * of
            )

    def _square_wave(self, run: Run) -> None:
        """Only a run that outlasts the wait shows what comes after it."""
        if "the wait" not in self.predict():
            run.findings.leave_out(
                "the square wave after the first minute: a full run shows it, at a rate that uses the ports up"
            )
            return
        gone = self.base.exhausted_at
        again = next((i for i, _, e in self.base.attempts if gone is not None and i > gone and not e), None)
        if again is None:
            run.findings.check("the wait", f"60 to {LONGEST_WAIT:g} s", "it never ended", ok=False)
            return
        run.findings.row("the wait", again)
        run.findings.check("the wait", f"60 to {LONGEST_WAIT:g} s", f"{again:.2f} s", WAIT <= again <= LONGEST_WAIT, value=again, low=WAIT, high=LONGEST_WAIT)  # fmt: skip
        # Ports come back when the timer wheel turns.  When it does, the first port says; how far it turns, the kernel's ticks.
        turned = again - 0.5 / self.p.rate
        fits = {hz: self._as_said(time_wait.timer_step(hz), turned) for hz in TICKS}
        hz = max(fits, key=fits.__getitem__)
        self._wheel = (time_wait.timer_step(hz), turned)
        run.findings.fact("attempts that end as the square wave says, by ticks of the kernel", {f"{hz} Hz": f"{share:.1%}" for hz, share in fits.items()})  # fmt: skip
        run.findings.fact("step of the kernel's timer wheel, s", round(time_wait.timer_step(hz), 3))
        run.findings.check("attempts that end as the square wave says", ">= 97 %", f"{fits[hz]:.1%}, in steps of {time_wait.timer_step(hz):.3g} s ({hz} Hz)", fits[hz] >= 0.97)  # fmt: skip

    def _as_said(self, step: float, turned: float) -> float:
        """Return the share of the plain arm's attempts that end as theory says, with a timer wheel of *step* seconds."""
        said = time_wait.on_the_wheel((at for at, *_ in self.base.attempts), self.p.ports, step, turned)
        right = [s == (not error) for (s, _), (*_, error) in zip(said, self.base.attempts, strict=True)]
        return sum(right) / len(right)

    def _cures(self, run: Run) -> None:
        """What does not run out, what each cure multiplies, and where the sockets are instead."""
        p = self.p
        if self.negative:
            return
        for name in self._spared:
            arm = self.arms[name]
            if arm.uses and p.ports * p.reuse / p.rate < p.seconds:
                continue
            failed = sum(1 for *_, error in arm.attempts if error)
            run.findings.check(f"no failure: {name}", "0", str(failed), failed == 0)
            growth = self._growth(arm)
            if growth is not None:
                run.findings.check_near(run.findings.row(f"growth, {name}", growth), max(0.02 * p.rate, 0.1 * p.rate / p.reuse), absolute=True)  # fmt: skip
        self.multiplied = self._measured_multipliers()
        for name, got in self.multiplied.items():
            run.findings.check_near(run.findings.row(f"multiplier, {name}", got), 0.1 if "requests" in name else 0.05)
        missing = [name for name in REUSING if name not in self.multiplied]
        if missing:
            run.findings.leave_out(f"{' and '.join(missing)}: {REUSER} answered tcp_tw_reuse={self.reuser.get('tw_reuse') or '?'}, expected 1; is its lab older than this?")  # fmt: skip
        run.findings.fact("the kernel that reuses ports", self.reuser)
        run.findings.fact("sockets in TIME-WAIT here at the end, by arm", {a.name: a.waiting[-1][1] for a in self.arms.values() if a.waiting})  # fmt: skip
        if "edge" in run.recorders.series:
            points = run.recorders.series["edge"].of("tcp_tw")
            run.findings.fact("sockets in TIME-WAIT on the edge, before and after", [points[0][1], points[-1][1]])
        run.findings.check_near(run.findings.row("on the edge, which closes first", self.on_the_edge), 0.1)

    def _measured_multipliers(self) -> dict[str, float]:
        """Return how much longer ports last, how many fewer are taken, or what rate is sustained, over the plain arm's."""
        found = {}
        base, growth = self.base.exhausted_at, self._growth(self.base)
        for name in self._multipliers():
            if name in REUSING:
                if self.reuser.get("tw_reuse") == "1" and self.reusing.get(name):
                    found[name] = sustained(self.reusing[name]) / time_wait.sustainable_rate(
                        self.reuse_ports, WAIT + BUSY
                    )
                continue
            arm = self.arms[name]
            if arm.uses:
                taken = self._growth(arm)
                if growth and taken:
                    found[name] = growth / taken
            elif base and arm.exhausted_at is not None:
                found[name] = arm.exhausted_at / base
        return found


def sustained(attempts: list[tuple[float, float, str]]) -> float:
    """Return connections per second that went well, once the first ports have been used up."""
    done, points = 0, []
    for intended, _, error in attempts:
        done += not error
        if intended >= 1.0:
            points.append((intended, float(done)))
    return Line.through(points).slope if len(points) > 2 else 0.0


async def _tell(run: Run, moments: Mapping[str, float]) -> None:
    for text, at in sorted(moments.items(), key=lambda item: item[1]):
        await run.until(at)
        run.phase(f"by theory: {text}")
