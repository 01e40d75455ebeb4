"""An impostor: a name server that returns a false address, and a server at that address that relays requests."""

import contextlib
import datetime as dt
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from scenarios.instruments.local_resolvers import free_port
from stub import Stub, StubError

HTTP, HTTPS = 80, 443
#: Time-outs in seconds: for a request or a response to arrive, and for the false name server to start.
TIMEOUT, STARTS = 10.0, 10.0


class Impostor:
    """A server for `HTTP` and `HTTPS` that reads each request and forwards it to the real server.

    Use it as a context manager.
    """

    def __init__(self, name: str, real: str, pair: Path, trust: Path, ports: tuple[int, int] = (HTTP, HTTPS)) -> None:
        """Create the impostor.

        Args:
            name: host name of the real server.
            real: address of the real server.
            pair: the impostor's certificate and key (PEM).
            trust: root certificates with which the impostor verifies the real server (PEM).
            ports: ports without and with TLS on which the impostor listens.
        """
        self._name, self._real, self._ports = name, real, ports
        self._own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._own.load_cert_chain(pair)
        self._verified = ssl.create_default_context(cafile=trust)
        #: Plaintext of each request that the impostor read.
        self.requests: list[str] = []
        #: Reasons why TLS handshakes failed, such as an alert from a client.
        self.failed: list[str] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for secure, port in enumerate(self._ports):
                listener = stack.enter_context(closing(socket.create_server(("", port))))
                thread = threading.Thread(target=self._accept, args=(listener, bool(secure)), daemon=True)
                thread.start()
                stack.callback(thread.join, TIMEOUT)
                stack.callback(listener.shutdown, socket.SHUT_RDWR)  # ends accept() in the thread
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _accept(self, listener: socket.socket, secure: bool) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # the listener was shut down
            with closing(client):
                client.settimeout(TIMEOUT)
                try:
                    self._serve(self._own.wrap_socket(client, server_side=True) if secure else client, secure=secure)
                except ssl.SSLError as error:
                    self.failed.append(error.reason or str(error))
                except OSError:
                    continue  # the client or the real server has ended the connection

    def _serve(self, client: socket.socket, *, secure: bool) -> None:
        """Read one request, forward it to the real server, and relay the response until the real server closes."""
        with closing(client):
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                data = client.recv(65_536)
                if not data:
                    return
                request += data
            self.requests.append(request.decode("latin-1"))
            with closing(self._connect(secure=secure)) as server:
                closes = b"connection: close" in request.lower()
                server.sendall(request if closes else request[:-2] + b"Connection: close\r\n\r\n")
                while data := server.recv(65_536):
                    client.sendall(data)

    def _connect(self, *, secure: bool) -> socket.socket:
        server = socket.create_connection((self._real, HTTPS if secure else HTTP), TIMEOUT)
        return self._verified.wrap_socket(server, server_hostname=self._name) if secure else server


@contextlib.contextmanager
def false_names(name: str, address: str, pair: Path) -> Iterator[tuple[tuple[str, int], tuple[str, int]]]:
    """Run a name server on loopback that claims authority for *name* and returns *address* for it.

    Args:
        name: host name.
        address: the false IPv4 address.
        pair: certificate and key for DNS over TLS (PEM).

    Yields:
        The IP address and port of the name server for UDP and TCP, and those for TLS.

    Raises:
        OSError: the server did not answer within `STARTS` seconds.
    """
    plain, tls = ("127.0.0.1", free_port()), ("127.0.0.1", free_port())
    zone = pair.parent / "zone"
    zone.write_text(f"{name}. 30 IN SOA ns hostmaster 1 60 30 600 10\n{name}. 30 IN NS ns.{name}.\n"
                    f"ns.{name}. 30 IN A 127.0.0.1\n{name}. 30 IN A {address}\n")  # fmt: skip
    command = [sys.executable, "-m", "nameserver", "--listen", f"{plain[0]}:{plain[1]}", "--zone", f"{name}.={zone}"]
    command += ["--tls", f"{tls[0]}:{tls[1]}", "--cert", str(pair), "--key", str(pair), "--log-level", "error"]
    # Without the lab's environment variables: they would make the name server open the admin port of this host.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FIRSTBYTE_")}
    # Its standard output announces its ports; ours is for the result.
    # In a session of its own, it is not interrupted by Ctrl-C.
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True) as child:
        try:
            end = time.monotonic() + STARTS
            while not (_answers(name, plain) and _accepts(tls)):
                if child.poll() is not None or time.monotonic() > end:
                    raise OSError(f"the false name server did not answer within {STARTS:g} s")
                time.sleep(0.1)  # the socket may not exist yet; a refused query returns immediately
            yield plain, tls
        finally:
            child.terminate()


def _answers(name: str, server: tuple[str, int]) -> bool:
    try:
        return bool(Stub([server], timeout=1.0, attempts=1).resolve(name).rdata)
    except StubError:
        return False


def _accepts(server: tuple[str, int]) -> bool:
    """Return whether *server* accepts TCP connections; the name server opens its TLS port last."""
    try:
        socket.create_connection(server, 1.0).close()
    except OSError:
        return False
    return True


def self_signed(name: str) -> bytes:
    """Return a key and a self-signed certificate for *name* (PEM); no CA is involved."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private + certificate.public_bytes(Encoding.PEM)
