"""An in-memory lab for tests: stores the settings of links, faults and clocks; hosts can be made unresponsive."""

from typing import Any


class GoneError(OSError):
    """A host of the in-memory lab is unresponsive."""


class MemoryLab:
    def __init__(self) -> None:
        self.links: dict[str, Any] = {}
        self.faults: dict[tuple[str, str], Any] = {}
        self.clocks: dict[str, float] = {}
        self.gone: set[str] = set()

    @property
    def untouched(self) -> bool:
        return not self.links and not self.faults and not any(self.clocks.values())

    def call(self, host: str, method: str, path: str, body: Any = None, *, timeout: float = 15.0) -> Any:
        if host in self.gone:
            raise GoneError(f"{host} does not answer")
        match method, path.strip("/").split("/"):
            case "GET", ["admin", "links"]:
                return {"links": [], "regions": {}}
            case "PUT", ["admin", "links", a, b]:
                self.links[f"{a}:{b}"] = body
            case "DELETE", ["admin", "links", a, b]:
                self.links.pop(f"{a}:{b}", None)
            case "GET", ["admin", "faults"]:
                return {name: {"on": True} for at, name in self.faults if at == host}
            case "POST", ["admin", "faults", name]:
                self.faults[host, name] = body
            case "DELETE", ["admin", "faults", name]:
                self.faults.pop((host, name), None)
            case "PUT", ["admin", "clock"]:
                self.clocks[host] = body["offset_s"]
            case _, ["admin", "recorder"]:
                return {"time": [], "columns": {}, "sockets": [], "cpu_s": 0.0}
            case _:
                raise AssertionError(f"unexpected {method} {path} to {host}")
        return {}
