"""A whole trace: the request cold, then warm, with predictions where the lab can be asked.

Cold: stub, resolver and the edge's pool and names are emptied first, TLS sessions forgotten.  Warm: the same request
again, so names are cached, the edge has its connection to the origin, and a TLS session is offered; the connection
to the edge is a new one each time.
"""

import base64
import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stub import Stub, StubError
from waterfall import lab
from waterfall.capture import Frames, client_pcap, frames_of
from waterfall.errors import WaterfallError
from waterfall.evidence import KEYLOG, PCAP, Evidence
from waterfall.keylog import KeyLog
from waterfall.measure import Session, measure, split
from waterfall.model import Hop, Trace, summary
from waterfall.packets import dissect
from waterfall.predict import hops_of, predict

#: Seconds that the edge may take to put a connection into its pool after the response.
SETTLE = 0.05
#: Seconds, beside half a round trip, in which the last segments arrive and are told of.
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
    """Measure *url* cold and, unless told otherwise, warm; return DESIGN's JSON.

    Args:
        url: http or https.
        session: caches, tickets and TLS settings.
        warm: whether to ask again with all that is known then.
        server: connect here instead of resolving.
        wan: admin port of the router.
        evidence: what to bring along: ``packets`` in each trace, ``pcap`` (base64) and ``keylog`` beside them.

    Raises:
        WaterfallError: the request did not get as far as a response, or frames were asked for in vain.
    """
    split(url)
    wanted = evidence or Evidence()
    links = lab.links(wan)
    resolver = session.stub.servers[0][0]
    client = _own_address(wan) if wanted.frames else ""
    with _keylog(session, wanted=wanted.keylog) as secrets:
        with frames_of(client, wan) if wanted.frames else contextlib.nullcontext(Frames()) as frames:
            edge = _become_cold(url, session, server, links, resolver)
            traces = [_one(url, session, server, links, resolver, edge)]
            if warm:
                time.sleep(SETTLE)  # what the one before left on the way arrives
                traces.append(_one(url, session, server, links, resolver, edge))
            if wanted.frames:
                time.sleep(LAST + _half_a_round_trip(traces[-1]))  # the last segments arrive
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


def _become_cold(
    url: str, session: Session, server: tuple[str, int] | None, links: lab.Links | None, resolver: str
) -> str | None:
    """Make everybody forget: ourselves, the resolver, the edge; return the edge's address, in the lab."""
    session.forget()
    edge = _address(session, url, server) if links is not None else None
    if links is not None:
        lab.forget(resolver)
        if edge is not None:
            lab.purge(edge)
        session.forget()
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


def _half_a_round_trip(measured: Trace) -> float:
    """Return the seconds that the last ACK takes to the server."""
    connect = measured.phase("connect")
    return connect.measured_ms / 2000 if connect is not None else 0.0


def _own_address(wan: str) -> str:
    """Return our address on the way to *wan*; no packet is sent."""
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
        if found:  # then it is the one that the edge chose
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
    """Return the name of the origin that the edge says it asked; empty when it says none."""
    first = measured.phase("first_byte")
    said = str(first.detail.get("server_timing", {}).get("origin", "")) if first is not None else ""
    return {said.removeprefix("http://").rpartition(":")[0]} if said else set()


def _address(session: Session, url: str, server: tuple[str, int] | None) -> str | None:
    """Return the address that *url* leads to, so that its edge can be told to forget."""
    if server is not None:
        return server[0]
    try:
        return session.stub.resolve(split(url)[1]).rdata[0]
    except (StubError, WaterfallError):  # the measured request will say what is wrong, in its own words
        return None


def _addresses(session: Session, names: list[str]) -> list[str]:
    """Return addresses of origins, from a stub of our own: the measured one must not learn them."""
    aside = Stub(session.stub.servers, timeout=1.0, attempts=1)
    found = []
    for name in names:
        try:
            found.append(aside.resolve(name).rdata[0])
        except StubError:  # no prediction, then
            continue
    return found


def new_session(
    trust: Path | None, tls: str | None, servers: list[tuple[str, int]] | None = None, *, resume: bool = True
) -> Session:
    """Return a client that was never here before."""
    return Session(Stub(servers), trust, tls, resume)
