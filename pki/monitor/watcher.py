"""Main loop of the monitor: runs all probers on all endpoints, judges the results, and sends alarms and heartbeats."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509

from monitor.alarms import Alarms, Change, unwatched
from monitor.channels import Webhook, write_log
from monitor.judgement import ALARM_AT, Finding, Seen, judge, names_of
from monitor.probers import Collector, Prober, Target
from telemetry import AdminError, Metrics, Request, Telemetry, log

logger = log.get("monitor")

#: Function that returns pairs of DNS name and serial number for all valid certificates, oldest first, or None if the
#: valid certificates are unknown.
Inventory = Callable[[], Awaitable[Iterable[tuple[str, str]] | None]]


class UnknownMessageError(Exception):
    """A message to a monitor is neither a heartbeat nor an alarm."""

    def __str__(self) -> str:
        return 'expected {"kind": "heartbeat", "from": NAME, "interval": SECONDS}, or an alarm'


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a monitor."""

    #: Name of the monitor in its heartbeats.
    name: str = "monitor"
    #: Interval between rounds of checks, in seconds.
    interval: float = 60.0
    #: Fraction of the lifetime after which a certificate should have been replaced.
    alarm_at: float = ALARM_AT


@dataclass(frozen=True, slots=True)
class Look:
    """Result of one prober's check of one endpoint in the last round, with the findings."""

    target: Target
    prober: str
    seen: Seen
    findings: Sequence[Finding]


class Watcher:
    """Monitors endpoints with several probers."""

    def __init__(
        self,
        targets: Sequence[Target],
        probers: Sequence[Prober],
        collector: Collector,
        *,
        settings: Settings = Settings(),
        webhooks: Sequence[Webhook] = (),
        inventory: Inventory | None = None,
    ) -> None:
        """Create a monitor; call `run` to monitor continuously, or `round` for a single round.

        Args:
            targets: endpoints to monitor.
            probers: the probers, each of which checks all endpoints independently of the others.
            collector: collects the evidence that is common to all probers.
            settings: name, interval and alarm threshold.
            webhooks: channels for alarms in addition to the log.
            inventory: returns the certificates that should be monitored.
        """
        self.targets, self.probers, self.webhooks = tuple(targets), tuple(probers), tuple(webhooks)
        self.settings, self.alarms, self.looks = settings, Alarms(), list[Look]()
        #: The latest changes of alarms, oldest first.
        self.changes: deque[Change] = deque(maxlen=1000)
        self._collector, self._inventory = collector, inventory

    async def run(self, stop: asyncio.Event, after: Callable[[], None] | None = None) -> None:
        """Start a round of checks every ``interval`` seconds until *stop* is set; call *after* after each round."""
        while not stop.is_set():
            began = time.monotonic()
            await self.round()
            if after is not None:
                after()
            left = self.settings.interval - (time.monotonic() - began)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), max(0.0, left))

    async def round(self) -> None:
        """Check each endpoint once; send a heartbeat and all alarms that begin or end."""
        self.looks = [look for looks in await asyncio.gather(*map(self._look, self.targets)) for look in looks]
        now = time.time()
        if self._inventory is not None and (certified := await self._inventory()) is not None:
            names = [name for look in self.looks if look.seen.leaf for name in names_of(look.seen.leaf)]
            missing = unwatched(certified, [*names, *(target.host for target in self.targets)])
            self._send(self.alarms.inventory(now, missing))
        self._send(self.alarms.tick(now))
        heartbeat = {
            "kind": "heartbeat", "at": round(now, 3), "from": self.settings.name, "interval": self.settings.interval,
            "targets": len(self.targets), "alarms": len(self.alarms.active),
        }  # fmt: skip
        await asyncio.gather(*(each.flush(heartbeat) for each in self.webhooks))
        for each in self.webhooks:
            self._send(self.alarms.channel(now, each.url, each.failure))
        await asyncio.gather(*(each.flush() for each in self.webhooks if not each.failure))

    def receive(self, body: Any) -> None:
        """Process a message from another monitor's webhook: record a heartbeat, or forward an alarm.

        Raises:
            UnknownMessageError: *body* is neither a heartbeat nor an alarm.
        """
        kind = body.get("kind") if isinstance(body, dict) else None
        if kind in {"alarm", "cleared"}:
            if not body.get("forwarded"):  # prevents a forwarding loop between two monitors
                logger.warning("forwarded", **{key: str(value)[:200] for key, value in body.items()})
                for each in self.webhooks:
                    each.put({**body, "forwarded": True})
            return
        sender, interval = (body.get("from"), body.get("interval")) if kind == "heartbeat" else (None, None)
        if not isinstance(sender, str) or not isinstance(interval, (int, float)) or isinstance(interval, bool):
            raise UnknownMessageError

        self._send(self.alarms.heard(time.time(), sender[:100], float(interval)))

    async def _look(self, target: Target) -> list[Look]:
        seen = await asyncio.gather(*(prober.look(target) for prober in self.probers))
        issuers = [each for found in seen for each in found.issuers]
        evidence = {}
        for found in seen:
            if found.serial not in evidence:
                issuer = _issuer_of(found.leaf, issuers)
                evidence[found.serial] = await self._collector.collect(target, found.leaf, issuer)
        now, share = time.time(), self.settings.alarm_at
        looks = [
            Look(target, prober.name, found, judge(target.host, found, evidence[found.serial], now, share))
            for prober, found in zip(self.probers, seen, strict=True)
        ]
        self._send(self.alarms.report(now, str(target), {look.prober: look.findings for look in looks}))
        return looks

    def _send(self, changes: Sequence[Change]) -> None:
        self.changes += changes
        write_log(changes)
        for each in self.webhooks:
            each.put(*(change.as_json() for change in changes))


