"""The CA of `tests.acme_server`."""

from tests.acme_server.conftest import lab

__all__ = ["lab"]
