"""Tests for the complete resolver against real name servers on loopback, including misbehaving ones."""

import asyncio
import errno
import resource
import struct
from collections.abc import Awaitable

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import pytest

from dnsmessage import Name
from resolver import Outcome
from resolver.server import MAX_RESOLUTIONS, Server
from resolver.servers import COOLDOWN, EJECT_AFTER
from telemetry import Request, Telemetry
from tests.resolver.conftest import COM, EXAMPLE, OTHER, ROOT, Internet

#: A loopback address without a name server.
UNUSED = "127.0.1.9"
HINTS = {Name.from_text("a.root."): ROOT}


@pytest.fixture
def server(internet: Internet) -> Server:
    return Server(Telemetry("resolver"), HINTS, port=internet.port)


async def ask(server: Server, qname: str, qtype: str = "A", transport="udp", **options) -> dns.message.Message:
    query = dns.message.make_query(qname, qtype, **options)
    reply = server.handle(query.to_wire(), ("127.0.0.1", 1), transport)
    if isinstance(reply, Awaitable):
        reply = await reply
    assert isinstance(reply, (bytes, bytearray))
    message = dns.message.from_wire(bytes(reply))
    assert query.is_response(message)
    return message


def lines(message: dns.message.Message) -> list[str]:
    return [line for rrset in message.answer for line in rrset.to_text().splitlines()]


async def test_a_name_is_resolved_from_the_root_down_and_then_from_the_cache(
    server: Server, internet: Internet
) -> None:
    first = await ask(server, "www.example.com.")
    assert lines(first) == ["www.example.com. 30 IN A 192.0.2.1"]
    assert first.flags & dns.flags.RA
    assert [a for a, _ in internet.asked] == [ROOT, COM, EXAMPLE]
    await ask(server, "WWW.example.com.")
    await ask(server, "other.example.com.")
    assert [a for a, _ in internet.asked] == [ROOT, COM, EXAMPLE, EXAMPLE]
    hops = server.trails[0].hops
    assert [(h.zone, h.server_name, h.kind, h.rcode) for h in hops] == [
        (".", "a.root.", "referral", "NOERROR"),
        ("com.", "ns.com.", "referral", "NOERROR"),
        ("example.com.", "ns.example.com.", "answer", "NOERROR"),
    ]
    assert server.trails[1].cached


async def test_the_query_log_has_the_outcome_and_the_time_of_each_query(server: Server) -> None:
    listener = await server.start(("127.0.0.1", 0))
    try:
        for name, qtype in [("www.example.com.", "A")] * 3 + [("none.example.com.", "A"), ("www.example.com.", "AXFR")]:
            query = dns.message.make_query(name, qtype)
            await dns.asyncquery.udp(query, "127.0.0.1", port=listener.address[1], timeout=5)
    finally:
        await listener.close()
    found = server.queries.page(Request("GET", "/admin/queries", {"after": "0"}, {}, {}, b""))
    assert isinstance(found, dict)
    rows = found["queries"]
    assert [(row["qname"], row["qtype"], row["rcode"], row["upstream"]) for row in rows] == [
        ("www.example.com.", "A", "NOERROR", True), ("www.example.com.", "A", "NOERROR", False),
        ("www.example.com.", "A", "NOERROR", False), ("none.example.com.", "A", "NXDOMAIN", True),
        ("www.example.com.", "AXFR", "REFUSED", False),
    ]  # fmt: skip
    assert rows[0]["took_ms"] > rows[2]["took_ms"] == 0.0, "the third answer was sent without the handler"
    assert {row["client"] for row in rows} == {"127.0.0.1"}


@pytest.mark.parametrize(
    ("question", "rcode", "answer"),
    [
        (
            "alias.example.com. A", "NOERROR",
            ["alias.example.com. 20 IN CNAME www.example.com.", "www.example.com. 30 IN A 192.0.2.1"],
        ),
        (
            "away.example.com. A", "NOERROR",
            ["away.example.com. 300 IN CNAME www.other.com.", "www.other.com. 300 IN A 192.0.2.9"],
        ),
        ("www.glueless.com. A", "NOERROR", ["www.glueless.com. 300 IN A 192.0.2.8"]),
        ("zero.example.com. A", "NOERROR", ["zero.example.com. 0 IN A 192.0.2.2"]),
        ("nobody.example.com. A", "NXDOMAIN", []),
        ("www.example.com. AAAA", "NOERROR", []),
        ("www.nobody.com. A", "NXDOMAIN", []),
        ("www.loop-a.com. A", "SERVFAIL", []),
        ("www.example.com. ANY", "REFUSED", []),
    ],
)  # fmt: skip
async def test_answers(server: Server, question: str, rcode: str, answer: list[str]) -> None:
    for _ in range(2):  # first with an empty cache, then from the cache
        message = await ask(server, *question.split())
        assert dns.rcode.to_text(message.rcode()) == rcode
        assert lines(message) == answer


