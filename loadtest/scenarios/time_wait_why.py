"""Scenario `time-wait-why`: why TIME-WAIT exists, shown by lost last acknowledgements and replayed old segments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments import Chart, Control, Estimate, Experiment, Lane, Lesson, Panel, Quantity, Run, Span, parameter
from experiments.undo_log import Undo
from scenarios.instruments import ladders, subject
from scenarios.instruments.closing import PORT, Client, Ending, Segment, intervals
from theory import recovery
from waterfall.lab import own_address

#: Delay before a segment is replayed, in seconds: after a close, and into a new connection.
AFTER_CLOSE, INTO_NEW = 0.6, 1.0
#: How long the scenario waits for the server, in addition to the retransmission time-out, in seconds.
PATIENCE = 0.25
#: Largest relative error of the time after which the server retransmits its FIN; its timer has steps of up to 32 ms.
EXACT = 0.15


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters that the user can vary."""

    host: str = parameter("www.example.com", help="HTTP server under test, with the paths /bytes and /delay")
    rtt_ms: float = parameter(40.0, unit="ms", low=20, high=200, help="round-trip time between client and server")
    repeats: int = parameter(15, quick=5, low=3, high=100, help="connections of each kind")


class TimeWaitWhy(Experiment[Parameters]):
    """Ends connections whose last acknowledgement or reset is lost, and replays requests later."""

    name = "time-wait-why"
    claim = (
        "TIME-WAIT acknowledges a FIN that is sent again, where an aborted connection answers with a reset; an old "
        "segment is refused, by TIME-WAIT or by its time stamp."
    )
    says = (
        "The textbook says that a closed socket waits, so that delayed segments of the old connection are not taken "
        "for those of a new one. In practice that is the rarer reason. Old segments are refused by a new connection "
        "as well, because their time stamps or sequence numbers do not fit. What TIME-WAIT does every day is answer "
        "the other side, whose FIN arrives again because the last acknowledgement was lost."
    )
    source = "RFC 9293 section 3.6 (closing), RFC 1337 (hazards), RFC 7323 section 5 (PAWS), RFC 6298 (the timer)."
    production = (
        "Do not fight TIME-WAIT by aborting connections (SO_LINGER 0): the other side may lose the end of the stream "
        "and report a reset instead of a normal close. Keep TCP time stamps on: they protect ports that are used "
        "again soon, and tcp_tw_reuse depends on them. Sockets in LAST-ACK on a server are clients that went away "
        "without TIME-WAIT, or networks that lose packets."
    )
    settings = Parameters
    control = Control(
        "TIME-WAIT: the client aborts instead of closing", ("repeated FINs that the client acknowledges",)
    )
    paths = ("edge",)
    lessons = (
        Lesson(
            "The last acknowledgement of a close is lost on a path of 40 ms. After how many milliseconds does the "
            "server send its FIN again?",
            "time until the FIN is sent again", "ms", 40,
        ),
        Lesson(
            "An old request arrives again in a new connection from the same port. What share of such requests does the "
            "server answer?",
            "old requests that the server executes", "of replays", 0.1,
        ),
    )  # fmt: skip

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.rtt = parameters.rtt_ms / 1000
        self.lost: list[Ending] = []
        self.aborted: list[Ending] = []
        self.after_close: list[Ending] = []
        self.into_new: list[Ending] = []
        #: Packets of one connection whose last acknowledgement is lost.
        self.packets: dict[str, Any] = {}
        #: Start and end of the replays into new connections, in seconds since the start of the run.
        self.span = (0.0, 0.0)
        self.host = ""

    def duration(self) -> float:
        """Return the expected duration in seconds."""
        wait = recovery.timeout_s(self.rtt) + PATIENCE
        return 3 + self.p.repeats * (2 * wait + AFTER_CLOSE + INTO_NEW + 20 * self.rtt)

    def predict(self) -> Mapping[str, Quantity]:
        """Predict the shares of connections in which each side sends the segments that the scenario counts."""
        return {
            "repeated FINs that the client acknowledges": Quantity(1.0, "of closes"),
            "time until the FIN is sent again": Quantity(1000 * recovery.timeout_s(self.rtt), "ms"),
            "client's sockets in TIME-WAIT": Quantity(1.0, "of closes"),
            "aborts that answer the server with a reset": Quantity(1.0, "of aborts"),
            "old segments that TIME-WAIT refuses": Quantity(1.0, "of replays"),
            "old segments that a new connection refuses": Quantity(1.0, "of replays"),
            "old requests that the server executes": Quantity(0.0, "of replays"),
        }

    async def measure(self, run: Run) -> None:
        """End connections in four ways while `wan` loses or replays one of their segments."""
        to = await subject.find(run, self.p.host)
        self.host = to.host
        await run.lab.link(subject.CLIENTS, to.region, rtt_ms=self.p.rtt_ms)
        clear = Undo("rules for single segments", "wan", "DELETE", "/admin/drops")
        await run.lab.inject("wan: single segments are lost or replayed", "wan", "DELETE", "/admin/drops", undo=clear)
        if to.host:
            await run.recorders.start(to.host)
        client = Client(run.lab.admin, to.name, to.address, self.rtt)
        await run.blocking(self._one, run, client, to.address)
        await self._all(run, client)

    def _one(self, run: Run, client: Client, server: str) -> None:
        """Capture all packets of one connection, for the ladder diagram."""
        here = own_address(server)
        with ladders.capturing(run, here) as frames:
            wait = recovery.timeout_s(self.rtt) + PATIENCE
            port = client.lose_reset(wait) if self.negative else client.lose_last_ack(wait)[0]
        self.packets = ladders.tcp_packets(frames, (here, port), (server, PORT))

    async def _all(self, run: Run, client: Client) -> None:
        wait = recovery.timeout_s(self.rtt) + PATIENCE
        closed: list[tuple[int, str]] = []
        aborted: list[int] = []
        refused: list[tuple[int, float]] = []
        renewed: list[tuple[int, float, int]] = []
        with client.capture(min(600.0, 60 + 2 * self.duration())):
            run.phase("the last acknowledgement is lost")
            for _ in range(self.p.repeats):
                if self.negative:
                    closed.append((await run.blocking(client.lose_reset, wait), ""))
                else:
                    closed.append(await run.blocking(client.lose_last_ack, wait))
            run.phase("the reset of an abort is lost")
            aborted += [await run.blocking(client.lose_reset, wait) for _ in range(self.p.repeats)]
            run.phase("an old request arrives in TIME-WAIT")
            refused += [await run.blocking(client.replay_after_close, AFTER_CLOSE) for _ in range(self.p.repeats)]
            run.phase("an old request arrives in a new connection")
            begin = run.now()
            renewed += [await run.blocking(client.replay_into_new, INTO_NEW) for _ in range(self.p.repeats)]
            self.span = (begin, run.now())
        seen = client.segments()
        self.lost = [Ending(port, _of(seen, port), state=state) for port, state in closed]
        self.aborted = [Ending(port, _of(seen, port)) for port in aborted]
        self.after_close = [Ending(port, _of(seen, port), replayed=at, asked=1, answered=1) for port, at in refused]
        self.into_new = [
            Ending(port, _of(seen, port), replayed=at, asked=1, answered=count) for port, at, count in renewed
        ]

    # --- conclusions ------------------------------------------------------------------------------------------------

    def conclude(self, run: Run) -> None:
        """Check the segments that each side sent, by the router's capture and the counters of the server's kernel."""
        found = run.findings
        run.raw["segments"] = {
            name: [[(s.at, s.from_client, sorted(s.flags), s.length) for s in each.segments] for each in endings]
            for name, endings in (("lost", self.lost), ("aborted", self.aborted), ("replayed", self.into_new))
        }
        _all_of(
            run,
            "repeated FINs that the client acknowledges",
            [len(e.fins()) > 1 and e.acknowledged() for e in self.lost],
        )
        repeated = Estimate.of(1000 * each for each in intervals(self.lost))
        if repeated.n:
            found.check_near(found.row("time until the FIN is sent again", repeated), EXACT)
        _all_of(run, "client's sockets in TIME-WAIT", [each.state == "TIME-WAIT" for each in self.lost])
        _all_of(run, "aborts that answer the server with a reset", [each.resets() > 0 for each in self.aborted])
        _all_of(run, "old segments that TIME-WAIT refuses", [each.refusals() == 1 for each in self.after_close])
        _all_of(run, "old segments that a new connection refuses", [each.refusals() >= 1 for each in self.into_new])
        executed = sum(each.answered - each.asked for each in self.into_new)
        row = found.row("old requests that the server executes", executed / (len(self.into_new) or 1))
        found.check(row.name, f"0 of {len(self.into_new)}", str(executed), executed == 0)
        if (server := run.recorders.series.get(self.host)) is not None:
            refused, needed = int(server.rise("TcpExt.PAWSEstab", *self.span)), len(self.into_new)
            name = "segments that the server's kernel refused by their time stamp"
            found.check(name, f">= {needed}", str(refused), refused >= needed)
        found.chart(self._lanes())
        ladders.add(
            run,
            self.packets,
            "A close whose last acknowledgement is lost, packet by packet",
            "The client has closed first and is in TIME-WAIT. The server's FIN arrives again when its retransmission "
            "timer has expired, and TIME-WAIT acknowledges it.",
            "time-wait-why-ladder",
        )

    def _lanes(self) -> Chart:
        panels = [
            Panel(lanes=_lanes(endings[0].segments if endings else ()), y=title)
            for title, endings in (("close, last ACK lost", self.lost), ("abort, reset lost", self.aborted))
        ]
        return Chart(
            "TIME-WAIT answers the FIN that is sent again; after an abort, the server gets a reset",
            panels,
            x="milliseconds since the first segment of the end",
            caption="One connection of each kind, from the router's capture. Above, the server sends its FIN again "
            "because the acknowledgement was lost, and the client's TIME-WAIT acknowledges it. Below, the client has "
            "aborted; its reset was lost, and it answers the server's data and FIN with further resets.",
            low=0.0,
            name="time-wait-why",
        )


