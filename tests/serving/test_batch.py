"""Tests for batched UDP: prebuilt answers equal the handler's replies; all other queries reach the handler."""

import asyncio
import random
import socket
import struct
from collections.abc import Iterator

import pytest

import serving
from dnsmessage import Name, encode_opt
from nameserver import Responder, parse
from serving import batch
from serving.batch import BATCH, MAX_QUERY, SLOT

ZONE = "$TTL 60\n@ IN SOA ns hm 1 2 3 4 5\n@ IN NS ns\nns IN A 192.0.2.1\n" + "".join(
    f"h{i} IN A 192.0.2.{i}\nh{i} IN AAAA 2001:db8::{i}\nmx{i} IN MX {i} h{i}\nw{i} IN HTTPS 1 .\n" for i in range(50)
)


class Site:
    """A listener with a name server's responder; it records the queries that reach the handler."""

    def __init__(self) -> None:
        zone = parse("example.", ZONE)
        self.responder = Responder({zone.apex: zone})
        self.handled: list[bytes] = []
        self.finished: list[tuple[bytes, str]] = []
        self.on = True

    def handle(self, wire: bytes, _client, transport: str) -> bytes | None:
        self.handled.append(wire)
        response = self.responder.respond(wire, udp=transport == "udp")
        return None if response is None else response.wire

    def answers(self) -> serving.Answers | None:
        return self.responder.answers if self.on else None

    def answered(self, questions: list[bytes], clients: bytes) -> None:
        assert len(clients) == 16 * len(questions)
        for i, question in enumerate(questions):
            self.finished.append((question, serving.client_of(clients[16 * i : 16 * i + 16])[0]))


def query(name: str, qtype: int = 1, opt: bytes = b"", flags: int = 0x100) -> bytes:
    head = struct.pack("!6H", random.getrandbits(16), flags, 1, 0, 0, bool(opt))
    return head + Name.from_text(name).wire + struct.pack("!HH", qtype, 1) + opt


@pytest.fixture(params=["batched", "one by one"])
def calls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "one by one":
        monkeypatch.setattr("serving.listener.available", lambda: False)
    elif not batch.available():
        pytest.skip("this system has no recvmmsg")
    return request.param


