"""Sockets of a DNS server: UDP, and TCP with length framing (RFC 1035 section 4.2, RFC 7766).

`start` returns one listener that answers on UDP and TCP at the same port.  A handler answers any query; `Answers` are
finished answers that the listener may send without it.
"""

from serving.answers import COUNTS, Answers
from serving.batch import Client, Finished, client_of
from serving.listener import Handler, Listener, Reply, Transport, start

__all__ = ["COUNTS", "Answers", "Client", "Finished", "Handler", "Listener", "Reply", "Transport", "client_of", "start"]
