"""Sockets of a DNS server: UDP, and TCP with length framing (RFC 1035 section 4.2, RFC 7766).

Knows nothing of DNS but the framing and how names are written.  `start` gives one listener that answers on UDP and TCP
at the same port.
"""

from serving.compression import Buffer
from serving.listener import Handler, Listener, Reply, Transport, start

__all__ = ["Buffer", "Handler", "Listener", "Reply", "Transport", "start"]
