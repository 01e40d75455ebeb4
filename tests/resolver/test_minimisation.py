"""Tests for QNAME minimisation (RFC 9156): the queries that each server receives, and their limits."""

import dns.message
import dns.rcode
import dns.rrset
import pytest

from dnsmessage import Message, Name, Record, rdtypes
from dnsmessage.message import AA
from resolver import Ask, Cache, Outcome, Resolution
from resolver.resolution import MAX_MINIMISED, MAX_SERVER_LOOKUPS, MINIMISED_TIMEOUTS
from resolver.server import Server
from telemetry import Telemetry
from tests.resolver.conftest import COM, EXAMPLE, ROOT, Internet
from tests.resolver.test_resolver import HINTS, ask, lines

VICTIM = EXAMPLE


@pytest.fixture
def server(internet: Internet) -> Server:
    return Server(Telemetry("resolver"), HINTS, port=internet.port)


def hops(server: Server) -> list[str]:
    return [f"{hop.zone} {hop.qname} {hop.qtype} {hop.kind}" for hop in server.trails[-1].hops]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        pytest.param(
            "www.example.com. MX",
            [". com. A referral", "com. example.com. A referral", "example.com. www.example.com. MX nodata"],
            id="only-the-last-server-sees-name-and-type",
        ),
        pytest.param(
            "a.b.www.example.com. TXT",
            [
                ". com. A referral", "com. example.com. A referral", "example.com. www.example.com. A no_cut",
                "example.com. b.www.example.com. A nxdomain", "example.com. a.b.www.example.com. TXT nxdomain",
            ],
            id="labels-without-a-zone-cut",
        ),
        pytest.param(
            "_25._tcp.www.example.com. TLSA",
            [
                ". com. A referral", "com. example.com. A referral", "example.com. www.example.com. A no_cut",
                "example.com. _25._tcp.www.example.com. TLSA nxdomain",
            ],
            id="underscore-labels-are-shown-at-once",
        ),
        pytest.param(
            "below.alias.example.com. A",
            [
                ". com. A referral", "com. example.com. A referral", "example.com. alias.example.com. A no_cut",
                "example.com. below.alias.example.com. A nxdomain",
            ],
            id="an-alias-of-an-ancestor-is-not-followed",
        ),
    ],
)  # fmt: skip
async def test_a_server_sees_no_more_of_a_name_than_it_needs(
    server: Server, question: str, expected: list[str]
) -> None:
    await ask(server, *question.split())
    assert hops(server) == expected


async def test_what_is_cached_of_an_ancestor_is_not_asked_again(server: Server, internet: Internet) -> None:
    await ask(server, "a.www.example.com.")
    before = len(internet.asked)
    await ask(server, "b.www.example.com.")
    assert hops(server) == ["example.com. b.www.example.com. A nxdomain"]
    assert len(internet.asked) == before + 1


async def test_without_minimisation_every_server_sees_the_whole_question(internet: Internet) -> None:
    server = Server(Telemetry("resolver"), HINTS, port=internet.port, minimise=False)
    await ask(server, "www.example.com.", "MX")
    assert {(hop.qname, hop.qtype) for hop in server.trails[-1].hops} == {("www.example.com.", "MX")}


@pytest.mark.parametrize("rcode", ["NXDOMAIN", "REFUSED", "SERVFAIL", "FORMERR"])
async def test_a_server_that_fails_on_minimised_names_is_sent_the_whole_name(
    server: Server, internet: Internet, rcode: str
) -> None:
    def odd(wire: bytes, transport: str) -> bytes:
        query = dns.message.from_wire(wire)
        made = dns.message.make_response(query)
        made.flags |= dns.flags.AA
        name = query.question[0].name
        if len(name.labels) > 4:
            made.answer.append(dns.rrset.from_text(name, 30, "IN", "A", "192.0.2.1"))
        else:
            made.set_rcode(dns.rcode.from_text(rcode))
        return made.to_wire()

    internet.override[EXAMPLE] = odd
    assert lines(await ask(server, "a.deep.example.com.")) == ["a.deep.example.com. 30 IN A 192.0.2.1"]


def resolution_of(name: str) -> Resolution:
    return Resolution(Name.from_text(name), rdtypes.MX, Cache(), {Name.from_text("ns.root."): "192.0.2.1"})


def test_a_name_of_a_hundred_labels_takes_ten_queries() -> None:
    resolution = resolution_of("a." * 100)
    sizes = []
    while isinstance(step := resolution.step(0.0), Ask) and step.minimised:
        sizes.append(len(step.qname.labels))
        assert resolution.receive(Message(0, AA, (Record(step.qname, rdtypes.A, 60, bytes(4)),)), step, 0.0) is (
            Outcome.NO_CUT
        )
    assert len(sizes) + 1 == MAX_MINIMISED
    assert sizes[:4] == [1, 2, 3, 4]
    steps = [after - before for before, after in zip(sizes[4:], [*sizes[5:], 100], strict=True)]
    assert max(steps) - min(steps) <= 1, "the rest of the labels is spread evenly"


def test_after_three_time_outs_the_whole_name_is_sent() -> None:
    resolution = resolution_of("a.b.c.")
    seen = []
    for _ in range(MINIMISED_TIMEOUTS + 1):
        step = resolution.step(0.0)
        assert isinstance(step, Ask)
        seen.append(str(step.qname))
        resolution.fail(step)
    assert seen == ["c."] * MINIMISED_TIMEOUTS + ["a.b.c."]


@pytest.mark.parametrize("rcode", ["NXDOMAIN", "NOERROR"])
async def test_a_malicious_referral_costs_its_victim_at_most_ten_queries(
    server: Server, internet: Internet, rcode: str
) -> None:
    def victim(wire: bytes, transport: str) -> bytes:
        made = dns.message.make_response(dns.message.from_wire(wire))
        made.flags |= dns.flags.AA
        made.set_rcode(dns.rcode.from_text(rcode))
        return made.to_wire()

    def attacker(wire: bytes, transport: str) -> bytes:
        query = dns.message.from_wire(wire)
        if query.question[0].name.to_text().lower().endswith("example.com."):
            response = internet.responders[COM].respond(wire, udp=True)
            assert response is not None
            return response.wire
        made = dns.message.make_response(query)
        targets = (f"a.b.c{i}.d{i}.example.com." for i in range(100))
        made.authority.append(dns.rrset.from_text("evil.com.", 60, "IN", "NS", *targets))
        return made.to_wire(max_size=65_535)

    internet.override[VICTIM], internet.override[COM] = victim, attacker
    assert (await ask(server, "www.evil.com.")).rcode() == dns.rcode.SERVFAIL
    count = [address for address, _ in internet.asked].count(VICTIM)
    assert count == (MAX_SERVER_LOOKUPS if rcode == "NXDOMAIN" else 2 * MAX_SERVER_LOOKUPS)
    assert ROOT in {address for address, _ in internet.asked}
