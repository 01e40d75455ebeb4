"""D2 `renewal-under-load`: certificates are renewed again and again under load, and nobody notices."""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from experiments import Control, Experiment, Quantity, Run, parameter
from experiments.load_picture import time_line
from generator import Histogram, Load, Request, Target

#: Where the lab's root certificate is, for whoever runs inside.
TRUST = Path("/srv/trust/root.pem")
HOST, NAME = "edge", "www.example.com"
#: Seconds of load before the first renewal, between two, and after the last.
BASELINE, GAP, AFTER = 6.0, 4.0, 4.0
#: Seconds within which a request belongs to "during" a renewal.
DURING = 1.0
#: Seconds between two looks of the outside prober.
PROBE = 0.25
#: Validity: the share of intended requests that were sent, and how late at the 99th percentile (seconds).
MIN_SENT, MAX_LAG = 0.99, 0.025


@dataclass(frozen=True, slots=True)
class Parameters:
    """What can be varied."""

    rate: float = parameter(200.0, quick=100.0, unit="requests/s", low=1, high=2000, help="half fresh, half kept alive")
    renewals: int = parameter(10, quick=3, low=1, high=100, help="forced one after the other")


class RenewalUnderLoad(Experiment[Parameters]):
    """Load: open loop, half fresh connections, half kept alive.  Injected: renewals of the edge's certificate."""

    name = "renewal-under-load"
    claim = (
        "Renewing a certificate costs no request: the new one is served to new handshakes, and what is open goes on."
    )
    production = (
        "Reload certificates into the running server, and stage them first: a pair that does not match must never reach a live listener. "
        "A restart at each renewal loses whatever is under way, every 47 days or sooner."
    )
    settings = Parameters
    control = Control("the edge reloads as a restart would", ("requests lost",))
    records = ("edge",)
    paths = ("edge",)

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.requests: list[Request] = []
        self.lag = Histogram()
        self.issued: list[str] = []
        self.renewed_at: list[float] = []
        #: Seconds and serial, as an outside prober saw them.
        self.seen: list[tuple[float, str]] = []
        self._offset = 0.0

    def duration(self) -> float:
        """Baseline, renewals, and some time after."""
        return BASELINE + GAP * (self.p.renewals - 1) + AFTER + 2

    def predict(self) -> Mapping[str, Quantity]:
        """Nothing is lost, and every certificate is seen."""
        return {"requests lost": Quantity(0), "serials seen from outside": Quantity(self.p.renewals + 1)}

    async def measure(self, run: Run) -> None:
        """Load and prober run; one renewal after the other is forced."""
        target = Target(NAME, 443, "/items", TRUST)
        load, prober = Load(target, self.p.rate), Load(target, 1 / PROBE, kinds=("fresh",))
        stop = asyncio.Event()
        self.issued = [(await run.call(HOST, "GET", "/admin/certificate"))["serial"]]
        self._offset = run.now()
        running = [asyncio.create_task(load.run(stop)), asyncio.create_task(prober.run(stop))]
        try:
            async with AsyncExitStack() as stack:
                run.phase("load runs; baseline")
                await asyncio.sleep(BASELINE)
                if self.negative:
                    await stack.enter_async_context(run.fault_on(HOST, "naive_reload"))
                await self._renew(run)
        finally:
            stop.set()
            await asyncio.gather(*running, return_exceptions=True)
            self.requests, self.lag = load.requests, load.lag()
            self.seen = [(r.intended, r.serial) for r in prober.requests if r.serial]

    async def _renew(self, run: Run) -> None:
        for number in range(1, self.p.renewals + 1):
            answer = await run.inject(f"renewal {number}", HOST, "POST", "/admin/renew", {}, undo=None)
            self.issued.append(answer["serial"])
            self.renewed_at.append(run.now() - self._offset)
            run.phase(f"renewal {number} of {self.p.renewals}: serial {answer['serial'][:8]}")
            await asyncio.sleep(GAP if number < self.p.renewals else AFTER)

    def conclude(self, run: Run) -> None:
        """Nothing lost, everything renewed and seen."""
        lost = [r for r in self.requests if r.error]
        good = [r for r in self.requests if not r.error]
        first = self.renewed_at[0] if self.renewed_at else float("inf")
        # The renewal ends at the event; new handshakes and closing old ones happen around it.
        during = Histogram(r.latency for r in good if any(abs(r.intended - at) <= DURING for at in self.renewed_at))
        before = Histogram(r.latency for r in good if r.intended < first - DURING)
        served = {r.serial for r in self.requests if r.serial} | {serial for _, serial in self.seen}
        causes: dict[str, int] = {}
        for request in lost:
            causes[request.error] = causes.get(request.error, 0) + 1
        run.row("requests lost", len(lost))
        run.row("serials seen from outside", len(served & set(self.issued)))
        run.fact("requests", len(self.requests))
        run.fact("causes", causes)
        for name, histogram, percent in (
            ("p50 before, ms", before, 50),
            ("p99 before, ms", before, 99),
            ("p99 during, ms", during, 99),
        ):
            run.fact(name, round(histogram.percentile(percent) * 1000, 2))
        self._gates(run, before, sum(r.intended < first - DURING for r in lost))
        run.check("requests lost", "0", f"{len(lost)} {causes or ''}".strip(), not lost)
        run.check("renewals", str(self.p.renewals), str(len(set(self.issued)) - 1), len(set(self.issued)) - 1 == self.p.renewals)  # fmt: skip
        run.check("serials seen from outside", str(len(self.issued)), str(len(served & set(self.issued))), served >= set(self.issued))  # fmt: skip
        run.chart(
            time_line(
                "Requests while certificates are renewed",
                self.requests,
                [type(e)(e.at - self._offset, e.kind, e.text) for e in run.timeline.events],
                serials=self.seen,
                caption="Bars: requests by outcome. Lines: latency of those that went well. Stripes: the certificate that an outside "
                "prober was shown.",
            )
        )

    def _gates(self, run: Run, before: Histogram, lost_before: int) -> None:
        lag = self.lag.percentile(99)
        intended = self.requests[-1].intended * self.p.rate + 1 if self.requests else 0
        share = len([r for r in self.requests if r.sent]) / intended if intended else 0.0
        run.gate("requests sent", f">= {MIN_SENT:.0%} of the schedule", f"{share:.1%}", share >= MIN_SENT)
        run.gate("send lag p99", f"<= {MAX_LAG * 1e3:g} ms", f"{lag * 1e3:.1f} ms", lag <= MAX_LAG)
        run.gate("baseline", "requests before the first renewal, none lost", f"{len(before)}, lost {lost_before}",
                 len(before) > 0 and lost_before == 0)  # fmt: skip