async def exchange(address: tuple[str, int], wires: list[bytes], expected: int) -> dict[bytes, bytes]:
    """Send all *wires* before the server reads the first one; return the replies by ID."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(address)
        for wire in wires:
            sock.send(wire)
        replies: dict[bytes, bytes] = {}
        async with asyncio.timeout(5):
            while len(replies) < expected:
                reply = await loop.sock_recv(sock, 65_535)
                replies[reply[:2]] = reply
    return replies


def numbered(wires: list[bytes]) -> list[bytes]:
    return [struct.pack("!H", i) + wire[2:] for i, wire in enumerate(wires)]


UNIFORM = {
    "plain": [query(f"H{i % 50}.Example.") for i in range(150)],
    "edns": [query(f"h{i % 50}.example.", 28, encode_opt()) for i in range(70)],
    "dnssec-ok": [query(f"h{i % 50}.example.", 1, encode_opt(dnssec_ok=True)) for i in range(70)],
    "additional": [query(f"mx{i % 50}.example.", 15, encode_opt()) for i in range(70)],
    "not-recursive": [query(f"h{i % 50}.example.", flags=0) for i in range(70)],
}
MIXED = {
    "some-missing": [query(f"{'h' if i % 3 else 'x'}{i % 50}.example.", 1, encode_opt()) for i in range(150)],
    "all-missing": [query(f"x{i}.example.") for i in range(70)],
    "edns-and-plain": [query(f"h{i % 50}.example.", 1, encode_opt() if i % 2 else b"") for i in range(70)],
    "types-with-letters": [query(f"w{i % 50}.example.", 65 if i % 2 else 97) for i in range(70)],
    "cookies": [query(f"h{i % 50}.example.", 1, encode_opt(options=struct.pack("!HHQ", 10, 8, i))) for i in range(70)],
    "longer-than-a-slot": [
        query("h1.example.", 1, encode_opt(options=struct.pack("!HH", 12, 60 * i) + bytes(60 * i))) for i in range(50)
    ],
    "opcodes": [query("h1.example.", flags=0x2800 if i % 2 else 0x100) for i in range(10)],
    "classes": [query("h1.example.")[:-1] + bytes([1 + i % 3]) for i in range(10)],
    "short": [query("h1.example."), struct.pack("!6H", 9, 0x100, 1, 0, 0, 0), query("h2.example.")],
    "edns-version": [query("h1.example.", 1, b"\0\0\x29\x04\xd0\0\1\0\0\0\0")] * 3,
    "two-questions": [query("h1.example.")[:4] + b"\0\2" + query("h1.example.")[6:]] * 3,
}  # fmt: skip


@pytest.mark.parametrize("wires", [*UNIFORM.values(), *MIXED.values()], ids=[*UNIFORM, *MIXED])
async def test_replies_are_what_the_reference_says(calls: str, wires: list[bytes]) -> None:
    site = Site()
    listener = await serving.start(("127.0.0.1", 0), site.handle, finished=site)
    wires = numbered(wires)
    try:
        for _ in range(3):  # in the second and third round, prepared responses are sent
            replies = await exchange(listener.address, wires, len(wires))
            for wire in wires:
                expected = site.responder._decoded(wire, udp=True)
                assert replies[wire[:2]] == expected.wire
    finally:
        await listener.close()
    if calls == "batched":
        assert len(site.handled) + len(site.finished) == 3 * len(wires)


@pytest.mark.parametrize("wires", [*UNIFORM.values(), *MIXED.values()], ids=[*UNIFORM, *MIXED])
def test_a_finished_answer_to_one_query_is_what_the_reference_says(wires: list[bytes]) -> None:
    site = Site()
    found = 0
    for wire in wires:
        reply = site.responder.answers.respond(wire)
        if reply is not None:
            found += 1
            assert reply == site.responder._decoded(wire, udp=True).wire
    assert found > 0 or wires not in UNIFORM.values()


@pytest.mark.skipif(not batch.available(), reason="this system has no recvmmsg")
async def test_a_prepared_response_is_for_one_query_byte_for_byte() -> None:
    site = Site()
    listener = await serving.start(("127.0.0.1", 0), site.handle, finished=site)
    other = {
        "case": query("H1.example."), "flags": query("h1.example.", flags=0),
        "edns": query("h1.example.", 1, encode_opt()),
        "do": query("h1.example.", 1, encode_opt(dnssec_ok=True)), "type": query("h1.example.", 28),
        "trailing zeros": query("h1.example.") + bytes(3), "cd": query("h1.example.", flags=0x110),
    }  # fmt: skip
    try:
        for wire in [*[query("h1.example.")] * 3, *other.values(), *other.values()]:
            (reply,) = (await exchange(listener.address, [wire], 1)).values()
            assert reply == site.responder._decoded(wire, udp=True).wire
        prepared = site.responder.answers.prepared
        assert len(prepared) == 7, "all but the query with zeros after it"
        zone = parse("example.", ZONE.replace("192.0.2.1\n", "192.0.2.99\n"))
        site.responder.put(zone)
        (reply,) = (await exchange(listener.address, [query("h1.example.")], 1)).values()
        assert reply.endswith(bytes([192, 0, 2, 99]))
    finally:
        await listener.close()


@pytest.mark.skipif(not batch.available(), reason="this system has no recvmmsg")
async def test_queries_that_never_return_are_not_prepared_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.answers.MAX_PREPARED", 40)
    site = Site()
    listener = await serving.start(("127.0.0.1", 0), site.handle, finished=site)
    random.seed(7)
    try:
        for i in range(2 * batch.TRUST):
            name = "".join(random.choice((c, c.upper())) for c in f"h{i % 50}.example.")
            await exchange(listener.address, [query(name)], 1)
        assert len(site.responder.answers.prepared) <= 40
        assert listener._batch is not None
        assert listener._batch._trust < batch.TRUST
    finally:
        await listener.close()


@pytest.mark.skipif(not batch.available(), reason="this system has no recvmmsg")
@pytest.mark.parametrize("wires", UNIFORM.values(), ids=UNIFORM)
async def test_finished_answers_do_not_reach_the_handler(wires: list[bytes]) -> None:
    site = Site()
    listener = await serving.start(("127.0.0.1", 0), site.handle, finished=site)
    try:
        await exchange(listener.address, numbered(wires), len(wires))
        assert (len(site.handled), len(site.finished)) == (0, len(wires))
        assert site.finished[0] == (wires[0][12:].lower().split(b"\0\0\x29")[0], "127.0.0.1")
        site.on = False  # simulate an active fault switch
        await exchange(listener.address, numbered(wires), len(wires))
        assert len(site.handled) == len(wires)
    finally:
        await listener.close()


async def test_a_query_that_gets_no_reply_does_not_cost_its_neighbours_theirs(calls: str) -> None:
    site = Site()
    listener = await serving.start(("127.0.0.1", 0), site.handle, finished=site)
    response = b"\xff\xff\x80" + query("h1.example.")[3:]
    wires = numbered([query(f"h{i % 50}.example.") for i in range(40)])
    for at in (0, 7, 8, 20, 43):
        wires.insert(at, response)
    try:
        assert len(await exchange(listener.address, wires, 40)) == 40
    finally:
        await listener.close()


async def test_a_handler_that_raises_or_answers_late_costs_only_its_query(calls: str) -> None:
    gate = asyncio.Event()

    async def late(wire: bytes) -> bytes:
        await gate.wait()
        return wire

    def handle(wire: bytes, _client, _transport):
        if wire[2:] == b"bad":
            raise ValueError("a fault in the handler")
        return late(wire) if wire[2:] == b"late" else wire

    listener = await serving.start(("127.0.0.1", 0), handle)
    try:
        task = asyncio.create_task(exchange(listener.address, [b"00late", b"01ok", b"02bad", b"03ok"], 3))
        await asyncio.sleep(0.05)  # time for the other replies to arrive before the late one
        gate.set()
        assert set(await task) == {b"00", b"01", b"03"}
    finally:
        await listener.close()


async def test_on_all_addresses_a_reply_leaves_from_the_one_that_was_asked(calls: str) -> None:
    async def late(wire: bytes) -> bytes:
        return wire

    site = Site()

    def handle(wire: bytes, client, transport):
        return late(wire) if wire[2:] == b"late" else site.handle(wire, client, transport)

    listener = await serving.start(("0.0.0.0", 0), handle, finished=site)
    try:
        plain = numbered([query("h1.example."), query("nothing.example.")])
        for wires in (plain, plain[:1], plain[:1], plain[:1], [b"\0\5late"]):
            replies = await exchange(("127.0.1.77", listener.address[1]), wires, len(wires))
            assert len(replies) == len(wires)  # the connected client accepts replies only from this address
    finally:
        await listener.close()


async def test_a_query_of_the_largest_size_arrives_whole(calls: str) -> None:
    received: list[bytes] = []

    def handle(wire: bytes, _client, _transport) -> bytes:
        received.append(wire)
        return wire[:4]

    listener = await serving.start(("127.0.0.1", 0), handle)
    try:
        wires = [struct.pack("!H", size) + random.randbytes(size - 2) for size in (SLOT, SLOT + 1, MAX_QUERY, 2)]
        await exchange(listener.address, wires, len(wires))
        assert received == wires
    finally:
        await listener.close()


def test_a_batch_is_smaller_than_a_socket_buffer() -> None:
    assert BATCH * MAX_QUERY < serving.listener.BUFFER


async def test_answers_may_be_larger_than_a_chunk_and_are_found_by_spelling_and_type() -> None:
    answers = serving.Answers(0x8400)
    body = random.randbytes(2 << 20)
    answers.add(b"\1a\0\0\x10\0\1", (1, 2, 3), body)
    answers.add(b"\1a\0\0\x41\0\1", (1, 0, 0), b"https")
    assert answers.get(b"\1a\0\0\x10\0\1") == (struct.pack("!4H", 1, 2, 3, 4), body)
    assert answers.get(b"\1a\0\0\x41\0\1") == (struct.pack("!4H", 1, 0, 0, 1), b"https")
    assert answers.get(b"\1a\0\0\x61\0\1") is None
    assert repr(answers) == "<Answers 2 chunks=2>"


async def test_queries_without_a_reply_get_no_datagram_even_if_one_client_sends_the_whole_batch() -> None:
    if not batch.available():
        pytest.skip("this system has no recvmmsg")
    site = Site()

    def handle(wire: bytes, client, transport: str) -> bytes | None:
        return None if wire[12:13] == b"\1" else site.handle(wire, client, transport)

    listener = await serving.start(("127.0.0.1", 0), handle, finished=site)
    answered, silent = ([query(f"{name}.example.") for _ in range(BATCH)] for name in ("h1", "x"))
    loop = asyncio.get_running_loop()
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(listener.address)
            for wires in (answered, silent, [*answered[: BATCH // 2], *silent[: BATCH // 2]]):
                for wire in wires:
                    sock.send(wire)
                sock.send(last := query("absent.example."))
                replies = [b""]
                async with asyncio.timeout(5):
                    while replies[-1][:2] != last[:2]:
                        replies.append(await loop.sock_recv(sock, 65_535))
                expected = {wire[:2] for wire in wires if wire[12:13] != b"\1"}
                assert {reply[:2] for reply in replies[1:-1]} == expected
                assert len(replies) - 2 == sum(wire[12:13] != b"\1" for wire in wires)
    finally:
        await listener.close()
