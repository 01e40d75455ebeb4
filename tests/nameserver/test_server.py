"""Tests for the name server process: admin API, zone reload, fault switches and query log."""

import asyncio
import json
import struct
import time
from pathlib import Path

import pytest

import serving
from dnsmessage import rdtypes
from nameserver.__main__ import main
from nameserver.access import Access
from nameserver.server import Server
from telemetry import AdminError, Request, Telemetry

ZONE = "$TTL 60\n@ IN SOA ns hm 1 2 3 4 5\n@ IN NS ns\nns IN A 192.0.2.1\n"
QUERY = b"\0\1\0\0\0\1\0\0\0\0\0\0\1w\7example\0\0\1\0\1"


@pytest.fixture
def server(tmp_path: Path) -> Server:
    path = tmp_path / "example.zone"
    path.write_text(ZONE)
    return Server(Telemetry("nameserver"), {"example.": path})


def rcode(answer: bytes) -> int:
    return answer[3] & 15


def request(method: str, zone: str, query: dict[str, str] | None = None, body: bytes = b"") -> Request:
    return Request(method, f"/admin/zones/{zone}/records", query or {}, {"zone": zone}, {}, body)


async def test_a_put_record_is_served_with_the_next_serial_and_gone_after_delete(server: Server) -> None:
    assert rcode(server.handle(QUERY, ("192.0.2.9", 1), "udp")) == 3
    body = b'{"name":"w","type":"A","ttl":1,"rdata":["192.0.2.7"]}'
    assert (await server.admin._put(request("PUT", "example.", body=body)))["serial"] == 2
    assert bytes([192, 0, 2, 7]) in server.handle(QUERY, ("192.0.2.9", 1), "udp")
    deleted = await server.admin._delete(request("DELETE", "example", {"name": "w", "type": "A"}))
    assert deleted["serial"] == 3
    assert rcode(server.handle(QUERY, ("192.0.2.9", 1), "udp")) == 3


@pytest.mark.parametrize(
    ("rdtype", "text", "shown"),
    [
        ("HTTPS", '1 . alpn="h2,h3"', '1 . alpn="h2,h3"'),
        ("TXT", 'a "text"', '"a \\"text\\""'),
        ("TXT", '"two" "texts"', '"two" "texts"'),
    ],
)
async def test_data_may_be_put_as_it_is_shown(server: Server, rdtype: str, text: str, shown: str) -> None:
    body = json.dumps({"name": "w", "type": rdtype, "ttl": 1, "rdata": [text]}).encode()
    await server.admin._put(request("PUT", "example.", body=body))
    (zone,) = server.responder.zones.values()
    number = rdtypes.from_text(rdtype)
    assert [each.text() for each in zone if each.rdtype == number] == [[shown]]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"name":"w","type":"A","rdata":["x"]}', "expected an IPv4 address, got 'x'"),
        (b'{"name":"w","type":"A"}', 'expected "rdata"'),
        (b'{"name":"w.org.","type":"A","rdata":["192.0.2.1"]}', "expected a name in example."),
        (b'{"name":"w","type":"SOA","rdata":["a b 1 2 3 4 5"]}', "expected any type but SOA"),
        (b'{"name":"ns","type":"CNAME","rdata":["w"]}', "expected nothing next to the CNAME"),
        (b"[]", "expected {"),
        (b'{"name":"w","type":"TXT","rdata":["\\ud800"]}', "expected Unicode text, got '\\ud800'"),
        (b'{"name":"w","type":"A","rdata":["\\udc80"]}', "expected Unicode text, got '\\udc80'"),
        (b'{"name":"\\ud800","type":"A","rdata":["192.0.2.1"]}', "expected Unicode text, got '\\ud800'"),
        (b'{"name":"w","type":"\\ud800","rdata":["192.0.2.1"]}', "expected Unicode text, got '\\ud800'"),
        (b'{"name":"w","type":"SOA","rdata":["10"]}', "expected any type but SOA"),
    ],
)
async def test_a_bad_record_is_refused_and_the_zone_stays(server: Server, body: bytes, message: str) -> None:
    with pytest.raises(AdminError, match=None) as error:
        await server.admin._put(request("PUT", "example.", body=body))
    assert message in str(error.value)
    assert next(iter(server.responder.zones.values())).serial == 1


