"""Tests for PROXY protocol headers: the reader, an edge behind a load balancer, and HAProxy and curl as senders."""

import asyncio
import contextlib
import socket
import struct
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import Timeouts
from edge.proxy import Proxy
from edge.proxy_protocol import MAX_V1, MAX_V2, SIGNATURE, ProxyHeader, ProxyHeaderError, crc32c, read_header
from edge.settings import Clients
from tests import judges
from tests.edge.conftest import GET, Bench, parts, plain, talk
from tests.edge.test_http2 import Http2Peer
from tests.edge.test_settings import configured
from tests.peers import read_request
from tests.waiting import until

IPV4 = struct.pack("!4s4sHH", IPv4Address("203.0.113.9").packed, IPv4Address("192.0.2.1").packed, 56324, 443)
IPV6 = struct.pack("!16s16sHH", IPv6Address("2001:db8::9").packed, IPv6Address("2001:db8::1").packed, 56324, 443)


def v2(block: bytes, command: int = 0x21, family: int = 0x11, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(block) if length is None else length) + block


def summed(block: bytes, checksum: bytes | None = None) -> bytes:
    """Return a version 2 header that contains *block*, a CRC32C field and another field, in this order."""
    zeros = v2(block + b"\x03\x00\x04" + bytes(4) + b"\x02\x00\x03www")
    found = checksum if checksum is not None else crc32c(zeros).to_bytes(4, "big")
    return zeros[: 16 + len(block) + 3] + found + zeros[16 + len(block) + 7 :]


ACCEPTED = {
    "v1-tcp4": (b"PROXY TCP4 203.0.113.9 192.0.2.1 56324 443\r\n", "203.0.113.9", 56324),
    "v1-tcp6": (b"PROXY TCP6 2001:db8::9 2001:db8::1 56324 443\r\n", "2001:db8::9", 56324),
    "v1-unknown": (b"PROXY UNKNOWN\r\n", "", 0),
    "v1-unknown-with-addresses": (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", "", 0),
    "v1-port-0": (b"PROXY TCP4 203.0.113.9 192.0.2.1 0 443\r\n", "203.0.113.9", 0),
    "v2-tcp4": (v2(IPV4), "203.0.113.9", 56324),
    "v2-tcp6": (v2(IPV6, family=0x21), "2001:db8::9", 56324),
    "v2-fields": (v2(IPV4 + b"\x02\x00\x03www" + b"\x04\x00\x00"), "203.0.113.9", 56324),
    "v2-checksum": (summed(IPV4), "203.0.113.9", 56324),
    "v2-local": (v2(b"", command=0x20, family=0), "", 0),
    "v2-local-ignores-addresses": (v2(b"\xff" * 7, command=0x20, family=0x11), "", 0),
    "v2-unspecified": (v2(b"", family=0), "", 0),
    "v2-longest": (v2(IPV4 + b"\x04" + struct.pack("!H", MAX_V2 - 31) + bytes(MAX_V2 - 31)), "203.0.113.9", 56324),
}
REFUSED = {
    "request": GET,
    "client-hello": b"\x16\x03\x01\x02\x00\x01",
    "v1-lower-case": b"proxy TCP4 203.0.113.9 192.0.2.1 1 2\r\n",
    "v1-two-spaces": b"PROXY TCP4  203.0.113.9 192.0.2.1 1 2\r\n",
    "v1-bare-line-feed": b"PROXY TCP4 203.0.113.9 192.0.2.1 1 2\n",
    "v1-address-of-the-other-family": b"PROXY TCP6 203.0.113.9 192.0.2.1 1 2\r\n",
    "v1-leading-zeros": b"PROXY TCP4 203.000.113.9 192.0.2.1 1 2\r\n",
    "v1-port-with-a-zero": b"PROXY TCP4 203.0.113.9 192.0.2.1 01 2\r\n",
    "v1-port-too-large": b"PROXY TCP4 203.0.113.9 192.0.2.1 1 65536\r\n",
    "v1-no-ports": b"PROXY TCP4 203.0.113.9 192.0.2.1\r\n",
    "v1-udp": b"PROXY UDP4 203.0.113.9 192.0.2.1 1 2\r\n",
    "v1-too-long": b"PROXY UNKNOWN " + b"a" * MAX_V1 + b"\r\n",
    "v2-version-1": v2(IPV4, command=0x11),
    "v2-unknown-command": v2(IPV4, command=0x22),
    "v2-udp": v2(IPV4, family=0x12),
    "v2-unix": v2(bytes(216), family=0x31),
    "v2-short-addresses": v2(IPV4[:11]),
    "v2-incomplete-field": v2(IPV4 + b"\x02\x00"),
    "v2-field-beyond-the-end": v2(IPV4 + b"\x02\x00\x04www"),
    "v2-wrong-checksum": summed(IPV4, bytes(4)),
    "v2-changed-address": summed(IPV4).replace(IPV4[:4], bytes([203, 0, 113, 8])),
    "v2-short-checksum": v2(IPV4 + b"\x03\x00\x03" + bytes(3)),
    "v2-too-long": v2(b"", length=MAX_V2),
}


@pytest.mark.parametrize(("data", "address", "port"), ACCEPTED.values(), ids=ACCEPTED)
def test_a_header_is_read_and_what_follows_is_left(data: bytes, address: str, port: int) -> None:
    assert read_header(data + GET) == ProxyHeader(address, port, len(data))
    for end in range(len(data)):
        assert read_header(data[:end]) is None


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(ProxyHeaderError):
        read_header(data)


@pytest.mark.parametrize(
    ("data", "checksum"),
    [(b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E)],
    ids=["check-value", "zeros", "ones", "ascending"],
)
def test_crc32c_has_the_values_of_rfc_3720(data: bytes, checksum: int) -> None:
    assert crc32c(data) == checksum


@given(st.binary(max_size=300), st.sampled_from([b"", SIGNATURE, SIGNATURE + b"\x21\x11", b"PROXY TCP4 ", b"PROXY "]))
def test_arbitrary_bytes_are_refused_or_a_header_within_them(data: bytes, start: bytes) -> None:
    data = start + data
    try:
        header = read_header(data)
    except ProxyHeaderError:
        return
    if header is None:
        assert len(data) < MAX_V2
    else:
        assert 0 < header.length <= len(data)
        assert read_header(data[: header.length]) == header
        if header.address:
            assert header.address in {str(IPv4Address(0)), str(IPv6Address(0))} or ip_network(header.address)


async def behind(
    bench: Bench, *, tls: bool = False, alpn: tuple[str, ...] = (), networks: str = "127.0.0.0/8"
) -> tuple[Proxy, int]:
    """Start an edge behind a load balancer, in front of an origin that answers with the client's address."""

    async def script(reader, writer) -> None:
        while True:
            seen = (await read_request(reader))[1]["x-forwarded-for"].encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(seen), seen))

    proxy, port = await bench.edge(
        plain(await bench.start(script)), tls=tls, alpn=alpn, timeouts=Timeouts(handshake=0.2, drain=0.3)
    )
    configured(proxy, clients=Clients(proxy_protocol=(ip_network(networks),), per_address=1))
    return proxy, port


