"""An iterative, caching resolver (RFC 1034 section 5.3.3), which starts at the root servers.

It does not validate DNSSEC and does not forward queries.
"""

from resolver.cache import Cache, Negative, Rank
from resolver.hints import HintsError, load_hints
from resolver.resolution import Ask, Failed, Outcome, Resolution, Resolved

__all__ = [
    "Ask",
    "Cache",
    "Failed",
    "HintsError",
    "Negative",
    "Outcome",
    "Rank",
    "Resolution",
    "Resolved",
    "load_hints",
]
