"""Tests of issued certificates with independent judges: pkilint, and OpenSSL's TLS client in strict mode."""

import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from authority import Ceremony, issue_leaf, load_issuer, new_key
from renewal.material import new_pair_pem
from tests.handshakes import ends, shake_hands

BIN = Path(sys.executable).parent
STRICT = ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN  # default flags since Python 3.13


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files of a root, an issuing CA and two leaf certificates."""
    base = tmp_path_factory.mktemp("papers")
    folders = [base / name for name in ("root", "ca", "trust", "passphrase", "token")]
    for each in folders:
        each.mkdir()
    Ceremony(*folders).run(time.time())
    issuer = load_issuer(base / "ca", base / "passphrase" / "passphrase")
    long_name = f"{'a' * 60}.example.com"  # above the 64-character limit of common names, so the subject is empty
    for file, names in (("leaf", ["www.example.com", "example.com"]), ("nameless", [long_name])):
        key = new_key()
        leaf = issue_leaf(issuer, key.public_key(), names, time.time(), 60.0)
        (base / f"{file}.pem").write_bytes(leaf.public_bytes(Encoding.PEM))
        chain = b"".join(each.public_bytes(Encoding.PEM) for each in (leaf, *issuer.chain)).decode()
        (base / f"{file}-pair.pem").write_bytes(new_pair_pem(key, chain))
    return base


def lint(tool: str, *arguments: object) -> str:
    """Run one of pkilint's command-line linters; return its findings, including warnings."""
    command = [str(BIN / tool), "lint", "-s", "WARNING", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not result.stderr, result.stderr
    assert (result.returncode == 0) == (not result.stdout.strip()), result.stdout
    return result.stdout.strip()


@pytest.mark.parametrize("file", ["root/root.pem", "ca/issuing.pem", "leaf.pem", "nameless.pem"])
def test_pkilint_finds_nothing_in_a_certificate(papers: Path, file: str) -> None:
    assert lint("lint_pkix_cert", papers / file) == ""


@pytest.mark.parametrize(("signer", "signee"), [("root/root.pem", "ca/issuing.pem"), ("ca/issuing.pem", "leaf.pem")])
def test_pkilint_finds_nothing_between_issuer_and_subject(papers: Path, signer: str, signee: str) -> None:
    assert lint("lint_pkix_signer_signee_cert_chain", papers / signer, papers / signee) == ""


def test_pkilint_finds_an_invalid_name(papers: Path, tmp_path: Path) -> None:
    issuer = load_issuer(papers / "ca", papers / "passphrase" / "passphrase")
    bad = issue_leaf(issuer, new_key().public_key(), ["-no.-host-name.example.com"], time.time(), 60.0)
    (tmp_path / "bad.pem").write_bytes(bad.public_bytes(Encoding.PEM))
    assert "invalid_domain_name" in lint("lint_pkix_cert", tmp_path / "bad.pem")


@pytest.mark.parametrize(
    ("name", "pair", "good"),
    [("www.example.com", "leaf", True), ("far.example.com", "leaf", False)],
    ids=["its-name", "another-name"],
)
def test_a_strict_tls_client_accepts_the_chain(papers: Path, name: str, pair: str, good: bool) -> None:
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(papers / f"{pair}-pair.pem")
    client_side = ssl.create_default_context(cafile=papers / "trust" / "root.pem")
    client_side.verify_flags |= STRICT
    if good:
        assert handshake(client_side, server_side, name) == (papers / f"{pair}.pem").read_text()
    else:
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(client_side, server_side, name)


def handshake(client_side: ssl.SSLContext, server_side: ssl.SSLContext, name: str) -> str:
    """Perform a TLS handshake in memory; return the server certificate that the client accepted, as PEM."""
    client, server = ends(client_side, server_side, name)
    shake_hands(client, server)
    der = client.object.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode()


def test_the_issuing_ca_cannot_certify_addresses(papers: Path) -> None:
    """The CA excludes IP addresses explicitly: DNS constraints do not cover them (RFC 5280 section 4.2.1.10)."""
    issuing = x509.load_pem_x509_certificate((papers / "ca/issuing.pem").read_bytes())
    constraints = issuing.extensions.get_extension_for_class(x509.NameConstraints)
    assert constraints.critical
    excluded = {str(each.value) for each in constraints.value.excluded_subtrees or []}
    assert excluded == {"0.0.0.0/0", "::/0"}
