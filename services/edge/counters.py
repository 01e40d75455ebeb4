"""Metrics of an edge.

Requests and handshakes are counted in plain dictionaries and added to the metrics at each scrape: labelled counters
would take as much CPU time as all other bookkeeping of a request.
"""

from bisect import bisect_left
from collections import Counter

from telemetry import Metrics

#: Upper bounds of the request latency histogram's buckets, in seconds.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Counters:
    """All metrics of one edge."""

    def __init__(self, metrics: Metrics) -> None:
        """Register the metrics."""
        counter, gauge = metrics.counter, metrics.gauge
        self._requests = counter(
            "firstbyte_edge_requests_total", "Requests by listener and status", "listener", "status"
        )
        self._seconds = metrics.histogram(
            "firstbyte_edge_request_seconds", "From the end of a request's head to the end of its response",
            BUCKETS, "listener",
        )  # fmt: skip
        self._handshakes = counter(
            "firstbyte_edge_handshakes_total", "TLS handshakes with clients", "version", "resumed"
        )
        self.failed_handshakes = counter(
            "firstbyte_edge_handshake_failures_total", "TLS handshakes and PROXY headers that failed", "reason"
        )
        self.connects = counter("firstbyte_edge_upstream_connects_total", "Connections opened", "upstream", "result")
        self.pool = gauge("firstbyte_edge_pool_connections", "Pooled connections", "route", "upstream", "state")
        self.healthy = gauge(
            "firstbyte_edge_target_healthy", "0 if the target fails its health check, else 1",
            "route", "upstream", across="min",
        )  # fmt: skip
        self.ejected = gauge(
            "firstbyte_edge_target_ejected", "1 while the target is ejected, for failures or a failed check, else 0",
            "route", "upstream", across="max",
        )  # fmt: skip
        self.clients = gauge("firstbyte_edge_clients", "Client connections that are open or in their TLS handshake")
        self.limit = gauge("firstbyte_edge_clients_max", "Maximum number of client connections")
        self.evicted = counter(
            "firstbyte_edge_clients_evicted_total", "Idle client connections that were closed for a new one"
        )
        self.rejected = counter(
            "firstbyte_edge_clients_rejected_total", "Client connections rejected because the edge was full", "answer"
        )
        #: TLS handshakes since the last scrape, keyed by version and resumption.
        self._shaken: Counter[tuple[str, bool]] = Counter()
        #: Requests since the last scrape, keyed by listener and status.
        self._counted: Counter[tuple[str, int | str]] = Counter()
        #: Request latencies since the last scrape, keyed by listener: the count per bucket, then the sum in seconds.
        self._latencies: dict[str, list[float]] = {}
        metrics.before_render(self._add)

    def handshake(self, session: tuple[str, bool]) -> None:
        """Count a completed TLS handshake by version and resumption."""
        self._shaken[session] += 1

    def request(self, listener: str, status: int | str, seconds: float | None = None) -> None:
        """Count a finished request; *seconds* is its latency, or None if the request was not forwarded."""
        self._counted[listener, status] += 1
        if seconds is None:
            return
        latencies = self._latencies.get(listener)
        if latencies is None:
            latencies = self._latencies[listener] = [0] * (len(BUCKETS) + 1) + [0.0]
        latencies[bisect_left(BUCKETS, seconds)] += 1
        latencies[-1] += seconds

    def _add(self) -> None:
        """Add the counts since the last scrape to the metrics."""
        counted, self._counted = self._counted, Counter()
        for (listener, status), count in counted.items():
            self._requests.inc(count, listener=listener, status=str(status))
        shaken, self._shaken = self._shaken, Counter()
        for (version, resumed), count in shaken.items():
            self._handshakes.inc(count, version=version, resumed=str(resumed).lower())
        latencies, self._latencies = self._latencies, {}
        for listener, row in latencies.items():
            self._seconds.merge([int(n) for n in row[:-1]], row[-1], listener=listener)
