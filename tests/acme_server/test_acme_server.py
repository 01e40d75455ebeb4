"""Tests for the ACME server over HTTPS, with a client that can send valid and malformed requests."""

import json
import time
from email.utils import parsedate_to_datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from acme_server import Problem, read_jws, thumbprint
from acme_server.jws import encode
from acme_server.server import AcmeServer
from acme_server.validation import judge_caa
from authority import Store, new_key
from renewal import AcmeClient, AcmeError
from telemetry import AdminError, Request, Telemetry
from tests.acme_server.browser import Browser, Signer, kind
from tests.acme_server.conftest import Lab
from tests.mutations import mutated


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "RS256"])
async def test_accounts_of_every_kind_of_key_are_kept(lab: Lab, browser: Browser, algorithm: str) -> None:
    browser.signer = Signer(algorithm)
    await browser.register()
    first, browser.kid = browser.kid, None
    status, _, headers = await browser.post("/acme/new-account", {"onlyReturnExisting": True})
    assert (status, headers["Location"]) == (200, first)


@pytest.mark.parametrize(
    ("change", "status", "problem"),
    [
        pytest.param({"nonce": "made-up"}, 400, "badNonce", id="nonce"),
        pytest.param({"url": "https://ca.example.com/other"}, 403, "unauthorized", id="url"),
        pytest.param({"alg": "HS256"}, 400, "badSignatureAlgorithm", id="algorithm"),
        pytest.param({"alg": "RS256"}, 400, "badSignatureAlgorithm", id="algorithm-of-another-key"),
        pytest.param({"jwk": {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}}, 400, "badPublicKey", id="point"),
        pytest.param({"jwk": Signer().jwk}, 400, "malformed", id="signature"),
        pytest.param({"kid": "https://x/"}, 400, "malformed", id="jwk-and-kid"),
        pytest.param({"content_type": "application/json"}, 415, "malformed", id="content-type"),
        pytest.param({"body": b"[]"}, 400, "malformed", id="no-jws"),
        pytest.param({"body": b"x" * 70_000}, 413, "malformed", id="too-large"),
    ],
)  # fmt: skip
async def test_requests_that_are_refused(browser: Browser, change: dict, status: int, problem: str) -> None:
    got, body, headers = await browser.post("/acme/new-account", {}, **change)
    assert (got, kind(body)) == (status, problem)
    assert headers["Content-Type"].startswith("application/problem+json")
    assert headers["Replay-Nonce"]
    assert 'rel="index"' in headers["Link"]


async def test_a_nonce_is_good_once(browser: Browser) -> None:
    nonce = await browser.nonce()
    assert (await browser.post("/acme/new-account", {}, nonce=nonce))[0] == 201
    status, body, _ = await browser.post("/acme/new-account", {}, nonce=nonce)
    assert (status, kind(body)) == (400, "badNonce")


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        ({"identifiers": []}, "malformed"),
        ({"identifiers": [{"type": "ip", "value": "192.0.2.1"}]}, "unsupportedIdentifier"),
        ({"identifiers": [{"type": "dns", "value": "a.*.example.com"}]}, "rejectedIdentifier"),
        ({"identifiers": [{"type": "dns", "value": "*.example.org"}]}, "rejectedIdentifier"),
        ({"identifiers": [{"type": "dns", "value": "a b"}]}, "rejectedIdentifier"),
        ({"identifiers": [{"type": "dns", "value": "a.example.com"}], "notAfter": "2027-01-01T00:00:00Z"}, "malformed"),
    ],
)
async def test_orders_that_are_refused(browser: Browser, payload: dict, problem: str) -> None:
    await browser.register()
    assert kind((await browser.post("/acme/new-order", payload))[1]) == problem


async def test_what_belongs_to_another_account_is_not_shown(lab: Lab, browser: Browser) -> None:
    await browser.register()
    _, order, headers = await browser.post(
        "/acme/new-order", {"identifiers": [{"type": "dns", "value": "www.example.com"}]}
    )
    other = Browser(lab, browser.http, Signer())
    await other.register()
    for url in (headers["Location"], order["authorizations"][0], order["finalize"], browser.kid):
        assert kind((await other.post(url, None))[1]) == "unauthorized"
    assert kind((await other.post("/acme/order/none", None))[1]) == "malformed"
    assert kind((await browser.post(order["finalize"], {"csr": ""}))[1]) == "orderNotReady"


