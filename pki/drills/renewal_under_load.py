"""D2: certificates are renewed again and again under load, and nobody notices.

Load: open loop, half fresh connections, half kept alive.  Injected: renewals of the edge's certificate, forced one
after the other.  Passes when no request was lost, no handshake failed, and every serial was seen from outside.
Control: the edge reloads as a restart would (fault ``naive_reload``); it must lose requests.
"""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from drills.lab import TRUST, Control, call, fault
from experiments import Check, Event, Result, Timeline
from generator import Histogram, Load, Request, Target

CLAIM = "Renewing a certificate costs no request: the new one is served to new handshakes, and what is open goes on."
HOST = "edge"
NAME = "www.example.com"
#: Requests per second unless told otherwise, and renewals; quick is for CI and first looks.
RATE, QUICK_RATE = 200.0, 100.0
RENEWALS, QUICK_RENEWALS = 10, 3
#: Seconds of load before the first renewal, between two, and after the last.
BASELINE, GAP, AFTER = 6.0, 4.0, 4.0
#: Seconds within which a request belongs to "during" a renewal.
DURING = 1.0
#: Seconds between two looks of the outside prober.
PROBE = 0.25
#: Validity: the share of intended requests that were sent, and how late at the 99th percentile (seconds).
MIN_SENT, MAX_LAG = 0.99, 0.025

Outcome = tuple[Result, list[Request], list[tuple[float, str]]]


async def run(
    control: Control,
    *,
    quick: bool,
    negative: bool,
    rate: float | None = None,
    progress: Callable[[str], None] = lambda _: None,
    trust: Path = Path(TRUST),
) -> Outcome:
    """Run the drill.

    Args:
        control: reaches the lab's admin ports.
        quick: fewer renewals, less load.
        negative: with the safety off.
        rate: requests per second instead of the drill's own.
        progress: told what happens.
        trust: the lab's root certificate.

    Returns:
        The result, the requests, and the serials that the outside prober saw.
    """
    rate = rate or (QUICK_RATE if quick else RATE)
    renewals = QUICK_RENEWALS if quick else RENEWALS
    parameters = {"host": NAME, "rate_per_s": rate, "renewals": renewals, "quick": quick, "control": negative}
    result = Result("renewal-under-load", CLAIM, parameters, {"lost": 0, "serials": renewals + 1})
    target = Target(NAME, 443, "/items", trust)
    load, line = Load(target, rate), Timeline()
    stop = asyncio.Event()
    seen: list[tuple[float, str]] = []
    issued = [(await call(control, HOST, "GET", "/admin/certificate"))["serial"]]
    running = [asyncio.create_task(load.run(stop)), asyncio.create_task(_probe(target, line, seen, stop))]
    try:
        await _renewals(control, line, issued, renewals, negative=negative, progress=progress)
    except asyncio.CancelledError:
        result.interrupted = "interrupted"
    except Exception as error:  # the lab went away: what was measured is kept, and says so
        result.interrupted = f"the drill could not go on: {error}"
    finally:
        stop.set()
        await asyncio.gather(*running, return_exceptions=True)
    result.events = line.events
    _conclude(result, load, line.events, issued, seen)
    return result, load.requests, seen


async def _renewals(
    control: Control, line: Timeline, issued: list[str], count: int, *, negative: bool, progress: Callable[[str], None]
) -> None:
    progress(f"load runs; {BASELINE:g} s of baseline")
    line.note("phase", "baseline")
    await asyncio.sleep(BASELINE)
    async with contextlib.AsyncExitStack() as stack:
        if negative:
            await stack.enter_async_context(fault(control, HOST, "naive_reload"))
            line.note("phase", "control: naive_reload is on")
        for number in range(1, count + 1):
            answer: dict[str, Any] = await call(control, HOST, "POST", "/admin/renew", {}, timeout=60.0)
            issued.append(answer["serial"])
            line.note("injection", f"renewed {answer['serial'][:8]}")
            progress(
                f"renewal {number} of {count}: serial {answer['serial'][:8]}; {GAP * (count - number) + AFTER:.0f} s left"
            )
            await asyncio.sleep(GAP if number < count else AFTER)


async def _probe(target: Target, line: Timeline, seen: list[tuple[float, str]], stop: asyncio.Event) -> None:
    """Look from outside: one connection of its own after the other."""

    def done(request: Request) -> None:
        if request.serial:
            seen.append((line.now(), request.serial))

    await Load(target, 1 / PROBE, kinds=("fresh",), on_done=done).run(stop)


def _conclude(
    result: Result, load: Load, events: list[Event], issued: list[str], seen: list[tuple[float, str]]
) -> None:
    requests = load.requests
    lost = [r for r in requests if r.error]
    good = [r for r in requests if not r.error]
    moments = [e.at for e in events if e.kind == "injection"]
    first = moments[0] if moments else float("inf")
    # The renewal ends at the event; new handshakes and closing old ones happen around it.
    during = Histogram(r.latency for r in good if any(abs(r.intended - at) <= DURING for at in moments))
    before = Histogram(r.latency for r in good if r.intended < first - DURING)
    lag = load.lag()
    served = {r.serial for r in requests if r.serial} | {serial for _, serial in seen}
    causes: dict[str, int] = {}
    for request in lost:
        causes[request.error] = causes.get(request.error, 0) + 1
    result.measurement = {
        "sent": len(requests),
        "ok": len(good),
        "lost": len(lost),
        "causes": causes,
        "p50_before_ms": _ms(before, 50),
        "p99_before_ms": _ms(before, 99),
        "p99_during_ms": _ms(during, 99),
        "renewed": len(issued) - 1,
        "serials_seen": len(served & set(issued)),
        "send_lag_p99_ms": _ms(lag, 99),
    }
    intended = requests[-1].intended * load.rate + 1 if requests else 0
    share = len([r for r in requests if r.sent]) / intended if intended else 0.0
    result.validity = [
        Check("requests sent", f">= {MIN_SENT:.0%} of the schedule", f"{share:.1%}", share >= MIN_SENT),
        Check("send lag p99", f"<= {MAX_LAG * 1e3:g} ms", f"{_ms(lag, 99)} ms", lag.percentile(99) <= MAX_LAG),
        Check("baseline", "requests before the first renewal, none lost", f"{len(before)}, lost {sum(r.intended < first for r in lost)}",
              len(before) > 0 and not any(r.intended < first - DURING for r in lost)),
    ]  # fmt: skip
    wanted = int(result.parameters["renewals"])
    result.checks = [
        Check("requests lost", "0", f"{len(lost)} {causes or ''}".strip(), not lost),
        Check("renewals", str(wanted), str(len(issued) - 1), len(set(issued)) - 1 == wanted),
        Check("serials seen from outside", str(len(issued)), str(len(served & set(issued))), served >= set(issued)),
    ]


def _ms(histogram: Histogram, percent: float) -> float | None:
    return round(histogram.percentile(percent) * 1000, 2) if len(histogram) else None
