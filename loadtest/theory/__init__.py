"""Closed-form models of what happens before the first byte: pure functions, each with its source.

One module per notion: ``from theory import ttl``, then ``ttl.hit_rate(…)``.  Times are milliseconds where a name ends
in ``_ms`` and seconds elsewhere; rates are per second, sizes are bytes, shares and probabilities lie between 0 and 1.
"""
