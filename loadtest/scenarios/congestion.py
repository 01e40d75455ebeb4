"""Scenario `congestion`: compares the windows of Reno, CUBIC and BBR under loss, and tests how flows share a link."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from experiments import (
    Control,
    Estimate,
    Experiment,
    Lesson,
    Quantity,
    Run,
    parameter,
)
from scenarios.instruments import congestion_charts, subject
from scenarios.instruments.bulk import DATAGRAM, Flow, flood, upload
from theory import congestion
from theory.slow_start import MSS

_ALLOWED = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
#: Unmeasured warm-up of the uploads: the longer of this many seconds and this many round trips.  The warm-up covers
#: slow start and the losses that reduce the window from its peak.
WARM_UP, WARM_TRIPS = 3.0, 50
#: Ratio of the window after a loss to the window before it (RFC 5681 section 3.1; RFC 9438 section 4.6).
KEPT = {"Reno": 0.5, "CUBIC": congestion.CUBIC_BETA}
#: Functions that return the throughput in bits per second for a loss rate and a round-trip time in seconds, if losses
#: are independent.
MODELS: dict[str, Callable[[float, float], float]] = {
    "Reno": lambda loss, rtt: congestion.throughput_bps(congestion.reno_window_by_chance(loss), rtt),
    "CUBIC": lambda loss, rtt: congestion.throughput_bps(congestion.cubic_window_by_chance(loss, rtt), rtt),
}
#: Largest relative error of the throughput, by algorithm, and of the ratio of the windows after and before a loss.  The
#: model itself is inexact, because it ignores slow start, time-outs and limits of the sender.
EXACT, EXACT_KEPT = {"Reno": 0.15, "CUBIC": 0.2}, 0.1
#: Largest difference between a flow's share of the link and one half.
FAIR = 0.15
#: Number of equal periods into which an upload is divided to estimate how much a flow's share scatters.
PARTS = 20
#: Loss rate at which BBR is compared with Reno, and the smallest share of the link that BBR must reach.
LOSSY, BBR_REACHES = 0.01, 0.7
#: Round-trip time of the shared link in milliseconds, and rate of the flood relative to the link's rate.  The path is
#: short and its queue holds one bandwidth-delay product, so that the flows converge within seconds.
SHARED_RTT_MS, FLOOD = 20.0, 1.25
#: During a flood: maximum share of the link that TCP obtains, and minimum share that datagrams obtain.
STARVED, FLOODED = 0.1, 0.85
#: Share of a packet's bytes that are data: 52 of 1,500 bytes are headers.
PAYLOAD = MSS / (MSS + 52)
#: Minimum number of losses for comparing a throughput with the model.
ENOUGH = 25


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters that the user can vary."""

    host: str = parameter("news.example.com", help="HTTP server that reads uploads (POST /slow-read/RATE)")
    cubic_host: str = parameter(
        "cubic.news.example.com", help="the same server, at an address towards which this host uses CUBIC"
    )
    rtt_ms: tuple[float, ...] = parameter(
        (100.0, 200.0), quick=(80.0,), unit="ms", low=20, high=400, help="round-trip times"
    )
    losses: tuple[float, ...] = parameter(
        (0.001, 0.003, 0.01), quick=(0.004,), low=0.0002, high=0.05, help="probabilities that a packet is lost"
    )
    flows: int = parameter(6, low=1, high=20, help="concurrent uploads with each algorithm")
    seconds: float = parameter(40.0, quick=8.0, unit="s", low=5, high=100, help="duration of each measurement")
    link_mbps: float = parameter(8.0, unit="Mbit/s", low=2, high=20, help="rate of the link that flows share")
    shared_s: float = parameter(
        20.0, quick=6.0, unit="s", low=4, high=90, help="duration of each upload over that link"
    )


@dataclass(frozen=True, slots=True)
class Point:
    """Round-trip time in milliseconds and loss rate of one measurement."""

    rtt_ms: float
    loss: float