@pytest.mark.parametrize("data", [ACCEPTED["v1-tcp4"][0], ACCEPTED["v2-fields"][0]], ids=["v1", "v2"])
async def test_the_announced_address_reaches_the_origin_and_counts_for_limits(bench: Bench, data: bytes) -> None:
    proxy, port = await behind(bench)
    assert parts(await talk(port, data + GET))[2] == b"203.0.113.9"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    await until(lambda: proxy._by_address["203.0.113.9"] == 1)
    assert parts(await talk(port, data + GET))[0] == 503
    assert parts(await talk(port, ACCEPTED["v2-tcp6"][0] + GET))[2] == b"2001:db8::9"
    for byte in GET:
        writer.write(bytes([byte]))
    assert parts(await reader.read())[2] == b"203.0.113.9"
    writer.close()
    await until(lambda: not proxy._clients)
    assert not proxy._by_address


async def test_a_health_check_of_the_load_balancer_has_its_own_address(bench: Bench) -> None:
    _, port = await behind(bench)
    assert parts(await talk(port, ACCEPTED["v2-local"][0] + GET))[2] == b"127.0.0.1"


@pytest.mark.parametrize(
    ("networks", "data", "answered"),
    [("198.19.0.0/16", b"", True), ("198.19.0.0/16", ACCEPTED["v1-tcp4"][0], False), ("127.0.0.0/8", b"", False)],
    ids=["other-address", "header-from-another-address", "no-header"],
)
async def test_only_load_balancers_send_headers_and_they_always_do(
    bench: Bench, networks: str, data: bytes, *, answered: bool
) -> None:
    proxy, port = await behind(bench, networks=networks)
    answer = await talk(port, data + GET)
    assert answer.startswith(b"HTTP/1.1 200" if answered else b"HTTP/1.1 400" if data else b"")
    assert bool(answer) == (answered or bool(data))
    await until(lambda: not proxy._clients)
    refused = 'firstbyte_edge_handshake_failures_total{reason="proxy_header"} 1'
    assert (refused in proxy.telemetry.metrics.render()) == (not answered and not data)


async def test_a_header_that_does_not_come_ends_the_connection(bench: Bench) -> None:
    proxy, port = await behind(bench)
    assert await talk(port, ACCEPTED["v2-tcp4"][0][:20]) == b""
    assert 'handshake_failures_total{reason="timeout"} 1' in proxy.telemetry.metrics.render()


