"""Users for Locust's web UI (http://127.0.0.1:8089): one HTTPS user, with fresh and with pooled connections.

Every chain is verified against the lab's root.  Compare the two classes: the difference is what opening a connection
costs (theory.pool: two round trips with TLS 1.3), and TIME-WAIT on whoever closes first.
"""

import os
import ssl
from pathlib import Path

from locust import FastHttpUser, between, task

TRUST = Path(os.environ.get("FIRSTBYTE_TRUST", "/srv/trust/root.pem"))


def trusting() -> ssl.SSLContext:
    """Return a context that verifies against the lab's root."""
    return ssl.create_default_context(cafile=TRUST)


class _Shopper(FastHttpUser):
    """Looks at the catalog and the news."""

    abstract = True
    host = "https://www.example.com"
    # Locust's default does not verify at all.
    insecure = False
    ssl_context_factory = staticmethod(trusting)
    wait_time = between(0.05, 0.15)
    connection_timeout = network_timeout = 5.0

    def look(self, path: str) -> None:
        """Fetch one page; the name of the entry says how."""
        self.client.get(path, name=f"{path} ({type(self).__name__})")

    @task(4)
    def items(self) -> None:
        """The catalog."""
        self.look("/items")

    @task(1)
    def news(self) -> None:
        """The newsroom, by the edge's other route."""
        self.look("/news")


class PooledUser(_Shopper):
    """Keeps its connection."""


class FreshUser(_Shopper):
    """Opens a connection for each request and closes it first, so that TIME-WAIT stays here."""

    def look(self, path: str) -> None:
        """Fetch one page over a connection of its own."""
        super().look(path)
        self.client.client.clientpool.close()
