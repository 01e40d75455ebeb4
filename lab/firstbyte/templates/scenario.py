"""my-scenario: an HTTP request costs two round trips on a new connection, and one on a connection that is kept open.

    firstbyte run ./my-scenario.py --quick              must pass
    firstbyte run ./my-scenario.py --quick --control    must fail
    docker compose run --rm -T lab run - --quick < my-scenario.py    needs only Docker

Change one thing at a time, and run both after each change.  The file is sent into the lab on its own, so it can import
the standard library and the packages of firstbyte, but no other files of yours.
"""

import http.client
import socket
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from experiments import Chart, Control, Curve, Dots, Experiment, Panel, Quantity, Run, parameter

HOST = "www.example.com"
#: Predicted round trips until the first byte of the response, keyed by kind of connection.
ROUND_TRIPS = {"new connection": 2, "kept open": 1}


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters that the command line can set (``--set repeats=30``); values outside `low` to `high` are rejected."""

    rtt_ms: tuple[float, ...] = parameter(
        (5.0, 20.0, 40.0, 80.0), quick=(5.0, 40.0), unit="ms", low=1, high=500, help="round-trip times of the link"
    )
    repeats: int = parameter(15, quick=5, low=3, high=200, help="requests of each kind at each round-trip time")


class MyScenario(Experiment[Parameters]):
    """A scenario; each instance is one run: `predict`, `measure`, then `conclude`."""

    name = "my-scenario"
    claim = "A new connection costs a request one round trip more than a connection that is kept open."
    #: Source of the theory, which the report shows.
    source = "RFC 9293 section 3.5 (TCP handshake)."
    #: Consequence of the theory in production, which the report shows.
    production = "Keep connections open between requests."
    settings = Parameters
    #: The control removes connection reuse; the run must then fail the named check.
    control = Control("the client closes every connection", fails=("round trips, kept open",))
    #: Hosts whose kernel counters are recorded.
    records = ("edge",)
    #: Hosts whose links are calibrated before the measurement starts.
    paths = ("edge",)

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        """Store the parameters in `self.p`; *negative* is true in a control run."""
        super().__init__(parameters, negative=negative)
        #: Measured times to first byte in milliseconds, keyed by kind of connection and round-trip time.
        self.measured: dict[tuple[str, float], list[float]] = defaultdict(list)

    def duration(self) -> float:
        """Return the approximate duration of the measurement in seconds, for the progress line."""
        return 1 + sum(self.p.repeats * sum(ROUND_TRIPS.values()) * rtt / 1000 for rtt in self.p.rtt_ms)

    def predict(self) -> Mapping[str, Quantity]:
        """Return the predicted value for each row of `conclude`, keyed by row name."""
        return {f"round trips, {kind}": Quantity(trips) for kind, trips in ROUND_TRIPS.items()}

    async def measure(self, run: Run) -> None:
        """Send requests at each round-trip time; `run.lab` undoes all injections afterwards, even after an error."""
        address = await run.blocking(socket.gethostbyname, HOST)
        for rtt in self.p.rtt_ms:
            run.phase(f"round-trip time {rtt:g} ms")
            undo = await run.lab.link("access", "near", rtt_ms=rtt)
            kept = http.client.HTTPConnection(address, timeout=10)
            await run.blocking(first_byte_ms, kept)
            # interleaved, so that drift affects both kinds equally
            for _, kind in run.interleaved(tuple(ROUND_TRIPS), self.p.repeats):
                if kind == "new connection" or self.negative:
                    kept.close()  # http.client opens a new connection for the next request
                self.measured[kind, rtt].append(await run.blocking(first_byte_ms, kept))
            kept.close()
            await run.lab.undo(undo)

    def conclude(self, run: Run) -> None:
        """Compare measurements with predictions; after Ctrl-C, the measurements may be incomplete."""
        run.raw["first_byte_ms"] = {f"{kind}, {rtt:g} ms": values for (kind, rtt), values in self.measured.items()}
        near, far = min(self.p.rtt_ms), max(self.p.rtt_ms)
        marks: list[Curve | Dots] = []
        for colour, (kind, trips) in enumerate(ROUND_TRIPS.items()):
            # Use the minimum of the repeats, because other processes can only make a request slower.
            fastest = {rtt: min(self.measured[kind, rtt]) for rtt in self.p.rtt_ms if self.measured[kind, rtt]}
            run.findings.gate(f"requests, {kind}", "some at each round-trip time", str(len(fastest)), len(fastest) > 1)
            if len(fastest) < 2:
                continue
            # The slope over the round-trip time counts round trips; the servers' own processing time only shifts the
            # line.
            slope = (fastest[far] - fastest[near]) / (far - near)
            run.findings.check_near(run.findings.row(f"round trips, {kind}", slope), 0.1, absolute=True)
            line = [(rtt, fastest[near] + trips * (rtt - near)) for rtt in (near, far)]
            marks.append(Curve(kind, line, colour))
            marks.append(Dots(kind, [(rtt, ms, ms, ms) for rtt, ms in fastest.items()], colour))
        caption = "Lines: theory, through the first dot. Dots: the fastest request of each kind."
        panels = [Panel(marks, y="time to first byte, ms")]
        run.findings.chart(Chart(self.claim, panels, x="round-trip time, ms", caption=caption, name=self.name))


def first_byte_ms(connection: http.client.HTTPConnection) -> float:
    """Send one request; return the time until the response head is received, in milliseconds."""
    began = time.perf_counter()
    connection.request("GET", "/whoami", headers={"Host": HOST})
    response = connection.getresponse()
    took = (time.perf_counter() - began) * 1000
    response.read()
    return took
