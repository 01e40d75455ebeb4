"""Tests for fault injection in ACME responses: what clients receive, how often, and how the CA's state changes."""

from typing import Any

import aiohttp
import pytest
from cryptography import x509

from acme_server import misissue
from authority import Issuer, issue_leaf, issue_root, new_key
from tests.acme_server.browser import Browser, csr, kind
from tests.acme_server.conftest import Lab

DIRECTORY = "/directory"
NEW_ORDER = {"identifiers": [{"type": "dns", "value": "www.example.com"}]}
ROOT_KEY = new_key()
ROOT = issue_root(ROOT_KEY, "root", 1e9)
ISSUER = Issuer(ROOT, ROOT_KEY, (ROOT,))
LEAF = issue_leaf(ISSUER, new_key().public_key(), ["www.example.com"], 1e9, 3600.0)


@pytest.mark.parametrize(
    ("fault", "parameters", "status", "problem", "retry_after"),
    [
        ("acme_bad_nonce", {}, 400, "badNonce", None),
        ("acme_429", {"retry_after": 7}, 429, "rateLimited", "7"),
        ("acme_503", {"retry_after": 3}, 503, "serverInternal", "3"),
        ("acme_500", {}, 500, "serverInternal", None),
    ],
)
async def test_the_next_n_requests_for_one_resource_fail(
    lab: Lab, browser: Browser, fault: str, parameters: dict, status: int, problem: str, retry_after: str | None
) -> None:
    await browser.register()
    lab.server.telemetry.faults.switch_on(fault, {**parameters, "resource": "new-order", "count": 2})
    # The fault does not apply to other resources, such as the account.
    assert (await browser.post(browser.kid.removeprefix(browser.base), None))[0] == 200
    for _ in range(2):
        got, body, headers = await browser.post("/acme/new-order", NEW_ORDER)
        assert (got, kind(body), headers.get("Retry-After")) == (status, problem, retry_after)
        assert headers["Replay-Nonce"]
    assert (await browser.post("/acme/new-order", NEW_ORDER))[0] == 201
    assert lab.server.telemetry.faults.active() == []


async def test_a_refused_nonce_does_not_concern_requests_without_one(lab: Lab, browser: Browser) -> None:
    lab.server.telemetry.faults.switch_on("acme_bad_nonce", {})
    async with browser.http.get(browser.base + DIRECTORY) as response:
        assert response.status == 200


async def test_an_empty_response_means_that_the_order_was_not_created(lab: Lab, browser: Browser) -> None:
    await browser.register()
    lab.server.telemetry.faults.switch_on("acme_empty", {"resource": "new-order", "count": 1})
    status, body, _ = await browser.post("/acme/new-order", NEW_ORDER)
    assert (status, body) == (200, "")
    assert lab.server.store.orders(browser.kid.rpartition("/")[2]) == []


@pytest.mark.parametrize(("loses", "orders"), [("request", 0), ("response", 1)])
async def test_a_dropped_connection_loses_the_request_or_only_the_response(
    lab: Lab, browser: Browser, loses: str, orders: int
) -> None:
    await browser.register()
    lab.server.telemetry.faults.switch_on("acme_drop", {"resource": "new-order", "count": 1, "loses": loses})
    with pytest.raises(aiohttp.ClientError):
        await browser.post("/acme/new-order", NEW_ORDER)
    assert len(lab.server.store.orders(browser.kid.rpartition("/")[2])) == orders


async def test_what_is_finished_can_look_unfinished(lab: Lab, browser: Browser) -> None:
    await browser.register()
    order, url = await browser.ready("www.example.com")
    await browser.finalize(order, csr("www.example.com"))
    lab.server.telemetry.faults.switch_on("acme_processing", {"count": 2, "retry_after": 4})
    _, shown, headers = await browser.post(url, None)
    assert (shown["status"], headers["Retry-After"]) == ("processing", "4")
    assert "certificate" not in shown
    _, shown, headers = await browser.post(order["authorizations"][0], None)
    assert (shown["status"], shown["challenges"][0]["status"]) == ("pending", "processing")
    assert await browser.status(url) == await browser.status(order["authorizations"][0]) == "valid"


@pytest.mark.parametrize(
    ("window", "wrong"),
    [
        ("past", lambda body: body["suggestedWindow"]["end"] < "2020"),
        ("far-future", lambda body: body["suggestedWindow"]["start"] > "2030"),
        ("inverted", lambda body: body["suggestedWindow"]["start"] > body["suggestedWindow"]["end"]),
        ("malformed", lambda body: body["suggestedWindow"] == {"start": "soon", "end": "later"}),
        ("missing", lambda body: body == {}),
    ],
)
async def test_renewal_windows_can_be_wrong(lab: Lab, browser: Browser, window: str, wrong) -> None:
    url = f"{browser.base}/acme/renewal-info/{renewal_id(lab)}"
    lab.server.telemetry.faults.switch_on("acme_renewal_window", {"kind": window, "count": 1})
    async with browser.http.get(url) as response:
        assert wrong(await response.json())
        assert response.headers["Retry-After"]
    async with browser.http.get(url) as response:
        right = (await response.json())["suggestedWindow"]
        assert "2020" < right["start"] < right["end"]


def renewal_id(lab: Lab) -> str:
    (own,) = lab.server.store.certificates()
    return lab.server.renewal_id(x509.load_pem_x509_certificate(own.pem.encode()).serial_number)


def extension(leaf: x509.Certificate, kind: type[x509.ExtensionType]) -> Any:
    return next((each.value for each in leaf.extensions if isinstance(each.value, kind)), None)


@pytest.mark.parametrize(
    ("defect", "wrong"),
    [
        ("wrong-san", lambda leaf, chain: "wrong.example.com" in str(extension(leaf, x509.SubjectAlternativeName))),
        ("expired", lambda leaf, chain: leaf.not_valid_after_utc.timestamp() < 1e9),
        ("not-yet-valid", lambda leaf, chain: leaf.not_valid_before_utc.timestamp() > 1e9),
        ("no-chain", lambda leaf, chain: chain == ()),
        ("wrong-chain", lambda leaf, chain: chain[0].subject != leaf.issuer),
        ("long-chain", lambda leaf, chain: len(chain) == 1 + misissue.SURPLUS),
        ("no-client-auth", lambda leaf, chain: len(list(extension(leaf, x509.ExtendedKeyUsage))) == 1),
        ("no-aki", lambda leaf, chain: extension(leaf, x509.AuthorityKeyIdentifier) is None),
        ("short-life", lambda leaf, chain: leaf.not_valid_after_utc.timestamp() == 1e9 + 360),
    ],
)
def test_a_misissued_certificate_has_its_defect_and_is_signed_by_the_ca(defect: str, wrong) -> None:
    leaf, chain = misissue.misissue(defect, LEAF, ISSUER, 1e9)
    leaf.verify_directly_issued_by(ROOT)
    assert wrong(leaf, chain)
    assert not wrong(LEAF, ISSUER.chain)


def test_every_defect_has_a_test() -> None:
    (tested,) = test_a_misissued_certificate_has_its_defect_and_is_signed_by_the_ca.pytestmark
    assert [case[0] for case in tested.args[1]] == list(misissue.KINDS)
