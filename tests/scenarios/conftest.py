"""Fixtures for the tests of scenarios."""

from tests.peers import papers, peers

__all__ = ["papers", "peers"]
