"""TLS handshakes between two ends in this thread's memory: what they cost in CPU, octets and flights, without any network.

Both ends are OpenSSL; each end's CPU is read apart, on the clock of this thread.
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

NAME = "server.test"
#: Kinds of keys that a certificate may hold here; a chain is of one kind.
KEYS = ("ECDSA P-256", "RSA 2048")
#: The same after quantum computers (FIPS 204), for OpenSSL 3.5 and later.
POST_QUANTUM_KEYS = ("ML-DSA-44", "ML-DSA-65")
VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}
#: SSL_OP_NO_TX_CERTIFICATE_COMPRESSION, which `ssl` has no name for; an older OpenSSL ignores it.
_NO_CERTIFICATE_COMPRESSION = 1 << 32

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | mldsa.MLDSA44PrivateKey | mldsa.MLDSA65PrivateKey


@dataclass(frozen=True, slots=True)
class Cost:
    """What a handshake costs, or the median of some."""

    client_ms: float
    server_ms: float
    #: Octets that the client and the server sent, tickets included.
    sent: int
    received: int
    #: Octets of the server's first flight, which its initial congestion window has to hold.
    flight: int
    #: Flights of the server that the client waits for before it may send its request.
    round_trips: int
    resumed: bool

    @classmethod
    def of(cls, costs: "Sequence[Cost]") -> "Cost":
        """Return the median of *costs*: of the round trips the most, and resumed if each was."""
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
    """A client and a server with a certificate of its own."""

    def __init__(
        self, key: str, version: str, *, curve: str | None = None, intermediates: int = 1, mutual: bool = False
    ) -> None:
        """Make both.

        Args:
            key: of `KEYS` or `POST_QUANTUM_KEYS`.
            version: ``TLSv1.2`` or ``TLSv1.3``.
            curve: the only key exchange group that the server takes; None: what both like best.
            intermediates: certificates between the leaf and the root, all of which the server has to send.
            mutual: whether the client has to show such a chain, too.
        """
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        for context in (self.server, self.client):
            context.minimum_version = context.maximum_version = VERSIONS[version]
        if curve is not None:
            self.server.set_ecdh_curve(curve)
        private, chain, root = _identity(key, intermediates)
        with tempfile.TemporaryDirectory() as folder:
            pair = Path(folder, "pair.pem")
            pair.write_bytes(private + b"".join(each.public_bytes(Encoding.PEM) for each in chain))
            for context in (self.server, self.client) if mutual else (self.server,):
                context.load_cert_chain(pair)
        trust = root.public_bytes(Encoding.PEM).decode()
        self.client.load_verify_locations(cadata=trust)
        if mutual:
            # RFC 8879: OpenSSL 3.2 would compress what the client sends; its octets shall be those of RFC 8446.
            self.client.options |= _NO_CERTIFICATE_COMPRESSION
            self.server.verify_mode = ssl.CERT_REQUIRED
            self.server.load_verify_locations(cadata=trust)
        #: Octets (DER) of each certificate that the server sends, the leaf's first.
        self.certificates = tuple(len(each.public_bytes(Encoding.DER)) for each in chain)

        self._ticket: ssl.SSLSession | None = None

    def cost(self, times: int, *, resumed: bool = False) -> Cost:
        """Return what *times* handshakes cost; *resumed*: with the ticket of one before."""
        return Cost.of([self.shake(resumed=resumed) for _ in range(times)])

    def shake(self, *, resumed: bool = False) -> Cost:
        """Return what one handshake costs; *resumed*: with the ticket of one before, which is made at need."""
        if resumed and self._ticket is None:
            self._ticket = self._shake(None)[1]
        return self._shake(self._ticket if resumed else None)[0]

    def _shake(self, session: ssl.SSLSession | None) -> tuple[Cost, ssl.SSLSession | None]:
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = self.client.wrap_bio(to_client, to_server, server_hostname=NAME, session=session)
        server = self.server.wrap_bio(to_server, to_client, server_side=True)
        spent = {client: 0.0, server: 0.0}
        sent = received = flight = round_trips = 0
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
                if end is server and client in open_ends:
                    flight, round_trips = flight or to_client.pending, round_trips + 1
        server.write(b"x")  # TLS 1.3 tickets travel before the first data
        client.read(1)
        reused = bool(client.session_reused)
        return Cost(
            spent[client] * 1000, spent[server] * 1000, sent, received, flight, round_trips, reused
        ), client.session


def chain_octets(key: str, intermediates: int) -> tuple[int, ...]:
    """Return octets (DER) of each certificate that a server would send: it can be made where OpenSSL cannot use it."""
    return tuple(len(each.public_bytes(Encoding.DER)) for each in _identity(key, intermediates)[1])


def _identity(kind: str, intermediates: int) -> tuple[bytes, list[x509.Certificate], x509.Certificate]:
    """Return the leaf's key (PEM), what is sent (leaf first), and the root."""
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
                key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
            ),
            critical=True,
        )
    )  # fmt: skip
    if not authority:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    # ML-DSA hashes by itself (FIPS 204).
    return builder.sign(
        issuer_key, hashes.SHA256() if isinstance(issuer_key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)) else None
    )
