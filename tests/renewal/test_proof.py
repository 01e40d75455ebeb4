"""Tests for the handshakes that test a new pair: a pair that a strict TLS peer rejects is never used."""

import time
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from authority import Issuer, issue_intermediate, issue_leaf, issue_root, new_key
from renewal import PairError
from renewal.material import new_pair_pem
from renewal.proof import prove

NOW = time.time()
ROOT_KEY, CA_KEY, KEY = new_key(), new_key(), new_key()
ROOT = issue_root(ROOT_KEY, "root", NOW)
ISSUING = issue_intermediate(Issuer(ROOT, ROOT_KEY, ()), CA_KEY.public_key(), "issuing", NOW)
LEAF = issue_leaf(Issuer(ISSUING, CA_KEY, ()), KEY.public_key(), ["www.example.com"], NOW, 3600.0)
ANCHORS = ROOT.public_bytes(Encoding.PEM).decode()
Change = Callable[[x509.Extension[x509.ExtensionType]], x509.ExtensionType | None]


def changed(certificate: x509.Certificate, change: Change, key=CA_KEY) -> x509.Certificate:
    """Apply *change* to each extension (None: omit the extension); return the new certificate, signed by *key*."""
    builder = x509.CertificateBuilder(
        certificate.issuer, certificate.subject, certificate.public_key(), certificate.serial_number,
        certificate.not_valid_before_utc, certificate.not_valid_after_utc,
    )  # fmt: skip
    for each in certificate.extensions:
        if (value := change(each)) is not None:
            builder = builder.add_extension(value, each.critical)
    return builder.sign(key, hashes.SHA256())


def only(usage: x509.ObjectIdentifier) -> Change:
    return lambda each: x509.ExtendedKeyUsage([usage]) if isinstance(each.value, x509.ExtendedKeyUsage) else each.value


def no_authority(each: x509.Extension[x509.ExtensionType]) -> x509.ExtensionType | None:
    return None if isinstance(each.value, x509.AuthorityKeyIdentifier) else each.value


def pem(*chain: x509.Certificate) -> bytes:
    return new_pair_pem(KEY, "".join(each.public_bytes(Encoding.PEM).decode() for each in chain))


@pytest.mark.parametrize("as_client", [True, False])
def test_a_good_pair_is_proved(as_client: bool) -> None:
    prove(pem(LEAF, ISSUING), "www.example.com", ANCHORS, as_client=as_client)


def test_a_pair_without_client_authentication_serves_where_none_is_needed() -> None:
    server_only = pem(changed(LEAF, only(ExtendedKeyUsageOID.SERVER_AUTH)), ISSUING)
    prove(server_only, "www.example.com", ANCHORS, as_client=False)
    with pytest.raises(PairError, match=r"a server says: uns.* certificate purpose"):
        prove(server_only, "www.example.com", ANCHORS, as_client=True)


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        (pem(LEAF, *[ISSUING] * 300), "EXCESSIVE_MESSAGE_SIZE"),
        (pem(changed(LEAF, only(ExtendedKeyUsageOID.CLIENT_AUTH)), ISSUING), "uns.* certificate purpose"),
        (pem(LEAF, changed(ISSUING, no_authority, ROOT_KEY)), "Missing Authority Key Identifier"),
        (pem(LEAF), "unable to get local issuer certificate"),
        (pem(ISSUING, LEAF), "OpenSSL rejects this pair"),
        (b"nonsense", "OpenSSL rejects this pair"),
    ],
    ids=["267-kB", "client-only", "no-aki", "no-chain", "wrong-order", "nonsense"],
)
def test_what_strict_peers_refuse_is_refused(pair: bytes, reason: str) -> None:
    with pytest.raises(PairError, match=reason):
        prove(pair, "www.example.com", ANCHORS, as_client=True)


def test_another_name_or_another_root_is_refused() -> None:
    with pytest.raises(PairError, match="Hostname mismatch"):
        prove(pem(LEAF, ISSUING), "far.example.com", ANCHORS, as_client=True)
    other = issue_root(new_key(), "another root", NOW).public_bytes(Encoding.PEM).decode()
    with pytest.raises(PairError, match="leads to our trust anchor"):
        prove(pem(LEAF, ISSUING), "www.example.com", other, as_client=True)
    prove(pem(LEAF, ISSUING), "www.example.com", other + ANCHORS, as_client=True)
