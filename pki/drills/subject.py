"""Drills about a subject, a program of the user that has joined the lab: does it serve its renewed certificates?

The outside prober and the load record which certificate is served; the CA and the subject's observer
(`services/subject`) record when each certificate was issued and written to disk.  Nothing is injected: the subject
renews its certificate with its own client.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from drills.rehearsal import Rehearsal, by_cause, distinct
from experiments import Control, Experiment, ParameterError, Quantity, Run, parameter

#: Maximum lifetime of the subject's certificates in seconds; with longer ones, the drill would take too long.
LONGEST = 300.0
#: Maximum time from writing a certificate until it is served, in seconds; servers reload in less than one second.
PROMPT = 5.0
#: Interval between requests to the CA and to the observer, in seconds.
EVERY = 0.25
#: Duration of the load before the first renewal is judged and after the last one, in seconds.
AFTER = 3.0
#: Errors of requests that were in flight when the server closed their kept-alive connection.  Every reload that closes
#: idle connections causes such errors, and clients may repeat these requests (RFC 9112 section 9.3.1), so they are
#: counted separately from lost requests.
CLOSED = ("closed", "reset")
#: Advice on the software that renews, by a part of the path of its files.
HINTS = {
    "live/": "certbot: --deploy-hook 'nginx -s reload', or the reload of your server",
    "archive/": "certbot: --deploy-hook 'nginx -s reload', or the reload of your server",
    "certificates/": "lego: --renew-hook with the reload of your server",
    "caddy/": "Caddy should have loaded it: see its log",
}
HINT = "run the reload of your server after each renewal"


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters of the drills about a subject."""

    target: str = parameter("", help="DNS name and port of the subject, as NAME:PORT")
    path: str = parameter("/", help="path that the load requests; expected to be answered with 200")
    rate: float = parameter(50.0, quick=20.0, unit="requests/s", low=1, high=1000, help="half fresh, half kept alive")
    renewals: int = parameter(3, quick=1, low=1, high=100, help="certificates to wait for")

    def __post_init__(self) -> None:
        name, colon, port = self.target.rpartition(":")
        if self.target and not (name and colon and port.isdecimal()):
            raise ParameterError(f"expected target to be NAME:PORT, got {self.target!r}")


@dataclass(frozen=True, slots=True)
class YearParameters(Parameters):
    """Parameters of the drill `year` about a subject."""

    renewals: int = parameter(12, quick=3, low=1, high=100, help="a year of 47-day certificates has 11.6")


@dataclass(frozen=True, slots=True)
class Life:
    """One certificate of the subject; times are in seconds on the run's timeline, None if it never happened."""

    serial: str
    issued: float
    end: float
    written: float | None
    served: float | None
    file: str = ""


def lives(
    issued: Sequence[Mapping[str, Any]],
    on_disk: Sequence[Mapping[str, Any]],
    served: Mapping[str, float],
    epoch: float,
) -> list[Life]:
    """Combine the records of the CA, the observer and the clients for each certificate.

    Args:
        issued: the CA's records of certificates for the subject, oldest first.
        on_disk: the observer's records.
        served: time at which each serial number was first received, on the run's timeline.
        epoch: start of the timeline, in seconds since the epoch.
    """
    files = {each["serial"]: each for each in on_disk}
    found = []
    for each in issued:
        file = files.get(each["serial"])
        found.append(
            Life(
                each["serial"],
                each["issued"] - epoch,
                each["not_after"] - epoch,
                file["written"] - epoch if file else None,
                served.get(each["serial"]),
                file["file"] if file else "",
            )
        )
    return found


def _judged(new: Sequence[Life]) -> list[Life]:
    """Return the certificates of *new* (oldest first) that must be served.

    A certificate that was replaced within `PROMPT` seconds need not be: its server may have loaded only the next one.
    """
    replaced = {each.serial for each, after in pairwise(new) if after.issued - each.issued <= PROMPT}
    return [each for each in new if each.served is not None or each.serial not in replaced]


