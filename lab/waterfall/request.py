"""A complete trace: a cold request, then a warm one, with predictions inside the lab.

Before the cold request, all caches are emptied: the stub resolver's, the resolver's, the edge's names and connection
pool, and the client's TLS sessions.  The warm request benefits from cached names, a pooled connection at the edge and
TLS session resumption, but opens a new connection to the edge.
"""

import base64
import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stub import TCP, Stub, StubError, https, strict
from stub.transport import PORTS, Kind
from waterfall import lab
from waterfall.capture import Frames, client_pcap, frames_of
from waterfall.errors import WaterfallError
from waterfall.evidence import KEYLOG, PCAP, Evidence
from waterfall.keylog import KeyLog
from waterfall.measure import Session, measure, split
from waterfall.model import Hop, Trace, summary
from waterfall.packets import dissect
from waterfall.predict import hops_of, predict

#: Time that the edge needs after a response to return the connection to its pool, in seconds.
SETTLE = 0.05
#: How long to wait, in addition to half a round trip, until the last segments have been captured, in seconds.
LAST = 0.3


def trace(
    url: str,
    session: Session,
    *,
    warm: bool = True,
    server: tuple[str, int] | None = None,
    wan: str = lab.WAN,
    evidence: Evidence | None = None,
) -> dict[str, Any]:
    """Measure a cold request to *url* and, by default, a warm one; return the JSON of ``trace --json``.

    Args:
        url: http or https URL.
        session: client state: cached names, TLS sessions and TLS settings.
        warm: whether to repeat the request with warm caches.
        server: address to connect to instead of resolving the host.
        wan: URL of the router's admin port.
        evidence: additional output: ``packets`` in each trace; ``pcap`` (base64) and ``keylog`` at the top level.

    Raises:
        WaterfallError: the request failed, or frames were requested but cannot be captured.
    """
    split(url)
    wanted = evidence or Evidence()
    links = lab.links(wan)
    resolver = session.stub.servers[0][0]
    client = _own_address(wan) if wanted.frames else ""
    with _keylog(session, wanted=wanted.keylog) as secrets:
        with frames_of(client, wan) if wanted.frames else contextlib.nullcontext(Frames()) as frames:
            edge = _clear_caches(url, session, server, links, resolver)
            traces = [_one(url, session, server, links, resolver, edge)]
            if warm:
                time.sleep(SETTLE)  # waits until the edge has returned its connection to the pool
                traces.append(_one(url, session, server, links, resolver, edge))
            if wanted.frames:
                time.sleep(LAST + _half_round_trip(traces[-1]))  # waits until the last segments have been captured
        secret = secrets.text() if secrets is not None else ""
    bodies = [each.as_json() for each in traces]
    if wanted.packets:
        for each, measured in zip(bodies, traces, strict=True):
            each["packets"] = _packets(measured, frames)
    body: dict[str, Any] = {"url": url, "time": traces[0].began_ns / 1e9, "tls": session.tls}
    body |= {"cold": bodies[0], "warm": bodies[1] if warm else None}
    body["summary"] = summary(body["cold"], body["warm"])
    if wanted.pcap:
        asking = [(each.began_ns, each.began_ns + round(each.phases[0].measured_ms * 1e6)) for each in traces]
        body[PCAP] = base64.b64encode(client_pcap(frames.recording, client, asking)).decode()
    if wanted.keylog:
        body[KEYLOG] = secret
    return body


def _clear_caches(
    url: str, session: Session, server: tuple[str, int] | None, links: lab.Links | None, resolver: str
) -> str | None:
    """Empty the caches of client, resolver and edge; return the edge's address, or None outside the lab."""
    session.reset()
    edge = _address(session, url, server) if links is not None else None
    if links is not None:
        lab.flush(resolver)
        if edge is not None:
            lab.purge(edge)
        session.reset()
    return edge


@contextlib.contextmanager
def _keylog(session: Session, *, wanted: bool) -> Iterator[KeyLog | None]:
    if not wanted:
        yield None
        return
    with KeyLog() as secrets:
        session.keylog = secrets
        yield secrets