@pytest.mark.parametrize("name", ["self.example.com.", "ping.example.com."])
async def test_an_alias_loop_ends(server: Server, name: str) -> None:
    message = await ask(server, name)
    assert all(" CNAME " in line for line in lines(message))


async def test_a_negative_answer_carries_the_soa_for_the_clients_cache(server: Server) -> None:
    message = await ask(server, "nobody.example.com.")
    assert message.authority[0].to_text() == "example.com. 5 IN SOA ns.example.com. hm.example.com. 1 2 3 4 5"


async def test_large_answers_are_fetched_over_tcp_and_truncated_for_udp_clients(
    server: Server, internet: Internet
) -> None:
    small = await ask(server, "big.example.com.", "TXT", use_edns=0, payload=1232)
    assert small.flags & dns.flags.TC
    assert (EXAMPLE, "tcp") in internet.asked
    whole = await ask(server, "big.example.com.", "TXT", "tcp")
    assert len(whole.answer[0]) == 12


@pytest.mark.parametrize(
    ("question", "after"),
    [
        pytest.param(
            "www.example.com.",
            [(0, 30), (0.4, 30), (0.6, 29), (1.4, 29), (1.6, 28), (29.4, 1), (29.6, 0), (29.9, 0), (30, 30)],
            id="answer",
        ),
        pytest.param(
            "alias.example.com.", [(0, 20), (0.6, 19), (19.4, 1), (19.6, 0), (19.9, 0), (20, 20)],
            id="alias-ends-first",
        ),
        pytest.param("nobody.example.com.", [(0, 5), (0.6, 4), (4.4, 1), (4.6, 0), (4.9, 0), (5, 5)], id="refusal"),
    ],
)  # fmt: skip
async def test_a_ttl_counts_down_to_the_nearest_second_and_nothing_is_served_after_it(
    internet: Internet, question: str, after: list[tuple[float, int]]
) -> None:
    began = clock = 1000.7
    server = Server(Telemetry("resolver"), HINTS, port=internet.port, now=lambda: clock)
    for seconds, ttl in after:
        clock = began + seconds
        message = await ask(server, question)
        assert (message.answer or message.authority)[0].ttl == ttl, f"{seconds} s after"
        again = await ask(server, question)  # served from the stored encoded answer
        assert (again.answer or again.authority)[0].ttl == ttl


async def test_concurrent_identical_questions_are_asked_once(server: Server, internet: Internet) -> None:
    await asyncio.gather(*(ask(server, "www.example.com.") for _ in range(10)))
    assert len(internet.asked) == 3


async def test_a_record_from_outside_the_zone_is_not_believed(server: Server, internet: Internet) -> None:
    import dnslib

    def poison(wire: bytes, transport: str) -> bytes:
        reply = dnslib.DNSRecord.parse(wire).reply(aa=1)
        reply.add_answer(*dnslib.RR.fromZone("www.example.com. 30 A 192.0.2.1\nwww.other.com. 30 A 203.0.113.66"))
        reply.add_auth(*dnslib.RR.fromZone("com. 300 NS evil.example.com."))
        reply.add_ar(*dnslib.RR.fromZone("evil.example.com. 300 A 203.0.113.66\nns.other.com. 300 A 203.0.113.66"))
        return reply.pack()

    internet.override[EXAMPLE] = poison
    await ask(server, "www.example.com.")
    assert lines(await ask(server, "www.other.com.")) == ["www.other.com. 300 IN A 192.0.2.9"]
    assert (OTHER, "udp") in internet.asked


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED])
async def test_a_lame_server_means_servfail_and_is_not_asked_again_at_once(
    server: Server, internet: Internet, rcode: dns.rcode.Rcode
) -> None:
    internet.override[EXAMPLE] = lambda wire, transport: wire[:2] + bytes([0x80, rcode]) + wire[4:]
    assert (await ask(server, "www.example.com.")).rcode() == dns.rcode.SERVFAIL
    count = len(internet.asked)
    message = await ask(server, "www.example.com.", use_edns=0)
    assert message.rcode() == dns.rcode.SERVFAIL
    assert len(internet.asked) == count
    said = f"no server of example.com. gave an answer for www.example.com. ({EXAMPLE}: {dns.rcode.to_text(rcode)})"
    (option,) = message.options
    assert (option.code, option.text) == (13, f"failed a moment ago: {said}")


