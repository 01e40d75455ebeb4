"""Tests for the router thread and the admin API over loopback; a datagram socket pair stands in for the TUN device."""

import argparse
import asyncio
import base64
import os
import socket
import threading
import time
from ipaddress import IPv4Network
from types import SimpleNamespace

import pytest

from telemetry import Telemetry
from telemetry.call import CallError, call
from tests.packets import is_valid, tcp
from tests.wan.test_network import INTACT, packet
from wan import LinkSettings, Network
from wan.admin import Admin
from wan.captures import PacketCaptures
from wan.router import Router
from wireformat.pcap import LINKTYPE_RAW, file_header

REGIONS = {"access": IPv4Network("198.19.1.0/24"), "near": IPv4Network("198.19.20.0/24")}
THERE, BACK = packet("198.19.1.10", "198.19.20.10", b"ping"), packet("198.19.20.10", "198.19.1.10", b"pong")


@pytest.fixture
async def service(tmp_path):
    (tmp_path / "token").write_text("secret")
    host, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    device.setblocking(False)
    host.settimeout(5)
    links = {("access", "near"): LinkSettings(rtt_ms=20), ("near", "access"): LinkSettings()}
    router = Router(device.fileno(), Network(REGIONS, links))
    telemetry = Telemetry("wan")
    Admin(telemetry, router)
    PacketCaptures(telemetry, router)
    router.start()
    try:
        async with telemetry.serving(argparse.Namespace(admin=("127.0.0.1", 0), token_file=tmp_path / "token")):

            async def ask(method, path, body=None):
                assert telemetry.admin_address is not None
                url = "http://{}:{}".format(*telemetry.admin_address)
                return await asyncio.to_thread(call, url, method, path, body, token="secret")

            yield SimpleNamespace(ask=ask, host=host, router=router)
    finally:
        router.stop(0)
        host.close()
        device.close()


async def test_links_and_regions_are_listed(service) -> None:
    body = await service.ask("GET", "/admin/links")
    assert body["regions"] == {"access": "198.19.1.0/24", "near": "198.19.20.0/24"}
    assert body["links"][0] == {
        "from": "access", "to": "near", "rtt_ms": 20, "jitter_ms": 0, "loss": 0, "rate_bps": None,
        "queue_bytes": 150_000, "duplicate": 0, "reorder": 0, "reorder_ms": 10, "corrupt_bitflip": 0,
        "corrupt_swap16": 0, "corrupt_plusminus": 0, "corrupt_random": 0, "corrupt_k": 1, "changed": False,
    }  # fmt: skip


async def test_a_packet_is_delayed_by_half_the_round_trip(service) -> None:
    begin = time.monotonic()
    service.host.send(THERE)
    assert await asyncio.to_thread(service.host.recv, 2000) == THERE
    assert time.monotonic() - begin >= 0.010
    service.host.send(BACK)
    assert await asyncio.to_thread(service.host.recv, 2000) == BACK


async def test_a_change_applies_to_both_directions_or_one(service) -> None:
    body = await service.ask("PUT", "/admin/links/near/access", {"rtt_ms": 8, "jitter_ms": 1})
    assert [(x["from"], x["to"], x["rtt_ms"], x["jitter_ms"]) for x in body["links"]] == [
        ("near", "access", 8, 1), ("access", "near", 8, 1),
    ]  # fmt: skip
    await service.ask("PUT", "/admin/links/access/near?direction=one", {"loss": 1})
    links = (await service.ask("GET", "/admin/links"))["links"]
    assert [(x["rtt_ms"], x["loss"], x["changed"]) for x in links] == [(8, 1, True), (8, 0, True)]
    await service.ask("DELETE", "/admin/links/access/near?direction=one")
    links = (await service.ask("GET", "/admin/links"))["links"]
    assert [(x["rtt_ms"], x["loss"], x["changed"]) for x in links] == [(20, 0, False), (8, 0, True)]
    links = (await service.ask("DELETE", "/admin/links"))["links"]
    assert [(x["rtt_ms"], x["changed"]) for x in links] == [(20, False), (0, False)]