@pytest.mark.parametrize(
    "body",
    [
        {"zone": "\ud800.test", "text": ZONE},
        {"zone": "new.test", "like": "\ud800."},
        {"zone": "new.test", "text": ZONE + "w TXT \ud800\n"},
        {"zone": "new.test", "text": "\ud800", "source": "\ud800"},
    ],
    ids=["zone", "like", "text", "source"],
)
async def test_a_new_zone_with_half_a_surrogate_pair_is_refused(server: Server, body: dict[str, str]) -> None:
    with pytest.raises(AdminError) as error:
        await server.admin._add(request("POST", "", body=json.dumps(body).encode()))
    assert error.value.status in {400, 409}
    assert "\n" not in str(error.value)
    assert "surrogates not allowed" not in str(error.value)


async def test_a_new_zone_with_latin_1_text_is_kept_as_it_is(tmp_path: Path) -> None:
    server = Server(Telemetry("nameserver"), {}, Access(state=tmp_path))
    text = (ZONE.encode() + b'w TXT "\xe9"\n').decode("utf-8", "surrogateescape")
    try:
        body = json.dumps({"zone": "example.", "text": text}).encode()
        await server.admin._add(request("POST", "", body=body))
        assert (tmp_path / "example.zone").read_bytes() == ZONE.encode() + b'w TXT "\xe9"\n'
    finally:
        server.close()


async def test_the_timers_of_a_zone_can_be_changed_but_not_its_serial_number(server: Server) -> None:
    body = {"name": "@", "type": "SOA", "ttl": 60, "rdata": ["ns hostmaster 99 5 4 3600 7"]}
    answer = await server.admin._put(request("PUT", "example.", body=json.dumps(body).encode()))
    assert answer["record"]["rdata"] == ["ns.example. hostmaster.example. 2 5 4 3600 7"]
    (zone,) = server.responder.zones.values()
    assert (zone.serial, zone.soa.ttl, zone.soa.text()) == (2, 60, answer["record"]["rdata"])


async def test_a_soa_record_is_not_deleted(server: Server) -> None:
    with pytest.raises(AdminError, match="expected any type but SOA"):
        await server.admin._delete(request("DELETE", "example", {"name": "@", "type": "SOA"}))


async def test_a_bad_file_keeps_the_zone_and_fails_health(server: Server) -> None:
    (path,) = server.files.values()
    path.write_text("nonsense\n")
    await server.reload_all()
    assert next(iter(server.responder.zones.values())).serial == 1
    assert not server.telemetry.health.ok
    path.write_text(ZONE.replace(" 1 2", " 9 2"))
    await server.reload_all()
    assert next(iter(server.responder.zones.values())).serial == 9
    assert server.telemetry.health.ok


def test_fault_switches(server: Server) -> None:
    server.telemetry.faults.switch_on("drop_answers", {})
    assert server.handle(QUERY, ("192.0.2.9", 1), "udp") is None
    server.telemetry.faults.clear()
    server.telemetry.faults.switch_on("servfail", {})
    assert rcode(server.handle(QUERY, ("192.0.2.9", 1), "udp")) == 2


async def test_a_delayed_answer_arrives_late_and_complete(server: Server) -> None:
    prompt = server.handle(QUERY, ("192.0.2.9", 1), "udp")
    server.telemetry.faults.switch_on("delay_answers", {"ms": 1.0})
    assert await server.handle(QUERY, ("192.0.2.9", 1), "udp") == prompt


def test_a_bad_zone_file_is_one_line_and_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.zone"
    path.write_text("@ IN A\n")
    assert main(["--listen", "127.0.0.1:0", "--zone", f"example.={path}"]) == 2
    assert capsys.readouterr().err == f"nameserver: error: {path}:1: expected A IPv4-ADDRESS, got 0 words: \n"


async def test_a_bad_file_does_not_keep_another_zone_from_reloading(tmp_path: Path) -> None:
    paths = {"a.": tmp_path / "a", "b.": tmp_path / "b"}
    for path in paths.values():
        path.write_text(ZONE)
    server = Server(Telemetry("nameserver"), paths)
    paths["a."].write_text(ZONE + "x IN AAAA fe80::1%eth0\n")
    paths["b."].write_text(ZONE.replace(" 1 2", " 9 2"))
    await server.reload_all()
    assert {str(apex): zone.serial for apex, zone in server.responder.zones.items()} == {"a.": 1, "b.": 9}
    checks = server.telemetry.health.as_dict()["checks"]
    assert (checks["zone a."]["ok"], checks["zone b."]["ok"]) == (False, True)
    assert f"{paths['a.']}:5: expected an IPv6 address" in checks["zone a."]["detail"]