class SubjectRenewal(Experiment[Parameters]):
    """Drill in which a subject renews its certificate with its own client, under load."""

    name = "subject-renewal"
    claim = "Each renewed certificate is on disk and then served, in time and without a lost request."
    says = (
        "The classic outage of automated renewal: the new certificate is on disk for weeks, and the server has never "
        "loaded it."
    )
    source = "RFC 8555 (issuance); RFC 5280 section 6.1.3 (validity). The subject's own client decides when to renew."
    production = (
        "Run the reload from the renewal's own hook, not from a second timer, and monitor the served certificate from "
        "outside: a file with a new date does not show what clients receive. A reload that closes idle "
        "connections meets requests that are on their way: clients must repeat those (`firstbyte run keepalive-race`)."
    )
    settings = Parameters
    control = Control("the subject's reload hook, as in a recipe of docs/subjects", ("renewed certificate is served",))

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.stage: Rehearsal | None = None
        self.found: list[Life] = []
        #: Serial numbers of the certificate that was served when the drill began, and of older certificates.
        self.before: set[str] = set()
        self.unreadable = 0

    def predict(self) -> Mapping[str, Quantity]:
        """Predict no lost requests, and the requested number of renewals."""
        return {"requests lost": Quantity(0), "renewals": Quantity(self.p.renewals)}

    async def measure(self, run: Run) -> None:
        """Wait for the subject's own renewals under load, until each is served or its predecessor has expired."""
        if self.negative:
            run.skip("the lab cannot take a subject's reload hook away: join a recipe with HOOK=no (docs/subjects)")
        name, _, port = self.p.target.rpartition(":")
        if not name:
            run.skip("this drill is about a subject: `firstbyte drill renewal-under-load --target NAME`")
        stage = self.stage = Rehearsal(run, self.p.rate, (), name, int(port), self.p.path)
        seen = await stage.prober.look(run.now)
        if seen.error:
            run.skip(f"{name} has no certificate of the lab's CA ({seen.error}): does it run an ACME client?")
        if (life := seen.not_after - seen.not_before) > LONGEST:
            run.skip(f"certificates of {name} live {life:.0f} s: join it with `--life 30`, so that it renews in time")
        async with stage.under_load():
            await self._look(run, name)
            # A newer certificate that is on disk already, but is not served, counts as one of the renewals to judge.
            served = next((i for i, each in enumerate(self.found) if each.serial == seen.serial), len(self.found) - 1)
            self.before = {each.serial for each in self.found[: served + 1]}
            run.phase(f"the certificate of {name} ends in {self.found[served].end - run.now():.0f} s")
            while not self._finished(run.now()):
                await asyncio.sleep(EVERY)  # polls: neither the CA nor the observer reports events
                known = len(self.found)
                await self._look(run, name)
                if len(self.found) > known:
                    run.note("injection", f"issued {self.found[-1].serial[:8]}")
            await asyncio.sleep(AFTER)  # the load shows whether the subject still serves
        await self._look(run, name)

    async def _look(self, run: Run, name: str) -> None:
        """Ask the CA and the observer for the subject's certificates."""
        assert self.stage is not None  # noqa: S101 - `measure` sets the stage before it calls this method
        answer = await run.lab.call("ca", "GET", "/admin/certificates?all=1")
        issued = [each for each in answer["certificates"] if name in each["names"]]
        report = await run.lab.call(name.partition(".")[0], "GET", "/admin/subject")
        self.unreadable = report["unreadable"]
        self.found = lives(issued, report["certificates"], self.stage.first_seen(), self.stage.epoch)

    def _new(self) -> list[Life]:
        return [each for each in self.found if each.serial not in self.before]

    def _finished(self, now: float) -> bool:
        """Return whether all requested renewals have been served, or a certificate has expired without a successor."""
        new = self._new()
        if len(new) >= self.p.renewals and new[-1].served is not None:
            return True
        served = [each.end for each in self.found if each.served is not None]
        return now > max(served, default=0.0) + AFTER / 2

    def conclude(self, run: Run) -> None:
        """Check that each renewed certificate was written and served in time, and that no request was lost."""
        stage = self.stage
        if stage is None or not stage.requests:
            return
        new, check = self._new(), run.findings.check
        ends = [each.end for each in self.found if each.serial in self.before]
        first = min((at for at in (*(each.issued for each in new), *ends[-1:]) if at > 0), default=run.now())
        stage.gates(first)
        run.findings.row("renewals", len(new))
        check("renewals", f">= {self.p.renewals}", str(len(new)), len(new) >= self.p.renewals)
        if new and all(each.written is None for each in new):
            closed = f"; the observer may not read {self.unreadable} files or folders there" if self.unreadable else ""
            run.findings.leave_out(f"on disk: no new certificate was found below /srv/subject{closed}")
        self._delays(run, new)
        wrong = [words for each in _judged(new) if (words := self._complaint(each))]
        expected = f"within {PROMPT:g} s of being written"
        more = [f"{len(wrong) - 1} more renewals were not served in time"] if wrong[1:] else []
        got = "; ".join(wrong[:1] + more) or "each"
        check("renewed certificate is served", expected, got, bool(new) and not wrong)
        raced = [each for each in stage.lost() if each.kind == "pooled" and each.error in CLOSED]
        run.findings.row("requests that met a closing keep-alive connection", len(raced))
        lost, failed = [each for each in stage.lost() if each not in raced], stage.failed_probes()
        run.findings.row("requests lost", len(lost))
        check("requests lost", "0", by_cause(lost), not lost)
        check("handshakes from outside that failed", "0", distinct(failed), not failed)
        exposed = [p.at for p in stage.prober.probes if "expired" in p.error]
        exposure = max(exposed) - min(exposed) if exposed else 0.0
        run.findings.row("an expired certificate was served for", exposure, "s")
        run.findings.fact("certificates", [self._line(each) for each in self.found])
        stage.facts(first, run.now())
        stage.picture(
            f"What {self.p.target} serves while it renews",
            "The bars are requests by outcome. The lanes show the certificate that OpenSSL received from outside, and "
            "its verdict.",
        )

    @staticmethod
    def _delays(run: Run, new: Sequence[Life]) -> None:
        written = [each.written - each.issued for each in new if each.written is not None]
        served = [each.served - each.written for each in new if each.served is not None and each.written is not None]
        if written:
            run.findings.row("issued → on disk, median", median(written), "s")
        if served:
            run.findings.row("on disk → served, median", median(served), "s")

    @staticmethod
    def _complaint(life: Life) -> str:
        """Describe what went wrong with a renewal and how to fix it; return "" if it was served in time."""
        if life.served is not None:
            late = life.served - (life.issued if life.written is None else life.written)
            return "" if late <= PROMPT else f"{life.serial[:8]} was served {late:.1f} s after it was written"
        if life.written is None:
            return f"{life.serial[:8]} was issued at {life.issued:.1f} s, but not found below /srv/subject or served"
        hint = next((words for part, words in HINTS.items() if part in life.file), HINT)
        at = f"at {life.written:.1f} s" if life.written >= 0 else f"{-life.written:.1f} s before the drill"
        return f"renewed on disk {at}, old certificate served until the end; {hint}"

    @staticmethod
    def _line(life: Life) -> str:
        times = {"issued": life.issued, "on disk": life.written, "served": life.served, "ends": life.end}
        words = (f"{name} {'never' if at is None else f'{at:.1f} s'}" for name, at in times.items())
        return f"{life.serial[:8]}: {', '.join(words)}"


class SubjectYear(SubjectRenewal):
    """Drill in which a subject renews as often as in a year of 47-day certificates."""

    name = "subject-year"
    settings = YearParameters


#: Drills about a subject, by the name of the drill about the lab's own hosts that they replace.
TARGETED: dict[str, type[Experiment[Any]]] = {"renewal-under-load": SubjectRenewal, "year": SubjectYear}