def _of(seen: Mapping[int, Sequence[Segment]], port: int) -> tuple[Segment, ...]:
    return tuple(seen.get(port, ()))


def _all_of(run: Run, name: str, facts: Sequence[bool]) -> None:
    """Add a row with the share of *facts* that are true, and a check that all of them are true."""
    row = run.findings.row(name, Estimate.share(sum(facts), len(facts)))
    run.findings.check(row.name, f"{len(facts)} of {len(facts)}", str(sum(facts)), bool(facts) and all(facts))


def _lanes(segments: Sequence[Segment]) -> list[Lane]:
    """Return a lane of the chart for each side, with the segments that this side sent from the first FIN or RST on."""
    ends = [each.at for each in segments if each.flags & {"FIN", "RST"}]
    begin = ends[0] if ends else 0.0
    late = [each for each in segments if each.at >= begin and ends]
    lanes = []
    for label, from_client, colour in (("client", True, 0), ("server", False, 1)):
        mine = [(1000 * (each.at - begin), each) for each in late if each.from_client == from_client]
        ends_at = [at for at, _ in mine[1:]] + [1000 * (late[-1].at - begin) + 60 if late else 0.0]
        spans = [
            Span(at, min(following, at + 60), "+".join(sorted(each.flags)) + (" data" if each.length else ""), colour)
            for (at, each), following in zip(mine, ends_at, strict=False)
        ]
        lanes.append(Lane(label, spans))
    return lanes
