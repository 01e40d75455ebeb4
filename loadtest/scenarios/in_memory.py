"""TLS handshakes between two ends in this thread's memory: what they cost in CPU and octets, without any network.

Both ends are OpenSSL; each end's CPU is read apart, on the clock of this thread.
"""

import datetime as dt
import ssl
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

NAME = "server.test"
#: Kinds of keys that a certificate may hold here.
KEYS = ("ECDSA P-256", "RSA 2048")
VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True, slots=True)
class Cost:
    """Median of some handshakes."""

    client_ms: float
    server_ms: float
    #: Octets that the client and the server sent.
    sent: int
    received: int
    #: Octets of the server's certificate (DER).
    certificate: int
    resumed: bool


class Ends:
    """A client and a server with a certificate of its own."""

    def __init__(self, key: str, version: str, *, curve: str | None = None) -> None:
        """Make both.

        Args:
            key: of `KEYS`.
            version: ``TLSv1.2`` or ``TLSv1.3``.
            curve: the only key exchange group that the server takes; None: what both like best.
        """
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        for context in (self.server, self.client):
            context.minimum_version = context.maximum_version = VERSIONS[version]
        if curve is not None:
            self.server.set_ecdh_curve(curve)
        with tempfile.TemporaryDirectory() as folder:
            certificate, private = _self_signed(key)
            pair = Path(folder, "pair.pem")
            pair.write_bytes(certificate + private)
            self.server.load_cert_chain(pair)
        self.client.load_verify_locations(cadata=certificate.decode())
        self.certificate = len(ssl.PEM_cert_to_DER_cert(certificate.decode()))

    def cost(self, times: int, *, resumed: bool = False) -> Cost:
        """Return what *times* handshakes cost; *resumed*: with the ticket of one before."""
        session = self._shake(None)[1] if resumed else None
        costs = [self._shake(session)[0] for _ in range(times)]
        return Cost(
            median(c.client_ms for c in costs),
            median(c.server_ms for c in costs),
            costs[-1].sent,
            costs[-1].received,
            self.certificate,
            all(c.resumed for c in costs),
        )

    def _shake(self, session: ssl.SSLSession | None) -> tuple[Cost, ssl.SSLSession | None]:
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = self.client.wrap_bio(to_client, to_server, server_hostname=NAME, session=session)
        server = self.server.wrap_bio(to_server, to_client, server_side=True)
        spent = {client: 0.0, server: 0.0}
        sent = received = 0
        open_ends = [client, server]
        while open_ends:
            for end in tuple(open_ends):
                began = time.thread_time()
                try:
                    end.do_handshake()
                    open_ends.remove(end)
                except ssl.SSLWantReadError:
                    pass
                spent[end] += time.thread_time() - began
                # What one end wrote is all in the other's BIO until that end runs.
                sent += to_server.pending if end is client else 0
                received += to_client.pending if end is server else 0
        server.write(b"x")  # TLS 1.3 tickets travel before the first data
        client.read(1)
        made = Cost(
            spent[client] * 1000, spent[server] * 1000, sent, received, self.certificate, bool(client.session_reused)
        )
        return made, client.session


def _self_signed(kind: str) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1()) if kind == "ECDSA P-256" else rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True, key_cert_sign=True, crl_sign=False, content_commitment=False, key_encipherment=True,
                data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
            ),
            critical=True,
        )
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), private