async def test_deactivation_and_key_change(browser: Browser) -> None:
    await browser.register()
    successor = Signer()
    url = f"{browser.base}/acme/key-change"
    inner = successor.jws({"url": url, "jwk": successor.jwk}, {"account": browser.kid, "oldKey": browser.signer.jwk})
    assert (await browser.post("/acme/key-change", inner))[0] == 200
    assert kind((await browser.post(browser.kid, None))[1]) == "malformed"
    browser.signer = successor
    assert (await browser.post(browser.kid, {"status": "deactivated"}))[1]["status"] == "deactivated"
    assert kind((await browser.post(browser.kid, None))[1]) == "unauthorized"


async def test_a_key_that_an_account_has_is_a_conflict_with_its_url(lab: Lab, browser: Browser) -> None:
    await browser.register()
    other = Browser(lab, browser.http, Signer())
    await other.register()
    url = f"{browser.base}/acme/key-change"
    inner = other.signer.jws(
        {"url": url, "jwk": other.signer.jwk}, {"account": browser.kid, "oldKey": browser.signer.jwk}
    )
    status, _, headers = await browser.post("/acme/key-change", inner)
    assert (status, headers["Location"]) == (409, other.kid)


async def test_only_post_and_only_without_payload(browser: Browser) -> None:
    await browser.register()
    async with browser.http.get(browser.kid) as response:
        assert (response.status, response.headers["Allow"], kind(await response.json())) == (405, "POST", "malformed")
        assert response.headers["Replay-Nonce"]
    status, body, _ = await browser.post(f"{browser.kid}/orders", {})
    assert (status, kind(body)) == (400, "malformed")


@pytest.mark.parametrize(
    ("contact", "problem"),
    [
        (["tel:+1"], "unsupportedContact"),
        (["mailto:a@example.com,b@example.com"], "invalidContact"),
        (["mailto:a@example.com?subject=x"], "invalidContact"),
        ("mailto:a@example.com", "malformed"),
    ],
    ids=["telephone", "two-addresses", "header-field", "no-list"],
)
async def test_contacts_that_are_refused(browser: Browser, contact: object, problem: str) -> None:
    assert kind((await browser.post("/acme/new-account", {"contact": contact}))[1]) == problem


def client(lab: Lab) -> AcmeClient:
    return AcmeClient(lab.directory, ec.generate_private_key(ec.SECP256R1()), lab.context(), lab.stub)


def answer(lab: Lab):
    return lambda token, text: lab.answers.update({token: text}) if text else lab.answers.pop(token, None)


async def test_a_certificate_from_order_to_revocation(lab: Lab, browser: Browser) -> None:
    acme, key = client(lab), ec.generate_private_key(ec.SECP256R1())
    pem = await acme.obtain(["www.example.com", "far.example.com"], key, answer(lab))
    leaf, issuing = x509.load_pem_x509_certificates(pem.encode())
    assert leaf.public_key() == key.public_key()
    leaf.verify_directly_issued_by(issuing)
    assert lab.answers == {}
    serial = f"{leaf.serial_number:x}"
    # Revoke with the certificate's own key, without an account (RFC 8555 section 7.6).
    signer = Signer()
    signer.key = key
    numbers = key.public_key().public_numbers()
    signer.jwk = {"kty": "EC", "crv": "P-256", "x": encode(numbers.x.to_bytes(32)), "y": encode(numbers.y.to_bytes(32))}
    body = {"certificate": encode(leaf.public_bytes(Encoding.DER)), "reason": 1}
    browser.signer = Signer()
    assert kind((await browser.post("/acme/revoke-cert", body))[1]) == "unauthorized"
    browser.signer = signer
    assert (await browser.post("/acme/revoke-cert", body))[0] == 200
    assert kind((await browser.post("/acme/revoke-cert", body))[1]) == "alreadyRevoked"
    found = lab.server.store.certificate(serial)
    assert found is not None
    assert found.reason == 1
    aki = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier or b""
    number = leaf.serial_number.to_bytes(16)
    async with browser.http.get(f"{browser.base}/acme/renewal-info/{encode(aki)}.{encode(number)}") as response:
        window = (await response.json())["suggestedWindow"]
    assert window["start"] < window["end"]


async def test_an_account_with_authorizations_for_all_names_may_revoke_and_one_with_some_may_not(
    lab: Lab, browser: Browser
) -> None:
    names = ["www.example.com", "far.example.com"]
    leaf = x509.load_pem_x509_certificate((await client(lab).obtain(names, new_key(), answer(lab))).encode())
    for asked, problem in ((names[:1], "unauthorized"), (names, None)):
        other = client(lab)
        await other.obtain(asked, new_key(), answer(lab))
        browser.signer = Signer()
        browser.signer.key, browser.signer.jwk, browser.kid = other._key, other._jwk, other._account
        body = {"certificate": encode(leaf.public_bytes(Encoding.DER))}
        for reason in (["x"], True, 2, 8):
            refused = (await browser.post("/acme/revoke-cert", {**body, "reason": reason}))[1]
            assert kind(refused) == (problem or "badRevocationReason")
        status, answered, _ = await browser.post("/acme/revoke-cert", body)
        assert (status, kind(answered) if status != 200 else None) == ((403, problem) if problem else (200, None))


