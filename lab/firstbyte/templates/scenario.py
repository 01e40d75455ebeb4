"""my-scenario: an HTTP request costs two round trips on a new connection, and one on a connection that is kept open.

    firstbyte run ./my-scenario.py --quick              must pass
    firstbyte run ./my-scenario.py --quick --control    must fail
    docker compose run --rm -T lab run - --quick < my-scenario.py    with nothing but Docker

Change one thing at a time, and run both after each change.  The file is sent into the lab as it is, so it must not import
other files of yours; the standard library and the packages of firstbyte are there.
"""

import http.client
import socket
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from experiments import Chart, Control, Curve, Dots, Experiment, Panel, Quantity, Run, parameter

HOST = "www.example.com"
#: Round trips until the first byte of the response: by kind of connection, what theory says.
ROUND_TRIPS = {"new connection": 2, "kept open": 1}


@dataclass(frozen=True, slots=True)
class Parameters:
    """What can be set on the command line (--set repeats=30); `low` and `high` are enforced there."""

    rtt_ms: tuple[float, ...] = parameter(
        (5.0, 20.0, 40.0, 80.0), quick=(5.0, 40.0), unit="ms", low=1, high=500, help="round-trip times of the link"
    )
    repeats: int = parameter(15, quick=5, low=3, high=200, help="requests of each kind at each round-trip time")


class MyScenario(Experiment[Parameters]):
    """One instance is one run: `predict`, then `measure`, then `conclude`."""

    name = "my-scenario"
    claim = "A new connection costs a request one round trip more than a connection that is kept open."
    #: Where the theory comes from, and what it means in production: both are shown in the report.
    source = "RFC 9293 section 3.5 (TCP handshake)."
    production = "Keep connections open between requests."
    settings = Parameters
    #: The control takes something away and has to fail, here in the check of that name.
    control = Control("the client closes every connection", fails=("round trips, kept open",))
    #: Hosts whose kernel counters are recorded, and hosts to which the link is calibrated before anything is measured.
    records = ("edge",)
    paths = ("edge",)

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        """Keep the parameters in `self.p`; *negative* is true in the control."""
        super().__init__(parameters, negative=negative)
        #: Milliseconds until the first byte, by kind of connection and round-trip time.
        self.measured: dict[tuple[str, float], list[float]] = defaultdict(list)

    def duration(self) -> float:
        """Return about how many seconds `measure` takes, for the progress line."""
        return 1 + sum(self.p.repeats * sum(ROUND_TRIPS.values()) * rtt / 1000 for rtt in self.p.rtt_ms)

    def predict(self) -> Mapping[str, Quantity]:
        """Return what theory says, by the names of the rows in `conclude`."""
        return {f"round trips, {kind}": Quantity(trips) for kind, trips in ROUND_TRIPS.items()}

    async def measure(self, run: Run) -> None:
        """Send requests at each round-trip time; what is injected through `run.lab` is undone in any case."""
        address = await run.blocking(socket.gethostbyname, HOST)
        for rtt in self.p.rtt_ms:
            run.phase(f"round-trip time {rtt:g} ms")
            undo = await run.lab.link("access", "near", rtt_ms=rtt)
            kept = http.client.HTTPConnection(address, timeout=10)
            await run.blocking(first_byte_ms, kept)
            for _, kind in run.interleaved(tuple(ROUND_TRIPS), self.p.repeats):  # drift affects both kinds alike
                if kind == "new connection" or self.negative:
                    kept.close()  # http.client opens it again
                self.measured[kind, rtt].append(await run.blocking(first_byte_ms, kept))
            kept.close()
            await run.lab.undo(undo)

    def conclude(self, run: Run) -> None:
        """Compare; after Ctrl-C this sees what was measured until then."""
        run.raw["first_byte_ms"] = {f"{kind}, {rtt:g} ms": values for (kind, rtt), values in self.measured.items()}
        near, far = min(self.p.rtt_ms), max(self.p.rtt_ms)
        marks: list[Curve | Dots] = []
        for colour, (kind, trips) in enumerate(ROUND_TRIPS.items()):
            # The minimum of the repeats: other processes can only make a request slower.
            fastest = {rtt: min(self.measured[kind, rtt]) for rtt in self.p.rtt_ms if self.measured[kind, rtt]}
            run.findings.gate(f"requests, {kind}", "some at each round-trip time", str(len(fastest)), len(fastest) > 1)
            if len(fastest) < 2:
                continue
            # The slope counts round trips; what the servers need themselves is the same at each round-trip time.
            slope = (fastest[far] - fastest[near]) / (far - near)
            run.findings.check_near(run.findings.row(f"round trips, {kind}", slope), 0.1, absolute=True)
            line = [(rtt, fastest[near] + trips * (rtt - near)) for rtt in (near, far)]
            marks.append(Curve(kind, line, colour))
            marks.append(Dots(kind, [(rtt, ms, ms, ms) for rtt, ms in fastest.items()], colour))
        caption = "Lines: theory, through the first dot. Dots: the fastest request of each kind."
        panels = [Panel(marks, y="time to first byte, ms")]
        run.findings.chart(Chart(self.claim, panels, x="round-trip time, ms", caption=caption, name=self.name))


def first_byte_ms(connection: http.client.HTTPConnection) -> float:
    """Send one request; return milliseconds until the response begins."""
    began = time.perf_counter()
    connection.request("GET", "/whoami", headers={"Host": HOST})
    response = connection.getresponse()
    took = (time.perf_counter() - began) * 1000
    response.read()
    return took
