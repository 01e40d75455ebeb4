"""Output of the console at `docker compose up`: one traced request, cold and warm, and a guide with next steps.

The tracing agent sends the request, and `waterfall` draws the trace.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from telemetry import log
from telemetry.call import CallError, call

#: Maximum time for the first trace to succeed, in seconds.
PATIENCE = 60.0
#: Delay between two attempts, in seconds.
PAUSE = 1.0
#: Timeout for one trace, in seconds: two requests over the longest link, including DNS queries that time out.
TRACE_TIMEOUT = 30.0

GUIDE = """\
Open
  console   http://127.0.0.1:8080
  Locust    http://127.0.0.1:8089      after  docker compose --profile load up -d

Ask it yourself
  dig @127.0.0.1 -p 5300 www.example.com
  docker compose run --rm lab pki root > root.pem
  curl --cacert root.pem --resolve www.example.com:8443:127.0.0.1 https://www.example.com:8443/

Try
  docker compose run --rm lab trace https://far.example.com/        to the far data centre, 120 ms away
  docker compose run --rm lab link access:near --rtt 80ms           make the near data centre 80 ms away; \
--reset undoes it
  docker compose run --rm lab drill renewal-under-load --quick      renew certificates under load \
without losing a request
  docker compose kill resolver                                      see what the page says; \
`docker compose start resolver` repairs it

Ctrl-C stops the lab; `docker compose down` removes it but keeps its CA; `docker compose down -v` removes both.
"""

logger = log.get("console.opening")


@dataclass(frozen=True, slots=True)
class Tracer:
    """Client for the tracing agent's admin API."""

    url: str
    token_file: Path | None

    def trace(self, target: str) -> dict[str, Any]:
        """Request a trace of the URL *target*, cold and warm, and return it.

        Raises:
            CallError: the agent did not respond, or the trace failed.
        """
        token = ""
        if self.token_file is not None:
            try:
                token = self.token_file.read_text(encoding="ascii").strip()
            except OSError as error:
                raise CallError(0, f"{self.token_file}: {error.strerror}") from None
        body = {"url": target, "warm": True}
        answer = call(self.url, "POST", "/admin/trace", body, token=token, timeout=TRACE_TIMEOUT)
        if (problem := problem_of(answer)) is not None:
            raise CallError(0, f"{self.url}/admin/trace: {problem}")
        traced: dict[str, Any] = answer
        return traced


def problem_of(trace: object) -> str | None:
    """Return a description of the first error in a trace received over the network, or None if the trace is valid.

    A valid trace has the format of ``firstbyte trace --json``: a URL, and in ``cold`` and the optional ``warm`` a total
    and the phases.
    """
    if not isinstance(trace, Mapping):
        return f"expected a JSON object, got {type(trace).__name__}"
    if not isinstance(trace.get("url"), str):
        return f"expected url to be text, got {trace.get('url')!r}"
    if not isinstance(trace.get("cold"), Mapping):
        return f"expected cold to be an object, got {type(trace.get('cold')).__name__}"
    for name in ("cold", "warm"):
        run = trace.get(name)
        if run is None:
            continue
        if not isinstance(run, Mapping) or not _is_number(run.get("total_ms")):
            return f"expected {name}.total_ms to be a number"
        phases = run.get("phases")
        if not isinstance(phases, list):
            return f"expected {name}.phases to be a list, got {type(phases).__name__}"
        for index, phase in enumerate(phases):
            whole = isinstance(phase, Mapping) and isinstance(phase.get("name"), str)
            if not whole or not all(_is_number(phase.get(key)) for key in ("start_ms", "measured_ms")):
                return f"expected {name}.phases[{index}] to have a name, start_ms and measured_ms"
    return None


async def first_trace(tracer: Tracer, url: str, patience: float = PATIENCE, pause: float = PAUSE) -> dict[str, Any]:
    """Trace *url*, retrying until a trace succeeds or *patience* seconds have passed.

    Raises:
        CallError: no trace succeeded in time; the error is that of the last attempt.
    """
    until = time.monotonic() + patience
    while True:
        try:
            return await asyncio.to_thread(tracer.trace, url)
        except CallError as error:
            logger.debug("trace_failed", url=url, error=error.message)
            if time.monotonic() + pause >= until:
                raise
        await asyncio.sleep(pause)  # the lab may still be starting


async def show(
    tracer: Tracer,
    url: str,
    draw: Callable[[Mapping[str, Any]], None],
    on_trace: Callable[[dict[str, Any]], None],
    patience: float = PATIENCE,
) -> None:
    """Trace *url*, pass the trace to *on_trace* and *draw*, and print the guide."""
    print(f"firstbyte: tracing {url} …", flush=True)
    try:
        trace = await first_trace(tracer, url, patience)
    except CallError as error:
        print(f"No trace of {url} within {patience:.0f} s: {error.message}\n", flush=True)
    else:
        on_trace(trace)
        draw(trace)
    print(GUIDE, flush=True)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
