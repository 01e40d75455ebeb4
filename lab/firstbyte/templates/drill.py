"""my-drill: certificates of the edge are renewed under load, and no request is lost.

    firstbyte drill ./my-drill.py --quick              must pass
    firstbyte drill ./my-drill.py --quick --control    must fail
    docker compose run --rm -T lab drill - --quick < my-drill.py    needs only Docker

Change one thing at a time, and run both after each change.  The file is sent into the lab on its own, so it can import
the standard library and the packages of firstbyte, but no other files of yours.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from drills.drill import Drill
from drills.lifetimes import renew
from drills.rehearsal import HOST, Rehearsal
from experiments import Control, Quantity, Run, parameter

#: Duration of the load after each renewal, in seconds.
PAUSE = 1.5


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters that the command line can set (``--set rate=50``); values outside `low` to `high` are rejected."""

    rate: float = parameter(200.0, quick=50.0, unit="requests/s", low=1, high=2000, help="half on new connections")
    renewals: int = parameter(10, quick=3, low=1, high=100, help="one after the other")


class MyDrill(Drill[Parameters]):
    """A drill; each instance is one run: `predict`, a baseline under load, `inject`, more load, then `judge`."""

    name = "my-drill"
    claim = "Renewing a certificate costs no request."
    #: Source of the theory, which the report shows.
    source = "RFC 8555 (ACME)."
    #: Consequence of the theory in production, which the report shows.
    production = "Load new certificates into the running server, instead of restarting it."
    settings = Parameters
    #: The control removes the safety mechanism; the run must then fail the named check.
    control = Control("the edge cuts every connection when it loads a certificate", fails=("requests lost",))
    #: Hosts whose links are calibrated before the measurement starts.
    paths = (HOST,)

    def duration(self) -> float:
        """Return the approximate duration of the measurement in seconds, for the progress line."""
        return self.before + self.p.renewals * (PAUSE + 0.5) + self.after

    def predict(self) -> Mapping[str, Quantity]:
        """Return the predicted value for each row of `judge`, keyed by row name."""
        return {"requests lost": Quantity(0), "certificates seen": Quantity(self.p.renewals + 1)}

    async def inject(self, run: Run, stage: Rehearsal) -> None:
        """Renew certificates under load while openssl probes the edge; `run.lab` undoes all injections afterwards."""
        if self.negative:
            await run.lab.fault(HOST, "naive_reload", how="restart")
        self.began = run.now()
        for number in range(1, self.p.renewals + 1):
            run.phase(f"renewal {number} of {self.p.renewals}")
            await renew(run, HOST)
            await stage.watch.look(HOST)  # records the certificate that the host reports as current
            run.note("injection", f"renewal {number}")
            await asyncio.sleep(PAUSE)  # load without renewals, which shows that the edge serves requests
        self.ended = run.now()

    def judge(self, run: Run, stage: Rehearsal) -> None:
        """Compare measurements with predictions; after Ctrl-C, the measurements may be incomplete."""
        stage.gates(self.began)  # gates: the load ran as planned, and no request was lost before the first renewal
        self.check_nothing_lost(run, stage)  # also adds the row and the check "requests lost" to the result
        wanted, seen = self.p.renewals + 1, len(stage.seen())
        run.findings.row("certificates seen", seen)
        run.findings.check("certificates seen", str(wanted), str(seen), seen == wanted)
        stage.facts(self.began, self.ended)
        stage.picture("Requests while certificates are renewed", "Bars: requests by outcome. Lines: their latency.")
