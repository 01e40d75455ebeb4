"""Runs TLS handshakes in memory, to measure CPU time, bytes and flights without a network.

Both ends use OpenSSL in one thread; the CPU time of each end is measured separately with the thread's CPU clock.
"""

import datetime as dt
import ssl
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, mldsa, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from wireformat.tls import TlsConnection

NAME = "server.test"
#: Key types available in every supported OpenSSL version; all certificates of a chain use the same key type.
KEYS = ("ECDSA P-256", "RSA 2048")
#: Post-quantum key types (FIPS 204); they need OpenSSL 3.5 or later.
POST_QUANTUM_KEYS = ("ML-DSA-44", "ML-DSA-65")
#: SSL_OP_NO_TX_CERTIFICATE_COMPRESSION, for which Python's `ssl` has no constant; older OpenSSL versions ignore it.
_NO_CERTIFICATE_COMPRESSION = 1 << 32

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | mldsa.MLDSA44PrivateKey | mldsa.MLDSA65PrivateKey


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of one handshake, or the median cost of several."""

    client_ms: float
    server_ms: float
    #: Total number of bytes that the client sent.
    sent: int
    #: Total number of bytes that the client received, session tickets included.
    received: int
    #: Size of the server's first flight in bytes, which has to fit into the initial congestion window.
    flight: int
    #: Number of server flights before the client can send a request.
    round_trips: int
    resumed: bool

    @classmethod
    def of(cls, costs: "Sequence[Cost]") -> "Cost":
        """Return the median cost of several handshakes.

        Times and sizes are medians; `round_trips` is the maximum.  `resumed` is true if every handshake was resumed.
        """
        return cls(
            median(c.client_ms for c in costs),
            median(c.server_ms for c in costs),
            round(median(c.sent for c in costs)),
            round(median(c.received for c in costs)),
            round(median(c.flight for c in costs)),
            max(c.round_trips for c in costs),
            all(c.resumed for c in costs),
        )


class Ends:
    """A client and a server, with certificates created for the measurement."""

    def __init__(
        self, key: str, version: str, *, curve: str | None = None, intermediates: int = 1, mutual: bool = False
    ) -> None:
        """Create the TLS contexts of both ends.

        Args:
            key: key type, one of `KEYS` or `POST_QUANTUM_KEYS`.
            version: ``TLSv1.2`` or ``TLSv1.3``.
            curve: the only key exchange group that the server accepts; None for OpenSSL's default.
            intermediates: number of certificates between leaf and root, all of which the server sends.
            mutual: whether the client also sends a certificate chain, of the same length.
        """
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        for context in (self.server, self.client):
            context.minimum_version = context.maximum_version = ssl.TLSVersion[version.replace(".", "_")]
        if curve is not None:
            self.server.set_ecdh_curve(curve)
        private, chain, root = _identity(key, intermediates)
        with tempfile.TemporaryDirectory() as folder:
            pair = Path(folder, "pair.pem")
            pair.write_bytes(_pem(private, chain))
            for context in (self.server, self.client) if mutual else (self.server,):
                context.load_cert_chain(pair)
        trust = root.public_bytes(Encoding.PEM).decode()
        self.client.load_verify_locations(cadata=trust)
        if mutual:
            # OpenSSL 3.2 and later can compress the client's certificates (RFC 8879), but theory counts uncompressed
            # bytes.
            self.client.options |= _NO_CERTIFICATE_COMPRESSION
            self.server.verify_mode = ssl.CERT_REQUIRED
            self.server.load_verify_locations(cadata=trust)
        #: DER bytes of each certificate that the server sends, the leaf first.
        self.certificates = tuple(len(each.public_bytes(Encoding.DER)) for each in chain)
        self._ticket: ssl.SSLSession | None = None

    def connect(self) -> tuple[TlsConnection, TlsConnection]:
        """Run a full handshake; return the connected client and server."""
        client, server = TlsConnection(self.client, NAME), TlsConnection(self.server, None)
        while not (client.established and server.established):
            for end, peer in ((client, server), (server, client)):
                end.handshake()
                peer.receive(end.to_send())
        return client, server

    def cost(self, times: int, *, resumed: bool = False) -> Cost:
        """Return the median cost of *times* handshakes; if *resumed*, each uses the ticket of an earlier handshake."""
        return Cost.of([self.shake(resumed=resumed) for _ in range(times)])

    def shake(self, *, resumed: bool = False) -> Cost:
        """Run one handshake and return its cost; if *resumed*, it uses the ticket of an earlier handshake.

        If there is no ticket yet, a full handshake is run first.
        """
        if resumed and self._ticket is None:
            self._ticket = self._shake(None)[1]
        return self._shake(self._ticket if resumed else None)[0]

    def _shake(self, session: ssl.SSLSession | None) -> tuple[Cost, ssl.SSLSession | None]:
        client, server = TlsConnection(self.client, NAME, session), TlsConnection(self.server, None)
        spent, sent = {client: 0.0, server: 0.0}, {client: 0, server: 0}
        flight = round_trips = 0
        while not (client.established and server.established):
            for end, peer in ((client, server), (server, client)):
                if end.established:
                    continue
                began = time.thread_time()
                end.handshake()
                spent[end] += time.thread_time() - began
                data = end.to_send()
                sent[end] += len(data)
                peer.receive(data)
                if end is server and not client.established:
                    flight, round_trips = flight or len(data), round_trips + 1
        server.write(b"x")  # a TLS 1.3 server sends its session tickets before its first application data
        client.receive(server.to_send())
        client.read()
        milliseconds = (1000 * spent[client], 1000 * spent[server])
        reused = bool(client.object.session_reused)
        return Cost(*milliseconds, sent[client], sent[server], flight, round_trips, reused), client.object.session


def chain_bytes(key: str, intermediates: int) -> tuple[int, ...]:
    """Return the DER bytes of each certificate in a server's chain, even if this OpenSSL cannot use the key type."""
    return tuple(len(each.public_bytes(Encoding.DER)) for each in _identity(key, intermediates)[1])


