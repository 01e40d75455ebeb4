"""Fixtures shared with the tests of the load generator: a small CA and scriptable servers."""

from tests.generator.conftest import papers, site

__all__ = ["papers", "site"]