async def test_counters_and_metrics_count_delivered_and_dropped_packets(service) -> None:
    await service.ask("PUT", "/admin/links/access/near?direction=one", {"loss": 1})
    for data in (THERE, THERE, b"\x60" + bytes(50), packet("198.19.1.10", "192.0.2.1"), BACK):
        service.host.send(data)
    # BACK is sent last and is not delayed, so once it arrives, every packet has been processed.
    await asyncio.to_thread(service.host.recv, 2000)
    body = await service.ask("GET", "/admin/counters")
    assert body["links"][0] == {
        "from": "access", "to": "near", "packets": 2, "bytes": 48, "dropped_loss": 2, "dropped_queue": 0,
        "dropped_rule": 0, "duplicated": 0, "reordered": 0, "corrupted": INTACT, "queued": 0,
    }  # fmt: skip
    assert (body["not_ipv4"], body["unroutable"], body["held"], body["write_errors"]) == (1, 1, 0, 0)
    for _ in range(2):  # the second scrape must not count packets again
        metrics = await service.ask("GET", "/metrics")
    assert 'firstbyte_wan_packets_total{from="access",to="near"} 2' in metrics
    assert 'firstbyte_wan_dropped_total{from="access",to="near",reason="loss"} 2' in metrics
    assert 'firstbyte_wan_discarded_total{reason="unroutable"} 1' in metrics
    assert 'firstbyte_wan_link_rtt_seconds{from="access",to="near"} 0.02' in metrics


async def test_corrupted_and_duplicated_packets_are_counted_per_link_and_mode(service) -> None:
    values = {"corrupt_swap16": 1, "duplicate": 1, "rtt_ms": 0}
    await service.ask("PUT", "/admin/links/access/near?direction=one", values)
    segment = tcp(bytes(range(100)))
    service.host.send(segment)
    first, second = [await asyncio.to_thread(service.host.recv, 2000) for _ in range(2)]
    assert first == second != segment
    assert is_valid(first)
    there, back = (await service.ask("GET", "/admin/counters"))["links"]
    assert (there["duplicated"], there["corrupted"]) == (1, {**INTACT, "swap16": 1})
    assert (back["duplicated"], back["corrupted"]) == (0, INTACT)
    for _ in range(2):
        metrics = await service.ask("GET", "/metrics")
    assert 'firstbyte_wan_corrupted_total{from="access",to="near",mode="swap16"} 1' in metrics
    assert 'firstbyte_wan_duplicated_total{from="access",to="near"} 1' in metrics
    assert "firstbyte_wan_reordered_total{" not in metrics


