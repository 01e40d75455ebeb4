"""Scenario `snapshots`: measures the age of the game state that a player sees over UDP and TCP on a lossy link."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean

from arena.messages import Join, Mode
from experiments import Chart, Control, Curve, Dots, Estimate, Experiment, Lesson, Panel, Quantity, Run, parameter
from scenarios.instruments.arena_players import Player, play
from scenarios.instruments.connection import Address
from stub import Stub
from theory import recovery, snapshots

PORT = 7777
#: Protocols, each with its label and its colour in charts.
PROTOCOLS = {"udp": ("UDP", 0), "tcp": ("TCP", 1), "newest": ("TCP, newest only", 2)}
#: Largest relative error of a mean age, of the 99th percentile over UDP, and of the stall behind one lost segment.  The
#: kernel rounds RACK's timer up by two or three ticks, which adds up to 12 ms to a stall (`TCP_TIMEOUT_MIN`, 250 Hz).
AGE, TAIL, STALL = 0.1, 0.15, 0.15
#: Minimum loss rate at which the 99th percentile over UDP is checked.  With less loss, its value depends on only a few
#: losses, or on a few pauses of a busy machine.
TAIL_LOSS = 0.03
#: Lowest and highest age that TCP may add, as multiples of the first-order formula; 1.3 to 2.3 were measured.  Two
#: losses within a few round trips cost more than twice as much as one, because recovery sends only one segment per
#: acknowledgement.  The confidence interval, which follows from the number of losses, is added to both bounds.
ADDED = (0.8, 2.5)
#: Number of losses over TCP that the judged arm needs.  With 20, the 95 % interval of the added age is about ± 60 %.
LOSSES = 20
#: Largest p·D/Δ for which TCP's formula is used, where p is the loss rate, D the duration of a stall, and Δ the
#: interval between snapshots.  Above this value, stalls overlap.
FIRST_ORDER = 0.1
#: Largest number of snapshots in flight for which TCP's formula is used: an eighth of the arena's initial window of 100
#: segments (`HOST_INITIAL_WINDOW`), so that the window suffices after three losses have halved it.
IN_FLIGHT = 12
#: Largest 95th percentile of the lateness with which snapshots are sent, as a share of the interval between snapshots.
#: A late snapshot contains the time at which it was sent, so its age is still exact; only the interval varies.
LATE = 0.25
#: Largest relative difference between the number of dropped packets and that of lost or retransmitted ones.
ACCOUNT = 0.1


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters that the user can vary."""

    host: str = parameter("arena.example.com", help="server under test; it runs `python -m arena`")
    rtt_ms: float = parameter(80.0, unit="ms", low=20, high=300, help="round-trip time between player and arena")
    rates: tuple[float, ...] = parameter(
        (20.0, 60.0), quick=(60.0,), unit="snapshots/s", low=5, high=120, help="rates of the game"
    )
    losses: tuple[float, ...] = parameter(
        (0.0, 0.005, 0.01, 0.02, 0.05), quick=(0.0, 0.01, 0.05), low=0, high=0.2,
        help="share of the packets to the player that the link drops",
    )  # fmt: skip
    seconds: float = parameter(12.0, quick=8.0, unit="s", low=3, high=100, help="duration of each session")
    players: int = parameter(8, quick=6, low=2, high=40, help="players per protocol, all at the same time")
    size: int = parameter(400, unit="bytes", low=20, high=1200, help="size of a snapshot")


Arm = tuple[float, float]


