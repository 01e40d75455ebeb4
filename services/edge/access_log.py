"""Access log: one line per failed request, and one for each request in a random sample of the others."""

import random
import time
from typing import Any

from edge.exchange import Exchange
from edge.interfaces import Responder, Work
from telemetry import log

logger = log.get("edge.access")


def new_request_id() -> bytes:
    """Return an X-Request-ID header line with a new ID, for requests without one."""
    return b"x-request-id: %016x\r\n" % random.getrandbits(64)


def write(client: Responder, work: Work | None, status: int | str, sample: float) -> None:
    """Log a finished request if it failed, otherwise with the probability *sample*."""
    failed = isinstance(status, str) or status >= 500
    if not failed and random.random() >= sample:
        return
    line: dict[str, Any] = {"listener": client.listener, "client": client.address, "status": status}
    if isinstance(work, Exchange):
        head = work.head
        request_id = head.request_id or work.extra.removeprefix(b"x-request-id: ").rstrip()
        line |= {
            "method": head.method.decode("latin-1"),
            "target": head.target.decode("latin-1"),
            "host": head.host.decode("latin-1"),
            "took_ms": round((time.perf_counter() - work.began) * 1000, 3),
            "upstream": work.origin,
            "request_id": request_id.decode("latin-1"),
            "trace_id": head.trace_id.decode("latin-1"),
        }
    logger.info("request", **line)