@pytest.mark.parametrize(
    ("networks", "sent"),
    [
        pytest.param("127.0.0.0/8", b"PROXY TCP4 192", id="in-the-header"),
        pytest.param("127.0.0.0/8", ACCEPTED["v1-tcp4"][0], id="after-the-header"),
        pytest.param("198.19.0.0/16", b"", id="before-the-client-hello"),
        pytest.param("198.19.0.0/16", b"\x16\x03\x01\x02", id="in-the-client-hello"),
    ],
)
async def test_a_reset_before_the_end_of_the_handshake_is_counted_once(
    bench: Bench, networks: str, sent: bytes
) -> None:
    proxy, port = await behind(bench, tls=True, networks=networks)
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(sent)
        await until(lambda: any(client.handshake is not None for client in proxy._clients))  # type: ignore[attr-defined]  # all clients use HTTP/1
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close() sends a reset
    await until(lambda: not proxy._clients)
    lines = [line for line in proxy.telemetry.metrics.render().splitlines() if "handshake_failures_total{" in line]
    assert lines == ['firstbyte_edge_handshake_failures_total{reason="reset_by_client"} 1']


@pytest.mark.parametrize(
    ("sent", "client", "reason"),
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", "127.0.0.1", "proxy_header", id="no-header"),
        pytest.param(b"PROXY TCP4 192.0.2.7 192.0.2.1 5 443\r\nGET /", "192.0.2.7", "http_request", id="no-tls"),
    ],
)
async def test_a_failed_handshake_is_logged_with_the_best_known_address(
    bench: Bench, caplog: pytest.LogCaptureFixture, sent: bytes, client: str, reason: str
) -> None:
    _, port = await behind(bench, tls=True)
    await talk(port, sent)
    (line,) = [vars(record)["fields"] for record in caplog.records if record.message == "handshake_failed"]
    assert line == {"client": client, "reason": reason}


@pytest.mark.parametrize("alpn", ["http/1.1", "h2"])
async def test_tls_follows_the_header(bench: Bench, alpn: str) -> None:
    _, port = await behind(bench, tls=True, alpn=("h2", "http/1.1"))
    context = bench.papers.client()
    context.set_alpn_protocols([alpn])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(ACCEPTED["v2-tcp4"][0])
    await writer.start_tls(context, server_hostname="www.example.com")
    if alpn == "h2":
        peer = Http2Peer(reader, writer)
        assert await peer.answer(peer.request()) == ("200", b"203.0.113.9")
    else:
        writer.write(GET)
        assert parts(await reader.read())[2] == b"203.0.113.9"
    writer.close()


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
async def test_curl_sends_version_1(bench: Bench, version: str) -> None:
    judges.require("curl")
    _, port = await behind(bench, tls=True, alpn=("h2", "http/1.1"))
    name = f"www.example.com:{port}"
    command = ["curl", "-s", "--haproxy-protocol", version, f"https://{name}/"]
    command += [
        "--cacert",
        str(bench.papers.trust),
        "--connect-to",
        f"{name}:127.0.0.1:{port}",
        "-w",
        " %{http_version}",
    ]
    curl = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert (await curl.communicate())[0] == b"127.0.0.1 " + version.removeprefix("--http").encode()


HAPROXY = """
global
  log stdout format raw local0
defaults
  mode tcp
  timeout connect 2s
  timeout client 2s
  timeout server 2s
frontend in
  bind 127.0.0.1:{port}
  default_backend edge
backend edge
  server edge 127.0.0.1:{edge} {send}
"""


@contextlib.contextmanager
def haproxy(folder: Path, edge: int, send: str, port: int) -> Iterator[None]:
    judges.require("haproxy")
    (folder / "haproxy.cfg").write_text(HAPROXY.format(port=port, edge=edge, send=send))
    found = judges.find("haproxy")
    assert found is not None
    process = subprocess.Popen([found, "-db", "-f", str(folder / "haproxy.cfg")], stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.parametrize(
    "send",
    ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"],
    ids=["v1", "v2", "v2-fields"],
)
async def test_haproxy_in_front_announces_the_client(
    bench: Bench, tmp_path: Path, unused_tcp_port: int, send: str
) -> None:
    proxy, port = await behind(bench)
    with haproxy(tmp_path, port, send, unused_tcp_port):
        for _ in range(100):
            with contextlib.suppress(OSError):
                answer = await talk(
                    unused_tcp_port, GET.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\nX-Forwarded-For: spoof\r\n")
                )
                break
            await asyncio.sleep(0.02)  # interval between attempts to connect to HAProxy
        configured(proxy, clients=Clients(proxy_protocol=(ip_network("127.0.0.0/8"),), trusted=()))
        trusting = await talk(unused_tcp_port, GET)
    assert parts(answer)[2] == b"spoof, 127.0.0.1"
    assert parts(trusting)[2] == b"127.0.0.1"
