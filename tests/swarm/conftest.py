"""The generator's small CA and servers."""

from tests.generator.conftest import papers, site

__all__ = ["papers", "site"]
