"""Tests that leaves from a template are identical to those of cryptography's builder, and pass the same lint."""

import math
import time

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from authority import AuthorityError, Issuer, Urls, issue_intermediate, issue_root, new_key
from authority.issuance import hash_for, leaf_builder
from authority.leaf_template import LeafTemplate
from authority.lint import LintError, check_leaf
from authority.profiles import USAGES

NOW = time.time()
ROOT_KEY, KEY = new_key(), new_key()
ROOT = Issuer(issue_root(ROOT_KEY, "root", NOW), ROOT_KEY, ())
ISSUER = Issuer(issue_intermediate(ROOT, KEY.public_key(), "issuing", NOW), KEY, ())
#: The same issuer as if it never expired, so that dates after 2049 (GeneralizedTime) are compared too.
ENDLESS = Issuer(ISSUER.certificate, KEY, ())
ENDLESS.__dict__["not_after"] = math.inf
URLS = Urls("http://ca.example.com/crl/1.crl", "http://ca.example.com/issuer/1.cer", "http://ca.example.com/ocsp/1")
BOTH = tuple(USAGES.values())
KEYS: list[ec.EllipticCurvePublicKey | rsa.RSAPublicKey] = [
    *(ec.generate_private_key(curve).public_key() for curve in (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())),
    *(rsa.generate_private_key(65537, bits).public_key() for bits in (2048, 3072)),
]
TEMPLATES = [(usages, urls, LeafTemplate(ISSUER, urls, usages)) for usages in (BOTH, BOTH[:1]) for urls in (URLS, None)]
labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?", fullmatch=True)
names = st.lists(labels.map(lambda each: f"{each}.example.com"), min_size=1, max_size=50, unique=True)


@given(
    names=names,
    key=st.sampled_from(KEYS),
    template=st.sampled_from(TEMPLATES),
    now=st.floats(NOW, NOW + 40 * 365 * 86400.0),
    lifetime=st.integers(5, 90 * 86400),
    serial=st.integers(1 << 63, (1 << 159) - 1),
)
def test_a_prepared_leaf_equals_what_the_builder_encodes(
    names: list[str], key: ec.EllipticCurvePublicKey, template, now: float, lifetime: int, serial: int
) -> None:
    usages, urls, prepared = template
    begin, end = int(now), int(now) + lifetime
    builder = leaf_builder(ENDLESS, key, names, begin, lifetime, 0.0, urls, usages, serial=serial)
    built = builder.sign(KEY, hash_for(KEY))
    assert prepared.to_be_signed(serial, begin, end, names, key) == built.tbs_certificate_bytes


@pytest.mark.parametrize("key", KEYS, ids=["p-256", "p-384", "p-521", "rsa-2048", "rsa-3072"])
@pytest.mark.parametrize("template", [each for *_, each in TEMPLATES])
def test_an_issued_leaf_is_signed_and_passes_the_complete_lint(key: ec.EllipticCurvePublicKey, template) -> None:
    leaf = template.issue(key, ("*.example.com", "example.com"), NOW, 600.0, 60.0)
    found = leaf.certificate
    found.verify_directly_issued_by(ISSUER.certificate)
    check_leaf(found, ISSUER)
    assert (found.serial_number, found.public_key()) == (leaf.serial, key)
    assert found.not_valid_before_utc.timestamp() == leaf.not_before == int(NOW - 60.0)
    assert found.not_valid_after_utc.timestamp() == leaf.not_after == int(NOW + 600.0)


def test_a_leaf_ends_no_later_than_its_issuer() -> None:
    end = ISSUER.certificate.not_valid_after_utc.timestamp()
    assert TEMPLATES[0][2].issue(KEYS[0], ["a.example.com"], end - 5.0, 600.0, 0.0).not_after == end


@pytest.mark.parametrize(
    ("names", "key", "lifetime", "finding"),
    [
        (["WWW.example.com"], KEYS[0], 60.0, "expected a host name in lower case"),
        (["www.example.org"], KEYS[0], 60.0, "expected a name within the issuer's name constraints"),
        (["a.example.com", "a.example.com"], KEYS[0], 60.0, "expected distinct DNS names"),
        ([], KEYS[0], 60.0, "expected distinct DNS names"),
        (["a.example.com"], KEYS[0], 92 * 86400.0, "expected a lifetime of at most 91 days"),
        (["a.example.com"], KEYS[0], -61.0, "expected a lifetime of at most 91 days"),
        (["a.example.com"], rsa.generate_private_key(65537, 1024).public_key(), 60.0, "at least 2048 bits"),
        (["a.example.com"], ed25519.Ed25519PrivateKey.generate().public_key(), 60.0, "expected an RSA or EC key"),
        (["a.example.com"], KEY.public_key(), 60.0, "expected another key than the issuer's"),
    ],
    ids=["upper-case", "foreign", "repeated", "none", "long", "negative", "short-rsa", "ed25519", "issuers-key"],
)
def test_fields_that_must_not_be_certified_are_found(names: list[str], key, lifetime: float, finding: str) -> None:
    with pytest.raises(LintError, match=finding):
        TEMPLATES[0][2].issue(key, names, NOW, lifetime, 60.0)


def test_a_specimen_that_must_not_be_certified_is_found() -> None:
    other = Issuer(ISSUER.certificate, ROOT_KEY, ())
    with pytest.raises(LintError, match="expected the key identifier of the issuer"):
        LeafTemplate(other, URLS, BOTH)


def test_an_issuer_without_an_ec_key_is_refused() -> None:
    key = rsa.generate_private_key(65537, 2048)
    with pytest.raises(AuthorityError, match="expected an issuing CA with an EC key"):
        LeafTemplate(Issuer(issue_root(key, "rsa", NOW), key, ()), None, BOTH)