async def test_an_accounts_key_is_no_certificates_key(lab: Lab) -> None:
    acme = client(lab)
    with pytest.raises(AcmeError) as error:
        await acme.obtain(["www.example.com"], acme._key, answer(lab))
    assert error.value.kind == "badCSR"


@pytest.mark.parametrize("identifier", ["AAAA.AQ", "AAAA", ".AQ", "....", "AAAA.", "%00.%00"])
async def test_renewal_info_of_what_we_did_not_issue(lab: Lab, browser: Browser, identifier: str) -> None:
    async with browser.http.get(f"{browser.base}/acme/renewal-info/{identifier}") as response:
        assert response.status == 404


async def test_the_date_is_by_the_cas_own_clock(lab: Lab, browser: Browser) -> None:
    lab.server.telemetry.clock.offset = -7200.0
    async with browser.http.get(lab.directory) as response:
        said = parsedate_to_datetime(response.headers["Date"]).timestamp()
    assert abs(said - (time.time() - 7200)) < 2


@pytest.mark.parametrize(
    ("records", "good"),
    [
        (['0 issue "ca.example.com"'], True),
        (['0 issue "another.example.com"', '0 issue "CA.example.com; account=7"'], True),
        (['0 ISSUE "ca.example.com"'], True),
        (['0 issue ";"'], False),
        (['0 issue "another.example.com"'], False),
        (['0 issuewild ";"', '0 iodef "mailto:x@example.com"'], True),
        (['128 future "x"', '0 issue "ca.example.com"'], False),
        (['0 future "x"'], True),
        (["0"], True),
    ],
    ids=["we", "we-too", "case", "nobody", "another", "wildcards", "critical", "unknown", "malformed"],
)
def test_caa(records: list[str], good: bool) -> None:
    if good:
        judge_caa("example.com", records, "ca.example.com")
    else:
        with pytest.raises(Problem):
            judge_caa("example.com", records, "ca.example.com")


@pytest.mark.parametrize(
    ("records", "good"),
    [
        pytest.param(['0 issue "ca.example.com"'], True, id="no-issuewild"),
        pytest.param(['0 issue ";"', '0 issuewild "ca.example.com"'], True, id="issuewild-replaces-issue"),
        pytest.param(['0 issue "ca.example.com"', '0 issuewild ";"'], False, id="issuewild-forbids"),
    ],
)
def test_caa_of_wildcard_names(records: list[str], good: bool) -> None:
    if good:
        judge_caa("example.com", records, "ca.example.com", wildcard=True)
    else:
        with pytest.raises(Problem):
            judge_caa("example.com", records, "ca.example.com", wildcard=True)


@pytest.mark.parametrize(
    ("name", "reply", "problem"),
    [
        ("missing.nowhere.example.com", True, "dns"),
        ("nowhere.example.com", True, "dns"),
        ("closed.example.com", True, "connection"),
        ("www.example.com", False, "unauthorized"),
        ("forbidden.example.com", True, "caa"),
        ("www.example.org", True, "rejectedIdentifier"),
    ],
)
async def test_names_that_are_not_proven(lab: Lab, name: str, reply: bool, problem: str) -> None:
    with pytest.raises(AcmeError) as error:
        await client(lab).obtain(
            [name], ec.generate_private_key(ec.SECP256R1()), answer(lab) if reply else lambda t, a: None
        )
    assert error.value.kind == problem, str(error.value)


async def test_a_wrong_key_authorization_is_not_believed(lab: Lab) -> None:
    with pytest.raises(AcmeError) as error:
        await client(lab).obtain(
            ["www.example.com"],
            ec.generate_private_key(ec.SECP256R1()),
            lambda token, text: lab.answers.update({token: "something else"}),
        )
    assert error.value.kind == "incorrectResponse"


async def test_an_outage_says_when_to_come_back(lab: Lab) -> None:
    lab.server.telemetry.faults.switch_on("acme_503", {})
    with pytest.raises(AcmeError) as error:
        await client(lab).obtain(["www.example.com"], ec.generate_private_key(ec.SECP256R1()), answer(lab))
    assert error.value.retry_after == 1


async def test_a_restart_loses_nothing(lab: Lab, browser: Browser) -> None:
    await browser.register()
    _, _order, headers = await browser.post(
        "/acme/new-order", {"identifiers": [{"type": "dns", "value": "www.example.com"}]}
    )
    store = Store(lab.folder / "ca" / "store.sqlite")
    again = AcmeServer(Telemetry("acme_server"), lab.server.issuer, store, [lab.stub], lab.server.settings)
    found = again.orders.store.order(headers["Location"].rpartition("/")[2])
    store.close()
    assert found is not None
    assert (found.status, found.names) == ("pending", ("www.example.com",))