def key_and_chain(key: str, intermediates: int = 0) -> bytes:
    """Return a new private key of type *key* and its certificate chain without the root, as PEM."""
    private, chain, _ = _identity(key, intermediates)
    return _pem(private, chain)


def _pem(private: bytes, chain: Sequence[x509.Certificate]) -> bytes:
    return private + b"".join(each.public_bytes(Encoding.PEM) for each in chain)


def _identity(kind: str, intermediates: int) -> tuple[bytes, list[x509.Certificate], x509.Certificate]:
    """Return the leaf's private key (PEM), the chain to send (leaf first), and the root certificate."""
    issuer_key = _new_key(kind)
    root = issuer = _certificate("root", issuer_key, None, issuer_key, authority=True)
    above: list[x509.Certificate] = []
    for number in range(intermediates):
        key = _new_key(kind)
        issuer = _certificate(f"intermediate {number + 1}", key, issuer, issuer_key, authority=True)
        above.insert(0, issuer)
        issuer_key = key
    key = _new_key(kind)
    leaf = _certificate(NAME, key, issuer, issuer_key, authority=False)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), [leaf, *above], root


def _new_key(kind: str) -> PrivateKey:
    match kind:
        case "RSA 2048":
            return rsa.generate_private_key(65537, 2048)
        case "ML-DSA-44":
            return mldsa.MLDSA44PrivateKey.generate()
        case "ML-DSA-65":
            return mldsa.MLDSA65PrivateKey.generate()
        case _:
            return ec.generate_private_key(ec.SECP256R1())


def _certificate(
    name: str, key: PrivateKey, issuer: x509.Certificate | None, issuer_key: PrivateKey, *, authority: bool
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, content_commitment=False,
                key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )  # fmt: skip
    if not authority:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    classic = isinstance(issuer_key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey))
    return builder.sign(issuer_key, hashes.SHA256() if classic else None)  # ML-DSA hashes internally (FIPS 204)
