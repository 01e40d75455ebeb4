"""Data model of a measured request: its phases in order, and their JSON for `firstbyte trace --json`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

#: Names of the phases, in chronological order.
PHASES = ("dns", "connect", "tls", "request", "first_byte", "body", "close")
#: Phases up to the first byte, keyed by the subject under which reports list them.
SHARES = {"names": ("dns",), "connections": ("connect",), "identity": ("tls",), "answer": ("request", "first_byte")}


@dataclass(slots=True)
class Hop:
    """One query to one name server, from the resolver's log."""

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
    """One phase of a request; start and duration are in milliseconds."""

    name: str
    start_ms: float
    measured_ms: float
    #: Predicted duration in milliseconds; None if there is no prediction, as outside the lab.
    predicted_ms: float | None = None
    #: Number of times that the client sent something and waited for the response.
    round_trips: int = 0
    #: Bytes sent in this phase's protocol (DNS messages, TLS records or HTTP), without TCP and IP headers.
    bytes_sent: int = 0
    #: Bytes received in this phase's protocol, without TCP and IP headers.
    bytes_received: int = 0
    #: CPU time of the measuring thread, in milliseconds.
    cpu_ms: float = 0.0
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def residual_ms(self) -> float | None:
        """The residual, measured minus predicted, in milliseconds."""
        return None if self.predicted_ms is None else self.measured_ms - self.predicted_ms

    def as_json(self) -> dict[str, Any]:
        """Return the phase in the JSON format of ``firstbyte trace --json``."""
        fields = asdict(self)
        residual = self.residual_ms
        numbers = {"start_ms", "measured_ms", "predicted_ms", "cpu_ms"}
        body = {k: round(v, 3) if k in numbers and v is not None else v for k, v in fields.items()}
        body["residual_ms"] = None if residual is None else round(residual, 3)
        return body


@dataclass(slots=True)
class Trace:
    """A traced request with its phases."""

    url: str
    phases: list[Phase] = field(default_factory=list)
    #: Status line of the response, for example ``HTTP/1.1 200 OK``.
    status: str = ""
    #: Start of the request, in nanoseconds since the epoch.
    began_ns: int = 0
    #: TCP states of the client's socket: (time before reading, time after reading, state); nanoseconds since the epoch.
    kernel_states: list[tuple[int, int, str]] = field(default_factory=list)

    def phase(self, name: str) -> Phase | None:
        """Return the phase with this name, or None."""
        return next((each for each in self.phases if each.name == name), None)

    @property
    def ttfb_ms(self) -> float:
        """Time to first byte of the response, in milliseconds."""
        return sum(p.measured_ms for p in self.phases if p.name not in {"body", "close"})

    @property
    def total_ms(self) -> float:
        """Time to the last byte of the response, in milliseconds; excludes closing the connection."""
        return sum(p.measured_ms for p in self.phases if p.name != "close")

    def shares(self) -> dict[str, float]:
        """Return the fractions of the time to first byte, keyed by subject: names, connections, identity and answer."""
        total = self.ttfb_ms or 1.0
        return {
            what: sum(p.measured_ms for p in self.phases if p.name in names) / total for what, names in SHARES.items()
        }

    def as_json(self) -> dict[str, Any]:
        """Return the trace in the JSON format of ``firstbyte trace --json``."""
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
    """Return a text summary of what the time to first byte consists of."""
    parts = [f"{round(100 * cold['shares'][what]):d} % {what}" for what in ("names", "connections", "identity")]
    text = (
        f"Of {cold['ttfb_ms']:.0f} ms to the first byte, {parts[0]}, {parts[1]}, {parts[2]}; "
        f"the answer itself took {100 * cold['shares']['answer']:.0f} %."
    )
    if warm is not None and cold["ttfb_ms"] > 0:
        saved = cold["ttfb_ms"] - warm["ttfb_ms"]
        text += f" With warm caches and pools it is {warm['ttfb_ms']:.0f} ms: {saved:.0f} ms less."
    return text
