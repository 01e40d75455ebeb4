"""Query the authoritative name servers of a name directly, so that no resolver can return an outdated cached answer."""

import asyncio

from stub.errors import NoAddress, NoSuchName, StubError
from stub.message import Answer
from stub.resolve import DNS_PORT, AsyncStub

#: Maximum length of a CNAME chain.
MAX_ALIASES = 8
#: Time-out of a query to a name server, in seconds, and the number of attempts.
TIMEOUT, ATTEMPTS = 1.0, 2


async def ask_name_servers(
    stub: AsyncStub, name: str, rdtype: str, port: int = DNS_PORT
) -> dict[str, Answer | StubError]:
    """Query each name server of the zone that contains *name* for the records of type *rdtype* at *name*.

    Args:
        stub: resolver used to find CNAME records, the zone's name servers, and their addresses.
        name: domain name; if it has a CNAME record, the target is queried, even in another zone.
        rdtype: record type, for example ``TXT``.
        port: UDP and TCP port of the name servers; only tests use a port other than 53.

    Returns:
        The answer or the error of each name server, keyed by its IPv4 address.

    Raises:
        StubError: the name servers cannot be found.
    """
    name = await _target(stub, name)
    addresses = await _addresses(stub, (await zone_of(stub, name))[1], name, rdtype)
    stubs = [AsyncStub([(address, port)], TIMEOUT, ATTEMPTS) for address in addresses]
    answers = await asyncio.gather(*(each.resolve(name, rdtype) for each in stubs), return_exceptions=True)
    found: dict[str, Answer | StubError] = {}
    for address, answer in zip(addresses, answers, strict=True):
        if not isinstance(answer, Answer | StubError):
            raise answer
        found[address] = answer
    return found


async def zone_of(stub: AsyncStub, name: str) -> tuple[str, tuple[str, ...]]:
    """Return the closest zone that contains *name*, and the names of its name servers; raise `StubError` on failure."""
    labels = name.rstrip(".").lower().split(".")
    for depth in range(len(labels)):
        zone = ".".join(labels[depth:])
        try:
            answer = await stub.resolve(zone, "NS")
        except (NoSuchName, NoAddress):
            continue
        if answer.canonical_name.rstrip(".").lower() == zone:  # otherwise *zone* has a CNAME record
            return zone, answer.rdata
    raise NoSuchName(name, "NS", f"{name}: no zone contains it")


async def _target(stub: AsyncStub, name: str) -> str:
    """Return the last name of the CNAME chain that starts at *name*; raise `StubError` if the chain is too long."""
    for _ in range(MAX_ALIASES):
        stub.flush(name)
        try:
            name = (await stub.resolve(name, "CNAME")).rdata[0]
        except (NoSuchName, NoAddress):
            return name
    raise NoAddress(name, "CNAME", f"{name}: expected at most {MAX_ALIASES} CNAMEs")


async def _addresses(stub: AsyncStub, servers: tuple[str, ...], name: str, rdtype: str) -> list[str]:
    found = await asyncio.gather(*(stub.resolve(each) for each in servers), return_exceptions=True)
    addresses = {address for each in found if isinstance(each, Answer) for address in each.rdata}
    if not addresses:
        raise NoAddress(name, rdtype, f"{name}: none of {', '.join(servers)} has an address")
    return sorted(addresses)
