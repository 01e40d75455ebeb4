"""Channels that deliver a monitor's alarms and heartbeats: a log on standard error, and webhooks."""

import asyncio
import json
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Sequence
from typing import Any

from monitor.alarms import Change
from telemetry import log

logger = log.get("monitor")

#: Time-out of a webhook request, in seconds.
TIMEOUT = 5.0
#: Maximum number of undelivered alarms in a webhook's queue; the oldest are dropped first.
MAX_WAITING = 1000


def write_log(changes: Sequence[Change]) -> None:
    """Log each change of an alarm: the beginning as a warning, the end as information."""
    for each in changes:
        subject = each.subject
        fields = {"about": subject.about, "check": subject.check, "detail": each.detail}
        if subject.prober:
            fields["prober"] = subject.prober
        if each.active:
            logger.warning("alarm", **fields)
        else:
            logger.info("alarm_cleared", **fields)


class Webhook:
    """Posts alarms and heartbeats to one URL as JSON; undelivered alarms are retried with the next heartbeat."""

    def __init__(self, url: str) -> None:
        self.url = url
        #: Error of the last request; empty if the last request succeeded.
        self.failure = ""
        #: Number of successful requests, and number of failed requests.
        self.delivered = self.failed = 0
        self._waiting: deque[dict[str, Any]] = deque(maxlen=MAX_WAITING)

    def put(self, *alarms: dict[str, Any]) -> None:
        """Queue alarms, as request bodies, until `flush` is called."""
        self._waiting.extend(alarms)

    async def flush(self, heartbeat: dict[str, Any] | None = None) -> None:
        """Deliver all queued alarms, and then *heartbeat*; stop at the first failure."""
        while self._waiting:
            if not await self._post(self._waiting[0]):
                return
            self._waiting.popleft()
        if heartbeat is not None:
            await self._post(heartbeat)

    async def _post(self, body: dict[str, Any]) -> bool:
        try:
            await asyncio.to_thread(_post, self.url, json.dumps(body).encode())
        except (OSError, ValueError) as error:
            self.failure, self.failed = str(error), self.failed + 1
            return False
        self.failure, self.delivered = "", self.delivered + 1
        return True


def _post(url: str, body: bytes) -> None:
    """Send a POST request; raise `OSError` if the request fails or the response status is not 2xx."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - the command line accepts only http and https URLs
    with urllib.request.urlopen(request, timeout=TIMEOUT):  # noqa: S310 - the command line accepts only http and https URLs
        pass
