"""Scenario `time-wait`: the side that closes first keeps its port for a minute, so short connections exhaust ports.

Module `instruments.port_windows` makes the connections; `instruments.time_wait_charts` draws the charts.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments import Control, Experiment, Lesson, Line, Quantity, Run, parameter
from scenarios.instruments import time_wait_charts
from scenarios.instruments.port_windows import HOST, OTHER_PORT, PORT, Arm, Drive, waiting_ports
from stub import Stub
from theory import time_wait
from theory.time_wait import WAIT, cure_factor
from waterfall.churn import NO_PORT, Attempt

#: First port of the first window and last port of the last window, within Linux's default range of ephemeral ports,
#: because the kernel ignores ports outside it.
FIRST_PORT, LAST_PORT = 33_000, 60_900
#: Longest expected TIME-WAIT in seconds: Linux's TCP_TIMEWAIT_LEN (60 s) plus up to a sixteenth for the timer wheel.
LONGEST_WAIT = 64.5
#: Tick rates of usual Linux builds (CONFIG_HZ), which determine the granularity of the kernel's timer wheel.
TICKS = (100, 250, 300, 1000)
#: Largest start delay of an attempt at the 99th percentile, in seconds and as a share of the time until ports run out.
MAX_LAG, MAX_LAG_SHARE = 0.1, 0.05
#: Smallest window with which a check does not fail by chance; the tolerance is 5 % of the time of exhaustion.
FEWEST_PORTS = 128
#: Seconds for which a connection uses its port before TIME-WAIT: one round trip to the edge (links.toml) to connect,
#: and one to close.
BUSY = 2 * 0.020
#: Host with ``tcp_tw_reuse`` = 1 and two addresses (docker-compose.yml).
REUSER = "client"
#: Number of source addresses that `REUSER` uses in each of its arms.
REUSING = {"tcp_tw_reuse": 1, "tcp_tw_reuse, two addresses": 2}
#: Connection attempts of `REUSER` per second and port, more than it can sustain with two addresses.
OVERLOAD = 4
#: Seconds for which `REUSER` makes connections: twelve times its TIME-WAIT of one second.
REUSE_SECONDS = 12.0


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters that the user can vary."""

    ports: int = parameter(1024, quick=256, low=32, high=3000, help="source ports that each arm may use")
    rate: float = parameter(
        32.0, quick=64.0, unit="connections/s", low=1, high=400,
        help="rate of every arm, except the two with half and twice this rate",
    )  # fmt: skip
    seconds: float = parameter(150.0, quick=14.0, unit="s", low=3, high=600, help="how long connections are made")
    reuse: int = parameter(10, low=2, high=1000, help="requests per connection of the arm that keeps connections open")


