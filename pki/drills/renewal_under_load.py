"""Drill D2 `renewal-under-load`: the edge renews its certificate many times under load, without lost requests."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from drills.drill import Drill
from drills.lifetimes import JITTER, SHARE, Scale, shorten
from drills.rehearsal import HOST, PROMPT, Rehearsal
from experiments import Control, Quantity, Run, parameter
from generator import Histogram

#: Requests scheduled within this time before or after a renewal, in seconds, count as "during" the renewal.
DURING = 1.0
#: Maximum time from a scheduled renewal until the drill observes the new certificate, in seconds: the host's check
#: interval, the ACME order, and the drill's polling interval.
ORDER = 2.0
#: Number of rounds into which the renewals are divided; the check compares the median of the rounds' p99 latencies.
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters of the drill `renewal-under-load`."""

    rate: float = parameter(200.0, quick=100.0, unit="requests/s", low=1, high=2000, help="half fresh, half kept alive")
    renewals: int = parameter(12, quick=3, low=3, high=100, help="by schedule, one after the other")
    life: float = parameter(12.0, quick=9.0, unit="s", low=8, high=120, help="47 nominal days last this long")


class RenewalUnderLoad(Drill[Parameters]):
    """Drill with short lifetimes, so that the edge renews many times by its own schedule."""

    name = "renewal-under-load"
    claim = "A renewal costs no request: new handshakes get the new certificate, and open connections go on."
    says = (
        "The textbook: identities have a limited life and have to be proven again. From 2029 on that happens every 47 "
        "days at most. Restarting a server to renew cuts every request in flight, and a careless reload breaks the "
        "server."
    )
    source = (
        "CA/Browser Forum ballot SC-081v3 (200, 100, 47 days); Let's Encrypt integration guide and RFC 9773 section 4 "
        "(renew at two thirds of life, with jitter)."
    )
    production = (
        "Reload certificates into the running server, and stage them first: a key that does not match its certificate "
        "must never reach a live listener. In Python that means a scratch context, and a fresh context for each new "
        "handshake (sni_callback), never load_cert_chain on a context that is serving. Clients with pooled mTLS "
        "connections need the same: drain them, do not cut them."
    )
    settings = Parameters
    control = Control(
        "the edge reloads as a restart does: it cuts every connection and does not listen for 0.3 s", ("requests lost",)
    )
    paths = (HOST,)
    after = 2.0

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.scale = Scale(parameters.life)

    def duration(self) -> float:
        """Return the expected duration in seconds: baseline, renewals and recovery."""
        return self.before + self.p.renewals * (self.p.life * SHARE + 0.6) + self.after + 4

    def predict(self) -> Mapping[str, Quantity]:
        """Predict no lost requests, and the number and time of the renewals."""
        return {
            "requests lost": Quantity(0),
            "renewals": Quantity(self.p.renewals),
            "renewed at this share of life": Quantity(SHARE),
        }

    async def inject(self, run: Run, stage: Rehearsal) -> None:
        """Shorten the certificate lifetime, and wait for the scheduled renewals."""
        await shorten(run, (HOST,), self.scale)
        if self.negative:
            await run.lab.fault(HOST, "naive_reload", how="restart")
        self.began = run.now()
        serial = (await stage.watch.look(HOST))["serial"]
        for number in range(1, self.p.renewals + 1):
            run.phase(f"renewal {number} of {self.p.renewals} is due in {SHARE * self.p.life:.0f} s")
            await stage.watch.until_renewed(HOST, serial, self.p.life + 5)
            serial = stage.watch.of(HOST)[-1].serial
            run.note("injection", f"renewal {number}")
        self.ended = run.now()

    def judge(self, run: Run, stage: Rehearsal) -> None:
        """Check that no request was lost, renewals were on time, and the outside prober received each certificate."""
        stage.gates(self.began - 1.0, PROMPT)
        held = [h for h in stage.watch.of(HOST) if stage.at(h.issued) >= self.began - 2.0]
        wanted, made = self.p.renewals, len(held) - 1
        shares, late = stage.watch.renewed_at(HOST)[-wanted:], stage.watch.late_by(HOST)[-wanted:]
        check = run.findings.check
        self.check_nothing_lost(run, stage)
        run.findings.row("renewals", made)
        check("renewals", str(wanted), str(made), made == wanted)
        seen = {h.serial for h in held} & stage.seen()
        check("serials seen from outside", str(len(held)), str(len(seen)), len(seen) == len(held))
        if shares:
            run.findings.row("renewed at this share of life", median(shares))
            ok = all(SHARE - JITTER <= s <= SHARE + JITTER for s in shares) and all(0 <= x <= ORDER for x in late)
            expected = f"{SHARE:.3f} ± {JITTER:g}, done within {ORDER:g} s"
            got = f"{min(shares):.3f} to {max(shares):.3f}, done at most {max(late):.2f} s later"
            check("renewed at the scheduled point of life", expected, got, ok)
        self._latency(run, stage, [stage.at(h.issued) for h in held[1:]])
        stage.facts(self.began, self.ended)
        stage.picture(
            "Requests while certificates are renewed",
            "The bars are requests by outcome, the lines are latencies of successful requests. The lanes show the "
            "certificate that OpenSSL received from outside, and its verdict.",
        )

    def _latency(self, run: Run, stage: Rehearsal, renewals: list[float]) -> None:
        """Compare the p99 latency during renewals with the p99 latency between renewals."""

        def near(at: float, moments: list[float]) -> bool:
            return any(abs(at - moment) <= DURING for moment in moments)

        pairs: list[tuple[float, float]] = []
        for i in range(ROUNDS):
            part = renewals[i * len(renewals) // ROUNDS : (i + 1) * len(renewals) // ROUNDS]
            if not part:
                continue
            begin, end = part[0] - self.p.life * SHARE, part[-1] + DURING
            inside = [(r.intended, r.latency) for r in stage.requests if not r.error and begin <= r.intended <= end]
            during = Histogram(latency for at, latency in inside if near(at, part))
            between = Histogram(latency for at, latency in inside if not near(at, renewals))
            if len(during) and len(between):
                pairs.append((between.percentile(99) * 1000, during.percentile(99) * 1000))
        if not pairs:
            return
        base, during_ms = (median(values) for values in zip(*pairs, strict=True))
        limit = max(1.5 * base, base + 15)
        run.findings.fact("p99 of the rounds, between / during, ms", [f"{b:.1f} / {d:.1f}" for b, d in pairs])
        run.findings.row("p99 between renewals", base, "ms")
        run.findings.row("p99 during renewals", during_ms, "ms")
        expected, got = f"<= max(1.5 × {base:.1f} ms, + 15 ms)", f"{during_ms:.1f} ms"
        run.findings.check("p99 during renewals", expected, got, during_ms <= limit, value=during_ms, high=limit)
