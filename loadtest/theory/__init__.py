"""Closed-form models of the latency and load of Internet requests: pure functions, each with its source.

There is one module per topic: ``from theory import ttl``, then ``ttl.hit_rate(…)``.  Times are in milliseconds if the
name ends in ``_ms``, otherwise in seconds.  Rates are per second, sizes are bytes, and shares and probabilities are
between 0 and 1.
"""