class TimeWait(Experiment[Parameters]):
    """Opens connections at a constant rate from a window of ports, and tests remedies against port exhaustion."""

    name = "time-wait"
    claim = (
        "The side that closes a connection first keeps its port for a minute: at λ connections per second, P ports "
        "run out after P/λ seconds, and then every connection fails."
    )
    says = (
        "The textbook says that a closed socket stays in a waiting state, and that a client with many short "
        "connections runs out of sockets. In practice the wait is fixed, so connections do not fail at random. "
        "Success is a square wave: all connections succeed until the ports are gone, none until the first minute is "
        "over, then all again. And it affects only the side that closes first, and only one address and port of the "
        "server."
    )
    source = (
        "RFC 9293 section 3.3.2; V. Bernat, “Coping with the TCP TIME-WAIT state on busy Linux servers”; ip(7), "
        "IP_LOCAL_PORT_RANGE."
    )
    production = (
        "One client address reaches one server address and port with at most 28,232 / 60 s ≈ 470 new connections per "
        "second. Keep connections open (ten requests on each raise the limit tenfold), let the server close where it "
        "can afford the memory, use several destination ports or addresses, widen ip_local_port_range, or set "
        "tcp_tw_reuse=1 on the client: a port is then free after a second, sixty times the limit, if both ends send "
        "TCP timestamps; it does nothing for a server. Do not avoid the wait by resetting connections: it protects "
        "the next connection from stray segments. EADDRNOTAVAIL fails within a millisecond and so improves every "
        "latency graph: alert on the share of failures."
    )
    settings = Parameters
    control = Control("the server closes first, so that no socket waits at the client", ("ports exhausted",))
    records = ("edge",)
    paths = ("edge",)
    lessons = (
        Lesson(
            "A client sends ten requests over each connection instead of one. By which factor does the sustainable "
            "rate of requests grow?",
            "multiplier, 10 requests each", "×", 1,
        ),
        Lesson(
            "The server closes first instead. At which rate do sockets in TIME-WAIT grow at the client?",
            "growth, server closes first", "per s", 0.5,
        ),
    )  # fmt: skip

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.arms: dict[str, Arm] = {}
        #: Connection attempts of `REUSER`, keyed by arm.
        self.reusing: dict[str, list[Attempt]] = {}
        #: Kernel settings that `REUSER` reports.
        self.reuser: dict[str, Any] = {}
        #: Final number of TIME-WAIT sockets on the edge, for the ports of the arm in which the server closes first.
        self.on_the_edge = 0
        #: Measured factor by which each remedy raises the sustainable rate.
        self.multiplied: dict[str, float] = {}
        #: Step and phase of the kernel's timer wheel in seconds; the step is close to zero until it has been measured.
        self._wheel = (1e-3, 0.0)
        #: Arms with more ports than the base arm.
        self._spread = ("two destinations", "twice the ports")
        #: Arms whose ports do not run out during the run.
        self._spared = (f"{parameters.reuse} requests each", "server closes first", "reset instead")

    def duration(self) -> float:
        """Return the expected duration in seconds; all arms run at the same time."""
        return self.p.seconds + 3

    def _rates(self) -> tuple[float, ...]:
        return (self.p.rate / 2, self.p.rate, self.p.rate * 2)

    def _exhausted_at(self, rate: float, ports: int) -> float | None:
        """Return the time in seconds at which ports run out; None if they last until the final second or longer."""
        moment = time_wait.exhausted_at(rate, ports)
        return moment if moment is not None and moment < self.p.seconds - 1 else None

    def predict(self) -> Mapping[str, Quantity]:
        """Predict the growth of TIME-WAIT sockets, the time of exhaustion, and the factor of each remedy."""
        p = self.p
        predicted = {"sockets in TIME-WAIT, growth": Quantity(p.rate, "per s")}
        for rate in self._rates():
            if moment := self._exhausted_at(rate, p.ports):
                predicted[f"ports exhausted, {rate:g}/s"] = Quantity(moment, "s")
        predicted[f"growth, {p.reuse} requests each"] = Quantity(p.rate / p.reuse, "per s")
        predicted |= {f"growth, {name}": Quantity(0.0, "per s") for name in ("server closes first", "reset instead")}
        held = time_wait.ports_held(p.rate, p.seconds, p.ports)
        predicted["on the edge, which closes first"] = Quantity(held, "sockets")
        if both := self._exhausted_at(p.rate, 2 * p.ports):
            predicted |= {f"ports exhausted, {name}": Quantity(both, "s") for name in self._spread}
        predicted |= {f"multiplier, {name}": Quantity(value, "×") for name, value in self._multipliers().items()}
        if p.seconds > LONGEST_WAIT + 1 and time_wait.exhausted_at(p.rate, p.ports) is not None:
            predicted["the wait"] = Quantity(WAIT, "s")
        return predicted

    def _multipliers(self) -> dict[str, float]:
        """Return the predicted factor by which each remedy raises the sustainable rate."""
        shown = self._exhausted_at(self.p.rate, 2 * self.p.ports) is not None
        spread = {"two destinations": cure_factor(destinations=2), "twice the ports": cure_factor(ports_ratio=2)}
        return {
            **(spread if shown else {}),
            f"{self.p.reuse} requests each": cure_factor(reused=1 - 1 / self.p.reuse),
            **{name: cure_factor(tw_reuse=True, sources=n, busy=BUSY) for name, n in REUSING.items()},
        }

    async def measure(self, run: Run) -> None:
        """Run all arms at the same time, each from its own window, together with the host that reuses ports."""
        address = (await run.blocking(Stub().resolve, HOST)).rdata[0]
        self._lay_out(run, set(waiting_ports("TIME-WAIT", "FIN-WAIT-2", "ESTABLISHED")))
        run.phase(f"{sum(arm.rate for arm in self.arms.values()):.0f} connections/s in {len(self.arms)} arms")
        gone = time_wait.exhausted_at(self.p.rate, self.p.ports)
        moments = {"the ports are gone": gone, "the first minute is over": WAIT}
        announcing = asyncio.create_task(_announce(run, {k: v for k, v in moments.items() if v and v < self.p.seconds}))
        elsewhere = [] if self.negative else [self._reuse(run, address, name) for name in REUSING]
        try:
            await asyncio.gather(Drive(self.arms, address, self.p.seconds).run(), *elsewhere)
        finally:
            announcing.cancel()
        # Sockets are selected by port, because the edge may also hold TIME-WAIT sockets of an earlier run.
        held = await run.lab.call("edge", "GET", f"/admin/sockets?state=TIME-WAIT&local_port={PORT}")
        closed = self.arms["server closes first"]
        self.on_the_edge = sum(int(each["remote"].rpartition(":")[2]) in closed for each in held)

    @property
    def reuse_ports(self) -> int:
        """Number of source ports of the arm that reuses ports: too few if each stayed in TIME-WAIT for a minute."""
        return max(8, round(self.p.rate * 3 / 8))

    async def _reuse(self, run: Run, address: str, name: str) -> None:
        """Make `REUSER` attempt more connections than its few ports can sustain."""
        ports, low = self.reuse_ports, FIRST_PORT + list(REUSING).index(name) * self.reuse_ports
        order = {
            "address": address, "port": PORT, "rate": OVERLOAD * ports, "seconds": min(self.p.seconds, REUSE_SECONDS),
            "ports": [low, low + ports - 1], "sources": REUSING[name],
        }  # fmt: skip
        answer = await run.lab.call(REUSER, "POST", "/admin/churn", order, timeout=REUSE_SECONDS + 30)
        self.reusing[name] = [Attempt(*each) for each in answer.pop("attempts")]
        self.reuser = answer

    def _lay_out(self, run: Run, taken: set[int]) -> None:
        """Assign each arm a port window that contains no *taken* ports (in use or in TIME-WAIT)."""
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
        for name, rate, how in wanted:
            ports = p.ports * (2 if name == "twice the ports" else 1)
            while inside := [port for port in taken if low <= port < low + ports]:
                low = max(inside) + 1
            if low + ports > LAST_PORT:
                run.skip(
                    "too few ports are free here: sockets of an earlier run are in TIME-WAIT; try again in a minute"
                )
            window = (low, low + ports - 1)
            self.arms[name] = Arm(name, rate, window, **how)  # type: ignore[arg-type]  # options come from the table
            low += ports

    @property
    def base(self) -> Arm:
        """The arm to which all others are compared."""
        return self.arms[f"{self.p.rate:g}/s"]

    # --- conclusions ------------------------------------------------------------------------------------------------

    def conclude(self, run: Run) -> None:
        """Check the growth of TIME-WAIT sockets, port exhaustion, the square wave of successes, and the remedies."""
        for arm in self.arms.values():
            arm.attempts.sort()
        run.raw["attempts"] = {name: arm.attempts for name, arm in self.arms.items()}
        run.raw["reusing"] = self.reusing
        run.raw["waiting"] = {name: arm.waiting for name, arm in self.arms.items()}
        self._gates(run)
        growth = self._growth(self.base)
        if growth is not None:
            run.findings.check_near(run.findings.row("sockets in TIME-WAIT, growth", growth), 0.05)
        self._exhaustion(run)
        self._square_wave(run)
        if not self.negative:
            self._cures(run)
        others = [self.arms[name] for name in (*self._spread, *self._spared)]
        run.findings.chart(time_wait_charts.square_wave(self.base, self.p.ports, self.p.seconds, self._wheel))
        run.findings.chart(time_wait_charts.cumulative(self.base, others, self.p.seconds, self.p.ports))
        rates = [self.arms[f"{rate:g}/s"] for rate in self._rates()]
        run.findings.chart(time_wait_charts.exhaustion(rates, self.p.ports))
        if self.multiplied:
            run.findings.chart(time_wait_charts.multipliers(self._multipliers(), self.multiplied))

    def _gates(self, run: Run) -> None:
        every = [each for arm in self.arms.values() for each in arm.attempts]
        every += [each for attempts in self.reusing.values() for each in attempts]
        lags = sorted(each.begun - each.intended for each in every)
        lag = lags[int(0.99 * len(lags))] if lags else math.inf
        earliest = time_wait.exhausted_at(max(self._rates()), self.p.ports) or math.inf
        allowed = min(MAX_LAG, MAX_LAG_SHARE * earliest)
        run.findings.gate("send lag p99", f"<= {allowed * 1e3:g} ms", f"{lag * 1e3:.1f} ms", lag <= allowed)
        run.findings.enough("ports in a window", self.p.ports, FEWEST_PORTS)
        other = Counter(each.error for each in every if each.error not in {"", NO_PORT})
        got = ", ".join(f"{n} {error}" for error, n in other.items()) or "none"
        run.findings.gate("failures of another kind", "none", got, not other)

    def _growth(self, arm: Arm) -> float | None:
        """Return the rate at which sockets enter TIME-WAIT, per second, before ports run out or a TIME-WAIT expires."""
        ends = (time_wait.exhausted_at(arm.rate, arm.ports) or WAIT) if arm.exhausted_at is not None else WAIT
        ends = min(ends, self.p.seconds)
        points = [(at, float(n)) for at, n in arm.waiting if 0.2 * ends < at < 0.95 * ends]
        return Line.through(points).slope if len(points) > 2 else None

    def _exhaustion(self, run: Run) -> None:
        for name, predicted in self.predict().items():
            if not name.startswith("ports exhausted"):
                continue
            arm = self.arms[name.partition(", ")[2]]
            got, low, high = arm.exhausted_at, 0.95 * predicted.value, 1.05 * predicted.value
            if got is not None:
                run.findings.row(name, got)
            run.findings.check(
                "ports exhausted" if arm is self.base else name,
                f"{predicted.value:.2f} s ± 5 %", "never" if got is None else f"{got:.2f} s",
                got is not None and low <= got <= high, value=got, low=low, high=high,
            )  # fmt: skip
        gone = self.base.exhausted_at
        if gone is not None:
            until = min(self.p.seconds, WAIT)
            later = self.base.succeeded(gone, until)
            of = sum(1 for each in self.base.attempts if gone <= each.intended < until)
            # A few may succeed: if an overloaded server resets a connection, there is no TIME-WAIT, and the port is
            # available immediately.
            name = f"connections after that, until {until:g} s"
            run.findings.check(name, f"<= 1 % of {of}", str(later), later <= 0.01 * of)

    def _square_wave(self, run: Run) -> None:
        """If the run is long enough, check when ports become available again, and the outcome of all attempts."""
        if "the wait" not in self.predict():
            run.findings.leave_out(
                "the square wave after the first minute: it needs a full run, at a rate that uses the ports up"
            )
            return
        gone = self.base.exhausted_at
        after = (each for each in self.base.attempts if gone is not None and each.intended > gone and not each.error)
        again = next((each.intended for each in after), None)
        expected = f"60 to {LONGEST_WAIT:g} s"
        if again is None:
            run.findings.check("the wait", expected, "it never ended", ok=False)
            return
        ok = WAIT <= again <= LONGEST_WAIT
        run.findings.row("the wait", again)
        run.findings.check("the wait", expected, f"{again:.2f} s", ok, value=again, low=WAIT, high=LONGEST_WAIT)
        # The timer wheel releases ports in steps.  The first released port shows the phase; the kernel's tick rate
        # determines the step.
        turned = again - 0.5 / self.p.rate
        fits = {hz: self._agreement(time_wait.timer_step(hz), turned) for hz in TICKS}
        hz = max(fits, key=fits.__getitem__)
        step = time_wait.timer_step(hz)
        self._wheel = (step, turned)
        shares = {f"{each} Hz": f"{share:.1%}" for each, share in fits.items()}
        run.findings.fact("attempts that end as predicted, by tick rate of the kernel", shares)
        run.findings.fact("step of the kernel's timer wheel, s", round(step, 3))
        got = f"{fits[hz]:.1%}, in steps of {step:.3g} s ({hz} Hz)"
        run.findings.check("attempts that end as the square wave predicts", ">= 97 %", got, fits[hz] >= 0.97)

    def _agreement(self, step: float, turned: float) -> float:
        """Return the share of the base arm's attempts that a timer wheel with steps of *step* seconds predicts."""
        attempts = self.base.attempts
        outcomes = time_wait.on_the_wheel((each.intended for each in attempts), self.p.ports, step, turned)
        right = [found == (not each.error) for (found, _), each in zip(outcomes, attempts, strict=True)]
        return sum(right) / len(right)

    def _cures(self, run: Run) -> None:
        """Check which arms never run out of ports, the factor of each remedy, and which side holds the sockets."""
        p, found = self.p, run.findings
        for name in self._spared:
            arm = self.arms[name]
            if arm.uses and p.ports * p.reuse / p.rate < p.seconds:
                continue
            failed = sum(1 for each in arm.attempts if each.error)
            found.check(f"no failure: {name}", "0", str(failed), failed == 0)
            growth = self._growth(arm)
            if growth is not None:
                room = max(0.02 * p.rate, 0.1 * p.rate / p.reuse)
                found.check_near(found.row(f"growth, {name}", growth), room, absolute=True)
        self.multiplied = self._measured_multipliers()
        for name, got in self.multiplied.items():
            found.check_near(found.row(f"multiplier, {name}", got), 0.1 if "requests" in name else 0.05)
        missing = [name for name in REUSING if name not in self.multiplied]
        if missing:
            setting = self.reuser.get("tw_reuse") or "?"
            found.leave_out(
                f"{' and '.join(missing)}: {REUSER} reports tcp_tw_reuse={setting}, expected 1; recreate the lab "
                "(firstbyte down, firstbyte up) if it is older than this version"
            )
        found.fact("the kernel that reuses ports", self.reuser)
        waiting = {each.name: each.waiting[-1][1] for each in self.arms.values() if each.waiting}
        found.fact("sockets in TIME-WAIT here at the end, by arm", waiting)
        if edge := run.recorders.series.get("edge"):
            points = edge.of("tcp_tw")
            found.fact("sockets in TIME-WAIT on the edge, before and after", [points[0][1], points[-1][1]])
        found.check_near(found.row("on the edge, which closes first", self.on_the_edge), 0.1)

    def _measured_multipliers(self) -> dict[str, float]:
        """Return the measured factor of each remedy over the base arm.

        With more ports, the factor is the ratio of the times until ports run out.  With several requests per
        connection, it is the ratio of the growth rates of TIME-WAIT sockets.  With `tcp_tw_reuse`, it is the sustained
        rate divided by the rate that is sustainable without this setting.
        """
        found = {}
        base, growth = self.base.exhausted_at, self._growth(self.base)
        for name in self._multipliers():
            if name in REUSING:
                if self.reuser.get("tw_reuse") == "1" and self.reusing.get(name):
                    without = time_wait.sustainable_rate(self.reuse_ports, WAIT + BUSY)
                    found[name] = sustained(self.reusing[name]) / without
                continue
            arm = self.arms[name]
            if arm.uses:
                taken = self._growth(arm)
                if growth and taken:
                    found[name] = growth / taken
            elif base and arm.exhausted_at is not None:
                found[name] = arm.exhausted_at / base
        return found


def sustained(attempts: Sequence[Attempt]) -> float:
    """Return the number of successful connections per second after the first second, in which all ports are free."""
    done, points = 0, []
    for each in attempts:
        done += not each.error
        if each.intended >= 1.0:
            points.append((each.intended, float(done)))
    return Line.through(points).slope if len(points) > 2 else 0.0


async def _announce(run: Run, moments: Mapping[str, float]) -> None:
    for text, at in sorted(moments.items(), key=lambda item: item[1]):
        await run.until(at)
        run.phase(f"predicted: {text}")
