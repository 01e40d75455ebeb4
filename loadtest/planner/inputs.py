"""Inputs of a plan, with units and bounds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from planner.quantities import Kind, Range, parse
from theory.handshake import Protocol

Tls = Literal["1.3", "1.2", "none"]
Key = Literal["ecdsa", "rsa"]


class InputsError(Exception):
    """An input is invalid, or two inputs contradict each other; the message names the inputs and the reason."""


@dataclass(frozen=True, slots=True)
class Input:
    """Description of one numeric input."""

    name: str
    kind: Kind
    default: str
    #: Smallest accepted value.
    low: float
    #: Largest accepted value.
    high: float
    about: str


#: All numeric inputs.  The name of the command-line option has hyphens in place of underscores.
INPUTS = (
    Input("rps", "rate", "1000", 0.001, 1e9, "requests per second to the service"),
    Input("clients", "count", "100k", 1, 1e10, "clients that send the requests, all at the same mean rate"),
    Input("rtt", "duration", "30ms", 0, 60, "round-trip time between client and edge"),
    Input("ttl", "duration", "60s", 0, 604_800, "time to live of the service's address records"),
    Input("resolvers", "count", "1000", 1, 1e9, "resolvers (shared caches) that the clients use"),
    Input("change_after", "duration", "30s", 0, 604_800, "time since an address change, for the share of old answers"),
    Input("outage", "duration", "5min", 0, 604_800, "duration of an outage of all name servers of the zone"),
    Input("keepalive", "share", "0.9", 0, 1, "share of requests on an already open client connection"),
    Input("backhaul", "duration", "1ms", 0, 60, "round-trip time between edge and origin"),
    Input("hold", "duration", "25ms", 1e-6, 3600, "time that an origin takes for a request"),
    Input("pool_wait", "duration", "1ms", 1e-6, 60, "acceptable wait for a pooled connection"),
    Input("idle_timeout", "duration", "60s", 0.1, 86_400, "time after which an origin closes an idle connection"),
    Input("sources", "count", "1", 1, 65_536, "source addresses that the edge connects from"),
    Input("destinations", "count", "1", 1, 1e6, "origin addresses times ports that the edge connects to"),
    Input("ports", "count", "28232", 1, 65_535, "source ports per source address (net.ipv4.ip_local_port_range)"),
    Input("resumed", "share", "0.5", 0, 1, "share of new connections that resume a TLS session"),
    Input("response", "bytes", "50kB", 1, 1e12, "mean size of a response"),
    Input("certificates", "count", "100", 1, 1e10, "certificates that are renewed"),
    Input("lifetime", "duration", "47d", 60, 3.5e8, "lifetime of a certificate"),
    Input("renew_at", "share", "0.67", 0.01, 1, "share of the lifetime after which a certificate is renewed"),
    Input("ca_outage", "duration", "1d", 0, 3.5e8, "duration of an outage of the CA"),
    Input("spread", "duration", "1h", 1, 3.5e8, "time over which clients spread their retries after that outage"),
)


@dataclass(frozen=True, slots=True)
class Inputs:
    """One value for each input: durations in seconds, sizes in bytes, shares from 0 to 1."""

    rps: float
    clients: float
    rtt: float
    ttl: float
    resolvers: float
    change_after: float
    outage: float
    keepalive: float
    backhaul: float
    hold: float
    pool_wait: float
    idle_timeout: float
    sources: float
    destinations: float
    ports: float
    resumed: float
    response: float
    certificates: float
    lifetime: float
    renew_at: float
    ca_outage: float
    spread: float
    tls: Tls = "1.3"
    key: Key = "ecdsa"
    #: Connections in the pool; None to plan the size.
    pool: int | None = None

    @property
    def protocol(self) -> Protocol:
        """Name of the protocol in `theory.handshake`."""
        return "plain" if self.tls == "none" else "TLSv1.3" if self.tls == "1.3" else "TLSv1.2"

    @property
    def opened(self) -> float:
        """New client connections per second."""
        return self.rps * (1 - self.keepalive)

    @property
    def in_use(self) -> float:
        """Mean number of connections to origins in use (Little's law)."""
        return self.rps * (self.backhaul + self.hold)


def read(given: Mapping[str, str]) -> dict[str, Range]:
    """Parse the *given* texts, which are keyed by input name, and add the defaults.

    Raises:
        InputsError: a text is not a quantity of the expected kind, or a value is out of bounds.
    """
    found = {}
    for each in INPUTS:
        try:
            value = parse(given.get(each.name) or each.default, each.kind)
        except ValueError as error:
            raise InputsError(f"{option(each.name)}: {error}") from None
        if value.low < each.low or value.high > each.high:
            limits = f"{each.low:g} to {each.high:g}{' seconds' if each.kind == 'duration' else ''}"
            raise InputsError(f"{option(each.name)}: expected {limits}, got {given[each.name]!r}")
        if each.kind == "count" and any(end % 1 for end in value.ends):
            raise InputsError(f"{option(each.name)}: expected a whole number, got {given[each.name]!r}")
        found[each.name] = value
    return found


def contradiction(inputs: Inputs, given: Mapping[str, object]) -> str | None:
    """Return one sentence that explains how *inputs* contradict each other, or None.

    Args:
        inputs: one value for each input.
        given: names of the inputs that the user set; the sentence mentions only these.
    """
    if inputs.tls == "none":
        for name in ("key", "resumed"):
            if name in given:
                return f"{option(name)} has no meaning with --tls none: there is no handshake"
    if inputs.pool is not None and inputs.pool <= inputs.in_use:
        return (
            f"--pool {inputs.pool} cannot carry --rps {inputs.rps:g}: {inputs.in_use:.4g} connections are in use on "
            f"average, because each request holds one for {inputs.backhaul + inputs.hold:g} s"
        )
    if inputs.clients < inputs.resolvers and "resolvers" in given:
        return f"--resolvers {inputs.resolvers:.0f}: expected at most one for each of --clients {inputs.clients:.0f}"
    if inputs.backhaul >= inputs.idle_timeout:
        return (
            f"--idle-timeout {inputs.idle_timeout:g} s is not above --backhaul {inputs.backhaul:g} s: "
            "the FIN of every response would arrive before the next request could be sent"
        )
    if inputs.ca_outage and inputs.spread > inputs.lifetime:
        return (
            f"--spread {inputs.spread:g} s: expected less than --lifetime {inputs.lifetime:g} s, or certificates expire"
        )
    return None


def option(name: str) -> str:
    """Return the command-line option of the input *name*."""
    return "--" + name.replace("_", "-")
