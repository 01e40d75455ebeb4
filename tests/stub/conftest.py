from tests.peers import papers

__all__ = ["papers"]
