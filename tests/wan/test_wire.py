"""Tests of impairments with two real kernels: TCP, TLS and UDP through a TUN device between network namespaces."""

import contextlib
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from wan_namespaces import ADDRESS, Network, write_links

from netns_engine import namespaces
from telemetry.call import call
from tests.waiting import comes_true
from tests.wan.test_command import namespaces_work

pytestmark = pytest.mark.skipif(not namespaces_work(), reason="needs root and network namespaces")

#: Data of one transfer, in which each aligned 16-bit word differs from its neighbours.
DATA = b"".join(struct.pack("!H", n * 7919 % 65_536) for n in range(50_000))
#: Socket timeout in seconds.
PATIENCE = 5.0


class Wire:
    """The benchmark's three network namespaces with `wan` in the middle one, and sockets in the two outer hosts."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._home = namespaces.own("net")

    @contextlib.contextmanager
    def inside(self, host: str) -> Iterator[None]:
        namespace = os.open(f"/run/netns/{self.network.name(host)}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            with namespaces.inside(namespace, self._home):
                yield
        finally:
            os.close(namespace)

    def opened(self, host: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
        with self.inside(host):
            made = socket.socket(socket.AF_INET, kind)
        made.settimeout(PATIENCE)
        return made

    def admin(self, method: str, path: str, body: object = None) -> dict:
        with self.inside("w"):
            return call("http://127.0.0.1:9900", method, path, body, token="secret")

    def links(self, **settings: float) -> None:
        """Change the link from ``b`` (the sender) to ``a``, and restore all other links."""
        self.admin("DELETE", "/admin/links")
        if settings:
            self.admin("PUT", "/admin/links/b/a?direction=one", settings)

    def counters(self) -> dict:
        return next(link for link in self.admin("GET", "/admin/counters")["links"] if link["from"] == "b")

    def counted(self, host: str, protocol: str, name: str) -> int:
        """Return a counter from /proc/net/snmp of *host*."""
        with self.inside(host):
            lines = Path("/proc/thread-self/net/snmp").read_text(encoding="ascii").splitlines()
        names, values = (line.split() for line in lines if line.startswith(f"{protocol}:"))
        return int(values[names.index(name)])

    def transfer(self, wrap: Callable[[socket.socket], socket.socket] = lambda s: s, client=lambda s: s) -> bytes:
        """Send `DATA` from ``b`` to ``a`` over one connection; return the bytes received until the connection ended."""
        listener = self.opened("b")
        listener.bind((ADDRESS["b"], 0))
        listener.listen()

        def serve() -> None:
            with contextlib.suppress(OSError), listener, wrap(listener.accept()[0]) as connection:
                connection.sendall(DATA)

        server = threading.Thread(target=serve)
        server.start()
        received = bytearray()
        plain = self.opened("a")
        plain.connect(listener.getsockname())
        try:
            with contextlib.suppress(ConnectionError, ssl.SSLError), client(plain) as connection:
                while data := connection.recv(65_536):
                    received += data
        finally:
            plain.close()
            server.join()
        return bytes(received)


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    folder = tmp_path_factory.mktemp("wire")
    (folder / "token").write_text("secret")
    with Network() as network:
        links = write_links(folder / "links.toml", 4)
        network.start_wan(links, "--admin", "127.0.0.1:9900", "--token-file", str(folder / "token"), "--seed", "7")
        network.through_wan(True)
        yield Wire(network)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return a server's TLS context and the context of a client that trusts it."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "b")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(datetime.now(UTC) - timedelta(hours=1))
    builder = builder.not_valid_after(datetime.now(UTC) + timedelta(hours=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("b")]), critical=False)
    path = tmp_path_factory.mktemp("tls") / "b.pem"
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(private + builder.sign(key, hashes.SHA256()).public_bytes(pem))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    return server, ssl.create_default_context(cafile=path)


def test_without_impairments_everything_arrives(wire: Wire) -> None:
    wire.links()
    assert wire.transfer() == DATA


@pytest.mark.parametrize("mode", ["swap16", "plusminus"])
def test_tcp_delivers_corrupt_bytes_when_the_checksum_stays_valid(wire: Wire, mode: str) -> None:
    wire.links(**{f"corrupt_{mode}": 0.2})
    before, sums = wire.counters()["corrupted"][mode], wire.counted("a", "Tcp", "InCsumErrors")
    received = wire.transfer()
    assert len(received) == len(DATA)
    assert received != DATA
    assert wire.counters()["corrupted"][mode] > before
    assert wire.counted("a", "Tcp", "InCsumErrors") == sums


def test_tcp_repairs_what_its_checksum_catches_and_the_kernel_counts_each(wire: Wire) -> None:
    wire.links(corrupt_bitflip=0.1)
    before, sums = wire.counters()["corrupted"]["bitflip"], wire.counted("a", "Tcp", "InCsumErrors")
    assert wire.transfer() == DATA
    time.sleep(0.05)  # segments that `wan` has already corrupted and counted may still be in flight
    caught = wire.counted("a", "Tcp", "InCsumErrors") - sums
    assert caught == wire.counters()["corrupted"]["bitflip"] - before > 0


def test_tls_delivers_no_corrupt_byte_and_fails(wire: Wire, tls) -> None:
    server, client = tls
    wire.links()
    wrap = {"wrap": lambda s: server.wrap_socket(s, server_side=True)}
    assert wire.transfer(**wrap, client=lambda s: client.wrap_socket(s, server_hostname="b")) == DATA
    wire.links(corrupt_swap16=0.2)
    received = wire.transfer(**wrap, client=lambda s: client.wrap_socket(s, server_hostname="b"))
    assert len(received) < len(DATA)
    assert DATA.startswith(received)


def test_tcp_removes_duplicates_and_restores_the_order(wire: Wire) -> None:
    wire.links(duplicate=0.2, reorder=0.2, reorder_ms=3)
    before = wire.counters()
    assert wire.transfer() == DATA
    after = wire.counters()
    assert after["duplicated"] > before["duplicated"]
    assert after["reordered"] > before["reordered"]


def test_udp_sees_every_impairment_that_wan_counted(wire: Wire) -> None:
    """The effects on 200 numbered datagrams, sent 1 ms apart, match the counters of `wan` exactly."""
    wire.links(loss=0.1, duplicate=0.1, reorder=0.1, reorder_ms=5, corrupt_bitflip=0.1)
    receiver, sender = wire.opened("a", socket.SOCK_DGRAM), wire.opened("b", socket.SOCK_DGRAM)
    receiver.bind((ADDRESS["a"], 0))
    wire.admin("DELETE", "/admin/drops")
    before, sums = wire.counters(), wire.counted("a", "Udp", "InCsumErrors")
    for number in range(200):
        sender.sendto(struct.pack("!II", number, ~number & 0xFFFFFFFF) * 8, receiver.getsockname())
        time.sleep(0.001)  # sending interval, which is less than reorder_ms
    receiver.settimeout(0.3)
    numbers = []
    with contextlib.suppress(TimeoutError):
        while True:
            numbers.append(struct.unpack_from("!I", receiver.recv(100))[0])
    after = wire.counters()
    made = {key: after[key] - before[key] for key in ("dropped_loss", "duplicated", "reordered")}
    damaged = wire.counted("a", "Udp", "InCsumErrors") - sums
    receiver.close()
    sender.close()
    assert min(made.values()) > 5
    # Each datagram and each duplicate was received, lost, or discarded for its checksum.
    assert len(numbers) == 200 - made["dropped_loss"] + made["duplicated"] - damaged
    assert after["corrupted"]["bitflip"] - before["corrupted"]["bitflip"] <= damaged
    assert len(set(numbers)) < len(numbers)
    assert numbers != sorted(numbers)


def test_time_wait_answers_the_fin_when_the_last_acknowledgement_is_lost(wire: Wire) -> None:
    """After the last acknowledgement of a close is lost, the client in TIME-WAIT acknowledges the repeated FIN."""
    wire.links()
    wire.admin("DELETE", "/admin/drops")
    wire.admin("POST", "/admin/drops", {"source": ADDRESS["a"], "flags": "ack", "acknowledges_fin": True})
    again = wire.counted("b", "Tcp", "RetransSegs")
    listener, client = wire.opened("b"), wire.opened("a")
    listener.bind((ADDRESS["b"], 0))
    listener.listen()
    client.connect(listener.getsockname())
    server, _ = listener.accept()
    client.close()
    assert server.recv(1) == b""
    server.close()
    listener.close()
    comes_true(lambda: wire.counted("b", "Tcp", "RetransSegs") != again, PATIENCE)
    (rule,) = wire.admin("GET", "/admin/drops")["drops"]
    assert rule["spent"]
    repeated = wire.counted("b", "Tcp", "RetransSegs")
    assert repeated > again  # the FIN was retransmitted
    time.sleep(0.3)  # allows time for the acknowledgement from TIME-WAIT to arrive
    settled = wire.counted("b", "Tcp", "RetransSegs")
    time.sleep(0.6)  # without an acknowledgement, the FIN would be retransmitted again within this time
    assert wire.counted("b", "Tcp", "RetransSegs") == settled
    wire.admin("DELETE", "/admin/drops")
