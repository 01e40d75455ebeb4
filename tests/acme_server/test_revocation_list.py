"""Tests for the CA's revocation list over HTTP: content, caching and renewal."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AuthorityInformationAccessOID

from acme_server.jws import encode
from acme_server.revocation_list import LIFETIME
from telemetry import AdminError, Request
from tests.acme_server.browser import Browser, csr
from tests.acme_server.conftest import Lab

NAME = "www.example.com"


async def leaf_of(browser: Browser) -> x509.Certificate:
    order, url = await browser.ready(NAME)
    assert await browser.finalize(order, csr(NAME)) == (200, "valid")
    _, pem, _ = await browser.post((await browser.post(url, None))[1]["certificate"], None)
    return x509.load_pem_x509_certificate(pem.encode())


def named_in(leaf: x509.Certificate) -> tuple[str, str]:
    """Return the URLs of the revocation list and of the issuer's certificate in *leaf*."""
    (point,) = leaf.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    _, access = leaf.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    assert access.access_method == AuthorityInformationAccessOID.CA_ISSUERS
    assert point.full_name is not None
    return point.full_name[0].value, access.access_location.value


async def test_a_revocation_is_in_the_list_that_the_certificate_names(lab: Lab, browser: Browser) -> None:
    await browser.register()
    leaf = await leaf_of(browser)
    crl_url, issuer_url = named_in(leaf)
    async with browser.http.get(issuer_url) as response:
        assert response.content_type == "application/pkix-cert"
        issuer = x509.load_der_x509_certificate(await response.read())
    leaf.verify_directly_issued_by(issuer)

    async def fetch() -> tuple[x509.CertificateRevocationList, str]:
        async with browser.http.get(crl_url) as response:
            assert response.content_type == "application/pkix-crl"
            assert response.headers["Cache-Control"].startswith("max-age=5")
            return x509.load_der_x509_crl(await response.read()), response.headers["ETag"]

    before, tag = await fetch()
    assert before.get_revoked_certificate_by_serial_number(leaf.serial_number) is None
    async with browser.http.get(crl_url, headers={"If-None-Match": tag}) as response:
        assert (response.status, await response.read()) == (304, b"")
    body = {"certificate": encode(leaf.public_bytes(Encoding.DER)), "reason": 4}
    assert (await browser.post("/acme/revoke-cert", body))[0] == 200
    lab.server.published.renew_if_due(lab.server.telemetry.clock.time())
    after, other = await fetch()
    assert after.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]  # cryptography declares too narrow a type for the argument
    entry = after.get_revoked_certificate_by_serial_number(leaf.serial_number)
    assert entry is not None
    assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason == x509.ReasonFlags.superseded
    assert other != tag


async def test_the_list_is_renewed_at_half_of_its_life_and_when_the_clock_steps_back(lab: Lab) -> None:
    (published,) = lab.server.published.by_name.values()
    crl = published.crl
    begin = crl.issued
    assert not crl.renew_if_due(begin + LIFETIME / 2 - 1)
    assert crl.renew_if_due(begin + LIFETIME / 2)
    assert crl.next_update == begin + LIFETIME * 3 / 2
    assert crl.renew_if_due(begin)
    assert not crl.renew_if_due(begin + 1)


async def test_an_expired_certificate_is_on_one_more_list(lab: Lab, browser: Browser) -> None:
    await browser.register()
    leaf = await leaf_of(browser)
    end = leaf.not_valid_after_utc.timestamp()
    lab.server.store.revoke(f"{leaf.serial_number:x}", end - 10, 4)
    for at, listed in ((end + 1, 1), (end + LIFETIME + 1, 0)):
        assert len(lab.server.store.revoked(at - LIFETIME, lab.server.issuer.key_id.hex())) == listed


async def test_entries_are_kept_between_lists_until_their_certificates_expired(lab: Lab, browser: Browser) -> None:
    await browser.register()
    (published,) = lab.server.published.by_name.values()
    crl, leaves = published.crl, [await leaf_of(browser) for _ in range(2)]
    ends = [leaf.not_valid_after_utc.timestamp() for leaf in leaves]

    def listed(now: float) -> list[int]:
        crl.renew_if_due(now)
        return [each.serial_number for each in x509.load_der_x509_crl(crl.der)]

    serials = [leaf.serial_number for leaf in leaves]
    for count, serial in enumerate(serials, 1):
        lab.server.store.revoke(f"{serial:x}", ends[0] - 30 + count, 4)
        lab.server.published.changed(f"{serial:x}")
        assert listed(ends[0] - 20) == serials[:count]
    assert listed(min(ends) + LIFETIME - 1) == serials
    assert listed(max(ends) + 2 * LIFETIME) == []
    assert listed(ends[0] - 20) == serials


async def test_an_operator_revokes_by_serial_number(lab: Lab, browser: Browser) -> None:
    await browser.register()
    leaf = await leaf_of(browser)
    serial = f"{leaf.serial_number:x}"

    def ask(serial: str, body: bytes) -> Request:
        return Request("POST", f"/admin/revoke/{serial}", params={"serial": serial}, body=body)

    for refused in (
        ask("0a", b"{}"),
        ask(serial, b'{"reason": 7}'),
        ask(serial, b'{"reason": true}'),
        ask(serial, b"1"),
    ):
        with pytest.raises(AdminError, match="expected"):
            lab.server.revocation.by_operator(refused)
    revoke = lab.server.revocation.by_operator
    assert revoke(ask(serial, b'{"reason": 4}')) == {"revoked": [serial], "reason": 4}
    assert revoke(ask(serial, b'{"reason": 5}')) == {"revoked": [], "reason": 4}
    assert revoke(ask(serial, b'{"reason": 1}')) == {"revoked": [serial], "reason": 1}
    assert revoke(ask(serial, b'{"reason": 1}')) == {"revoked": [], "reason": 1}
    lab.server.published.renew_if_due(lab.server.telemetry.clock.time())
