"""Tests for the ACME client: malformed responses raise `AcmeError`, programming errors do not."""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator
from email.utils import formatdate

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec

from renewal import AcmeError, RenewalError
from renewal.client import MAX_ANSWER, AcmeClient, retry_after
from stub import AsyncStub
from tests.acme_server.conftest import Lab, site
from tests.renewal.conftest import agent_for


async def test_after_a_malformed_answer_the_directory_is_read_again(lab: Lab) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    client = agent._acme_client()
    client._directory = {"newNonce": client._directory["newNonce"]}
    with pytest.raises(AcmeError, match="malformed: expected newOrder to be a str, got None"):
        await agent.renew()
    assert agent.failures == 1
    await agent.renew()


@pytest.mark.parametrize("moved", ["newNonce", "newAccount", "newOrder", "renewalInfo"])
async def test_after_any_failure_the_directory_is_read_again(lab: Lab, moved: str) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    client = agent._acme_client()
    client._account = client._nonce = None
    client._directory[moved] = f"{lab.server.settings.base}/moved"
    with pytest.raises(AcmeError, match="404"):
        await (client.renewal_info(agent.credentials.pair.leaf) if moved == "renewalInfo" else agent.renew())
    await client.renewal_info(agent.credentials.pair.leaf)
    await agent.renew()


@pytest.mark.parametrize("resource", ["new-account", "challenge", "finalize", "certificate"])
async def test_an_empty_answer_fails_one_order_at_once(lab: Lab, resource: str) -> None:
    agent = agent_for(lab)
    lab.server.telemetry.faults.switch_on("acme_empty", {"resource": resource, "count": 1})
    async with asyncio.timeout(20):
        with pytest.raises(RenewalError):
            await agent.renew()
        await agent.renew()


async def test_retry_after_in_the_response_to_finalize_delays_the_first_poll(lab: Lab) -> None:
    agent = agent_for(lab)
    lab.server.telemetry.faults.switch_on("acme_processing", {"resource": "order", "count": 1, "retry_after": 1})
    began = time.monotonic()
    await agent.renew()
    assert time.monotonic() - began >= 1.0


class OddCa:
    """A CA that sends a configurable response for each path; tests replace valid responses with malformed ones."""

    def __init__(self) -> None:
        self.answers: dict[str, object] = {}

    async def answer(self, request: web.Request) -> web.Response:
        answer = self.answers.get(request.path.strip("/"), {})
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        return web.Response(body=body, headers={"Replay-Nonce": "n"})


@pytest.fixture
async def odd() -> AsyncIterator[tuple[OddCa, AcmeClient]]:
    ca, application = OddCa(), web.Application()
    application.router.add_route("*", "/{path:.*}", ca.answer)
    async with site(application) as port:
        base = f"http://127.0.0.1:{port}"
        challenge = {"type": "http-01", "token": "t", "url": f"{base}/challenge"}
        ca.answers = {
            "directory": {name: f"{base}/{name}" for name in ("newNonce", "newAccount", "newOrder", "renewalInfo")},
            "newAccount": {"status": "valid"},
            "newOrder": {"status": "pending", "authorizations": [f"{base}/authorization"]},
            "authorization": {"status": "pending", "challenges": [challenge]},
        }
        key, stub = ec.generate_private_key(ec.SECP256R1()), AsyncStub([("127.0.0.1", 1)])
        yield ca, AcmeClient(f"{base}/directory", key, ssl.create_default_context(), stub)


LEAF_KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize(
    ("path", "answer", "message"),
    [
        ("directory", [], "expected a JSON object from "),
        ("directory", b"<html>", "expected a JSON object from "),
        ("directory", b"[" * 100_000, "expected a JSON object from "),
        ("directory", b"\xff", "expected a JSON object from "),
        ("directory", {"newAccount": 7}, "expected newAccount to be a str, got 7"),
        ("newAccount", b"", "expected status to be a str, got None"),
        ("newOrder", {}, "expected authorizations to be a list, got None"),
        ("newOrder", {"authorizations": [1]}, "expected authorizations to be a list of str"),
        ("challenge", b"", "expected status to be a str, got None"),
        ("authorization", {"status": 1}, "expected status to be a str, got 1"),
        ("authorization", {"status": "pending", "challenges": "http-01"}, "expected challenges to be a list"),
        ("authorization", {"status": "pending", "challenges": [1]}, "expected challenges to be a list of dict"),
        ("authorization", {"status": "pending", "challenges": [{"type": "http-01"}]}, "expected token to be a str"),
    ],
    ids=lambda value: value.decode(errors="replace")[:8] if isinstance(value, bytes) else str(value)[:40],
)
async def test_a_malformed_answer_is_the_cas_fault(
    odd: tuple[OddCa, AcmeClient], path: str, answer: object, message: str
) -> None:
    ca, client = odd
    ca.answers[path] = answer
    with pytest.raises(AcmeError, match="the CA's answer is malformed") as refused:
        await client.obtain(["www.example.com"], LEAF_KEY, lambda token, text: None)
    assert message in str(refused.value)


async def test_an_authorization_without_http_01_or_a_name_is_reported(odd: tuple[OddCa, AcmeClient]) -> None:
    ca, client = odd
    ca.answers["authorization"] = {"status": "pending", "identifier": "x", "challenges": [{"type": "dns-01"}]}
    with pytest.raises(AcmeError, match=r"^order: the CA offers no http-01"):
        await client.obtain(["www.example.com"], LEAF_KEY, lambda token, text: None)


async def test_a_programming_error_is_not_blamed_on_the_ca(odd: tuple[OddCa, AcmeClient]) -> None:
    ca, client = odd

    def one_argument_too_few(token: str) -> None:
        raise AssertionError(token)

    with pytest.raises(TypeError, match="one_argument_too_few"):
        await client.obtain(["www.example.com"], LEAF_KEY, one_argument_too_few)  # type: ignore[arg-type]  # deliberate programming error
    ca.answers["authorization"] = {"status": "valid"}
    ca.answers["newOrder"] = {"status": "ready", "authorizations": []}
    with pytest.raises(ValueError, match="A-label"):
        await client.obtain(["www.exämple.com"], LEAF_KEY, lambda token, text: None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(None, None), ("7", 7.0), ("soon", None), ("-1", None), ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0)],
)
def test_retry_after(text: str | None, seconds: float | None) -> None:
    assert retry_after(text) == seconds


def test_retry_after_as_a_date() -> None:
    later = retry_after(formatdate(time.time() + 100, usegmt=True))
    assert later is not None
    assert 98 <= later <= 100


@pytest.mark.parametrize("path", ["directory", "newAccount", "newOrder", "authorization"])
async def test_an_answer_that_does_not_end_is_cut_off(odd: tuple[OddCa, AcmeClient], path: str) -> None:
    ca, client = odd
    ca.answers[path] = b" " * (MAX_ANSWER + 1)
    with pytest.raises(AcmeError, match="expected at most 262144 bytes"):
        await client.obtain(["www.example.com"], ec.generate_private_key(ec.SECP256R1()), lambda *_: None)
