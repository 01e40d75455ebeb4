"""Tests for the stub resolver against well-behaved and misbehaving servers on loopback."""

import asyncio
from pathlib import Path

import dnslib
import pytest

import serving
from stub import AsyncStub, NoAddress, NoSuchName, ServerFailure, Stub, Timeout, system_servers
from telemetry.clock import Clock

ZONE = """
www.example. 30 IN A 192.0.2.1
alias.example. 10 IN CNAME www.example.
"""
SOA = "example. 60 IN SOA ns.example. hm.example. 1 2 3 4 5"


class Peer:
    """A name server whose replies come from `answer(query) -> bytes | None`, which a test may replace."""

    def __init__(self, answer=None) -> None:
        self.asked: list[str] = []
        self.answer = answer or self.honest

    def honest(self, query: dnslib.DNSRecord) -> bytes:
        reply = query.reply()
        name = str(query.q.qname).lower()
        records = dnslib.RR.fromZone(ZONE)
        for _ in range(3):
            for rr in records:
                if str(rr.rname) == name and rr not in reply.rr:
                    reply.add_answer(rr)
                    name = str(rr.rdata) if rr.rtype == 5 else name
        if not reply.rr:
            reply.header.rcode = 0 if name.startswith("empty") else 3
            reply.add_auth(*dnslib.RR.fromZone(SOA))
        return reply.pack()

    def handle(self, wire: bytes, client, transport) -> bytes | None:
        self.asked.append(transport)
        return self.answer(dnslib.DNSRecord.parse(wire))


class Serve:
    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    async def __aenter__(self):
        self.listener = await serving.start(("127.0.0.1", 0), self.peer.handle)
        return self.listener.address

    async def __aexit__(self, *_) -> None:
        await self.listener.close()


class Manual(Clock):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


async def both(address, name: str, **options):
    """Return the answer of the blocking stub, after checking that the asyncio stub returns the same one."""
    blocking = Stub([address], **options)
    answer = await asyncio.to_thread(blocking.resolve, name)
    other = await AsyncStub([address], **options).resolve(name)
    assert (answer.rdata, answer.ttl_s, answer.canonical_name) == (other.rdata, other.ttl_s, other.canonical_name)
    return answer


async def test_an_alias_is_followed_and_the_smallest_ttl_counts() -> None:
    async with Serve(Peer()) as address:
        answer = await both(address, "alias.example")
    assert answer.rdata == ("192.0.2.1",)
    assert (answer.ttl_s, answer.canonical_name, answer.cached) == (10, "www.example.", False)
    assert answer.rtt_ms > 0
    assert answer.bytes_sent > 0
    assert answer.bytes_received > answer.bytes_sent


async def test_the_ttl_counts_down_and_ends() -> None:
    peer, clock = Peer(), Manual()
    async with Serve(peer) as address:
        stub = AsyncStub([address], clock=clock)
        await stub.resolve("www.example.")
        clock.now += 29
        again = await stub.resolve("WWW.example")
        assert (again.cached, again.ttl_s, again.rtt_ms, len(peer.asked)) == (True, 1.0, 0.0, 1)
        clock.now += 1
        assert not (await stub.resolve("www.example.")).cached
        assert stub.flush("www.example") == 1
        assert len(peer.asked) == 2


@pytest.mark.parametrize(("name", "outcome"), [("no.example", NoSuchName), ("empty.example", NoAddress)])
async def test_a_negative_answer_is_cached_for_the_soa_minimum(name: str, outcome: type[Exception]) -> None:
    peer, clock = Peer(), Manual()
    async with Serve(peer) as address:
        stub = AsyncStub([address], clock=clock)
        for after in (0, 4.9, 0.1):
            clock.now += after
            with pytest.raises(outcome):
                await stub.resolve(name)
    assert len(peer.asked) == 2


async def test_a_truncated_answer_is_asked_again_over_tcp() -> None:
    peer = Peer()

    def answer(query: dnslib.DNSRecord) -> bytes:
        if peer.asked[-1] == "udp":
            reply = query.reply()
            reply.header.tc = 1
            return reply.pack()
        return peer.honest(query)

    peer.answer = answer
    async with Serve(peer) as address:
        assert (await both(address, "www.example")).rdata == ("192.0.2.1",)
    assert peer.asked == ["udp", "tcp"] * 2


async def test_an_unresponsive_server_is_skipped() -> None:
    async with Serve(Peer(lambda q: None)) as dead, Serve(Peer()) as alive:
        answer = await AsyncStub([dead, alive], timeout=0.05).resolve("www.example")
    assert answer.rdata == ("192.0.2.1",)
    assert answer.rtt_ms > 50


def forged(change):
    def answer(query: dnslib.DNSRecord) -> bytes:
        reply = bytearray(Peer().honest(query))
        change(reply)
        return bytes(reply)

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(forged(lambda r: r.__setitem__(0, r[0] ^ 1)), id="other-id"),
        pytest.param(forged(lambda r: r.__setitem__(13, ord("x"))), id="other-question"),
        pytest.param(forged(lambda r: r.__delitem__(slice(20, None))), id="cut-short"),
        pytest.param(lambda q: b"nonsense", id="nonsense"),
        pytest.param(lambda q: None, id="silence"),
    ],
)
async def test_the_stub_waits_past_datagrams_that_are_no_reply(answer) -> None:
    async with Serve(Peer(answer)) as address:
        with pytest.raises(Timeout, match=r"no answer from 127\.0\.0\.1:\d+ within 0\.1 s"):
            await AsyncStub([address], timeout=0.05, attempts=2).resolve("www.example")
        with pytest.raises(Timeout):
            await asyncio.to_thread(Stub([address], timeout=0.05, attempts=2).resolve, "www.example")


async def test_servfail_is_a_server_failure() -> None:
    def answer(query: dnslib.DNSRecord) -> bytes:
        reply = query.reply()
        reply.header.rcode = 2
        return reply.pack()

    async with Serve(Peer(answer)) as address:
        with pytest.raises(ServerFailure, match="SERVFAIL"):
            await AsyncStub([address]).resolve("www.example")


async def test_concurrent_identical_questions_are_sent_once() -> None:
    peer = Peer()
    async with Serve(peer) as address:
        stub = AsyncStub([address])
        answers = await asyncio.gather(*(stub.resolve("www.example") for _ in range(20)))
    assert {a.rdata for a in answers} == {("192.0.2.1",)}
    assert len(peer.asked) == 1


def test_an_address_is_its_own_answer() -> None:
    assert Stub([("127.0.0.1", 1)]).resolve("192.0.2.9").rdata == ("192.0.2.9",)


@pytest.mark.parametrize("name", ["a..b", "x" * 64 + ".example", "." * 3])
def test_text_that_is_no_name_is_refused_without_a_query(name: str) -> None:
    with pytest.raises(NoSuchName):
        Stub([("127.0.0.1", 1)]).resolve(name)


def test_resolv_conf(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("# c\nnameserver 198.19.2.53\nnameserver fe80::1\noptions x\n")
    assert system_servers(path) == [("198.19.2.53", 53), ("fe80::1", 53)]
    assert system_servers(tmp_path / "none") == [("127.0.0.1", 53)]
