"""Tests for revocation lists, verified with OpenSSL, pkilint and ``cryptography``."""

import datetime as dt
import subprocess
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from authority import Issuer, Revoked, Store, Urls, issue_crl, issue_intermediate, issue_leaf, issue_root, new_key
from authority.revocation import REASONS
from tests import judges
from tests.authority.test_judges import lint

NOW = time.time()
ROOT_KEY, KEY = new_key(), new_key()
ROOT = issue_root(ROOT_KEY, "root", NOW)
ISSUER = Issuer(issue_intermediate(Issuer(ROOT, ROOT_KEY, ()), KEY.public_key(), "issuing", NOW), KEY, ())
URLS = Urls("http://ca.example.com/crl/1.crl", "http://ca.example.com/issuer/1.cer")
LEAF = issue_leaf(ISSUER, new_key().public_key(), ["www.example.com"], NOW, 600.0, urls=URLS)


def crl(*entries: Revoked, at: float = NOW, lifetime: float = 600.0) -> x509.CertificateRevocationList:
    return issue_crl(ISSUER, entries, 7, at, lifetime, 60.0)


def entry(certificate: x509.Certificate, reason: int = 1) -> Revoked:
    return Revoked(certificate.serial_number, NOW - 5, reason)


@pytest.mark.parametrize(
    ("revocations", "verdict"),
    [
        (crl(), "OK"),
        (crl(entry(LEAF)), "certificate revoked"),
        (crl(entry(ISSUER.certificate)), "OK"),
        (crl(at=NOW - 700), "CRL has expired"),
    ],
    ids=["empty", "revoked", "another", "stale"],
)
def test_openssl_takes_the_list_at_its_word(
    tmp_path: Path, revocations: x509.CertificateRevocationList, verdict: str
) -> None:
    for name, each in (("root", ROOT), ("issuing", ISSUER.certificate), ("leaf", LEAF), ("crl", revocations)):
        (tmp_path / f"{name}.pem").write_bytes(each.public_bytes(Encoding.PEM))
    names = ("-CRLfile", "crl.pem", "-CAfile", "root.pem", "-untrusted", "issuing.pem", "leaf.pem")
    files = [str(tmp_path / word) if word.endswith(".pem") else word for word in names]
    command = [
        *judges.command("openssl", files=tmp_path),
        "verify",
        "-x509_strict",
        "-crl_check",
        "-attime",
        f"{NOW:.0f}",
        *files,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert verdict in done.stdout + done.stderr


@pytest.mark.parametrize("reasons", [(), (0, 1, 3, 4, 5, 9)], ids=["empty", "all-reasons"])
def test_pkilint_finds_nothing_in_a_list_and_in_a_leaf_that_names_it(tmp_path: Path, reasons: tuple[int, ...]) -> None:
    found = crl(*(Revoked(100 + reason, NOW - 5, reason) for reason in reasons))
    (tmp_path / "crl.pem").write_bytes(found.public_bytes(Encoding.PEM))
    (tmp_path / "leaf.pem").write_bytes(LEAF.public_bytes(Encoding.PEM))
    assert lint("lint_crl", "-t", "CRL", "-p", "PKIX", tmp_path / "crl.pem") == ""
    assert lint("lint_pkix_cert", tmp_path / "leaf.pem") == ""


def test_a_list_is_signed_numbered_and_complete() -> None:
    found = crl(*(Revoked(number, NOW - 5, 0) for number in range(1, 5000)))
    assert found.is_signature_valid(KEY.public_key())
    assert found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 7
    assert len(found) == 4999
    assert found.next_update_utc is not None
    assert (found.next_update_utc - found.last_update_utc).total_seconds() == 660


@given(
    entries=st.lists(
        st.builds(
            Revoked,
            st.integers(1, (1 << 159) - 1),
            st.floats(0, 4e9),
            st.sampled_from([0, *REASONS]),
        ),
        unique_by=lambda each: each.serial,
    ),
    number=st.integers(1, 1 << 70),
    now=st.floats(0, 4e9),
    lifetime=st.floats(1, 1e6),
)
def test_a_list_equals_what_the_builder_encodes(
    entries: list[Revoked], number: int, now: float, lifetime: float
) -> None:
    moment = lambda at: dt.datetime.fromtimestamp(int(at), dt.UTC)  # noqa: E731 - a one-line function that is used only here
    builder = x509.CertificateRevocationListBuilder().issuer_name(ISSUER.certificate.subject)
    builder = builder.last_update(moment(now)).next_update(moment(now + lifetime))
    for each in entries:
        revoked = x509.RevokedCertificateBuilder(each.serial, moment(each.at))
        if each.reason:
            revoked = revoked.add_extension(x509.CRLReason(REASONS[each.reason]), critical=False)
        builder = builder.add_revoked_certificate(revoked.build())
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(KEY.public_key())
    builder = builder.add_extension(identifier, critical=False)
    built = builder.add_extension(x509.CRLNumber(number), critical=False).sign(KEY, hashes.SHA256())
    ours = issue_crl(ISSUER, entries, number, now, lifetime)
    assert ours.tbs_certlist_bytes == built.tbs_certlist_bytes
    assert ours.signature_algorithm_oid == built.signature_algorithm_oid


def test_numbers_of_lists_grow_over_restarts(tmp_path: Path) -> None:
    numbers = []
    for _ in range(2):
        store = Store(tmp_path / "store.sqlite")
        numbers += [store.next_crl_number(), store.next_crl_number()]
        store.close()
    assert numbers == [1, 2, 3, 4]
