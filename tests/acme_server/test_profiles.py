"""Tests for certificate profiles in orders (draft-ietf-acme-profiles)."""

import pytest
from cryptography import x509

from authority.profiles import read_profiles
from tests.acme_server.browser import Browser, csr, kind
from tests.acme_server.conftest import Lab

NAME = "www.example.com"
PROFILES = read_profiles(
    """
[peer]
description = "default"
[server]
description = "servers"
usages = ["serverAuth"]
[short]
description = "without revocation"
lifetime = 20
revocation = false
""",
    "profiles",
)


@pytest.fixture(autouse=True)
def profiles(lab: Lab) -> None:
    lab.server.settings.profiles.update(PROFILES)


async def ordered(browser: Browser, profile: str | None) -> tuple[str, x509.Certificate]:
    """Order a certificate with *profile*; return the order's profile and the certificate."""
    body = {"identifiers": [{"type": "dns", "value": NAME}], **({} if profile is None else {"profile": profile})}
    status, order, headers = await browser.post("/acme/new-order", body)
    assert status == 201
    await browser.challenge(order)
    url = headers["Location"]
    while (await browser.status(url)) == "pending":
        pass
    assert await browser.finalize(order, csr(NAME)) == (200, "valid")
    _, order, _ = await browser.post(url, None)
    _, pem, _ = await browser.post(order["certificate"], None)
    return order["profile"], x509.load_pem_x509_certificate(pem.encode())


@pytest.mark.parametrize(
    ("asked", "profile", "usages", "lifetime", "revocable"),
    [
        (None, "peer", 2, 60, True),
        ("peer", "peer", 2, 60, True),
        ("server", "server", 1, 60, True),
        ("short", "short", 2, 20, False),
    ],
)
async def test_a_leaf_follows_the_profile_of_its_order(
    browser: Browser, asked: str | None, profile: str, usages: int, lifetime: int, revocable: bool
) -> None:
    await browser.register()
    name, leaf = await ordered(browser, asked)
    assert name == profile
    assert len(list(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)) == usages
    life = (leaf.not_valid_after_utc - leaf.not_valid_before_utc).total_seconds() - 60
    assert abs(life - lifetime) <= 1
    found = [each.oid for each in leaf.extensions]
    assert (x509.CRLDistributionPoints.oid in found) == (x509.AuthorityInformationAccess.oid in found) == revocable


async def test_the_directory_describes_the_profiles(browser: Browser) -> None:
    async with browser.http.get(f"{browser.base}/directory") as response:
        found = (await response.json())["meta"]["profiles"]
    assert found == {name: each.description for name, each in PROFILES.items()}


@pytest.mark.parametrize("profile", ["unknown", "", 7, None, ["peer"]])
async def test_an_unknown_profile_is_refused(browser: Browser, profile: object) -> None:
    await browser.register()
    body = {"identifiers": [{"type": "dns", "value": NAME}], "profile": profile}
    status, answer, _ = await browser.post("/acme/new-order", body)
    assert (status, kind(answer)) == (400, "invalidProfile")
    assert "expected a profile of peer, server, short" in answer["detail"]
