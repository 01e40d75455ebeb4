"""Prediction of each measured phase with `theory`, from the configured links and the resolver's log."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from theory import handshake, pool, resolution, slow_start
from waterfall.lab import Links
from waterfall.model import Hop, Trace


def hops_of(resolutions: Sequence[dict[str, Any]], name: str) -> list[Hop]:
    """Return the hops with which the resolver resolved *name*, including those for its aliases and name servers."""
    wanted = name.rstrip(".").lower() + "."
    found = next((each for each in resolutions if each["qname"] == wanted and not each["cached"]), None)
    keys = Hop.__slots__
    return [Hop(**{key: hop[key] for key in keys if key in hop}) for hop in found["hops"]] if found else []


def predict(
    trace: Trace,
    links: Links,
    *,
    client: str,
    resolver: str,
    hops: Sequence[Hop],
    upstream_hops: Sequence[Hop] = (),
    upstream_names_asked: bool = False,
    upstreams: Sequence[str] = (),
) -> None:
    """Set ``predicted_ms`` of every phase of *trace*, and add the hops to the detail of the phase ``dns``.

    Args:
        trace: the measured request.
        links: the configured links.
        client: address of the client.
        resolver: address of the resolver.
        hops: the resolver's queries for the host's name; empty if it was cached.
        upstream_hops: the resolver's queries for the origin's name, on behalf of the edge.
        upstream_names_asked: whether the edge queried the resolver for the origin's name.
        upstreams: addresses of the origins that the edge may have selected; empty if there is no edge.
    """
    dns, connect, tls = trace.phase("dns"), trace.phase("connect"), trace.phase("tls")
    if connect is None or dns is None:
        return
    server = str(connect.detail["address"]).rpartition(":")[0]
    rtt = links.rtt_ms(client, server)
    to_resolver = links.rtt_ms(client, resolver)
    dns.detail["hops"] = [asdict(hop) for hop in hops]
    hop_rtts = [links.rtt_ms(resolver, hop.server) for hop in hops]
    if dns.detail.get("cached"):
        dns.predicted_ms = 0.0
    elif to_resolver is not None and None not in hop_rtts:
        # With TCP or TLS, a new connection adds the round trips of its handshakes.
        dns.round_trips = max(1, dns.round_trips)
        setup = (dns.round_trips - 1) * to_resolver
        dns.predicted_ms = setup + resolution.cold_ms(to_resolver, [x for x in hop_rtts if x is not None])
        dns.round_trips += len(hops)
    if rtt is None:
        return
    connect.predicted_ms = handshake.connect_ms(rtt)
    if tls is not None:
        protocol: handshake.Protocol = "TLSv1.2" if tls.detail["version"] == "TLSv1.2" else "TLSv1.3"
        tls.predicted_ms = handshake.tls_ms(rtt, protocol, resumed=bool(tls.detail["resumed"]))
    request, close = trace.phase("request"), trace.phase("close")
    if request is not None:
        request.predicted_ms = 0.0
    if close is not None:  # if the server closes first, the client does not have to wait
        close.predicted_ms = handshake.close_ms() if close.detail.get("closed_by") == "server" else rtt
    first = trace.phase("first_byte")
    if first is not None:
        behind = _behind(
            links,
            server,
            resolver,
            upstream_hops,
            upstream_names_asked,
            upstreams,
            first.detail.get("server_timing", {}),
        )
        if behind is not None:
            first.predicted_ms = rtt + behind
    body = trace.phase("body")
    if body is not None:
        delivered = int(body.bytes_received) + (first.bytes_received if first is not None else 0)
        body.predicted_ms = slow_start.transfer_ms(delivered, rtt)


def _behind(
    links: Links,
    edge: str,
    resolver: str,
    hops: Sequence[Hop],
    names_asked: bool,
    upstreams: Sequence[str],
    timing: dict[str, Any],
) -> float | None:
    """Return the predicted time that the edge needs to obtain the response from the origin, in milliseconds.

    It consists of resolving the origin's name, connecting if no connection is pooled, and the request.  Return None if
    the time cannot be predicted.
    """
    if not timing or not upstreams:
        return 0.0
    rtts = {links.rtt_ms(edge, upstream) for upstream in upstreams}
    rtt = rtts.pop()
    if rtts or rtt is None:  # the origin is unknown, and the candidates differ in distance
        return None
    if timing.get("connection") == "reused":
        return pool.pooled_request_ms(rtt, 0.0)
    names = 0.0
    if names_asked:
        to_resolver = links.rtt_ms(edge, resolver)
        hop_rtts = [links.rtt_ms(resolver, hop.server) for hop in hops]
        if to_resolver is None or None in hop_rtts:
            return None
        names = resolution.cold_ms(to_resolver, [x for x in hop_rtts if x is not None])
    return names + pool.fresh_request_ms(rtt, 0.0)