@dataclass(frozen=True, slots=True)
class Measured:
    """Uploads at one point, keyed by algorithm, and the time after which their readings are evaluated."""

    flows: Mapping[str, Sequence[Flow]]
    begin: float
    #: Segments that `wan` dropped during the uploads.
    dropped: int = 0


class Congestion(Experiment[Parameters]):
    """Runs concurrent uploads over a link with random loss, and uploads that share a slow link."""

    name = "congestion"
    claim = (
        "A loss leaves half of Reno's window and 70 % of CUBIC's, so the throughput falls with the loss rate; "
        "flows that react share a link, and a flood that does not react takes all of it."
    )
    says = (
        "The textbook says that a sender keeps a congestion window, grows it with every acknowledged segment and "
        "shrinks it when a segment is missing, so that flows adapt to the capacity of the path; UDP has nothing of the "
        "kind. In practice the algorithm is a choice. Reno and CUBIC take every loss for congestion, so a long path "
        "with a little random loss is slow whatever its capacity. BBR measures the path instead, and hardly reacts "
        "to losses."
    )
    source = (
        "RFC 5681 (Reno); M. Mathis et al., “The macroscopic behavior of the TCP congestion avoidance algorithm” "
        "(1997); T. Ott et al. (1996) for independent losses; RFC 9438 section 5 (CUBIC); N. Cardwell et al., “BBR: "
        "Congestion-based congestion control” (2016)."
    )
    production = (
        "If a transfer is slower than the link, compare cwnd × MSS / RTT in `ss -ti` with the throughput, and retrans "
        "with segs_out: 0.1 % of loss limits a Reno connection over 100 ms to about 5 Mbit/s. Shorten the path, use "
        "CUBIC or BBR on long ones, or open several connections. Protocols on UDP must bring their own congestion "
        "control (RFC 8085): one sender that does not react starves everyone else on the link."
    )
    settings = Parameters
    control = Control(
        "each algorithm is compared with the other's model",
        tuple(f"{name}: window after a loss / before" for name in KEPT),
    )
    paths = ("news",)
    lessons = (
        Lesson(
            "Reno notices that a segment is lost. What share of its congestion window remains?",
            "Reno: window after a loss / before", "", 0.05,
        ),
        Lesson(
            "Two uploads with Reno share a link. Which share of the throughput does the slower one have?",
            "two flows: share of the slower one", "", 0.15,
        ),
        Lesson(
            "A sender floods the link with UDP at 1.25 times its rate. Which share remains for a TCP upload?",
            "TCP's share of the link during a UDP flood", "", 0.1,
        ),
    )  # fmt: skip

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.points = [Point(rtt, loss) for rtt in parameters.rtt_ms for loss in parameters.losses]
        self.measured: dict[Point, Measured] = {}
        #: The uploads over the slow, lossy link, keyed by algorithm.
        self.lossy: dict[str, Flow] = {}
        self.pair: Sequence[Flow] = ()
        #: The upload during which the flood started.
        self.flooded: Flow | None = None
        #: Start of the flood, in seconds on the monotonic clock.
        self.flood_at = 0.0
        self.host = ""

    def duration(self) -> float:
        """Return the expected time in seconds until all uploads have finished."""
        return 4 + sum(_warm_up(each) + self.p.seconds for each in self.points) + 4 * self.p.shared_s

    def predict(self) -> Mapping[str, Quantity]:
        """Predict throughputs at the configured loss rates, and shares of the link."""
        megabits = {
            _throughput(name, point): Quantity(MODELS[name](point.loss, point.rtt_ms / 1000) / 1e6, "Mbit/s")
            for point in self.points
            for name in MODELS
        }
        reno = MODELS["Reno"](LOSSY, self.p.rtt_ms[0] / 1000) / (self.p.link_mbps * 1e6 * PAYLOAD)
        return {
            **megabits,
            **{f"{name}: throughput / theory": Quantity(1.0) for name in MODELS},
            **{f"{name}: window after a loss / before": Quantity(kept) for name, kept in KEPT.items()},
            "Reno: share of a link with 1 % loss": Quantity(min(1.0, reno)),
            "BBR: share of a link with 1 % loss": Quantity(1 - LOSSY),
            "two flows: share of the slower one": Quantity(0.5),
            "TCP's share of the link during a UDP flood": Quantity(0.0),
        }

    async def measure(self, run: Run) -> None:
        """Run uploads with each algorithm under random loss, alone over a slow link, in pairs, and during a flood."""
        to, cubic = await subject.find(run, self.p.host), await subject.find(run, self.p.cubic_host)
        self.host = to.host
        servers = {"Reno": (to.address, to.name), "CUBIC": (cubic.address, to.name)}
        if to.host:
            await run.recorders.start(to.host)
        link = (subject.CLIENTS, to.region)
        for point in self.points:
            run.phase(f"{point.loss:.1%} of packets lost, {point.rtt_ms:g} ms round trip")
            await run.lab.link(*link, rtt_ms=point.rtt_ms)
            await run.lab.link(*link, one_way=True, rtt_ms=point.rtt_ms, loss=point.loss)
            self.measured[point] = await self._upload(run, link, servers, _warm_up(point))
        rate = round(self.p.link_mbps * 1e6)
        run.phase(f"BBR and Reno over a link of {self.p.link_mbps:g} Mbit/s with {LOSSY:.0%} loss")
        await run.lab.link(*link, rtt_ms=self.p.rtt_ms[0])
        await run.lab.link(*link, one_way=True, rtt_ms=self.p.rtt_ms[0], loss=LOSSY, rate_bps=rate)
        for name, control in (("Reno", "reno"), *([("BBR", "bbr")] if "bbr" in _ALLOWED.read_text().split() else [])):
            self.lossy[name] = (await run.blocking(upload, [servers["Reno"]], [control], self.p.shared_s))[0]
        run.phase("two flows on one link")
        await run.lab.link(*link, rtt_ms=SHARED_RTT_MS)
        queue = round(rate / 8 * SHARED_RTT_MS / 1000)
        await run.lab.link(*link, one_way=True, rtt_ms=SHARED_RTT_MS, loss=0.0, rate_bps=rate, queue_bytes=queue)
        self.pair = await run.blocking(upload, [servers["Reno"]] * 2, ["reno"] * 2, self.p.shared_s)
        run.phase("an upload, and a UDP flood from the middle of it on")
        task = asyncio.create_task(run.blocking(upload, [servers["Reno"]], ["reno"], self.p.shared_s))
        await asyncio.sleep(self.p.shared_s / 2)  # during the first half, the upload has the link to itself
        self.flood_at = time.monotonic()
        await run.blocking(flood, to.address, FLOOD * rate, self.p.shared_s / 2)
        self.flooded = (await task)[0]

    async def _upload(
        self, run: Run, link: tuple[str, str], servers: Mapping[str, tuple[str, str]], warm: float
    ) -> Measured:
        """Run `flows` uploads with each algorithm, all at the same time; the first *warm* seconds are not measured."""
        names = [name for name in MODELS for _ in range(self.p.flows)]
        before = await run.blocking(subject.settled, run.lab.admin, *link)
        begin = time.monotonic() + warm
        controls = ["reno" if name == "Reno" else "" for name in names]
        flows = await run.blocking(upload, [servers[name] for name in names], controls, warm + self.p.seconds)
        after = await run.blocking(subject.settled, run.lab.admin, *link)
        by_name: dict[str, list[Flow]] = defaultdict(list)
        for name, flow in zip(names, flows, strict=True):
            if flow.control == name.lower():  # if the kernel lacks CUBIC, uploads to the second address use Reno
                by_name[name].append(flow)
        return Measured(by_name, begin, after["dropped_loss"] - before["dropped_loss"])

    # --- conclusions ------------------------------------------------------------------------------------------------

    def conclude(self, run: Run) -> None:
        """Compare throughputs, windows and shares with the prediction, and the senders' loss counts with `wan`'s."""
        found = run.findings
        for name in MODELS:
            other = next(each for each in MODELS if each != name)
            self._algorithm(run, name, other if self.negative else name)
        for point, measured in self.measured.items():
            flows = [flow for each in measured.flows.values() for flow in each]
            again = sum(flow.readings[-1].again for flow in flows if flow.readings) / MSS
            room = 3 + 0.1 * measured.dropped + 2 * len(flows)
            name = f"segments sent again, {point.loss:.1%} loss, {point.rtt_ms:g} ms"
            found.check(name, f"{measured.dropped} ± {room:.0f}", f"{again:.0f}", abs(again - measured.dropped) <= room)
        every = [flow for measured in self.measured.values() for each in measured.flows.values() for flow in each]
        limited = max((flow.limited() for flow in every), default=0.0)
        found.gate("longest wait for the receive window", "< 5 % of an upload", f"{limited:.1%}", limited < 0.05)
        self._lossy(run)
        self._shares(run)
        first = next(iter(self.measured.values()), None)
        shown = {name: flows[0] for name, flows in first.flows.items() if flows[0].readings} if first else {}
        point = self.points[0]
        path = f"round trip {point.rtt_ms:g} ms, {point.loss:.1%} of packets lost"
        found.chart(congestion_charts.sawtooth(shown, path, _warm_up(point)))
        found.chart(congestion_charts.throughputs(MODELS, self._seen()))
        capacity = self.p.link_mbps * 1e6 * PAYLOAD
        found.chart(congestion_charts.flooded(self.flooded, self.flood_at, capacity, FLOOD))

    def _algorithm(self, run: Run, name: str, measured_as: str) -> None:
        """Compare the flows that used the algorithm *measured_as* with the model of the algorithm *name*."""
        found, ratios, kept = run.findings, [], []
        for point, measured in self.measured.items():
            flows = measured.flows.get(measured_as, ())
            if not flows:
                continue
            end = flows[0].readings[-1].at
            rate = fmean(flow.rate(measured.begin, end) for flow in flows)
            loss, rtt = _path(flows, measured.begin)
            found.row(_throughput(name, point), rate / 1e6)
            ratios.append(rate / MODELS[name](loss, rtt) if loss else 0.0)
            kept += [each for flow in flows for each in flow.decreases(measured.begin)]
        if not ratios:
            found.leave_out(f"{name}: this kernel's routes cannot set it (tcp_available_congestion_control)")
            return
        found.enough(f"losses, {name}", len(kept), ENOUGH)
        ratio, error = median(ratios), 3 * congestion.standard_error(name, len(kept))
        row = found.row(
            f"{name}: throughput / theory", Estimate(ratio, ratio * (1 - error), ratio * (1 + error), len(kept))
        )
        found.check_near(row, EXACT[name], scattered=True)
        row = found.row(f"{name}: window after a loss / before", Estimate.of(kept))
        found.check_near(row, EXACT_KEPT, scattered=True)

    def _seen(self) -> Mapping[tuple[str, float], Sequence[congestion_charts.Seen]]:
        """Return the measured loss rates and throughputs, keyed by algorithm and round-trip time."""
        seen: dict[tuple[str, float], list[congestion_charts.Seen]] = defaultdict(list)
        for point, measured in self.measured.items():
            for name, flows in measured.flows.items():
                rates = [flow.rate(measured.begin, float("inf")) for flow in flows]
                seen[name, point.rtt_ms].append((_path(flows, measured.begin)[0], rates))
        return seen

    def _lossy(self, run: Run) -> None:
        found, shares = run.findings, {}
        for name, flow in self.lossy.items():
            shares[name] = self._share(flow, flow.readings[0].at + min(WARM_UP, self.p.shared_s / 2))
            found.row(f"{name}: share of a link with 1 % loss", shares[name])
        if "BBR" not in shares:
            found.leave_out("BBR: this kernel does not allow it (tcp_allowed_congestion_control)")
            return
        got = shares["BBR"]
        found.check("BBR: share of a link with 1 % loss", f">= {BBR_REACHES}", f"{got:.2f}", got >= BBR_REACHES)
        found.check(
            "BBR's share / Reno's share", ">= 2", f"{got / (shares['Reno'] or 1):.1f}", got >= 2 * shares["Reno"]
        )

    def _share(self, flow: Flow, begin: float, end: float = float("inf")) -> float:
        """Return the share of the link's capacity for data that *flow* used between *begin* and *end*."""
        return flow.rate(begin, end) / (self.p.link_mbps * 1e6 * PAYLOAD)

    def _shares(self, run: Run) -> None:
        found = run.findings
        if self.pair:
            begin = self.pair[0].readings[0].at + self.p.shared_s / 4
            share = _slower(self.pair, begin, begin + 0.75 * self.p.shared_s)
            found.check_near(
                found.row("two flows: share of the slower one", share), FAIR, absolute=True, scattered=True
            )
        if self.flooded is None:
            return
        begin = self.flood_at + 1  # the queue takes a moment to fill
        end = self.flood_at + self.p.shared_s / 2
        starved = self._share(self.flooded, begin, end)
        row = found.row("TCP's share of the link during a UDP flood", starved)
        found.check_near(row, STARVED, absolute=True)
        before = self._share(self.flooded, self.flood_at - self.p.shared_s / 4, self.flood_at)
        found.gate("TCP's share of the link before the flood", ">= 0.8", f"{before:.2f}", before >= 0.8)
        if (server := run.recorders.series.get(self.host)) is not None:
            shift = run.timeline.began
            arrived = server.rise("Udp.NoPorts", begin - shift, end - shift) * DATAGRAM * 8 / (end - begin + 0.1)
            flooded = arrived / (self.p.link_mbps * 1e6)
            name = "the flood's share of the link, as the receiver's kernel counts it"
            found.check(name, f">= {FLOODED}", f"{flooded:.2f}", flooded >= FLOODED)