async def test_an_unresponsive_server_is_asked_six_times_and_then_given_up(
    server: Server, internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resolver.upstream.FIRST_TIMEOUT", 0.01)
    internet.override[EXAMPLE] = lambda wire, transport: None
    assert (await ask(server, "www.example.com.")).rcode() == dns.rcode.SERVFAIL
    kinds = [hop.kind for hop in server.trails[-1].hops if hop.zone == "example.com."]
    assert kinds == [Outcome.TIMEOUT] * 6


async def test_an_unresponsive_server_is_asked_last_for_a_minute_and_then_probed(
    internet: Internet, caplog: pytest.LogCaptureFixture
) -> None:
    clock = 100.0
    server = Server(
        Telemetry("resolver"), {**HINTS, Name.from_text("b.root."): UNUSED}, port=internet.port, now=lambda: clock
    )
    server.upstream.servers.answered(UNUSED, 0.001)  # a short round-trip time, so that this server is preferred

    async def timeouts() -> int:
        server.cache.flush(None)
        await ask(server, f"www{len(server.trails)}.example.com.")
        hops = server.trails[-1].hops
        assert [hop.kind for hop in hops][-3:] == ["referral", "referral", "nxdomain"]
        return sum(hop.server == UNUSED for hop in hops)

    assert [await timeouts() for _ in range(EJECT_AFTER + 2)] == [1] * EJECT_AFTER + [0, 0]
    assert caplog.text.count("server_ejected") == 1
    clock += COOLDOWN - 1
    assert {row["address"]: row["ejected_s"] for row in server._servers(Request("GET", "/"))}[UNUSED] == 1.0
    assert await timeouts() == 0
    clock += 1
    assert [await timeouts() for _ in range(2)] == [1, 0]
    server._flush(Request("POST", "/", body=b'{"all": true}'))
    assert await timeouts() == 1


async def test_flushing_asks_the_root_again(server: Server, internet: Internet) -> None:
    await ask(server, "www.example.com.")
    assert server._flush(Request("POST", "/", body=b'{"all": true}'))["flushed"] > 3
    await ask(server, "www.example.com.")
    assert [a for a, _ in internet.asked] == [ROOT, COM, EXAMPLE] * 2


@pytest.mark.parametrize("wire", [b"", b"\0" * 11, b"\0\0\x80" + b"\0" * 9], ids=["empty", "short", "a-response"])
def test_bytes_that_are_not_a_query_get_no_answer(server: Server, wire: bytes) -> None:
    assert server.handle(wire, ("127.0.0.1", 1), "udp") is None


async def test_hot_answers_are_finished_until_a_ttl_counts_down_and_are_counted(internet: Internet) -> None:
    clock = 1000.0
    server = Server(Telemetry("resolver"), HINTS, port=internet.port, now=lambda: clock)
    question = b"\3www\7example\3com\0\0\1\0\1"
    for name in ("www.example.com.", "WWW.example.com.", "nobody.example.com.", "nobody.example.com."):
        await ask(server, name)
    answers = server.answers()
    assert answers is not None
    assert list(answers.entries) == [question], "NXDOMAIN has another rcode"
    counts, body = answers.get(question) or (b"", b"")
    assert (counts, body[-14:]) == (bytes([0, 1, 0, 0, 0, 0, 0, 1]), b"\0\1\0\1\0\0\0\x1e\0\4\xc0\0\2\1")
    server.answered([question] * 3, bytes(48))
    assert server._cache(Request("GET", "/"))["hits"] == 2 + 3
    for seconds, left in ((0.6, 29), (1.0, 28), (27.7, 1)):
        clock += seconds
        assert server.answers() is answers
        assert (answers.get(question) or (b"", b""))[1][-10:-6] == struct.pack("!I", left)
    clock += 0.7
    assert server.answers() is answers
    assert not answers.entries, "it has expired"
    await ask(server, "www.example.com.")
    server.telemetry.faults.switch_on("servfail", {})
    assert server.answers() is None
    server.telemetry.faults.clear()
    server._flush(Request("POST", "/", body=b'{"all": true}'))
    assert repr(server.answers()) == "<Answers 0 chunks=0>"


async def test_a_prepared_response_counts_down_and_ends_with_its_answer(internet: Internet) -> None:
    clock = 1000.0
    server = Server(Telemetry("resolver"), HINTS, port=internet.port, now=lambda: clock)
    listener = await server.start(("127.0.0.1", 0))
    query = dns.message.make_query("www.example.com.", "A", use_edns=0)
    seen = []
    try:
        for seconds in (0, 0, 0, 0, 0.6, 10, 10, 9.3, 0.2, 0):
            clock += seconds
            message = await dns.asyncquery.udp(query, "127.0.0.1", 5, listener.address[1])
            seen.append(message.answer[0].ttl)
            assert message.edns == 0
    finally:
        await listener.close()
    assert seen == [30, 30, 30, 30, 29, 19, 9, 0, 30, 30]
    assert len([address for address, _ in internet.asked if address == EXAMPLE]) == 2


@pytest.mark.parametrize(
    ("question", "rcode", "answer"),
    [
        ("localhost. A", "NOERROR", ["localhost. 10800 IN A 127.0.0.1"]),
        ("app.LocalHost. AAAA", "NOERROR", ["app.LocalHost. 10800 IN AAAA ::1"]),
        ("localhost. MX", "NOERROR", []),
        ("x.invalid. A", "NXDOMAIN", []),
        ("abc.onion. A", "NXDOMAIN", []),
        ("printer.home.arpa. A", "NXDOMAIN", []),
        ("1.0.168.192.in-addr.arpa. PTR", "NXDOMAIN", []),
        ("10.in-addr.arpa. PTR", "NOERROR", []),
        ("1.31.172.in-addr.arpa. PTR", "NXDOMAIN", []),
    ],
)
async def test_local_names_are_answered_without_asking_anyone(
    server: Server, internet: Internet, question: str, rcode: str, answer: list[str]
) -> None:
    message = await ask(server, *question.split())
    assert (dns.rcode.to_text(message.rcode()), lines(message), internet.asked) == (rcode, answer, [])
    assert bool(message.authority) != bool(answer)


async def test_a_resolver_without_descriptors_waits_for_one(
    server: Server, internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    make, refused = loop.create_datagram_endpoint, list[int]()

    async def exhausted(*arguments, **options):
        if len(refused) < 3:
            refused.append(1)
            raise OSError(errno.EMFILE, "Too many open files")
        return await make(*arguments, **options)

    monkeypatch.setattr(loop, "create_datagram_endpoint", exhausted)
    assert lines(await ask(server, "www.example.com.")) == ["www.example.com. 30 IN A 192.0.2.1"]
    assert len(refused) == 3
    assert not any(known.timeouts for known in server.upstream.servers.known.values())


@pytest.mark.parametrize(
    ("question", "rcode", "answer"),
    [
        ("www.example.com.", "NOERROR", ["www.example.com. 30 IN A 192.0.2.1"]),
        (
            "alias.example.com.", "NOERROR",
            ["alias.example.com. 30 IN CNAME www.example.com.", "www.example.com. 30 IN A 192.0.2.1"],
        ),
        ("nobody.example.com.", "NXDOMAIN", []),
    ],
)  # fmt: skip
async def test_an_expired_answer_is_given_when_no_server_answers_if_that_is_switched_on(
    internet: Internet, monkeypatch: pytest.MonkeyPatch, question: str, rcode: str, answer: list[str]
) -> None:
    monkeypatch.setattr("resolver.upstream.FIRST_TIMEOUT", 0.01)
    monkeypatch.setattr("resolver.upstream.MIN_TIMEOUT", 0.01)
    clock = 1000.0

    def now() -> float:
        return clock

    for stale, expected in ((100.0, rcode), (0.0, "SERVFAIL")):
        server = Server(Telemetry("resolver"), HINTS, port=internet.port, stale=stale, now=now)
        internet.override.clear()
        await ask(server, question)
        internet.override[EXAMPLE] = lambda wire, transport: None
        clock += 60
        message = await ask(server, question, use_edns=0)
        assert dns.rcode.to_text(message.rcode()) == expected
        assert lines(message) == (answer if stale else [])
        code = 22 if not stale else 19 if rcode == "NXDOMAIN" else 3
        assert message.options[0].code == code


async def test_a_stale_answer_has_an_end(internet: Internet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resolver.upstream.FIRST_TIMEOUT", 0.01)
    monkeypatch.setattr("resolver.upstream.MIN_TIMEOUT", 0.01)
    clock = 1000.0
    server = Server(Telemetry("resolver"), HINTS, port=internet.port, stale=100.0, now=lambda: clock)
    await ask(server, "www.example.com.")
    internet.override[EXAMPLE] = lambda wire, transport: None
    for seconds, rcode in ((129.0, "NOERROR"), (2.0, "SERVFAIL")):
        clock += seconds
        assert dns.rcode.to_text((await ask(server, "www.example.com.")).rcode()) == rcode


async def test_a_stale_answer_is_sent_while_servers_are_still_being_queried(
    internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resolver.server.STALE_AFTER", 0.05)
    monkeypatch.setattr("resolver.upstream.MIN_TIMEOUT", 30.0)
    clock = 1000.0
    server = Server(Telemetry("resolver"), HINTS, port=internet.port, stale=100.0, now=lambda: clock)
    await ask(server, "www.example.com.")
    internet.override[EXAMPLE] = lambda wire, transport: None
    clock += 60
    async with asyncio.timeout(5):  # less than the 8 s after which a resolution times out
        message = await ask(server, "www.example.com.", use_edns=0)
    assert (dns.rcode.to_text(message.rcode()), message.options[0].code) == ("NOERROR", 3)


def handled(server: Server, qname: str) -> bytes | Awaitable[bytes] | None:
    """Return the reply of `Server.handle`, which is bytes if the query is answered at once."""
    return server.handle(dns.message.make_query(qname, "A", use_edns=0).to_wire(), ("127.0.0.1", 1), "udp")


async def test_questions_beyond_the_maximum_number_of_resolutions_are_answered_servfail_at_once(
    internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resolver.upstream.FIRST_TIMEOUT", 0.05)
    monkeypatch.setattr("resolver.server.MAX_RESOLUTIONS", 2)
    server = Server(Telemetry("resolver"), HINTS, port=internet.port)
    internet.override[ROOT] = lambda wire, transport: None
    first, second, same = (handled(server, f"{name}.example.") for name in ("a", "b", "A"))
    surplus = handled(server, "c.example.")
    assert isinstance(surplus, bytes)
    message = dns.message.from_wire(surplus)
    assert (message.rcode(), message.options[0].text) == (dns.rcode.SERVFAIL, "too many names are being resolved")
    for each in (first, second, same):
        assert isinstance(each, Awaitable)
        assert dns.message.from_wire(await each).rcode() == dns.rcode.SERVFAIL
    internet.override.clear()
    assert lines(await ask(server, "www.example.com.")) == ["www.example.com. 30 IN A 192.0.2.1"]


async def test_clients_beyond_the_maximum_that_wait_for_one_question_are_answered_servfail_at_once(
    server: Server, internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resolver.upstream.FIRST_TIMEOUT", 0.05)
    monkeypatch.setattr("resolver.server.MAX_WAITING", 2)
    internet.override[ROOT] = lambda wire, transport: None
    replies = [handled(server, "a.example.") for _ in range(2)]
    waiting = [asyncio.ensure_future(reply) for reply in replies if isinstance(reply, Awaitable)]
    assert len(waiting) == 2
    await asyncio.sleep(0)  # let both tasks start waiting
    assert isinstance(handled(server, "a.example."), bytes)
    await asyncio.gather(*waiting)
    later = handled(server, "b.example.")
    assert isinstance(later, Awaitable)
    await later


@pytest.mark.parametrize(("files", "most"), [(100, 50), (MAX_RESOLUTIONS, MAX_RESOLUTIONS // 2)])
def test_resolutions_use_at_most_half_of_the_descriptors(files: int, most: int) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, limits[1]))
    try:
        assert Server(Telemetry("resolver"), HINTS)._most == most
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
