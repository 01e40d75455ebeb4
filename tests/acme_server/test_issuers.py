"""Tests for several issuing CAs: switching while the server runs, alternate chains, and each CA's revocation data."""

import time

import aiohttp
import pytest
from cryptography import x509

from acme_server.issuing_files import IssuingFiles
from acme_server.jws import encode
from acme_server.watch import Watch
from authority import KeyFileError
from authority.rotation import Rotation
from tests.acme_server.browser import Browser, csr
from tests.acme_server.conftest import Lab
from tests.acme_server.test_ocsp import question
from tests.acme_server.test_revocation_list import leaf_of, named_in

NAME = "www.example.com"


@pytest.fixture
def rotation(lab: Lab) -> Rotation:
    return Rotation(*(lab.folder / each for each in ("root", "ca", "trust", "passphrase")))


@pytest.fixture
def watch(lab: Lab) -> Watch:
    async def no_listener():
        raise AssertionError("the fault acme_refuse is off")

    files = IssuingFiles(lab.folder / "ca", lab.folder / "passphrase" / "passphrase")
    return Watch(lab.server, lab.own, None, no_listener, files)


def advance(rotation: Rotation, watch: Watch, *steps: str) -> None:
    """Perform *steps* of a root rotation; after each step, make the server reload the files."""
    for step in steps:
        rotation.advance("root", step, time.time())
        watch.follow_issuing()


async def chains(browser: Browser) -> list[list[x509.Certificate]]:
    """Obtain a certificate; return its default chain and its alternate chains, each including the leaf."""
    order, url = await browser.ready(NAME)
    assert await browser.finalize(order, csr(NAME)) == (200, "valid")
    found = (await browser.post(url, None))[1]["certificate"]
    _, pem, headers = await browser.post(found, None)
    links = [each for each in headers.getall("Link") if 'rel="alternate"' in each]
    others = [(await browser.post(each[1 : each.index(">")], None))[1] for each in links]
    assert (await browser.post(f"{found}/{len(links) + 1}", None))[0] == 404
    return [x509.load_pem_x509_certificates(each.encode()) for each in (pem, *others)]


async def test_a_leaf_of_a_new_root_has_a_chain_to_each_root(
    lab: Lab, browser: Browser, rotation: Rotation, watch: Watch
) -> None:
    await browser.register()
    ((leaf, issuing),) = await chains(browser)
    leaf.verify_directly_issued_by(issuing)
    advance(rotation, watch, "prepare", "trust-both", "sign-new")
    long, short = await chains(browser)
    leaf, issuing, cross = long
    assert short == [leaf, issuing]
    leaf.verify_directly_issued_by(issuing)
    issuing.verify_directly_issued_by(cross)
    roots = x509.load_pem_x509_certificates(lab.trust.read_bytes())
    cross.verify_directly_issued_by(roots[0])
    issuing.verify_directly_issued_by(roots[1])
    advance(rotation, watch, "trust-new")
    ((leaf, issuing),) = await chains(browser)
    issuing.verify_directly_issued_by(roots[1])


async def test_each_issuer_publishes_until_it_is_retired_and_its_last_leaf_has_expired(
    lab: Lab, browser: Browser, rotation: Rotation, watch: Watch
) -> None:
    await browser.register()
    old = await leaf_of(browser)
    advance(rotation, watch, "prepare", "trust-both", "sign-new")
    new = await leaf_of(browser)
    now = lab.server.telemetry.clock.time()
    lab.server.published.renew_if_due(now)
    for each in (old, new):
        lab.server.store.revoke(f"{each.serial_number:x}", now, 4)
        lab.server.published.changed(f"{each.serial_number:x}")
    lab.server.published.renew_if_due(now)
    assert named_in(old)[0] != named_in(new)[0]
    for mine, other in ((old, new), (new, old)):
        async with browser.http.get(named_in(mine)[0]) as response:
            crl = x509.load_der_x509_crl(await response.read())
        assert crl.issuer == mine.issuer
        assert crl.get_revoked_certificate_by_serial_number(mine.serial_number) is not None
        assert crl.get_revoked_certificate_by_serial_number(other.serial_number) is None
    advance(rotation, watch, "trust-new", "retire")
    end = old.not_valid_after_utc.timestamp()
    for offset, status, files in ((0.0, 200, 3), (end - now - 5.0, 200, 3), (end - now + 5.0, 404, 0)):
        lab.server.telemetry.clock.offset = offset
        watch.follow_issuing()
        async with browser.http.get(named_in(old)[0]) as response:
            assert response.status == status
        found = [each for each in (lab.folder / "ca").glob("issuing*") if "-2" not in each.name]
        assert len(found) == files
    assert question(lab, new)


async def test_renewal_information_asks_for_new_certificates_after_a_change(
    lab: Lab, browser: Browser, rotation: Rotation, watch: Watch
) -> None:
    await browser.register()
    old = await leaf_of(browser)

    async def window(leaf: x509.Certificate) -> tuple[str, str]:
        authority = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier or b""
        serial = leaf.serial_number.to_bytes(leaf.serial_number.bit_length() // 8 + 1)
        name = f"{encode(authority)}.{encode(serial)}"
        async with browser.http.get(f"{browser.base}/acme/renewal-info/{name}") as response:
            assert response.status == 200
            found = (await response.json())["suggestedWindow"]
        return found["start"], found["end"]

    before = await window(old)
    advance(rotation, watch, "prepare", "trust-both")
    assert await window(old) == before
    advance(rotation, watch, "sign-new")
    assert await window(old) < before


async def test_the_servers_own_certificate_follows_the_new_issuer(
    lab: Lab, browser: Browser, rotation: Rotation, watch: Watch
) -> None:
    issued = lab.own.issued
    advance(rotation, watch, "prepare", "trust-both")
    assert lab.own.issued == issued
    advance(rotation, watch, "sign-new", "trust-new")
    connector = aiohttp.TCPConnector(resolver=browser.http.connector._resolver, ssl=lab.context())  # type: ignore[union-attr]  # an open session has a connector
    async with aiohttp.ClientSession(connector=connector) as http, http.get(lab.directory) as response:
        assert response.status == 200


async def test_files_that_do_not_fit_leave_the_issuers_in_use(lab: Lab, rotation: Rotation, watch: Watch) -> None:
    advance(rotation, watch, "prepare")
    (lab.folder / "ca" / "active").write_text("two\n")
    watch.follow_issuing()
    check = lab.server.telemetry.health.as_dict()["checks"]["issuing files"]
    assert not check["ok"]
    assert "expected the number of an issuing CA" in check["detail"]
    (lab.folder / "ca" / "active").write_text("3\n")
    with pytest.raises(KeyFileError):
        IssuingFiles(lab.folder / "ca", lab.folder / "passphrase" / "passphrase")
    (lab.folder / "ca" / "active").write_text("2\n")
    watch.follow_issuing()
    assert lab.server.telemetry.health.as_dict()["checks"]["issuing files"]["ok"]