async def test_a_rule_drops_one_segment_and_records_it(service) -> None:
    await service.ask("PUT", "/admin/links/access/near", {"rtt_ms": 0})
    await service.ask("POST", "/admin/drops", {"flags": "fin+ack", "port": 443})
    closing, data = tcp(b"", 0x11, seq=9), tcp(b"data")
    for segment in (closing, data, closing):
        service.host.send(segment)
    assert [await asyncio.to_thread(service.host.recv, 2000) for _ in range(2)] == [data, closing]
    (rule,) = (await service.ask("GET", "/admin/drops"))["drops"]
    assert (rule["spent"], [each["seq"] for each in rule["dropped"]]) == (True, [9])
    assert (await service.ask("GET", "/admin/counters"))["links"][0]["dropped_rule"] == 1
    assert await service.ask("DELETE", "/admin/drops") == {"drops": []}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("PUT", "/admin/links/access/moon", {"rtt_ms": 1}, 404, "expected one of the regions access, near, got 'moon'"),
        ("PUT", "/admin/links/near/near", {"rtt_ms": 1}, 404, "expected two different regions"),
        ("PUT", "/admin/links/access/near", {"rtt_ms": "1"}, 400, "expected rtt_ms to be milliseconds"),
        ("PUT", "/admin/links/access/near", {"rtt_ms": 1, "los": 0}, 400, "expected one of rtt_ms"),
        ("PUT", "/admin/links/access/near", {}, 400, "expected a JSON object of settings"),
        ("PUT", "/admin/links/access/near", [1], 400, "expected a JSON object of settings"),
        ("PUT", "/admin/links/access/near?direction=west", {"rtt_ms": 1}, 400, "direction=one or both"),
        ("DELETE", "/admin/links/access/near?way=one", None, 400, "direction=one or both"),
        ("PUT", "/admin/links/access/near", {"corrupt_swap16": 2}, 400, "expected corrupt_swap16 to be a probability"),
        ("PUT", "/admin/links/access/near", {"corrupt": 0.1}, 400, "expected one of rtt_ms"),
        ("POST", "/admin/drops", {"flags": "fin,ack"}, 400, "expected flags to be some of fin"),
        ("POST", "/admin/drops", [], 400, "expected a JSON object with some of source"),
        ("GET", "/admin/pcap", None, 404, "no capture"),
        ("DELETE", "/admin/pcap", None, 404, "no capture"),
        ("POST", "/admin/pcap", {}, 400, "expected seconds to be more than 0 and at most 600, got None"),
        ("POST", "/admin/pcap", {"seconds": 601}, 400, "expected seconds"),
        ("POST", "/admin/pcap", {"seconds": 1, "snaplen": 1}, 400, '"seconds": N'),
        ("POST", "/admin/pcap", {"seconds": 1, "filter": {"port": "https"}}, 400, "expected port to be"),
        ("POST", "/admin/pcap", {"seconds": 1, "filter": [1]}, 400, "expected filter to be an object"),
    ],
)
async def test_bad_requests_say_what_was_expected_and_change_nothing(service, method, path, body, status, message):
    with pytest.raises(CallError) as refused:
        await service.ask(method, path, body)
    assert refused.value.status == status
    assert message in refused.value.message
    assert not any(link["changed"] for link in (await service.ask("GET", "/admin/links"))["links"])


async def test_a_capture_records_only_what_its_filter_matches(service) -> None:
    state = await service.ask("POST", "/admin/pcap", {"seconds": 30, "filter": {"host": "198.19.20.10"}})
    assert (state["state"], state["filter"]) == ("running", {"host": "198.19.20.10"})
    with pytest.raises(CallError, match="409"):
        await service.ask("POST", "/admin/pcap", {"seconds": 30})
    service.host.send(packet("198.19.20.11", "198.19.1.10"))
    service.host.send(BACK)
    assert await asyncio.to_thread(service.host.recv, 2000) != BACK
    assert await asyncio.to_thread(service.host.recv, 2000) == BACK
    assert (await service.ask("DELETE", "/admin/pcap"))["state"] == "done"
    body = await service.ask("GET", "/admin/pcap")
    content = base64.b64decode(body["pcap"])
    assert (body["packets"], body["bytes"]) == (1, len(content))
    assert content.startswith(file_header(LINKTYPE_RAW))
    assert content.endswith(BACK)
    assert await service.ask("GET", "/admin/pcap?format=pcap") == content


async def test_stopping_delivers_due_packets_and_returns_how_many_are_left() -> None:
    host, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    device.setblocking(False)
    host.settimeout(5)
    links = {("access", "near"): LinkSettings(rtt_ms=60), ("near", "access"): LinkSettings(rtt_ms=60_000)}
    router = Router(device.fileno(), Network(REGIONS, links))
    router.start()
    host.send(THERE)
    host.send(BACK)
    while len(router.network) < 2:  # noqa: ASYNC110 - polls: no event signals a change in the router's thread
        await asyncio.sleep(0.001)  # short interval, because the first packet is held for only 30 ms
    assert await asyncio.to_thread(router.stop, 0.1) == 1
    assert host.recv(2000) == THERE
    assert not router.running
    host.close()
    device.close()


def test_a_descriptor_that_fails_is_reported() -> None:
    read, write = os.pipe()
    os.close(read)
    os.set_blocking(write, False)
    failed = threading.Event()
    router = Router(write, Network(REGIONS, {}), on_failure=lambda error: failed.set())
    router.start()
    assert failed.wait(5)
    router.stop(0)
    os.close(write)
