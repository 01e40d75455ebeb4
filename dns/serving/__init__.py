"""Sockets for DNS servers: UDP, and TCP with a length prefix per message (RFC 1035 section 4.2, RFC 7766).

`start` returns a listener for UDP and TCP on the same port. A handler receives each query and returns the reply. For
common questions, `Answers` holds finished answers that the listener sends without calling the handler. `Policy` wraps a
handler: access, rate limit, cookies, identity.
"""

from serving.answers import COUNTS, Answers
from serving.batch import Client, Finished, client_of
from serving.listener import Handler, Listener, Reply, Transport, reserve, start
from serving.policy import Policy
from serving.settings import Settings

__all__ = [
    "COUNTS",
    "Answers",
    "Client",
    "Finished",
    "Handler",
    "Listener",
    "Policy",
    "Reply",
    "Settings",
    "Transport",
    "client_of",
    "reserve",
    "start",
]
