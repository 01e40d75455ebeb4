"""my-drill: certificates of the edge are renewed under load, and no request is lost.

    firstbyte drill ./my-drill.py --quick              must pass
    firstbyte drill ./my-drill.py --quick --control    must fail
    docker compose run --rm -T lab drill - --quick < my-drill.py    with nothing but Docker

Change one thing at a time, and run both after each change.  The file is sent into the lab as it is, so it must not import
other files of yours; the standard library and the packages of firstbyte are there.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from drills.rehearsal import Rehearsal, said
from experiments import Control, Experiment, Quantity, Run, parameter

#: The host whose certificates are renewed; clients call it www.example.com.
HOST = "edge"
#: Seconds of load before anything happens, and after each renewal.
BASELINE, AFTER = 3.0, 1.5


@dataclass(frozen=True, slots=True)
class Parameters:
    """What can be set on the command line (--set rate=50); `low` and `high` are enforced there."""

    rate: float = parameter(200.0, quick=50.0, unit="requests/s", low=1, high=2000, help="half on new connections")
    renewals: int = parameter(10, quick=3, low=1, high=100, help="one after the other")


class MyDrill(Experiment[Parameters]):
    """One instance is one run: `predict`, then `measure`, then `conclude`."""

    name = "my-drill"
    claim = "Renewing a certificate costs no request."
    #: Where the theory comes from, and what it means in production: both are shown in the report.
    source = "RFC 8555 (ACME)."
    production = "Load new certificates into the running server, instead of restarting it."
    settings = Parameters
    #: The control takes the safety away and has to fail, here in the check of that name.
    control = Control("the edge cuts every connection when it loads a certificate", fails=("requests lost",))
    #: Hosts whose kernel counters are recorded, and hosts to which the link is calibrated before anything is measured.
    records = (HOST,)
    paths = (HOST,)

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        """Keep the parameters in `self.p`; *negative* is true in the control."""
        super().__init__(parameters, negative=negative)
        self.rehearsal: Rehearsal | None = None
        #: Seconds on the run's timeline: the first renewal, and the end of the last one.
        self.began = self.ended = float("inf")

    def duration(self) -> float:
        """Return about how many seconds `measure` takes, for the progress line."""
        return BASELINE + self.p.renewals * (AFTER + 0.5)

    def predict(self) -> Mapping[str, Quantity]:
        """Return what theory says, by the names of the rows in `conclude`."""
        return {"requests lost": Quantity(0), "certificates seen": Quantity(self.p.renewals + 1)}

    async def measure(self, run: Run) -> None:
        """Send load, probe from outside with openssl, and renew; what is injected through `run.lab` is undone."""
        rehearsal = self.rehearsal = Rehearsal(run, self.p.rate)
        async with rehearsal.under_load():
            await rehearsal.baseline(BASELINE)
            if self.negative:
                await run.lab.fault(HOST, "naive_reload", how="restart")
            self.began = run.now()
            for number in range(1, self.p.renewals + 1):
                run.phase(f"renewal {number} of {self.p.renewals}")
                await run.lab.inject(f"renewal {number}", HOST, "POST", "/admin/renew", {}, undo=None)
                await asyncio.sleep(AFTER)  # the load shows whether the edge serves
            self.ended = run.now()

    def conclude(self, run: Run) -> None:
        """Compare; after Ctrl-C this sees what was measured until then."""
        rehearsal = self.rehearsal
        if rehearsal is None:
            return
        rehearsal.gates(self.began)  # the load was sent as planned, and nothing was lost before the first renewal
        lost, seen = rehearsal.lost(since=self.began), rehearsal.seen()
        run.findings.row("requests lost", len(lost))
        run.findings.check("requests lost", "0", said(lost), not lost)
        run.findings.row("certificates seen", len(seen))
        enough = len(seen) == self.p.renewals + 1
        run.findings.check("certificates seen", str(self.p.renewals + 1), str(len(seen)), enough)
        rehearsal.facts(self.began, self.ended)
        rehearsal.picture("Requests while certificates are renewed", "Bars: requests by outcome. Lines: their latency.")
