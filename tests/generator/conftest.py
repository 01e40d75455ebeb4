"""Fixtures that start servers on loopback as targets for the load generator."""

import ssl
from collections.abc import AsyncIterator

import pytest

from generator import Target
from tests.peers import NAME, Papers, Peers, Script, papers

__all__ = ["Site", "papers", "site"]


class Site(Peers):
    """Scriptable servers on loopback, returned as targets for a load."""

    async def serve(self, script: Script, context: ssl.SSLContext | None = None) -> Target:
        """Start a server that runs *script* for each connection, with TLS if *context* is given; return its target."""
        port = await self.start(script, context)
        return Target(NAME, port, "/", self.papers.trust, "http" if context is None else "https", "127.0.0.1")


@pytest.fixture
async def site(papers: Papers) -> AsyncIterator[Site]:
    async with Site.opened(papers) as made:
        yield made
