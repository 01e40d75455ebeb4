"""Tests for lint before signing; pkilint also checks leaves of every profile."""

import datetime as dt
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from authority import Issuer, Urls, issue_intermediate, issue_leaf, issue_root, new_key
from authority.lint import LintError, check_leaf
from authority.profiles import load_profiles
from tests.authority.test_judges import lint

NOW = time.time()
ROOT_KEY, KEY = new_key(), new_key()
ROOT = Issuer(issue_root(ROOT_KEY, "root", NOW), ROOT_KEY, ())
ISSUER = Issuer(issue_intermediate(ROOT, KEY.public_key(), "issuing", NOW), KEY, ())
URLS = Urls("http://ca.example.com/crl/1.crl", "http://ca.example.com/issuer/1.cer", "http://ca.example.com/ocsp/1")
PROFILES = load_profiles(Path(__file__).parents[2] / "lab/etc/profiles.toml")
LONG = f"{'a' * 60}.example.com"


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    ("names", "findings"),
    [
        (["www.example.com"], ""),
        ([LONG], ""),
        # pkilint reports wildcards, because RFC 5280 section 4.2.1.6 leaves them to other specifications (RFC 6125).
        (["*.example.com", "example.com"], 'pkix.invalid_domain_name_syntax (ERROR): Invalid domain name syntax: "*.'),
    ],
    ids=["name", "long", "wildcard"],
)
def test_pkilint_agrees_with_the_lint_about_leaves_of_each_profile(
    tmp_path: Path, profile: str, names: list[str], findings: str
) -> None:
    kind = PROFILES[profile]
    urls = URLS if kind.revocation else None
    leaf = issue_leaf(ISSUER, new_key().public_key(), names, NOW, 60.0, 60.0, urls, kind.usage_oids, check_leaf)
    (tmp_path / "leaf.pem").write_bytes(leaf.public_bytes(Encoding.PEM))
    (tmp_path / "issuer.pem").write_bytes(ISSUER.certificate.public_bytes(Encoding.PEM))
    found = lint("lint_pkix_cert", tmp_path / "leaf.pem")
    assert (findings in found) if findings else not found
    assert found.count("(") == bool(findings)
    assert lint("lint_pkix_signer_signee_cert_chain", tmp_path / "issuer.pem", tmp_path / "leaf.pem") == ""


@pytest.mark.parametrize(
    ("names", "finding"),
    [
        (["WWW.example.com"], "expected a host name in lower case"),
        (["-a.example.com"], "expected a host name in lower case"),
        (["*.*.example.com"], "expected a host name in lower case"),
        (["example"], "expected a host name in lower case"),
        (["www.example.org"], "expected a name within the issuer's name constraints"),
        (["notexample.com"], "expected a name within the issuer's name constraints"),
        (["www.example.com", "www.example.com"], "expected distinct DNS names"),
    ],
)
def test_names_that_must_not_be_certified_are_found(names: list[str], finding: str) -> None:
    with pytest.raises(LintError, match=finding):
        issue_leaf(ISSUER, new_key().public_key(), names, NOW, 60.0, lint=check_leaf)


def test_a_lifetime_that_must_not_be_certified_is_found() -> None:
    with pytest.raises(LintError, match="expected a lifetime of at most 91 days"):
        issue_leaf(ISSUER, new_key().public_key(), ["www.example.com"], NOW, 92 * 86400.0, lint=check_leaf)


@pytest.mark.parametrize(
    ("key", "finding"),
    [
        (rsa.generate_private_key(65537, 1024), "at least 2048 bits, got 1024"),
        (ed25519.Ed25519PrivateKey.generate(), "expected an RSA or EC key"),
        (KEY, "expected another key than the issuer's"),
    ],
    ids=["short-rsa", "ed25519", "issuers-key"],
)
def test_keys_that_must_not_be_certified_are_found(key: rsa.RSAPrivateKey, finding: str) -> None:
    with pytest.raises(LintError, match=finding):
        issue_leaf(ISSUER, key.public_key(), ["www.example.com"], NOW, 60.0, lint=check_leaf)


def rebuilt(
    *,
    without: type[x509.ExtensionType] | None = None,
    extra: tuple[x509.ExtensionType, bool] | None = None,
    serial: int = 1 << 100,
    issuer: x509.Name = ISSUER.certificate.subject,
    subject: str | None = None,
) -> x509.Certificate:
    """Return a copy of a valid leaf with one change."""
    good = issue_leaf(ISSUER, new_key().public_key(), ["www.example.com"], NOW, 60.0, urls=URLS)
    name = good.subject if subject is None else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    begin = dt.datetime.fromtimestamp(int(NOW), dt.UTC)
    builder = x509.CertificateBuilder(issuer, name, good.public_key(), serial, begin, begin + dt.timedelta(seconds=60))
    for each in good.extensions:
        if without is None or not isinstance(each.value, without):
            builder = builder.add_extension(each.value, each.critical)
    if extra is not None:
        builder = builder.add_extension(*extra)
    return builder.sign(KEY, hashes.SHA256())


@pytest.mark.parametrize(
    ("leaf", "finding"),
    [
        (rebuilt(serial=1 << 40), "expected a serial number of 64 to 159 bits, got 41"),
        (rebuilt(without=x509.SubjectAlternativeName), "expected subjectAltName, got none"),
        (rebuilt(without=x509.KeyUsage), "expected the extension 2.5.29.15, got none"),
        (rebuilt(without=x509.AuthorityKeyIdentifier), "expected the extension 2.5.29.35, got none"),
        (
            rebuilt(without=x509.BasicConstraints, extra=(x509.BasicConstraints(ca=True, path_length=None), True)),
            "expected cA to be false",
        ),
        (
            rebuilt(without=x509.BasicConstraints, extra=(x509.BasicConstraints(ca=False, path_length=None), False)),
            "expected no extension 2.5.29.19 with critical=False",
        ),
        (
            rebuilt(
                without=x509.AuthorityKeyIdentifier,
                extra=(x509.AuthorityKeyIdentifier.from_issuer_public_key(ROOT_KEY.public_key()), False),
            ),
            "expected the key identifier of the issuer",
        ),
        (rebuilt(extra=(x509.OCSPNoCheck(), False)), "expected no extension 1.3.6.1.5.5.7.48.1.5"),
        (rebuilt(issuer=ROOT.certificate.subject), "expected the issuer's subject as issuer"),
        (rebuilt(subject="other.example.com"), "expected a common name from subjectAltName"),
    ],
    ids=["short-serial", "no-names", "no-usage", "no-aki", "ca", "not-critical", "wrong-aki", "nocheck", "wrong-issuer",
         "wrong-cn"],
)  # fmt: skip
def test_a_finding_is_named(leaf: x509.Certificate, finding: str) -> None:
    with pytest.raises(LintError) as caught:
        check_leaf(leaf, ISSUER)
    assert finding in str(caught.value)


def test_a_good_leaf_has_no_finding() -> None:
    check_leaf(rebuilt(), ISSUER)
