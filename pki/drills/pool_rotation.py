"""Drill D15 `pool-rotation`: client certificate and trusted roots change under the edge's pooled connections."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, ClassVar

from authority.rotation import STEPS
from drills.lifetimes import renew
from drills.rehearsal import HOST, NAME, Rehearsal, by_cause, extend
from drills.rollover import Rollover, Step
from experiments import Control, Lane, Panel, Quantity, Run, Span, parameter
from generator import Load, Request, Target
from hostfiles.layout import TRUST_ANCHOR

#: Rate of the requests whose responses describe the edge's connection to the origin, per second.  It has no common
#: factor with the rate of the load, so that these requests reach both origins.
OBSERVED_RATE = 31.0
#: Duration of a slow request, in milliseconds, and number of slow requests that are in flight at each rotation.
SLOW_MS, SLOW = 1500, 4
#: Time for the slow requests to reach the origin before the rotation, in seconds.
LEAD = 0.5
#: Maximum time after a rotation during which requests may still be sent on an old connection, in seconds.  It allows
#: for a request that the edge had already assigned to a connection, and for the interval at which the edge reads its
#: trust bundle.
LIMIT = 0.5
#: Maximum delay between the edge's adoption of a trust bundle and its observation by the monitoring, in seconds.
POLLED = 0.35


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters of the drill `pool-rotation`."""

    rate: float = parameter(60.0, quick=40.0, unit="requests/s", low=1, high=1000, help="half fresh, half kept alive")
    renewals: int = parameter(5, quick=2, low=1, high=50, help="rotations of the client certificate")
    pause: float = parameter(3.0, quick=0.5, unit="s", low=0, high=60, help="load between two steps")


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as seen by the origin; times are in seconds on the run's timeline."""

    sent: float
    done: float
    #: The edge's address and port, and the origin: they identify a pooled connection.
    connection: tuple[str, str]
    #: Serial number of the edge's client certificate.
    serial: str


@dataclass(frozen=True, slots=True)
class Rotation:
    """A change of the client certificate or of the trust bundle; times are in seconds on the run's timeline."""

    begin: float
    #: Time from which the edge is known to use the new certificate or the new bundle.
    at: float
    #: Serial number of the new certificate, or step of the rotation that changed the bundle.
    what: str


