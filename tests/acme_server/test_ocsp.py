"""Tests for OCSP over HTTP, verified with OpenSSL, GnuTLS and pkilint."""

import asyncio
import base64
import subprocess
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID

from acme_server.publication import Publication
from acme_server.revocation_list import LIFETIME
from authority.issuance_log import FILE, audit
from authority.ocsp import RESPONDER_LIFETIME, read_request
from tests import judges
from tests.acme_server.browser import Browser
from tests.acme_server.conftest import Lab
from tests.acme_server.test_revocation_list import leaf_of
from tests.authority.test_judges import lint


@pytest.fixture
async def leaf(browser: Browser) -> x509.Certificate:
    await browser.register()
    return await leaf_of(browser)


def url(leaf: x509.Certificate) -> str:
    """Return the URL of the OCSP responder in *leaf*."""
    access = leaf.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    (found,) = (each for each in access if each.access_method == AuthorityInformationAccessOID.OCSP)
    return found.access_location.value


def local(leaf: x509.Certificate) -> str:
    """Return the responder's URL with an IP address, for programs that cannot use the test's DNS."""
    return url(leaf).replace("ca.example.com", "127.0.0.1")


def question(lab: Lab, leaf: x509.Certificate, algorithm: hashes.HashAlgorithm | None = None) -> bytes:
    builder = ocsp.OCSPRequestBuilder()
    builder = builder.add_certificate(leaf, lab.server.issuer.certificate, algorithm or hashes.SHA1())  # noqa: S303 - RFC 5019 requires SHA-1 in OCSP requests
    return builder.build().public_bytes(Encoding.DER)


def published(lab: Lab) -> Publication:
    (found,) = lab.server.published.by_name.values()
    return found


def revoke(lab: Lab, leaf: x509.Certificate) -> None:
    serial = f"{leaf.serial_number:x}"
    lab.server.store.revoke(serial, lab.server.telemetry.clock.time(), 4)
    lab.server.published.changed(serial)


