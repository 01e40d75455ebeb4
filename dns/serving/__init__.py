"""Sockets for DNS servers: UDP, TCP (RFC 1035 section 4.2, RFC 7766) and TLS (RFC 7858).

`start` returns a listener for UDP and TCP on the same port, `start_tls` one for TLS. A handler receives each query and
returns the reply. For common questions, `Answers` holds prebuilt answers that are sent without calling the handler.
`Policy` adds access control, rate limiting, cookies and identity to a handler.
"""

from serving.answers import COUNTS, Answers
from serving.batch import Client, Finished, client_of
from serving.connections import Connection, Connections, Handler, Reply, Transport
from serving.edns import adapt
from serving.later import Later
from serving.listener import Listener, reserve, show, start, start_tls
from serving.policy import Policy
from serving.query_log import QueryLog
from serving.settings import Settings

__all__ = [
    "COUNTS",
    "Answers",
    "Client",
    "Connection",
    "Connections",
    "Finished",
    "Handler",
    "Later",
    "Listener",
    "Policy",
    "QueryLog",
    "Reply",
    "Settings",
    "Transport",
    "adapt",
    "client_of",
    "reserve",
    "show",
    "start",
    "start_tls",
]
