"""Certificate fixtures for wire format tests."""

from tests.peers import papers

__all__ = ["papers"]
