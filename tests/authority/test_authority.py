"""Tests for CA keys, issuance, the ceremony and the store, verified with OpenSSL and the ``cryptography`` package."""

import datetime as dt
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.verification import PolicyBuilder, VerificationError
from cryptography.x509.verification import Store as TrustStore
from hypothesis import given
from hypothesis import strategies as st

from authority import (
    Account,
    Authorization,
    BadCSRError,
    Ceremony,
    Certificate,
    KeyFileError,
    Order,
    Store,
    StoreError,
    issue_leaf,
    load_issuer,
    new_key,
    read_csr,
)
from authority.__main__ import main
from tests import judges
from tests.mutations import mutated

NOW = time.time()


def folders(base: Path) -> list[Path]:
    found = [base / name for name in ("root", "ca", "trust", "passphrase", "token")]
    for each in found:
        each.mkdir(exist_ok=True)
    return found


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    Ceremony(*folders(tmp_path)).run(NOW)
    return tmp_path


def leaf(lab: Path, *names: str, lifetime: float = 60.0) -> tuple[x509.Certificate, x509.Certificate]:
    issuer = load_issuer(lab / "ca", lab / "passphrase" / "passphrase")
    return issue_leaf(issuer, new_key().public_key(), names, NOW, lifetime), issuer.certificate


def verifier(lab: Path, name: str, at: float = NOW):
    root = x509.load_pem_x509_certificate((lab / "trust" / "root.pem").read_bytes())
    moment = dt.datetime.fromtimestamp(at, dt.UTC)
    return PolicyBuilder().store(TrustStore([root])).time(moment).build_server_verifier(x509.DNSName(name))


