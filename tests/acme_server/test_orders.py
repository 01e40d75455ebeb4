"""Tests for failing orders: rejected CSRs and keys, concurrent changes of state, and a busy store."""

import asyncio
import json
import sqlite3

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from acme_server.jws import encode
from acme_server.leaves import LONGEST_LIFETIME
from acme_server.orders import ORDER_LIFETIME
from acme_server.validations import MAX_AT_ONCE
from authority import new_key
from renewal import AcmeClient
from tests.acme_server.browser import Browser, Signer, csr, kind
from tests.acme_server.conftest import Lab
from tests.waiting import until

NAME = "www.example.com"


@pytest.mark.parametrize(
    ("request_", "outcome"),
    [
        pytest.param(lambda: csr(NAME), (200, "valid"), id="san"),
        pytest.param(lambda: csr(common_name=NAME), (200, "valid"), id="common-name-only"),
        pytest.param(lambda: csr(NAME, common_name=NAME.upper()), (200, "valid"), id="both"),
        pytest.param(lambda: csr(NAME, key=rsa.generate_private_key(65537, 2048)), (200, "valid"), id="rsa"),
        pytest.param(lambda: csr(NAME, common_name="far.example.com"), (400, "badCSR"), id="other-common-name"),
        pytest.param(lambda: csr(NAME, "far.example.com"), (400, "badCSR"), id="more-names"),
        pytest.param(csr, (400, "badCSR"), id="no-names"),
        pytest.param(lambda: csr(NAME, key=ed25519.Ed25519PrivateKey.generate()), (400, "badCSR"), id="ed25519"),
        pytest.param(lambda: b"nonsense", (400, "badCSR"), id="no-csr"),
    ],
)
async def test_what_a_csr_may_ask_for(browser: Browser, request_, outcome: tuple[int, str]) -> None:
    await browser.register()
    order, _ = await browser.ready(NAME)
    assert await browser.finalize(order, request_()) == outcome


async def test_an_order_is_finalized_once(browser: Browser) -> None:
    await browser.register()
    order, url = await browser.ready(NAME)
    assert await browser.finalize(order, csr(NAME)) == (200, "valid")
    assert await browser.finalize(order, csr(NAME)) == (403, "orderNotReady")
    assert await browser.status(url) == "valid"


async def test_an_authorization_that_is_deactivated_during_validation_stays_so(lab: Lab, browser: Browser) -> None:
    await browser.register()
    order, url = await browser.order(NAME)
    (authorization,) = order["authorizations"]
    lab.answering.clear()
    await browser.challenge(order)
    await asyncio.wait_for(lab.challenged.wait(), 5)
    assert (await browser.post(authorization, {"status": "deactivated"}))[1]["status"] == "deactivated"
    lab.answering.set()
    await until(lambda: not lab.server.validations._tasks)
    assert await browser.status(authorization) == "deactivated"
    assert await browser.status(url) == "invalid"
    assert await browser.finalize(order, csr(NAME)) == (403, "orderNotReady")


async def test_an_order_whose_authorization_is_deactivated_is_not_finalized(browser: Browser) -> None:
    await browser.register()
    order, url = await browser.ready(NAME)
    await browser.post(order["authorizations"][0], {"status": "deactivated"})
    assert await browser.finalize(order, csr(NAME)) == (403, "orderNotReady")
    _, body, _ = await browser.post(url, None)
    assert (body["status"], body["error"]["detail"]) == ("invalid", "an authorization was deactivated")


