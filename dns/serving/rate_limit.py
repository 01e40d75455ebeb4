"""Response rate limiting (RRL): few equal responses per second to one network, so that a server is no amplifier.

Somebody who sends queries with a forged source address gets the responses sent to a victim. A real client that is
limited receives a truncated response now and then, and asks again over TCP. The caller passes the time.
"""

import ipaddress
from collections import OrderedDict
from enum import Enum

#: Prefix lengths by which clients count as one network.
IPV4_PREFIX, IPV6_PREFIX = 24, 56
#: Seconds for which a network that was sent too many responses has to be silent at most before it is served again.
WINDOW = 15.0
#: Maximum number of counted pairs of network and response, at about 200 bytes each.
MAX_BUCKETS = 50_000


class Verdict(Enum):
    """What to do with one response."""

    SEND = "send"
    TRUNCATE = "truncate"
    DROP = "drop"


class RateLimit:
    """Token buckets by network and kind of response.

    Args:
        rate: equal responses per second to one network.
        slip: every how many limited responses one is truncated and sent; 0 drops all.
    """

    def __init__(self, rate: int, slip: int) -> None:
        self.rate, self.slip = rate, slip
        #: Balance, time of the last response, and number of limited responses, least recently used first.
        self._buckets: OrderedDict[tuple[bytes, bytes], tuple[float, float, int]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<RateLimit rate={self.rate} buckets={len(self._buckets)}>"

    def judge(self, client: str, kind: bytes, now: float) -> Verdict:
        """Count a response of *kind* to *client* (an IP address) and return what to do with it."""
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