def test_openssl_verifies_the_chain_strictly(lab: Path, tmp_path: Path) -> None:
    certificate, issuing = leaf(lab, "www.example.com", "example.com", lifetime=3600.0)
    (tmp_path / "leaf.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (tmp_path / "issuing.pem").write_bytes(issuing.public_bytes(Encoding.PEM))
    openssl = judges.command("openssl", files=tmp_path)
    # -attime verifies at the time of issuance, since earlier tests may have taken longer than the lifetime.
    options = ["-x509_strict", "-attime", str(int(NOW)), "-verify_hostname", "example.com"]
    files = ["-CAfile", lab / "trust/root.pem", "-untrusted", tmp_path / "issuing.pem", tmp_path / "leaf.pem"]
    for purpose in ("sslserver", "sslclient"):
        command = [*openssl, "verify", *options, "-purpose", purpose, *map(str, files)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("names", "asked", "at", "good"),
    [
        (["www.example.com"], "www.example.com", NOW, True),
        (["www.example.com"], "www.example.com", NOW - 30, True),
        (["www.example.com"], "far.example.com", NOW, False),
        (["www.example.com"], "www.example.com", NOW + 61, False),
        (["www.example.com"], "www.example.com", NOW - 62, False),
        (["www.example.org"], "www.example.org", NOW, False),
    ],
    ids=["good", "within-the-backdate", "other-name", "expired", "not-yet", "outside-the-name-constraints"],
)
def test_a_verifier_accepts_only_the_right_name_and_time(
    lab: Path, names: list[str], asked: str, at: float, good: bool
) -> None:
    certificate, issuing = leaf(lab, *names)
    if good:
        assert len(verifier(lab, asked, at).verify(certificate, [issuing])) == 3
    else:
        with pytest.raises(VerificationError):
            verifier(lab, asked, at).verify(certificate, [issuing])


def test_a_second_ceremony_changes_nothing(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {p: p.read_bytes() for p in lab.rglob("*") if p.is_file()}
    flags = ("--root", "--ca", "--trust", "--passphrase-dir", "--token-dir")
    pairs = [str(word) for pair in zip(flags, folders(lab), strict=True) for word in pair]
    assert main(["ceremony", *pairs]) == 0
    assert {p: p.read_bytes() for p in lab.rglob("*") if p.is_file()} == before
    assert "root: kept" in capsys.readouterr().out
    assert main(["show", "--ca", str(lab / "ca")]) == 0


def test_keys_are_encrypted_and_readable_by_their_owner_only(lab: Path) -> None:
    for path in (lab / "root/root.key.pem", lab / "ca/issuing.key.pem"):
        assert path.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
        assert path.stat().st_mode & 0o777 == 0o600
    (lab / "passphrase/passphrase").write_text("wrong")
    with pytest.raises(KeyFileError, match="encrypted with the given passphrase"):
        load_issuer(lab / "ca", lab / "passphrase/passphrase")


def csr(key, *names: x509.GeneralName) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


#: A valid CSR; a test changes its bytes.
REQUEST = csr(new_key(), x509.DNSName("a.example.com"))


def test_a_valid_request_gives_its_names() -> None:
    assert read_csr(csr(new_key(), x509.DNSName("B.example.com"), x509.DNSName("a.example.com")))[1] == [
        "a.example.com",
        "b.example.com",
    ]


@pytest.mark.parametrize(
    ("der", "message"),
    [
        (b"nonsense", "expected a PKCS #10 request"),
        (csr(new_key()), "expected the order's names"),
        (csr(new_key(), x509.DNSName("a"), x509.RFC822Name("a@b")), "expected DNS names and nothing else"),
        (csr(rsa.generate_private_key(65537, 1024), x509.DNSName("a")), "2048 to 4096 bits, a multiple of 8; got 1024"),
        (csr(ec.generate_private_key(ec.SECP256K1()), x509.DNSName("a")), "expected curve"),
    ],
    ids=["nonsense", "no-names", "other-names", "short-rsa", "odd-curve"],
)
def test_an_invalid_request_is_refused(der: bytes, message: str) -> None:
    with pytest.raises(BadCSRError, match=message):
        read_csr(der)


def test_a_request_with_a_wrong_signature_is_refused() -> None:
    der = bytearray(csr(new_key(), x509.DNSName("a")))
    der[-1] ^= 1
    with pytest.raises(BadCSRError):
        read_csr(bytes(der))


def test_records_survive_without_a_clean_close(tmp_path: Path) -> None:
    account = Account("a", "t", {"kty": "EC"}, "valid", ("mailto:x@example.com",), 1.0)
    order = Order("o", "a", "pending", ("www.example.com",), 2.0)
    authorization = Authorization("z", "o", "a", "www.example.com", "pending", "token", 2.0)
    certificate = Certificate("0a", "a", ("www.example.com",), 1.0, 9.0, 1.0, "PEM")
    store = Store(tmp_path / "store.sqlite")
    store.put_account(account)
    store.put_order(order, authorization)
    store.put_order(Order("o", "a", "valid", ("www.example.com",), 2.0, "0a"), certificate=certificate)
    # The first connection stays open, as after a crash; a second connection must still read every acknowledged record.
    again = Store(tmp_path / "store.sqlite")
    assert again.account("a") == again.account_by_thumbprint("t") == account
    assert again.order("o") == Order("o", "a", "valid", ("www.example.com",), 2.0, "0a")
    assert again.authorizations("o") == [authorization]
    assert again.certificates(8.0) == [certificate]
    assert again.certificates(9.0) == []
    assert again.revoke("0a", 5.0, 1) == certificate
    revoked = again.certificate("0a")
    assert revoked is not None
    assert (revoked.revoked, revoked.reason) == (5.0, 1)
    assert again.orders("a") == ["o"]
    store.close()
    again.close()


@given(st.one_of(st.binary(max_size=300), mutated(REQUEST)))
def test_no_bytes_break_the_reading_of_a_request(request: bytes) -> None:
    if request != REQUEST:
        with pytest.raises(BadCSRError):
            read_csr(request)


def test_a_store_that_another_process_locks_fails_quickly_and_recovers(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.sqlite")
    other = sqlite3.connect(tmp_path / "store.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        store.check()
    assert "locked" in store.failure
    other.execute("ROLLBACK")
    other.close()
    store.check()
    assert store.failure == ""
    store.close()


def test_a_compromise_replaces_an_earlier_reason_and_keeps_the_time(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.sqlite")
    store.put_certificate(Certificate("0a", None, ("www.example.com",), 1.0, 9.0, 1.0, "PEM"))
    store.revoke("0a", 3.0, 4)
    store.revoke("0a", 4.0, 5)
    store.revoke("0a", 5.0, 1, "print")
    found = store.certificate("0a")
    assert found is not None
    assert (found.revoked, found.reason) == (3.0, 1)
    assert (store.compromised("print"), store.compromised("another")) == (True, False)
    store.close()