async def test_the_outcome_of_a_validation_waits_for_a_busy_store(lab: Lab, browser: Browser) -> None:
    await browser.register()
    order, _ = await browser.order(NAME)
    lab.answering.clear()
    await browser.challenge(order)
    await asyncio.wait_for(lab.challenged.wait(), 5)
    other = sqlite3.connect(lab.folder / "ca" / "store.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    lab.answering.set()
    await until(lambda: lab.server.store.failure)
    body = {"identifiers": [{"type": "dns", "value": NAME}]}
    status, problem, headers = await browser.post("/acme/new-order", body)
    assert (status, headers["Retry-After"]) == (503, "1")
    assert "busy or full" in problem["detail"]
    other.execute("ROLLBACK")
    other.close()
    await until(lambda: browser.stored(order["authorizations"][0]) == "valid")


async def test_a_key_revoked_for_its_compromise_is_never_certified_again(lab: Lab, browser: Browser) -> None:
    await browser.register()
    key, leaves = new_key(), []
    for _ in range(2):
        order, url = await browser.ready(NAME)
        assert await browser.finalize(order, csr(NAME, key=key)) == (200, "valid")
        _, pem, _ = await browser.post((await browser.post(url, None))[1]["certificate"], None)
        leaves.append(x509.load_pem_x509_certificate(pem.encode()))
    holder = Browser(lab, browser.http, Signer.of(key))
    certificate = encode(leaves[0].public_bytes(Encoding.DER))
    assert (await browser.post("/acme/revoke-cert", {"certificate": certificate, "reason": 4}))[0] == 200
    assert kind((await browser.post("/acme/revoke-cert", {"certificate": certificate, "reason": 1}))[1]) == (
        "alreadyRevoked"
    )
    assert (await holder.post("/acme/revoke-cert", {"certificate": certificate, "reason": 1}))[0] == 200
    found = [lab.server.store.certificate(f"{leaf.serial_number:x}") for leaf in leaves]
    assert [each is not None and each.reason for each in found] == [1, 1]
    order, _ = await browser.ready(NAME)
    assert await browser.finalize(order, csr(NAME, key=key)) == (400, "badCSR")
    assert kind((await holder.post("/acme/new-account", {}))[1]) == "badPublicKey"
    assert await browser.finalize(order, csr(NAME)) == (200, "valid")


@pytest.mark.parametrize("where", ["header", "payload", "both-open"], ids=["protected-header", "payload", "unfinished"])
async def test_deep_json_is_malformed(browser: Browser, where: str) -> None:
    await browser.register()
    deep = b"[" * 20_000 + (b"" if where == "both-open" else b"]" * 20_000)
    header = {"alg": "ES256", "nonce": await browser.nonce(), "url": f"{browser.base}/acme/new-order"}
    protected = json.dumps({**header, "kid": browser.kid}).encode()
    if where == "header":
        protected = protected[:-1] + b', "x": ' + deep + b"}"
    parts = encode(protected), encode(b"{}" if where == "header" else deep)
    signature = encode(browser.signer.sign(".".join(parts).encode()))
    body = json.dumps({"protected": parts[0], "payload": parts[1], "signature": signature}).encode()
    status, problem, _ = await browser.post("/acme/new-order", None, body=body)
    assert (status, kind(problem)) == (400, "malformed")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"n": lambda n: encode(b"\0" + n)}, id="leading-zero"),
        pytest.param({"e": lambda e: encode(b"\0" + e)}, id="leading-zero-of-e"),
        pytest.param({"e": lambda _: encode(b"\3")}, id="exponent-3"),
        pytest.param({"d": lambda _: encode(b"secret")}, id="private"),
    ],
)
async def test_one_public_key_has_one_spelling(browser: Browser, change: dict) -> None:
    browser.signer = Signer("RS256")
    numbers = browser.signer.key.public_key().public_numbers()
    whole = {"n": numbers.n.to_bytes(256), "e": numbers.e.to_bytes(3), "d": b""}
    browser.signer.jwk |= {name: spell(whole[name]) for name, spell in change.items()}
    status, problem, _ = await browser.post("/acme/new-account", {})
    assert (status, kind(problem)) == (400, "badPublicKey")


@pytest.mark.parametrize(
    "point",
    [0, 1, 2**255 - 20, 2**255 - 19, 2**255 - 18, 2**255],
    ids=["zero", "one", "minus-one", "p", "p-plus-1", "zero-with-sign"],
)
async def test_weak_ed25519_account_keys_are_refused(browser: Browser, point: int) -> None:
    browser.signer = Signer("EdDSA")
    browser.signer.jwk["x"] = encode(point.to_bytes(32, "little"))
    assert kind((await browser.post("/acme/new-account", {}))[1]) == "badPublicKey"


async def test_base64url_with_spare_bits_is_malformed(browser: Browser) -> None:
    body = json.dumps(browser.signer.jws({"nonce": "x", "url": "y", "jwk": browser.signer.jwk}, {})).encode()
    assert body.count(b'"e30"') == 1
    status, problem, _ = await browser.post("/acme/new-account", None, body=body.replace(b'"e30"', b'"e31"'))
    assert (status, kind(problem)) == (400, "malformed")
    assert "bits after" in problem["detail"]