async def run(*command: str, files: Path) -> str:
    """Run an independent verification program; return its standard output followed by its standard error."""
    words = [*judges.command(command[0], files=files), *command[1:]]
    done = await asyncio.to_thread(subprocess.run, words, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.mark.parametrize("judge", ["openssl", "ocsptool"])
async def test_independent_clients_accept_the_responses(lab: Lab, leaf: x509.Certificate, judge: str) -> None:
    issuer = lab.server.issuer.certificate
    for name, each in (("leaf", leaf), ("issuer", issuer)):
        (lab.folder / f"{name}.pem").write_bytes(each.public_bytes(Encoding.PEM))
    files, reply = {name: str(lab.folder / f"{name}.pem") for name in ("leaf", "issuer")}, lab.folder / "reply.der"
    words: tuple[tuple[str, ...], ...]
    if judge == "openssl":
        command = ["openssl", "ocsp", "-issuer", files["issuer"], "-cert", files["leaf"], "-CAfile", str(lab.trust),
                   "-url", local(leaf), "-respout", str(reply)]  # fmt: skip
        words = ("Response verify OK", "leaf.pem: good"), ("Response verify OK", "leaf.pem: revoked", "superseded")
    else:
        command = ["ocsptool", f"--ask={local(leaf)}", "--load-cert", files["leaf"], "--load-issuer", files["issuer"],
                   "--outfile", str(reply)]  # fmt: skip
        words = ("Verifying OCSP Response: Success", "Certificate Status: good"), ("Success", "Status: revoked")
    for expected in words:
        output = await run(*command, files=lab.folder)
        for word in expected:
            assert word in output
        assert lint("lint_ocsp_response", reply) == ""
        revoke(lab, leaf)


async def test_get_and_post_return_the_same_response_with_headers_for_caches(
    lab: Lab, browser: Browser, leaf: x509.Certificate
) -> None:
    der = question(lab, leaf)
    headers = {"Content-Type": "application/ocsp-request"}
    async with browser.http.post(url(leaf), data=der, headers=headers) as response:
        posted = await response.read()
        assert response.content_type == "application/ocsp-response"
    path = f"{url(leaf)}/{quote(base64.b64encode(der).decode(), safe='')}"
    async with browser.http.get(path) as response:
        assert await response.read() == posted
        assert response.headers["Cache-Control"] == "max-age=5, public, no-transform, must-revalidate"
        assert {"Last-Modified", "Expires"} <= set(response.headers)
        tag = response.headers["ETag"]
    async with browser.http.get(path, headers={"If-None-Match": tag}) as response:
        assert response.status == 304
    for data, kind, status in ((der, "text/plain", 415), (bytes(5000), headers["Content-Type"], 413)):
        async with browser.http.post(url(leaf), data=data, headers={"Content-Type": kind}) as response:
            assert response.status == status


@pytest.mark.parametrize("algorithm", [hashes.SHA1(), hashes.SHA256()], ids=["sha1", "sha256"])  # noqa: S303 - RFC 5019 requires SHA-1 in OCSP requests
async def test_a_response_names_the_certificate_and_is_signed_by_a_delegate(
    lab: Lab, leaf: x509.Certificate, algorithm: hashes.HashAlgorithm
) -> None:
    now = lab.server.telemetry.clock.time()
    signed = published(lab).ocsp.respond(read_request(question(lab, leaf, algorithm)), now)
    assert signed is not None
    response = ocsp.load_der_ocsp_response(signed.der)
    assert (response.serial_number, response.certificate_status) == (leaf.serial_number, ocsp.OCSPCertStatus.GOOD)
    (delegate,) = response.certificates
    delegate.verify_directly_issued_by(lab.server.issuer.certificate)
    delegate.extensions.get_extension_for_class(x509.OCSPNoCheck)
    assert response.next_update_utc is not None
    assert response.next_update_utc.timestamp() == int(now + LIFETIME)
    der = delegate.public_bytes(Encoding.PEM)
    (lab.folder / "delegate.pem").write_bytes(der)
    assert lint("lint_pkix_cert", lab.folder / "delegate.pem") == ""


async def test_unknown_certificates_and_malformed_requests_are_refused(
    lab: Lab, browser: Browser, leaf: x509.Certificate
) -> None:
    (identity,) = {read_request(question(lab, leaf)).issuer_key_hash}
    stranger = ocsp.OCSPRequestBuilder().add_certificate_by_hash(identity, identity, 5, hashes.SHA1()).build()  # noqa: S303 - RFC 5019 requires SHA-1 in OCSP requests
    unknown = read_request(question(lab, leaf))
    issued_elsewhere = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
        unknown.issuer_name_hash,
        unknown.issuer_key_hash,
        5,
        hashes.SHA1(),  # noqa: S303 - RFC 5019 requires SHA-1 in OCSP requests
    )
    for der, status in (
        (b"", "MALFORMED_REQUEST"),
        (b"\x30\x03abc", "MALFORMED_REQUEST"),
        (stranger.public_bytes(Encoding.DER), "UNAUTHORIZED"),
        (issued_elsewhere.build().public_bytes(Encoding.DER), "UNAUTHORIZED"),
    ):
        async with browser.http.get(f"{url(leaf)}/{quote(base64.b64encode(der).decode(), safe='')}") as response:
            found = ocsp.load_der_ocsp_response(await response.read())
            assert found.response_status.name == status
    async with browser.http.get(f"{url(leaf)}/%%%") as response:
        assert ocsp.load_der_ocsp_response(await response.read()).response_status.name == "MALFORMED_REQUEST"


async def test_a_response_is_replaced_at_half_of_its_life_and_after_a_revocation(
    lab: Lab, leaf: x509.Certificate
) -> None:
    responder, asked = published(lab).ocsp, read_request(question(lab, leaf))
    begin = lab.server.telemetry.clock.time()
    first = responder.respond(asked, begin)
    assert responder.respond(asked, begin + LIFETIME / 2 - 1) is first
    second = responder.respond(asked, begin + LIFETIME / 2)
    assert second is not None
    assert second.signed == begin + LIFETIME / 2
    # The clock was set back: the cached response would not be valid yet.
    assert responder.respond(asked, begin) is not second
    revoke(lab, leaf)
    third = responder.respond(asked, begin + 1)
    assert third is not None
    assert third.status == "revoked"


async def test_the_delegate_is_renewed_and_logged(lab: Lab) -> None:
    responder, now = published(lab).ocsp, lab.server.telemetry.clock.time()
    before = len(lab.server.log)
    assert not responder.renew_if_due(now + RESPONDER_LIFETIME / 2 - 5)
    assert responder.renew_if_due(now + RESPONDER_LIFETIME / 2 + 5)
    assert len(lab.server.log) == before + 1
    found = audit(lab.folder / "ca" / FILE, ())
    # Two entries are for certificates of OCSP responders, which are not in the store.
    assert len(found.unstored) == before + 1 - 2
