"""A measured request as data: its phases in order, and the JSON of `firstbyte trace --json`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

#: Phases in the order in which they happen.
PHASES = ("dns", "connect", "tls", "request", "first_byte", "body", "close")
#: Phases until the first byte, grouped by subject.
SHARES = {"names": ("dns",), "connections": ("connect",), "identity": ("tls",), "answer": ("request", "first_byte")}


@dataclass(slots=True)
class Hop:
    """One question to one name server, as the resolver reports it."""

    server: str
    server_name: str
    zone: str
    qname: str
    qtype: str
    rcode: str
    rtt_ms: float
    cached: bool = False
    kind: str = ""


@dataclass(slots=True)
class Phase:
    """One phase: start and duration in milliseconds."""

    name: str
    start_ms: float
    measured_ms: float
    #: None outside the lab, where nothing can be predicted.
    predicted_ms: float | None = None
    #: How often something was sent and its response waited for.
    round_trips: int = 0
    #: Bytes of this phase's protocol (DNS messages, TLS records, HTTP), without TCP and IP headers.
    bytes_sent: int = 0
    bytes_received: int = 0
    #: CPU time of the measuring thread.
    cpu_ms: float = 0.0
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def residual_ms(self) -> float | None:
        """Measured minus predicted, in milliseconds."""
        return None if self.predicted_ms is None else self.measured_ms - self.predicted_ms

    def as_json(self) -> dict[str, Any]:
        """Return the phase as in ``trace --json``."""
        fields = asdict(self)
        residual = self.residual_ms
        numbers = {"start_ms", "measured_ms", "predicted_ms", "cpu_ms"}
        body = {k: round(v, 3) if k in numbers and v is not None else v for k, v in fields.items()}
        body["residual_ms"] = None if residual is None else round(residual, 3)
        return body


@dataclass(slots=True)
class Trace:
    """One request."""

    url: str
    phases: list[Phase] = field(default_factory=list)
    #: ``HTTP/1.1 200 OK``.
    status: str = ""
    #: Start in nanoseconds since the epoch.
    began_ns: int = 0
    #: States of the client's socket: each read between two times (nanoseconds since the epoch).
    kernel_states: list[tuple[int, int, str]] = field(default_factory=list)

    def phase(self, name: str) -> Phase | None:
        """Return the phase called *name*."""
        return next((each for each in self.phases if each.name == name), None)

    @property
    def ttfb_ms(self) -> float:
        """Milliseconds until the first byte of the response."""
        return sum(p.measured_ms for p in self.phases if p.name not in {"body", "close"})

    @property
    def total_ms(self) -> float:
        """Milliseconds until the last byte of the response, without the close."""
        return sum(p.measured_ms for p in self.phases if p.name != "close")

    def shares(self) -> dict[str, float]:
        """Return the shares of names, connections, identity and the answer in the time to first byte."""
        total = self.ttfb_ms or 1.0
        return {
            what: sum(p.measured_ms for p in self.phases if p.name in names) / total for what, names in SHARES.items()
        }

    def as_json(self) -> dict[str, Any]:
        """Return the trace as JSON."""
        predicted = [p.predicted_ms for p in self.phases if p.name not in {"body", "close"}]
        known = [p for p in predicted if p is not None]
        return {
            "total_ms": round(self.total_ms, 3),
            "ttfb_ms": round(self.ttfb_ms, 3),
            "ttfb_predicted_ms": round(sum(known), 3) if len(known) == len(predicted) and known else None,
            "status": self.status,
            "shares": {what: round(share, 4) for what, share in self.shares().items()},
            "phases": [each.as_json() for each in self.phases],
        }


def summary(cold: Mapping[str, Any], warm: Mapping[str, Any] | None) -> str:
    """Return sentences that say where the time to first byte went."""
    parts = [f"{round(100 * cold['shares'][what]):d} % {what}" for what in ("names", "connections", "identity")]
    text = (
        f"Of {cold['ttfb_ms']:.0f} ms to the first byte, {parts[0]}, {parts[1]}, {parts[2]}; "
        f"the answer itself took {100 * cold['shares']['answer']:.0f} %."
    )
    if warm is not None and cold["ttfb_ms"] > 0:
        saved = cold["ttfb_ms"] - warm["ttfb_ms"]
        text += f" With warm caches and pools it is {warm['ttfb_ms']:.0f} ms: {saved:.0f} ms less."
    return text
