"""The generator's small CA and servers, and a name server that knows one name."""

from tests.generator.conftest import papers, site

__all__ = ["papers", "site"]
