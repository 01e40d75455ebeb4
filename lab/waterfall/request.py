"""A whole trace: the request cold, then warm, with predictions where the lab can be asked.

Cold: stub, resolver and the edge's pool and names are emptied first, TLS sessions forgotten.  Warm: the same request
again, so names are cached, the edge has its connection to the origin, and a TLS session is offered; the connection
to the edge is a new one each time.
"""

import time
from pathlib import Path
from typing import Any

from stub import Stub, StubError
from waterfall import lab
from waterfall.errors import WaterfallError
from waterfall.measure import Session, measure, split
from waterfall.model import Trace, summary
from waterfall.predict import hops_of, predict

#: Seconds that the edge may take to put a connection into its pool after the response.
SETTLE = 0.05


def trace(
    url: str,
    session: Session,
    *,
    warm: bool = True,
    server: tuple[str, int] | None = None,
    wan: str = lab.WAN,
) -> dict[str, Any]:
    """Measure *url* cold and, unless told otherwise, warm; return DESIGN's JSON.

    Raises:
        WaterfallError: the request did not get as far as a response.
    """
    links = lab.links(wan)
    resolver = session.stub.servers[0][0]
    session.forget()
    edge = _address(session, url, server) if links is not None else None
    if links is not None:
        lab.forget(resolver)
        if edge is not None:
            lab.purge(edge)
        session.forget()
    cold = _one(url, session, server, links, resolver, edge)
    again = None
    if warm:
        time.sleep(SETTLE)
        again = _one(url, session, server, links, resolver, edge)
    body: dict[str, Any] = {"url": url, "time": time.time(), "tls": session.tls, "cold": cold.as_json()}
    body["warm"] = again.as_json() if again is not None else None
    body["summary"] = summary(body["cold"], body["warm"])
    return body


def _one(
    url: str, session: Session, server: tuple[str, int] | None, links: lab.Links | None, resolver: str, edge: str | None
) -> Trace:
    began = time.time()
    measured = measure(url, session, server)
    if links is None:
        return measured
    resolved = lab.resolutions(resolver, began - 0.001)
    connect = measured.phase("connect")
    host = url.partition("://")[2].partition("/")[0].partition(":")[0]
    hops = hops_of(resolved, host)
    upstream, upstream_hops, asked = None, [], False
    if edge is not None and connect is not None:
        names = set(lab.upstream_names(edge))
        found = [each for each in resolved if each["qname"].rstrip(".") in names and not each["cached"]]
        if found:
            asked, upstream_hops = True, hops_of(found, found[0]["qname"])
        if names:
            upstream = next((each for each in _addresses(session, sorted(names))), None)
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
            upstream=upstream,
        )
    return measured


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
    for name in names[:1]:
        try:
            found.append(aside.resolve(name).rdata[0])
        except StubError:  # no prediction, then
            continue
    return found


def new_session(trust: Path | None, tls: str | None, servers: list[tuple[str, int]] | None = None) -> Session:
    """Return a client that was never here before."""
    return Session(Stub(servers), trust, tls)