def _issuer_of(leaf: x509.Certificate | None, certificates: Iterable[x509.Certificate]) -> x509.Certificate | None:
    return next((each for each in certificates if leaf is not None and each.subject == leaf.issuer), None)


def export(watcher: Watcher, telemetry: Telemetry) -> None:
    """Add the monitor's metrics, its health checks and ``POST /heartbeat`` to the HTTP port of *telemetry*."""
    metrics = telemetry.metrics
    gauges = Gauges(metrics)

    def refresh() -> None:
        gauges.refresh(watcher)

    def health() -> None:
        failing = {str(subject): detail for subject, detail in watcher.alarms.active.items()}
        telemetry.health.set("alarms", not failing, "; ".join(f"{name}: {text}" for name, text in failing.items()))

    def receive(request: Request) -> dict[str, Any]:
        try:
            watcher.receive(request.json())
        except UnknownMessageError as error:
            raise AdminError(400, str(error)) from None
        return {}

    metrics.before_render(refresh)
    telemetry.health.before_report(health)
    telemetry.route("POST", "/heartbeat", receive)


class Gauges:
    """The metrics of a monitor."""

    def __init__(self, metrics: Metrics) -> None:
        """Declare the metrics."""
        gauge = metrics.gauge
        self._end = gauge(
            "firstbyte_monitor_not_after_seconds", "End of the certificate that the prober received, in seconds since "
            "the epoch", "target", "prober",
        )  # fmt: skip
        self._alarm = gauge("firstbyte_monitor_alarm", "1 while this alarm is active", "about", "check", "prober")
        self._unknown = gauge("firstbyte_monitor_unknown", "Number of checks that could not be made")
        self._failed = gauge("firstbyte_monitor_webhook_failures", "Failed webhook requests since the start", "url")

    def refresh(self, watcher: Watcher) -> None:
        """Update all metrics from the state of *watcher*."""
        for look in watcher.looks:
            if look.seen.leaf is not None:
                end = look.seen.leaf.not_valid_after_utc.timestamp()
                self._end.set(end, target=str(look.target), prober=look.prober)
        for change in watcher.changes:
            subject = change.subject
            active = int(subject in watcher.alarms.active)
            self._alarm.set(active, about=subject.about, check=subject.check, prober=subject.prober)
        self._unknown.set(len(watcher.alarms.unknown))
        for each in watcher.webhooks:
            self._failed.set(each.failed, url=each.url)
