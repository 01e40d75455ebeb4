"""Prometheus metrics of the router, updated before each scrape."""

from collections.abc import Callable, Mapping

from telemetry.metrics import Counter, Metrics
from wan.network import Network

#: Histogram bounds in seconds.  The WAN benchmark requires a median lateness of at most 0.5 ms, and a 99th percentile
#: of at most 2 ms.
LATENESS_BUCKETS = (0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05)
#: Names of the counters for packets that were discarded before entering a link, or could not be written to the device.
DISCARDED = ("not_ipv4", "unroutable", "write_errors", "tun_dropped")


def export(metrics: Metrics, network: Network, counters: Callable[[], Mapping[str, int]]) -> None:
    """Register the metrics of *network*; *counters* must return at least the counters named in `DISCARDED`."""
    ends = ("from", "to")
    packets = metrics.counter("firstbyte_wan_packets_total", "Packets that entered a link", *ends)
    size = metrics.counter("firstbyte_wan_bytes_total", "Bytes of IP packets that entered a link", *ends)
    dropped = metrics.counter("firstbyte_wan_dropped_total", "Packets dropped on a link", *ends, "reason")
    duplicated = metrics.counter("firstbyte_wan_duplicated_total", "Packets duplicated on a link", *ends)
    reordered = metrics.counter("firstbyte_wan_reordered_total", "Packets held back for others to overtake", *ends)
    corrupted = metrics.counter("firstbyte_wan_corrupted_total", "Packets with corrupted payload", *ends, "mode")
    queued = metrics.gauge("firstbyte_wan_queued_packets", "Packets in flight on a link", *ends)
    rtt = metrics.gauge("firstbyte_wan_link_rtt_seconds", "Configured round-trip time of a link", *ends)
    discarded = metrics.counter(
        "firstbyte_wan_discarded_total", "Packets that took no link or were lost here", "reason"
    )

    def refresh() -> None:
        for link in network.links.values():
            pair = {"from": link.source, "to": link.target}
            _advance(packets, link.packets, **pair)
            _advance(size, link.bytes, **pair)
            for reason in ("loss", "queue", "rule"):
                _advance(dropped, getattr(link, f"dropped_{reason}"), reason=reason, **pair)
            # Omit series that are still zero, because they would double the size of a scrape.
            if link.duplicated:
                _advance(duplicated, link.duplicated, **pair)
            if link.reordered:
                _advance(reordered, link.reordered, **pair)
            for mode, count in link.corrupted.items():
                if count:
                    _advance(corrupted, count, mode=mode, **pair)
            queued.set(link.queued, **pair)
            rtt.set(link.settings.rtt_ms / 1e3, **pair)
        now = counters()
        for reason in DISCARDED:
            _advance(discarded, now[reason], reason=reason)

    metrics.before_render(refresh)


def _advance(counter: Counter, total: int, **labels: str) -> None:
    """Increase one series of *counter* to *total*."""
    counter.inc(total - counter.value(**labels), **labels)
