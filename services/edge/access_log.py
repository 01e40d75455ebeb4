"""Access log: one line per failed request, and one for each request in a random sample of the others."""

import random
import time

from edge.exchange import Exchange
from edge.glimpse import Glimpse
from edge.interfaces import Responder, Work
from telemetry import log

logger = log.get("edge.access")


def new_request_id() -> bytes:
    """Return an X-Request-ID header line with a new ID, for requests without one."""
    return b"x-request-id: %016x\r\n" % random.getrandbits(64)


def write(client: Responder, work: Work | None, status: int | str, sample: float, reason: str = "") -> None:
    """Log a finished request if it failed, else with probability *sample*; `Service.done` explains the arguments."""
    failed = isinstance(status, str) or status >= 500
    if not failed and random.random() >= sample:
        return
    asked = client.asked or Glimpse()
    forwarded = work if isinstance(work, Exchange) else None
    request_id = asked.request_id
    if forwarded is not None:
        request_id = request_id or forwarded.extra.removeprefix(b"x-request-id: ").rstrip()
    took = time.perf_counter() - forwarded.began if forwarded is not None else time.monotonic() - client.began
    logger.info(
        "request",
        listener=client.listener,
        client=client.address,
        status=status,
        reason=reason,
        method=asked.method.decode("latin-1"),
        target=asked.target.decode("latin-1"),
        host=asked.host.decode("latin-1"),
        took_ms=round(took * 1000, 3),
        upstream=forwarded.origin if forwarded is not None else "",
        request_id=request_id.decode("latin-1"),
        trace_id=asked.trace_id.decode("latin-1"),
    )