def _packets(measured: Trace, frames: Frames) -> dict[str, Any] | None:
    connect = measured.phase("connect")
    if connect is None:
        return None
    ends = [str(connect.detail[key]).rpartition(":") for key in ("local", "address")]
    client, server = [(address, int(port)) for address, _, port in ends]
    return dissect(
        frames.recording,
        client,
        server,
        began_ns=measured.began_ns,
        first_byte_ms=measured.ttfb_ms,
        kernel_states=measured.kernel_states,
        tls=measured.phase("tls") is not None,
    )


def _half_round_trip(measured: Trace) -> float:
    """Return half of the measured round-trip time in seconds, which the last ACK needs to reach the server."""
    connect = measured.phase("connect")
    return connect.measured_ms / 2000 if connect is not None else 0.0


def _own_address(wan: str) -> str:
    """Return this host's address on the route to *wan*, without sending a packet; "" if there is no route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((urlsplit(wan).hostname or "", 9))
        except OSError:
            return ""
        return str(sock.getsockname()[0])


def _one(
    url: str, session: Session, server: tuple[str, int] | None, links: lab.Links | None, resolver: str, edge: str | None
) -> Trace:
    began = time.time()
    measured = measure(url, session, server)
    if links is None:
        return measured
    resolved = lab.resolutions(resolver, began - 0.001)
    connect = measured.phase("connect")
    hops = hops_of(resolved, split(url)[1])
    upstreams: list[str] = []
    upstream_hops: list[Hop] = []
    asked = False
    if edge is not None and connect is not None:
        names = _origin(measured) or set(lab.upstream_names(edge))
        found = [each for each in resolved if each["qname"].rstrip(".") in names and not each["cached"]]
        if found:  # the edge queried the resolver for the origin that it selected
            asked, upstream_hops = True, hops_of(found, found[0]["qname"])
            names = {found[0]["qname"].rstrip(".")}
        upstreams = _addresses(session, sorted(names))
    if connect is not None:
        client = str(connect.detail["local"]).rpartition(":")[0]
        predict(
            measured,
            links,
            client=client,
            resolver=resolver,
            hops=hops,
            upstream_hops=upstream_hops,
            upstream_names_asked=asked,
            upstreams=upstreams,
        )
    return measured


def _origin(measured: Trace) -> set[str]:
    """Return a set with the origin's name that the edge reported; empty if it reported none."""
    first = measured.phase("first_byte")
    said = str(first.detail.get("server_timing", {}).get("origin", "")) if first is not None else ""
    return {said.removeprefix("http://").rpartition(":")[0]} if said else set()


def _address(session: Session, url: str, server: tuple[str, int] | None) -> str | None:
    """Return the address of the URL's host, whose caches are to be emptied, or None if it cannot be resolved."""
    if server is not None:
        return server[0]
    try:
        return session.stub.resolve(split(url)[1]).rdata[0]
    except (StubError, WaterfallError):  # the measured request will report the error
        return None


def _addresses(session: Session, names: list[str]) -> list[str]:
    """Resolve origin names with a separate stub, so that they are not cached in the stub that is measured."""
    separate = Stub(session.stub.servers, timeout=1.0, attempts=1)
    found = []
    for name in names:
        try:
            found.append(separate.resolve(name).rdata[0])
        except StubError:  # skip the name: without an address, there is no prediction
            continue
    return found


def new_session(
    trust: Path | None,
    tls: str | None,
    servers: list[tuple[str, int]] | None = None,
    *,
    resume: bool = True,
    dns: Kind = "udp",
) -> Session:
    """Return a client session with nothing cached."""
    stub = Stub(servers)
    if dns == "tcp":
        stub.transport = TCP
    elif dns != "udp":
        stub.transport = (strict if dns == "tls" else https)(lab.RESOLVER_NAME, trust)
        stub.servers = [(host, PORTS[dns]) for host, _ in stub.servers]
    return Session(stub, trust, tls, resume)
