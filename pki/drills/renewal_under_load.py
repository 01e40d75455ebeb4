"""D2 `renewal-under-load`: certificates are renewed again and again under load, and nobody notices."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from drills.lifetimes import JITTER, SHARE, Scale, shorten
from drills.rehearsal import HOST, PROMPT, Rehearsal, listed, said
from experiments import Control, Experiment, Quantity, Run, parameter

#: Seconds of load before the short certificate comes, and after the last renewal.
BASELINE, AFTER = 3.0, 2.0
#: Seconds around a renewal in which a request belongs to "during".
DURING = 1.0
#: Seconds after the due moment in which a renewal is done: a look at the clock, an order, our own look.
ORDER = 2.0
#: Rounds whose median is judged.
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Parameters:
    """What can be varied."""

    rate: float = parameter(200.0, quick=100.0, unit="requests/s", low=1, high=2000, help="half fresh, half kept alive")
    renewals: int = parameter(12, quick=3, low=3, high=100, help="by schedule, one after the other")
    life: float = parameter(12.0, quick=9.0, unit="s", low=8, high=120, help="47 nominal days last this long")


class RenewalUnderLoad(Experiment[Parameters]):
    """Injected: short lives, so that the edge renews by its own schedule, again and again, under load."""

    name = "renewal-under-load"
    claim = (
        "Renewing a certificate costs no request: the new one is served to new handshakes, and what is open goes on."
    )
    says = (
        "The seed: identities have a limited life and have to be proven anew. From 2029 on that is every 47 days at most; whoever restarts "
        "a server to renew cuts what is under way each time, and whoever reloads carelessly breaks it."
    )
    source = (
        "CA/Browser Forum ballot SC-081v3 (200, 100, 47 days); Let's Encrypt integration guide and RFC 9773 section 4 (renew at two thirds "
        "of life, with jitter)."
    )
    production = (
        "Reload certificates into the running server, and stage them first: a pair that does not match must never reach a live listener. "
        "In Python that means a scratch context, and a fresh context for each new handshake (sni_callback), never load_cert_chain on a "
        "context that is serving. Clients of pooled mTLS connections need the same: drain, do not cut."
    )
    settings = Parameters
    control = Control(
        "the edge reloads as a restart does: it cuts every connection and does not listen for 0.3 s", ("requests lost",)
    )
    records = (HOST,)
    paths = (HOST,)

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.scale = Scale(parameters.life)
        self.stage: Rehearsal | None = None
        self.began = self.ended = float("inf")

    def duration(self) -> float:
        """Baseline, renewals, and some time after."""
        return BASELINE + self.p.renewals * (self.p.life * SHARE + 0.6) + AFTER + 4

    def predict(self) -> Mapping[str, Quantity]:
        """Nothing is lost, every certificate is seen, and each is replaced when it is due."""
        return {
            "requests lost": Quantity(0),
            "renewals": Quantity(self.p.renewals),
            "renewed at this share of life": Quantity(SHARE),
        }

    async def measure(self, run: Run) -> None:
        """Shorten lives under load and let the schedule do the rest."""
        stage = self.stage = Rehearsal(run, self.p.rate)
        async with stage.under_load():
            await stage.baseline(BASELINE)
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
            await asyncio.sleep(AFTER)  # the load shows whether it is well again

    def conclude(self, run: Run) -> None:
        """Nothing lost, everything renewed when due and seen from outside."""
        stage = self.stage
        if stage is None:
            return
        stage.gates(self.began - 1.0, PROMPT)
        held = [h for h in stage.watch.of(HOST) if stage.at(h.issued) >= self.began - 2.0]
        lost = stage.lost()
        shares = stage.watch.renewed_at(HOST)[-self.p.renewals :]
        late = stage.watch.late_by(HOST)[-self.p.renewals :]
        run.findings.row("requests lost", len(lost))
        run.findings.row("renewals", len(held) - 1)
        run.findings.check("requests lost", "0", said(lost), not lost)
        refused = stage.failed_probes()
        run.findings.check("handshakes from outside that failed", "0", listed(refused), not refused)  # fmt: skip
        run.findings.check("renewals", str(self.p.renewals), str(len(held) - 1), len(held) - 1 == self.p.renewals)
        seen = {h.serial for h in held} & stage.seen()
        run.findings.check("serials seen from outside", str(len(held)), str(len(seen)), len(seen) == len(held))
        if shares:
            run.findings.row("renewed at this share of life", median(shares))
            inside = all(SHARE - JITTER <= s <= SHARE + JITTER for s in shares) and all(0 <= x <= ORDER for x in late)
            words = f"{min(shares):.3f} to {max(shares):.3f}, done {max(late):.2f} s later at most"
            run.findings.check("renewed at the scheduled point of life", f"{SHARE:.3f} ± {JITTER:g}, done within {ORDER:g} s", words, inside)  # fmt: skip
        self._latency(run, stage, [stage.at(h.issued) for h in held[1:]])
        stage.facts(self.began, self.ended)
        stage.picture(
            "Requests while certificates are renewed",
            "Bars: requests by outcome. Lines: latency of those that went well. Stripes: the certificate that OpenSSL was shown from outside.",
        )

    def _latency(self, run: Run, stage: Rehearsal, moments: list[float]) -> None:
        """Compare p99 around renewals with p99 between them: three rounds, of which the median counts."""
        rounds = [moments[i * len(moments) // ROUNDS : (i + 1) * len(moments) // ROUNDS] for i in range(ROUNDS)]
        pairs: list[tuple[float, float]] = []
        for inside in (r for r in rounds if r):
            begin, end = inside[0] - self.p.life * SHARE, inside[-1] + DURING
            during = stage.latency(lambda at, near=inside: any(abs(at - m) <= DURING for m in near))  # type: ignore[misc]  # defaults bind the loop's values
            between = stage.latency(
                lambda at, b=begin, e=end: b <= at < e and not any(abs(at - m) <= DURING for m in moments)  # type: ignore[misc]  # defaults bind the loop's values
            )
            if len(during) and len(between):
                pairs.append((between.percentile(99) * 1000, during.percentile(99) * 1000))
        if not pairs:
            return
        base, during_ms = (median(values) for values in zip(*pairs, strict=True))
        limit = max(1.5 * base, base + 15)
        run.findings.fact("p99 of the rounds, between / during, ms", [f"{b:.1f} / {d:.1f}" for b, d in pairs])
        run.findings.row("p99 between renewals", base, "ms")
        run.findings.row("p99 during renewals", during_ms, "ms")
        run.findings.check("p99 during renewals", f"<= max(1.5 × {base:.1f} ms, + 15 ms)", f"{during_ms:.1f} ms", during_ms <= limit, value=during_ms, high=limit)  # fmt: skip
