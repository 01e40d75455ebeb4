"""Closed-form models of what happens before the first byte: pure functions, each with its source.

One module per notion, read as ``theory.ttl.hit_rate(…)``.  Times are milliseconds where a name ends in ``_ms`` and
seconds elsewhere, rates are per second, sizes octets, shares and probabilities 0 to 1.
"""

from theory import (
    accept_queue,
    congestion,
    encryption,
    flow_control,
    geography,
    handshake,
    integrity,
    keepalive,
    omission,
    outage,
    pool,
    privacy,
    propagation,
    queueing,
    recovery,
    resolution,
    slow_start,
    snapshots,
    time_wait,
    ttl,
)
from theory.handshake import Protocol, close_ms, connect_ms, time_to_first_byte_ms, tls_ms, tls_round_trips
from theory.pool import connections_in_use, fresh_request_ms, pooled_request_ms
from theory.queueing import erlang_c, md_c_wait, mm_c_wait
from theory.resolution import cold_ms, resolver_path_ms
from theory.slow_start import rounds, transfer_ms
from theory.time_wait import (
    duty_cycle,
    exhausted_at,
    on_the_wheel,
    ports_held,
    sockets_waiting,
    success_share,
    sustainable_rate,
    timer_step,
)
from theory.ttl import hit_rate, stale_share, upstream_rate

__all__ = [
    "Protocol",
    "accept_queue",
    "close_ms",
    "cold_ms",
    "congestion",
    "connect_ms",
    "connections_in_use",
    "duty_cycle",
    "encryption",
    "erlang_c",
    "exhausted_at",
    "flow_control",
    "fresh_request_ms",
    "geography",
    "handshake",
    "hit_rate",
    "integrity",
    "keepalive",
    "md_c_wait",
    "mm_c_wait",
    "omission",
    "on_the_wheel",
    "outage",
    "pool",
    "pooled_request_ms",
    "ports_held",
    "privacy",
    "propagation",
    "queueing",
    "recovery",
    "resolution",
    "resolver_path_ms",
    "rounds",
    "slow_start",
    "snapshots",
    "sockets_waiting",
    "stale_share",
    "success_share",
    "sustainable_rate",
    "time_to_first_byte_ms",
    "time_wait",
    "timer_step",
    "tls_ms",
    "tls_round_trips",
    "transfer_ms",
    "ttl",
    "upstream_rate",
]
