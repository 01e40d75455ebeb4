"""Response rate limiting (RRL): limits identical responses to one network, so that amplification attacks fail.

In such an attack, queries have a forged source address, and the responses go to the victim. Some responses above the
limit are sent truncated, so that a real client retries over TCP. The caller passes the time.
"""

import ipaddress
from collections import OrderedDict
from enum import Enum

#: Prefix lengths of a network; its clients share one limit.
IPV4_PREFIX, IPV6_PREFIX = 24, 56
#: Maximum time without queries after which a limited network receives responses again, in seconds.
WINDOW = 15.0
#: Maximum number of token buckets, at about 200 bytes each. At the limit, the least recently used bucket is evicted.
MAX_BUCKETS = 50_000


class Verdict(Enum):
    """Decision of the rate limit on one response."""

    SEND = "send"
    TRUNCATE = "truncate"
    DROP = "drop"


class RateLimit:
    """Token buckets, one for each network and kind of response.

    Args:
        rate: maximum number of identical responses per second to one network.
        slip: of the responses above the limit, every *slip*-th is sent truncated; 0: all are dropped.
    """

    def __init__(self, rate: int, slip: int) -> None:
        self.rate, self.slip = rate, slip
        #: Tokens left, time of the last response, and consecutive limited responses; least recently used bucket first.
        self._buckets: OrderedDict[tuple[bytes, bytes], tuple[float, float, int]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<RateLimit rate={self.rate} buckets={len(self._buckets)}>"

    def judge(self, client: str, kind: bytes, now: float) -> Verdict:
        """Count a response of *kind* to *client* (an IP address) and return whether to send, truncate or drop it."""
        packed = ipaddress.ip_address(client).packed
        key = (packed[: (IPV4_PREFIX if len(packed) == 4 else IPV6_PREFIX) // 8], kind)
        balance, last, limited = self._buckets.pop(key, (float(self.rate), now, 0))
        balance = min(float(self.rate), balance + (now - last) * self.rate) - 1
        if balance >= 0:
            limited = 0
        else:
            limited, balance = limited + 1, max(balance, -WINDOW * self.rate)
        self._buckets[key] = (balance, now, limited)
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        if not limited:
            return Verdict.SEND
        return Verdict.TRUNCATE if self.slip and limited % self.slip == 0 else Verdict.DROP
