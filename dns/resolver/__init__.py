"""An iterative, caching resolver (RFC 1034 section 5.3.3): it resolves names from the root servers down.

It does not validate DNSSEC and does not forward queries; it reaches name servers over IPv4 only.
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