async def test_our_own_certificate_follows_a_clock_that_steps_back(lab: Lab) -> None:
    assert lab.own.renew_if_due(lab.own.issued - 1)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "expected"),
        ({"seconds": 1}, "seconds"),
        ({"seconds": True}, "seconds"),
        ({"backdate": -1}, "backdate"),
        ({"life": 9}, "expected"),
        ([1], "expected"),
    ],
)
def test_lifetimes_that_are_refused(lab: Lab, body: object, message: str) -> None:
    with pytest.raises(AdminError, match=message):
        lab.server.leaves._set_lifetime(Request("PUT", "/admin/lifetime", body=json.dumps(body).encode()))


async def test_a_lifetime_set_by_a_drill_holds_for_the_next_certificate_and_is_undone(lab: Lab) -> None:
    body = json.dumps({"seconds": 12, "backdate": 1}).encode()
    lab.server.leaves._set_lifetime(Request("PUT", "/admin/lifetime", body=body))
    leaf = x509.load_pem_x509_certificate(
        (await client(lab).obtain(["www.example.com"], new_key(), answer(lab))).encode()
    )
    assert (leaf.not_valid_after_utc - leaf.not_valid_before_utc).total_seconds() == 13
    assert lab.server.leaves._reset_lifetime(Request("DELETE", "/admin/lifetime")) == {
        "seconds": 60.0,
        "backdate": 60.0,
    }


async def test_a_lifetime_of_one_name_leaves_other_names_alone(lab: Lab) -> None:
    path, params = "/admin/lifetime/www.example.com", {"name": "www.example.com"}
    request = Request("PUT", path, params=params, body=b'{"seconds": 20}')
    assert lab.server.leaves._set_lifetime_of(request) == {"www.example.com": 20.0}

    async def validity(name: str) -> float:
        leaf = x509.load_pem_x509_certificate((await client(lab).obtain([name], new_key(), answer(lab))).encode())
        return (leaf.not_valid_after_utc - leaf.not_valid_before_utc).total_seconds()

    assert await validity("www.example.com") == 21
    assert await validity("api.example.com") == 120
    assert lab.server.leaves._reset_lifetime_of(request) == {}
    assert await validity("www.example.com") == 120


async def test_our_own_certificate_is_renewed_at_half_life(lab: Lab) -> None:
    before = lab.own.not_after
    assert not lab.own.renew_if_due(lab.own.renew_at - 1)
    assert lab.own.renew_if_due(lab.own.renew_at)
    assert lab.own.not_after >= before


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    with pytest.raises(Problem):
        read_jws(data)


@given(
    st.dictionaries(
        st.sampled_from(["protected", "payload", "signature", "x"]),
        st.one_of(st.text('abAB01_-{}"', max_size=30), st.integers()),
    )
)
def test_no_members_break_the_reader(document: dict) -> None:
    with pytest.raises(Problem):
        read_jws(json.dumps(document).encode())


SIGNER = Signer()
JWS = SIGNER.jws({"nonce": "n", "url": "https://ca.example.com/acme/new-account", "jwk": SIGNER.jwk}, {"contact": []})


@given(mutated(json.dumps(JWS).encode()))
def test_a_mutated_request_has_no_valid_signature(body: bytes) -> None:
    try:
        found = read_jws(body)
        assert found.jwk is not None
        found.verify(found.jwk)
    except Problem:
        return
    assert json.loads(body) == JWS


@given(
    mutated(json.dumps({"alg": "ES256", "nonce": "n", "url": "u", "jwk": SIGNER.jwk}).encode()), mutated(b'{"a": [1]}')
)
def test_a_signed_request_with_mutated_contents_is_refused_or_read(header: bytes, payload: bytes) -> None:
    protected, content = encode(header), encode(payload)
    signature = encode(SIGNER.sign(f"{protected}.{content}".encode()))
    try:
        found = read_jws(json.dumps({"protected": protected, "payload": content, "signature": signature}).encode())
        found.verify(found.jwk or {})
        value = found.json()
    except Problem:
        return
    assert (found.jwk, value) == (SIGNER.jwk, json.loads(payload))


def test_the_thumbprint_of_rfc_7638() -> None:
    modulus = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjB"
        "ZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8"
        "KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_"
        "xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
    )
    assert (
        thumbprint({"kty": "RSA", "e": "AQAB", "n": modulus, "alg": "RS256"})
        == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    )