async def test_answers_go_on_while_a_large_zone_is_read(server: Server) -> None:
    (path,) = server.files.values()
    path.write_text(ZONE + "".join(f"h{i} IN A 10.0.{i >> 8 & 255}.{i & 255}\n" for i in range(50_000)))
    server.on_hangup()
    (task,) = server._tasks
    delays = []
    while not task.done():
        began = time.perf_counter()
        await asyncio.sleep(0)  # let the event loop run once
        server.handle(QUERY, ("192.0.2.9", 1), "udp")
        delays.append(time.perf_counter() - began)
    assert len(next(iter(server.responder.zones.values()))) == 50_003
    assert len(delays) > 10
    assert sorted(delays)[len(delays) // 2] < 0.05


async def test_the_query_log_names_who_asked_for_what(server: Server) -> None:
    server.handle(QUERY, ("192.0.2.9", 1), "udp")
    server.handle(QUERY[:12] + b"\1W" + QUERY[14:], ("192.0.2.8", 1), "tcp")
    server.handle(b"\0\1" + bytes(10), ("192.0.2.7", 1), "udp")
    rows = server.queries.page(Request("GET", "/admin/queries", {"limit": "2"}, {}, {}, b""))
    assert isinstance(rows, list)
    assert [(r["client"], r["transport"], r["qname"], r["qtype"], r["rcode"]) for r in rows] == [
        ("192.0.2.7", "udp", "?", "?", "FORMERR"),
        ("192.0.2.8", "tcp", "w.example.", "A", "NXDOMAIN"),
    ]


def test_the_query_log_is_bounded_in_entries_and_bytes() -> None:
    log = serving.QueryLog(100)
    padded = (
        QUERY[:11] + b"\1" + QUERY[12:] + struct.pack("!BHHIHHH", 0, 41, 1232, 0, 60_004, 12, 60_000) + bytes(60_000)
    )
    for _ in range(300):
        log.add("192.0.2.9", "tcp", padded, 3)
    assert len(log) == 100
    assert sum(len(part) for entry in log._entries for part in entry if isinstance(part, bytes)) < 100 * 300
    client = b"\2\0\0\x35\xc0\0\2\7" + bytes(8)
    log.add_batch([b"\1a\0\0\x1c\0\1", b"\1b\0\0\1\0\1"], client * 2)
    rows = log.latest(3)
    assert [(r["qname"], r["qtype"], r["client"]) for r in rows] == [
        ("b.", "A", "192.0.2.7"), ("a.", "AAAA", "192.0.2.7"), ("w.example.", "A", "192.0.2.9"),
    ]  # fmt: skip
    log.add_batch([b"\1a\0\0\x1c\0\1"] * 500, client * 500)
    assert len(log) == 500, "a batch is dropped as a whole, once the entries after it are enough"


def test_the_query_log_can_be_followed_without_missing_or_repeating_a_query() -> None:
    log, client = serving.QueryLog(50), b"\2\0\0\x35\xc0\0\2\7" + bytes(8)
    seen, following, number = list[str](), 0, 0
    for turn in range(30):
        for _ in range(turn % 4):
            log.add("192.0.2.9", "tcp", QUERY[:12] + b"\3%03d" % number + QUERY[14:], 3)
            number += 1
        if turn % 3 == 0:
            log.add_batch([b"\3%03d\0\0\1\0\1" % (number + i) for i in range(5)], client * 5)
            number += 5
        rows, following, missed = log.since(following, 4)
        seen += [row["qname"][:3] for row in rows]
        assert missed == 0
    seen += [row["qname"][:3] for row in log.since(following, 1000)[0]]
    assert seen == [f"{i:03d}" for i in range(number)]
    log.add_batch([b"\1a\0\0\1\0\1"] * 200, client * 200)
    rows, after, missed = log.since(number - 10, 1000)
    assert (len(rows), after, missed) == (200, number + 200, 10)
    assert log.since(after, 10) == ([], after, 0)
    assert log.since(10**9, 10)[0] == [], "a number from before a restart"


async def test_the_query_log_over_the_admin_api_has_a_cursor(server: Server) -> None:
    for _ in range(3):
        server.handle(QUERY, ("192.0.2.9", 1), "udp")
    answer = server.queries.page(Request("GET", "/admin/queries", {"after": "1", "limit": "1"}, {}, {}, b""))
    assert isinstance(answer, dict)
    assert (answer["next"], answer["missed"], len(answer["queries"])) == (2, 0, 1)
    with pytest.raises(AdminError, match="expected limit=NUMBER and after=NUMBER"):
        server.queries.page(Request("GET", "/admin/queries", {"after": "x"}, {}, {}, b""))
