"""Tests for external account binding, with certbot as an independent client and with invalid bindings of each kind."""

import base64
import dataclasses
import hmac
import json
from pathlib import Path
from typing import Any

import pytest

from acme_server.external_accounts import load_keys
from acme_server.jws import encode, thumbprint
from authority import AuthorityError
from tests.acme_server.browser import Browser, Signer, kind
from tests.acme_server.conftest import Lab
from tests.acme_server.test_certbot import certbot

KEY = b"thirty-two bytes for one account"


@pytest.fixture
def closed(lab: Lab) -> Lab:
    """Return a CA that requires external account binding."""
    lab.server.settings = dataclasses.replace(lab.server.settings, external_accounts={"kid-1": KEY})
    return lab


def binding(
    browser: Browser, *, key: bytes = KEY, jwk: Any = None, alg: str = "HS256", **header: Any
) -> dict[str, str]:
    """Return a binding; it is valid with the default arguments."""
    whole = {"alg": alg, "kid": "kid-1", "url": f"{browser.base}/acme/new-account", **header}
    protected, payload = (encode(json.dumps(each).encode()) for each in (whole, jwk or browser.signer.jwk))
    digest = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}.get(alg, "sha256")
    mac = hmac.digest(key, f"{protected}.{payload}".encode(), digest)
    return {"protected": protected, "payload": payload, "signature": encode(mac)}


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
async def test_an_account_shows_its_binding(closed: Lab, browser: Browser, algorithm: str) -> None:
    async with browser.http.get(closed.directory) as response:
        assert (await response.json())["meta"]["externalAccountRequired"] is True
    bound = binding(browser, alg=algorithm)
    status, body, headers = await browser.post("/acme/new-account", {"externalAccountBinding": bound})
    assert (status, body["externalAccountBinding"]) == (201, bound)
    assert (await browser.post("/acme/new-account", {}))[0] == 200  # the account exists
    stored = closed.server.store.account(headers["Location"].rpartition("/")[2])
    assert stored is not None
    assert stored.binding == bound


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (None, "externalAccountRequired"),
        ([], "malformed"),
        ({"protected": "e30"}, "malformed"),
        ({"alg": "ES256"}, "malformed"),
        ({"alg": "none"}, "malformed"),
        ({"nonce": "n"}, "malformed"),
        ({"url": "https://ca.example.com/acme/new-order"}, "malformed"),
        ({"jwk": Signer().jwk}, "malformed"),
        ({"kid": "kid-2"}, "unauthorized"),
        ({"kid": ["kid-1"]}, "unauthorized"),
        ({"kid": "kid-2", "key": b""}, "unauthorized"),
        ({"key": b"another key of thirty-two bytes."}, "unauthorized"),
    ],
    ids=["missing", "list", "incomplete", "signature", "none", "nonce", "url", "another-account-key", "unknown",
         "kid-type", "empty-key", "another-key"],
)  # fmt: skip
async def test_a_wrong_binding_is_refused(closed: Lab, browser: Browser, wrong: Any, problem: str) -> None:
    bound = wrong if not isinstance(wrong, dict) or "protected" in wrong else binding(browser, **wrong)
    body = {} if bound is None else {"externalAccountBinding": bound}
    status, refused, _ = await browser.post("/acme/new-account", body)
    assert (status >= 400, kind(refused)) == (True, problem)
    assert closed.server.store.account_by_thumbprint(thumbprint(browser.signer.jwk)) is None


async def test_certbot_registers_with_a_binding(closed: Lab, tmp_path: Path) -> None:
    account = ["register", "--agree-tos", "--register-unsafely-without-email"]
    with pytest.raises(AssertionError, match="external account"):
        await certbot(closed, tmp_path, *account)
    key = base64.urlsafe_b64encode(KEY).decode().rstrip("=")
    await certbot(closed, tmp_path, *account, "--eab-kid", "kid-1", "--eab-hmac-key", key)


def test_keys_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# accounts\n\nkid-1 {encode(KEY)}\nkid-2\t{encode(KEY)}\n")
    assert load_keys(file) == {"kid-1": KEY, "kid-2": KEY}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected lines KID KEY, got none"),
        ("kid-1", ":1: expected another KID and a KEY of 32 bytes"),
        (f"kid-1 {encode(KEY)}\nkid-1 {encode(KEY)}", ":2: expected another KID"),
        ("kid-1 c2hvcnQ", ":1: expected another KID and a KEY of 32 bytes"),
        (f"kid-1 {encode(KEY)}=", ":1: expected another KID"),
    ],
    ids=["empty", "no-key", "repeated", "short", "padding"],
)
def test_a_malformed_file_of_keys_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(AuthorityError, match=reason) as refused:
        load_keys(file)
    assert encode(KEY) not in str(refused.value)