def _slower(pair: Sequence[Flow], begin: float, end: float) -> Estimate:
    """Estimate the share of the slower of two flows; the confidence interval comes from the scatter between periods."""
    rates = [flow.rate(begin, end) for flow in pair]
    slower, step, shares = pair[rates.index(min(rates))], (end - begin) / PARTS, []
    for since in (begin + i * step for i in range(PARTS)):
        both = sum(flow.rate(since, since + step) for flow in pair)
        shares.append(slower.rate(since, since + step) / (both or 1))
    return Estimate.mean(shares, batches=PARTS // 2)


def _path(flows: Sequence[Flow], begin: float) -> tuple[float, float]:
    """Return the loss rate and the median round-trip time in seconds of *flows* after *begin*."""
    again = sent = 0
    rtts = []
    for flow in flows:
        inside = [each for each in flow.readings if each.at >= begin]
        if inside:
            again += inside[-1].again - inside[0].again
            sent += inside[-1].sent - inside[0].sent
            rtts += [each.rtt_ms / 1000 for each in inside]
    return again / (sent or 1), median(rtts) if rtts else float("nan")


def _top(points: Sequence[tuple[float, float]]) -> float | None:
    """Return an upper end for the axis that keeps the sawtooth visible; the peak of slow start may be cut off."""
    late = [y for x, y in points if x >= WARM_UP]
    return 1.5 * max(late) if late else None


def _warm_up(point: Point) -> float:
    """Return the duration of the unmeasured warm-up at *point*, in seconds."""
    return max(WARM_UP, WARM_TRIPS * point.rtt_ms / 1000)


def _throughput(name: str, point: Point) -> str:
    return f"{name}, {point.loss:.1%} loss, {point.rtt_ms:g} ms"
