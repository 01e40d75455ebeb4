"""Closed-form models of what happens before the first byte: pure functions, each with its source.

Times are milliseconds where a name ends in ``_ms`` and seconds elsewhere.
"""

from theory.handshake import Protocol, close_ms, connect_ms, time_to_first_byte_ms, tls_ms, tls_round_trips
from theory.pool import connections_in_use, fresh_request_ms, pooled_request_ms
from theory.queueing import erlang_c, md_c_wait, mm_c_wait
from theory.resolution import cold_ms, resolver_path_ms
from theory.slow_start import rounds, transfer_ms
from theory.time_wait import duty_cycle, exhausted_at, sockets_waiting, success_share, sustainable_rate
from theory.ttl import hit_rate, stale_share, upstream_rate

__all__ = [
    "Protocol",
    "close_ms",
    "cold_ms",
    "connect_ms",
    "connections_in_use",
    "duty_cycle",
    "erlang_c",
    "exhausted_at",
    "fresh_request_ms",
    "hit_rate",
    "md_c_wait",
    "mm_c_wait",
    "pooled_request_ms",
    "resolver_path_ms",
    "rounds",
    "sockets_waiting",
    "stale_share",
    "success_share",
    "sustainable_rate",
    "time_to_first_byte_ms",
    "tls_ms",
    "tls_round_trips",
    "transfer_ms",
    "upstream_rate",
]