@pytest.mark.parametrize("path", ["%ff", "%ed%a0%80", "a/b", "a" * 65])
async def test_odd_identifiers_in_urls_do_not_exist(browser: Browser, path: str) -> None:
    async with browser.http.post(f"{browser.base}/acme/order/{path}") as response:
        assert response.status == 404


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_http01_follows_redirects(lab: Lab, browser: Browser, status: int, scheme: str) -> None:
    settings = lab.server.settings
    port = settings.http01_port if scheme == "http" else settings.https_port

    def moved(request: web.Request) -> web.Response:
        token = request.match_info["token"]
        if request.path.startswith("/moved/"):
            return web.Response(text=lab.answers[token])
        return web.Response(status=status, headers={"Location": f"{scheme}://far.example.com:{port}/moved/{token}"})

    lab.misbehaviour.append(moved)
    await browser.register()
    await browser.ready(NAME)


@pytest.mark.parametrize(
    ("location", "status", "problem", "detail"),
    [
        ("http://www.example.com:{port}/.well-known/acme-challenge/x", 302, "unauthorized", "at most 10 redirects"),
        ("http://www.example.com:{port}/moved/x", 303, "unauthorized", "expected status 200, got 303"),
        ("http://www.example.com:9900/admin/faults", 302, "unauthorized", "expected a redirect to http port"),
        ("http://127.0.0.1:{port}/moved/x", 302, "rejectedIdentifier", "expected a host name"),
        ("http://nowhere.example.com:{port}/", 302, "dns", "nowhere.example.com"),
        ("http://closed.example.com:{port}/", 302, "connection", "127.0.0.9"),
    ],
    ids=["loop", "see-other", "another-port", "address", "no-address", "closed"],
)
async def test_http01_redirects_that_are_refused(
    lab: Lab, browser: Browser, location: str, status: int, problem: str, detail: str
) -> None:
    headers = {"Location": location.format(port=lab.server.settings.http01_port)}
    lab.misbehaviour.append(lambda _: web.Response(status=status, headers=headers))
    await browser.register()
    order, _ = await browser.order(NAME)
    await browser.challenge(order)
    await until(lambda: browser.stored(order["authorizations"][0]) == "invalid")
    error = (await browser.post(order["authorizations"][0], None))[1]["challenges"][0]["error"]
    assert kind(error) == problem
    assert detail in error["detail"]


async def test_more_clients_than_validations_at_once_all_get_certificates(lab: Lab) -> None:
    lab.answering.clear()

    def answer(token: str, text: str | None) -> None:
        lab.answers.pop(token, None) if text is None else lab.answers.update({token: text})

    clients = [AcmeClient(lab.directory, new_key(), lab.context(), lab.stub) for _ in range(MAX_AT_ONCE + 6)]
    orders = [
        asyncio.create_task(each.obtain([f"s{number}.example.com"], new_key(), answer))
        for number, each in enumerate(clients)
    ]
    await until(lambda: len(lab.server.validations._queue) == 6, 20)
    lab.answering.set()
    assert len(await asyncio.gather(*orders)) == MAX_AT_ONCE + 6


async def test_expired_orders_are_pruned_with_a_bound_and_certificates_are_kept(lab: Lab, browser: Browser) -> None:
    await browser.register()
    store, now = lab.server.store, lab.server.telemetry.clock.time()
    done, done_url = await browser.ready(NAME)
    assert await browser.finalize(done, csr(NAME)) == (200, "valid")
    opened = [await browser.order(NAME) for _ in range(3)]
    certificates = len(store.certificates())
    unfinished, finished = now + 2 * ORDER_LIFETIME, now + LONGEST_LIFETIME + ORDER_LIFETIME
    assert store.prune(now, 10) == 0
    assert [store.prune(unfinished, 2), store.prune(finished, 10), store.prune(finished, 10)] == [2, 2, 0]
    for url in (done_url, *(url for _, url in opened), *(order["authorizations"][0] for order, _ in opened)):
        assert (await browser.post(url, None))[0] == 404
    assert len(store.certificates()) == certificates


async def test_an_order_lives_as_long_as_its_certificate(lab: Lab, browser: Browser) -> None:
    lab.server.leaves.lifetime = 2 * ORDER_LIFETIME
    await browser.register()
    order, url = await browser.ready(NAME)
    assert await browser.finalize(order, csr(NAME)) == (200, "valid")
    assert lab.server.store.prune(lab.server.telemetry.clock.time() + 1.5 * ORDER_LIFETIME, 10) == 0
    assert await browser.status(url) == "valid"