class PoolRotation(Rollover[Parameters]):
    """Drill that replaces the client certificate and the trusted roots while pooled mTLS connections are in use."""

    name = "pool-rotation"
    claim = (
        "After a change of the client certificate or of the trusted roots, pooled connections are drained: within "
        f"{LIMIT:g} s no request uses an old one, and requests in flight are completed."
    )
    says = (
        "Certificates are verified once per connection, in its handshake. After a rotation a pooled connection keeps "
        "the old identity, for hours if the pool is busy. Cutting the connection loses the requests in flight; keeping "
        "it means that the old certificate is in use until it is revoked or its root is removed."
    )
    source = (
        "RFC 8446 section 4.4 (certificates are verified in the handshake only); RFC 9110 section 9.2.2 (only an "
        "idempotent request may be sent again after its connection was cut)."
    )
    production = (
        "Give pools a generation: after a rotation, close idle connections, let those in use finish, and open new ones "
        "with the new certificate. A maximum age is the fall-back for pools that cannot do so; it bounds the time for "
        "which an old certificate must stay valid."
    )
    settings = Parameters
    control = Control("the edge cuts its connections when it loads a certificate", ("slow requests completed",))
    kind = "root"
    accepted: ClassVar[Mapping[str, frozenset[str]]] = {}  # no chains are verified by clients in this drill
    hosts = (HOST, "catalog-1", "catalog-2")

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.seen: list[Seen] = []
        #: Observed requests that failed.
        self.failed: list[Request] = []
        self.slow: list[Request] = []
        self.rotations: list[Rotation] = []

    def duration(self) -> float:
        """Return the expected duration in seconds: renewals, and the five steps of a rotation of the root."""
        steps = 0 if self.negative else len(STEPS[self.kind])
        return self.before + self.p.renewals * (SLOW_MS / 1e3 + LEAD + 1.0) + steps * (self.p.pause + 3.5) + self.after

    def predict(self) -> Mapping[str, Quantity]:
        """Predict that no request is lost, that slow requests are completed, and that no old connection is used."""
        return {
            "requests lost": Quantity(0),
            "slow requests lost": Quantity(0),
            "requests on old connections": Quantity(0),
        }

    async def rotate(self, run: Run) -> None:
        """Renew the edge's certificate several times, then replace the root, with requests in flight throughout."""
        if self.negative:
            await run.lab.fault(HOST, "naive_reload", how="restart")
        stop = asyncio.Event()
        observing = asyncio.create_task(self._observe(run, stop))
        try:
            await asyncio.sleep(LEAD)  # until the pool has opened its connections
            for number in range(self.p.renewals):
                run.phase(f"client certificate {number + 1} of {self.p.renewals}")
                await self._rotate_certificate(run)
            for name in () if self.negative else STEPS[self.kind]:
                step = await self.perform(run, name)
                if name in {"trust-both", "trust-new"}:
                    self.rotations.append(self._adoption(step))
                await asyncio.sleep(self.p.pause)  # load between the steps
        finally:
            stop.set()
            await observing

    def _adoption(self, step: Step) -> Rotation:
        """Return when the edge adopted the trust bundle of *step*, as seen by the monitoring."""
        known = self.stage.watch.identities.get(HOST, []) if self.stage is not None else []
        at = next((each.at for each in reversed(known) if each.at >= step.begin), step.end)
        return Rotation(max(step.begin, at - POLLED), at, step.name)

    async def _rotate_certificate(self, run: Run) -> None:
        """Renew the edge's certificate while slow requests are in flight."""
        stop, began = asyncio.Event(), run.now()
        slow = Load(Target(NAME, 443, f"/delay/{SLOW_MS}", TRUST_ANCHOR), SLOW / LEAD, kinds=("fresh",))
        sending = asyncio.create_task(slow.run(stop))
        await asyncio.sleep(LEAD)  # wait until the requests have reached the origin
        stop.set()
        begin = run.now()
        await renew(run, HOST)
        serial = (await run.lab.call(HOST, "GET", "/admin/certificate"))["serial"]
        self.rotations.append(Rotation(begin, run.now(), serial))
        run.note("injection", f"client certificate {len(self.rotations)}")
        await sending
        for each in slow.requests:
            each.sent, each.done = began + each.sent, began + each.done
        self.slow += slow.requests

    async def _observe(self, run: Run, stop: asyncio.Event) -> None:
        """Send requests whose responses describe the connection between edge and origin, until *stop* is set."""
        began, last = run.now(), dict[str, Any]()

        def read(body: bytes) -> str:
            last.clear()
            last.update(json.loads(body))
            return ""

        def done(request: Request) -> None:
            if request.error:
                self.failed.append(request)
                return
            connection = str(last["peer"]), str(last["origin"])
            self.seen.append(Seen(began + request.sent, began + request.done, connection, last["tls"]["client_serial"]))

        load = Load(
            Target(NAME, 443, "/whoami", TRUST_ANCHOR), OBSERVED_RATE, kinds=("pooled",), check=read, on_done=done
        )
        await load.run(stop)

    # --- verdict ----------------------------------------------------------------------------------------------------

    def old(self, rotation: Rotation) -> list[Seen]:
        """Return the requests that were sent on an old connection, between *rotation* and the next rotation."""
        later = (each.begin for each in self.rotations if each.begin > rotation.begin)
        until = min(later, default=float("inf"))
        after = [s for s in self.seen if rotation.at < s.sent < until]
        if rotation.what not in STEPS[self.kind]:
            return [s for s in after if s.serial != rotation.what]
        before = {s.connection for s in self.seen if s.done < rotation.begin}
        return [s for s in after if s.connection in before]

    def judge(self, run: Run, stage: Rehearsal) -> None:
        """Check that no request was lost, and that no request used an old connection after a rotation."""
        stage.gates(self.began)
        check, gate = run.findings.check, run.findings.gate
        pools = {s.connection for s in self.seen}
        gate("observed pools", "of both catalogs", str(len(pools)), len({origin for _, origin in pools}) == 2)
        self.check_nothing_lost(run, stage)
        check("observed requests lost", "0", by_cause(self.failed), not self.failed)
        lost = [each for each in self.slow if each.error]
        run.findings.row("slow requests lost", len(lost))
        got = f"{len(self.slow) - len(lost)} of {len(self.slow)}" + (f", lost {by_cause(lost)}" if lost else "")
        check("slow requests completed", f"all {len(self.slow)}", got, bool(self.slow) and not lost)
        late = {r: [s for s in self.old(r) if s.sent > r.at + LIMIT] for r in self.rotations}
        run.findings.row("requests on old connections", sum(map(len, late.values())))
        for what, trust in (("client certificate", False), ("trust bundle", True)):
            chosen = [r for r in self.rotations if (r.what in STEPS[self.kind]) is trust]
            if trust and self.negative:
                continue
            waits = [max((s.sent - r.at for s in self.old(r)), default=0.0) for r in chosen]
            wanted = 2 if trust else self.p.renewals
            got = f"{len(chosen)} rotations, old for at most {max(waits, default=0.0):.2f} s"
            ok = len(chosen) == wanted and max(waits, default=0.0) <= LIMIT
            check(f"pools on the new {what}", f"{wanted} rotations, within {LIMIT:g} s", got, ok)
            if waits:
                run.findings.fact(f"old connections after a new {what}, median, s", round(median(waits), 3))
        stage.facts(self.began, self.ended)
        stage.picture(
            "Pooled connections during rotations",
            "The lower panel shows the rotations, the slow requests that were in flight, and for each origin the "
            "client certificate of the requests that it received, with a colour for each serial number.",
            Panel(lanes=self._lanes(), y="pooled connections of the edge"),
            shown=(),
        )

    def _lanes(self) -> list[Lane]:
        rotations = [Span(r.begin, max(r.at, r.begin + 0.2), r.what[:10], "good") for r in self.rotations]
        slow = [Span(r.sent, r.done, r.error or "ok", "bad" if r.error else "good") for r in self.slow]
        lanes = [Lane("rotation", rotations), Lane("slow requests", slow)]
        order = list(dict.fromkeys(s.serial for s in self.seen))
        for origin in sorted({s.connection[1] for s in self.seen}):
            spans: list[Span] = []
            for each in sorted((s for s in self.seen if s.connection[1] == origin), key=lambda s: s.sent):
                extend(spans, Span(each.sent, each.done, each.serial[:8], order.index(each.serial) % 6))
            lanes.append(Lane(f"{origin.partition('.')[0]}: client", spans))
        return lanes