class Snapshots(Experiment[Parameters]):
    """Runs players of all protocols at the same time, for each snapshot rate and each loss rate of the link."""

    name = "snapshots"
    claim = (
        "Over UDP a lost snapshot is replaced by the next one; over TCP it delays all later ones until it has been "
        "repeated."
    )
    says = (
        "The textbook says that UDP shines where late data is worthless: a game that sends its whole state many "
        "times a second should never wait for an old snapshot to be repeated. In practice the mean hardly shows the "
        "difference at 1 % loss; the worst moments do. A server that skips snapshots which TCP could not send yet "
        "hardly helps: the stall behind a lost segment stays."
    )
    source = (
        "G. Fiedler, “UDP vs. TCP” and “Snapshot Interpolation”; RFC 8985 (loss detection); RFC 9293 (byte stream); "
        "the model is `theory.snapshots`."
    )
    production = (
        "For state that the next message replaces, use UDP (or QUIC datagrams, RFC 9221) and drop what is old. If it "
        "must be TCP, never queue: send the newest state only when the send buffer is empty (TCP_NOTSENT_LOWAT), and "
        "turn Nagle's algorithm off. Judge by the longest freeze and the 99th percentile of the age, not by the mean. "
        "An own protocol on UDP must bring what TCP had: proof of the sender's address, limits, congestion control."
    )
    settings = Parameters
    control = Control("the link drops nothing", ("age that TCP adds to UDP's",))
    records = ("arena",)
    paths = ("arena",)
    lessons = (
        Lesson(
            "A game sends 60 snapshots a second over UDP, with a one-way delay of 40 ms, and loses none. How old is "
            "what a player sees, on average?",
            "mean age, UDP, 60/s, 0.0% lost", "ms", 5.0,
        ),
        Lesson(
            "The link now drops 1 % of the packets. How much older is it on average over TCP than over UDP?",
            "age that TCP adds to UDP's", "ms", 3.0,
        ),
    )  # fmt: skip

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.players: dict[Arm, list[Player]] = {}
        #: Number of packets from the arena that the link dropped.
        self.dropped = 0

    @property
    def arms(self) -> list[Arm]:
        """All combinations of snapshot rate and loss rate."""
        return [(rate, loss) for rate in self.p.rates for loss in self.p.losses]

    def duration(self) -> float:
        """Return the expected duration of all sessions in seconds."""
        return 4 + len(self.arms) * (self.p.seconds + 1.5)

    def predict(self) -> Mapping[str, Quantity]:
        """Predict mean ages, the 99th percentile of the age over UDP, and the additional age over TCP."""
        delay = self.p.rtt_ms / 2000
        found = {}
        for rate, loss in self.arms:
            found[_mean("udp", rate, loss)] = Quantity(1000 * snapshots.udp_age(delay, 1 / rate, loss), "ms")
            found[_tail(rate, loss)] = Quantity(1000 * snapshots.udp_age_quantile(delay, 1 / rate, loss, 0.99), "ms")
            if self._first_order(rate, loss):
                found[_mean("tcp", rate, loss)] = Quantity(1000 * snapshots.tcp_age(delay, 1 / rate, loss), "ms")
        if (arm := self._judged()) is not None:
            found["stall behind one lost segment"] = Quantity(1000 * self._stall(arm[0]), "ms")
            found["age that TCP adds to UDP's"] = Quantity(1000 * self._added(*arm), "ms")
        found["packets lost, as players and arena count them / as the link counts them"] = Quantity(1.0)
        return found

    def _first_order(self, rate: float, loss: float) -> bool:
        """Return whether the formula `tcp_age` applies: stalls are rare, and the window is never too small."""
        return loss * self._stall(rate) * rate <= FIRST_ORDER and rate * self.p.rtt_ms / 1000 <= IN_FLIGHT

    def _stall(self, rate: float) -> float:
        return recovery.lost_message_s(self.p.rtt_ms / 1000, 1 / rate)

    def _judged(self) -> Arm | None:
        """Return the arm with the most losses among those to which `tcp_age` applies; None if there are none."""
        return max(
            (arm for arm in self.arms if arm[1] and self._first_order(*arm)), key=lambda a: a[0] * a[1], default=None
        )

    def _added(self, rate: float, loss: float) -> float:
        delay = self.p.rtt_ms / 2000
        return snapshots.tcp_age(delay, 1 / rate, loss) - snapshots.udp_age(delay, 1 / rate, loss)

    async def measure(self, run: Run) -> None:
        """Play sessions with all protocols at the same time, for each rate and loss in random order."""
        to = Address(self.p.host, (await run.blocking(Stub().resolve, self.p.host)).rdata[0], PORT)
        await run.lab.link("access", "near", rtt_ms=self.p.rtt_ms)
        for _, (rate, loss) in run.interleaved(self.arms, 1):
            run.phase(f"{rate:g} snapshots a second, {loss:.1%} lost")
            await run.lab.link("near", "access", one_way=True, loss=0.0 if self.negative else loss)
            joins = [
                (protocol, Join(rate, self.p.size, self.p.seconds, Mode.NEWEST if protocol == "newest" else Mode.EVERY))
                for _ in range(self.p.players)
                for protocol in PROTOCOLS
            ]
            before = await self._link(run)
            self.players[rate, loss] = await run.blocking(play, to, joins)
            self.dropped += await self._link(run) - before

    @staticmethod
    async def _link(run: Run) -> int:
        """Return the number of packets that the link to the players has dropped since it was last changed."""
        links = (await run.lab.call("wan", "GET", "/admin/counters"))["links"]
        return sum(each["dropped_loss"] for each in links if (each["from"], each["to"]) == ("near", "access"))

    # --- conclusions ------------------------------------------------------------------------------------------------

    def _of(self, arm: Arm, protocol: str) -> list[Player]:
        return [each for each in self.players.get(arm, ()) if each.protocol == protocol]

    def conclude(self, run: Run) -> None:
        """Compare ages with the prediction, and lost packets with the number that the link dropped."""
        found = run.findings
        ages: dict[tuple[Arm, str], Estimate] = {}
        tails: dict[tuple[Arm, str], float] = {}
        for arm in self.arms:
            for protocol, (label, _) in PROTOCOLS.items():
                if not (players := self._of(arm, protocol)):
                    continue
                means = sorted(1000 * each.mean_age for each in players)
                ages[arm, protocol] = Estimate(mean(means), means[0], means[-1], len(means))
                ticks = [1000 * age for each in players for age in each.ages()]
                tails[arm, protocol] = _quantile(ticks, 0.99)
                freeze = max(each.longest_freeze for each in players)
                found.fact(f"longest freeze, {_arm(label, *arm)}, ms", round(1000 * freeze))
                if protocol == "udp":
                    found.check_near(found.row(_mean(protocol, *arm), ages[arm, protocol]), AGE)
                elif protocol == "tcp" and self._first_order(*arm):
                    row = found.row(_mean(protocol, *arm), ages[arm, protocol])
                    found.check_factor(row, 1 - AGE, 1 + AGE, chance=Estimate.mean(ticks))
                else:
                    found.fact(f"mean age, {_arm(label, *arm)}, ms", round(ages[arm, protocol].value, 1))
                if protocol == "udp":
                    row = found.row(_tail(*arm), tails[arm, protocol])
                    if TAIL_LOSS <= arm[1] == max(self.p.losses):
                        found.check_near(row, TAIL)
                else:
                    found.fact(f"99th percentile of the age, {_arm(label, *arm)}, ms", round(tails[arm, protocol]))
        if (judged := self._judged()) is not None and (judged, "tcp") in ages:
            self._judge(run, judged)
        self._account(run)
        self._in_time(run)
        run.raw["mean age, ms"] = {_arm(PROTOCOLS[p][0], *arm): each.value for (arm, p), each in ages.items()}
        found.chart(self._ages(ages, tails))
        found.chart(self._timeline())

    def _judge(self, run: Run, arm: Arm) -> None:
        """Check the stall behind a lost segment, and the age that TCP adds, for the arm with the most losses."""
        (rate, loss), found = arm, run.findings
        losses = round(loss * rate * self.p.seconds * self.p.players)
        found.gate("losses expected over TCP", f">= {LOSSES}", f"{losses}", losses >= LOSSES)
        udp, tcp = self._of(arm, "udp"), self._of(arm, "tcp")
        late = self.p.rtt_ms / 2000 + self._stall(rate) / 2
        stalls = [1000 * (age - self.p.rtt_ms / 2000) for each in tcp for age in each.peaks(late)]
        stall = Estimate.of(stalls) if stalls else Estimate(0.0, 0.0, 0.0, 0)
        found.check_near(found.row("stall behind one lost segment", stall), STALL)
        without = mean(age for each in udp for age in each.ages())
        added = Estimate.mean([1000 * (age - without) for each in tcp for age in each.ages()])
        row = found.row("age that TCP adds to UDP's", added)
        found.check_factor(row, *ADDED, chance=added)

    def _account(self, run: Run) -> None:
        """Check that each packet dropped by the link is missing over UDP or was retransmitted over TCP.

        Retransmissions that the player's kernel reports as unnecessary (RFC 2883) do not count.
        """
        series = run.recorders.series.get("arena")
        if series is None or not self.dropped:
            return
        missing = sum(each.missing for arm in self.players for each in self._of(arm, "udp"))
        counted = missing + series.rise("Tcp.RetransSegs") - series.rise("TcpExt.TCPDSACKRecv")
        name = "packets lost, as players and arena count them / as the link counts them"
        run.findings.check_near(run.findings.row(name, counted / self.dropped), ACCOUNT)

    def _in_time(self, run: Run) -> None:
        """Add validity gates for the delay that the machine itself adds to sending and delivering snapshots.

        Over UDP, nothing else delays a snapshot.  The limits are derived from the checks of snapshot ages, so that an
        overloaded machine invalidates the run before it can fail a check.
        """
        sent, delivered, slowest = 0.0, 0.0, 0.0
        for arm in self.players:
            shift, late = [0.0], [0.0]
            for each in (player for player in self._of(arm, "udp") if player.shown):
                began = each.shown[0][1] - each.numbers[0] / arm[0]
                shift += [
                    abs((left - began) * arm[0] - n) for n, (_, left) in zip(each.numbers, each.shown, strict=True)
                ]
                late += [1000 * (at - left) - self.p.rtt_ms / 2 for at, left in each.shown]
            sent = max(sent, _quantile(shift, 0.95))
            delivered = max(delivered, mean(late) / run.result.prediction[_mean("udp", *arm)].value)
            if TAIL_LOSS <= arm[1] == max(self.p.losses):
                slowest = max(slowest, _quantile(late, 0.99) / run.result.prediction[_tail(*arm)].value)
        for name, limit, of, worst in (
            ("sent, 95th percentile", LATE, "the interval", sent),
            ("delivered, mean", AGE / 3, "the predicted age", delivered),
            ("delivered, 99th percentile", TAIL / 2, "the predicted 99th percentile", slowest),
        ):
            text = f"lateness of snapshots {name}"
            run.findings.gate(text, f"<= {limit:.1%} of {of}", f"{worst:.1%}", worst <= limit)

    def _ages(self, ages: Mapping[tuple[Arm, str], Estimate], tails: Mapping[tuple[Arm, str], float]) -> Chart:
        rate, delay = max(self.p.rates), self.p.rtt_ms / 2000
        far = 100 * max(self.p.losses) * 1.05 or 1.0
        steps = [i / 50 * far / 100 for i in range(51)]
        udp = [(100 * loss, 1000 * snapshots.udp_age(delay, 1 / rate, loss)) for loss in steps]
        first = [(100 * x, 1000 * snapshots.tcp_age(delay, 1 / rate, x)) for x in steps if self._first_order(rate, x)]
        means: list[Curve | Dots] = [
            Curve("theory, UDP", udp, PROTOCOLS["udp"][1]),
            Curve("theory, TCP (rare losses)", first, PROTOCOLS["tcp"][1], dashed=True),
        ]
        worst: list[Curve | Dots] = [
            Curve(
                "theory, UDP",
                [(100 * x, 1000 * snapshots.udp_age_quantile(delay, 1 / rate, x, 0.99)) for x in steps],
                PROTOCOLS["udp"][1],
            )
        ]
        for shift, (protocol, (label, colour)) in enumerate(PROTOCOLS.items()):
            dots, tops = [], []
            for loss in self.p.losses:
                if (each := ages.get(((rate, loss), protocol))) is not None:
                    x = 100 * loss + (shift - 1) * far / 150
                    dots.append((x, each.value, each.low, each.high))
                    tail = tails[(rate, loss), protocol]
                    tops.append((x, tail, tail, tail))
            means.append(Dots(label, dots, colour))
            worst.append(Dots(label, tops, colour))
        return Chart(
            "Loss hardly changes what UDP shows; over TCP the worst moments get worse",
            [Panel(means, y="mean age, ms", height=220), Panel(worst, y="99th percentile, ms", height=220)],
            x="packets lost, %",
            caption=f"Age of the newest snapshot, {rate:g} per second, one-way delay {1000 * delay:g} ms. Above: the "
            f"mean of {self.p.players} players per protocol, with a bar from the smallest to the largest. Below: "
            "99 % of what a screen with 144 Hz shows is younger. Dots of the same loss are drawn side by side.",
            low=-far / 60,
            high=far,
            name="snapshots",
        )

    def _timeline(self) -> Chart:
        rate = max(self.p.rates)
        arm = (rate, max(self.p.losses))
        marks: list[Curve] = []
        begin = max((each.shown[0][0] for each in self.players.get(arm, ()) if each.shown), default=0.0)
        for protocol, (label, colour) in PROTOCOLS.items():
            if not (players := self._of(arm, protocol)):
                continue
            points = []
            shown = players[0].shown
            for (at, sent), (until, _) in pairwise(shown):
                points += [(at - begin, 1000 * (at - sent)), (until - begin, 1000 * (until - sent))]
            marks.append(Curve(label, [point for point in points if 1 <= point[0] <= 4], colour, measured=True))
        return Chart(
            f"Age of what three players see, while the link drops {arm[1]:.0%}",
            [Panel(marks, y="age, ms", height=260)],
            x="seconds since the sessions began",
            caption="Each tooth is one snapshot, which ages until the next one arrives. Over UDP a lost snapshot "
            "makes one tooth twice as high; over TCP all snapshots wait until the lost one has been repeated.",
            low=1.0,
            high=4.0,
            name="snapshots-teeth",
        )


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[int(share * len(values))]


def _arm(label: str, rate: float, loss: float) -> str:
    return f"{label}, {rate:g}/s, {loss:.1%} lost"


def _mean(protocol: str, rate: float, loss: float) -> str:
    return f"mean age, {_arm(PROTOCOLS[protocol][0], rate, loss)}"


def _tail(rate: float, loss: float) -> str:
    return f"99th percentile of the age, {_arm(PROTOCOLS['udp'][0], rate, loss)}"
