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

from drills.drill import Drill
from drills.lifetimes import renew
from drills.rehearsal import HOST, Rehearsal
from experiments import Control, Quantity, Run, parameter

#: Seconds of load after each renewal.
PAUSE = 1.5


@dataclass(frozen=True, slots=True)
class Parameters:
    """What can be set on the command line (--set rate=50); `low` and `high` are enforced there."""

    rate: float = parameter(200.0, quick=50.0, unit="requests/s", low=1, high=2000, help="half on new connections")
    renewals: int = parameter(10, quick=3, low=1, high=100, help="one after the other")


class MyDrill(Drill[Parameters]):
    """One instance is one run: `predict`; a baseline under load, `inject`, some load after it; `judge`."""

    name = "my-drill"
    claim = "Renewing a certificate costs no request."
    #: Where the theory comes from, and what it means in production: both are shown in the report.
    source = "RFC 8555 (ACME)."
    production = "Load new certificates into the running server, instead of restarting it."
    settings = Parameters
    #: The control takes the safety away and has to fail, here in the check of that name.
    control = Control("the edge cuts every connection when it loads a certificate", fails=("requests lost",))
    #: Hosts to which the link is calibrated before anything is measured.
    paths = (HOST,)

    def duration(self) -> float:
        """Return about how many seconds `measure` takes, for the progress line."""
        return self.before + self.p.renewals * (PAUSE + 0.5) + self.after

    def predict(self) -> Mapping[str, Quantity]:
        """Return what theory says, by the names of the rows in `judge`."""
        return {"requests lost": Quantity(0), "certificates seen": Quantity(self.p.renewals + 1)}

    async def inject(self, run: Run, stage: Rehearsal) -> None:
        """Renew, while load is sent and openssl probes from outside; what is injected through `run.lab` is undone."""
        if self.negative:
            await run.lab.fault(HOST, "naive_reload", how="restart")
        self.began = run.now()
        for number in range(1, self.p.renewals + 1):
            run.phase(f"renewal {number} of {self.p.renewals}")
            await renew(run, HOST)
            await stage.watch.look(HOST)  # remembers the certificate that the host says it has
            run.note("injection", f"renewal {number}")
            await asyncio.sleep(PAUSE)  # load alone: it shows whether the edge serves
        self.ended = run.now()

    def judge(self, run: Run, stage: Rehearsal) -> None:
        """Compare; after Ctrl-C this sees what was measured until then."""
        stage.gates(self.began)  # the load was sent as planned, and nothing was lost before the first renewal
        self.check_nothing_lost(run, stage)  # adds the row and the check "requests lost"
        wanted, seen = self.p.renewals + 1, len(stage.seen())
        run.findings.row("certificates seen", seen)
        run.findings.check("certificates seen", str(wanted), str(seen), seen == wanted)
        stage.facts(self.began, self.ended)
        stage.picture("Requests while certificates are renewed", "Bars: requests by outcome. Lines: their latency.")
