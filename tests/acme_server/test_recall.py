"""Tests for recalls and for orders that replace a certificate (RFC 9773 sections 4.2 and 5)."""

import json
from typing import Any

import pytest
from cryptography import x509

from acme_server.recall import Recalls
from telemetry import AdminError, Request, Telemetry
from tests.acme_server.browser import Browser, csr, kind
from tests.acme_server.conftest import Lab
from tests.renewal.conftest import agent_for


def ask(lab: Lab, body: object) -> dict[str, Any]:
    return lab.server.recalls._begin(Request("POST", "/admin/recall", body=json.dumps(body).encode()))


async def info(lab: Lab, browser: Browser, serial: str) -> dict[str, Any]:
    async with browser.http.get(f"{browser.base}/acme/renewal-info/{renewal_id(lab, serial)}") as response:
        return await response.json()


def renewal_id(lab: Lab, serial: str) -> str:
    return lab.server.renewal_id(int(serial, 16))


async def issued(browser: Browser, name: str = "www.example.com") -> str:
    order, url = await browser.ready(name)
    await browser.finalize(order, csr(name))
    return (await browser.post(url, None))[1]["certificate"].rpartition("/")[2]


async def test_a_recall_moves_the_window_of_the_selected_certificates(lab: Lab, browser: Browser) -> None:
    await browser.register()
    first, other = await issued(browser), await issued(browser, "far.example.com")
    before = await info(lab, browser, other)
    ask(lab, {"serials": [first], "in_s": 1, "spread_s": 5, "explanation_url": "https://ca.example.com/why"})
    recalled = await info(lab, browser, first)
    assert recalled["explanationURL"] == "https://ca.example.com/why"
    assert recalled["suggestedWindow"]["end"] < before["suggestedWindow"]["start"]
    assert await info(lab, browser, other) == before


@pytest.mark.parametrize("selection", [{}, {"issuer": "own"}], ids=["all", "issuer"])
async def test_a_recall_ends_for_a_client_that_replaced_its_certificate(
    lab: Lab, browser: Browser, selection: dict
) -> None:
    await browser.register()
    old = await issued(browser)
    selection = {"spread_s": 5, **{key: lab.server.issuer.key_id.hex() for key in selection}}
    (row,) = ask(lab, selection)["recalls"]
    assert (row["replaced"], row["outstanding"]) == (0, ["www.example.com"])
    new = await issued(browser)
    (row,) = lab.server.recalls._show()["recalls"]
    assert (row["selected"], row["replaced"], row["outstanding"]) == (1, 1, [])
    window = (await info(lab, browser, new))["suggestedWindow"]
    assert window["start"] > (await info(lab, browser, old))["suggestedWindow"]["end"]


async def test_a_recall_survives_a_restart_and_ends_on_request(lab: Lab) -> None:
    ask(lab, {"spread_s": 5})
    again = Recalls(Telemetry("again"), lab.server.store)
    (own,) = lab.server.store.certificates()
    assert again.of(own) is not None
    assert again._end() == {"recalls": []}
    assert Recalls(Telemetry("third"), lab.server.store).of(own) is None


async def test_an_agent_follows_a_recall_and_says_what_it_replaces(lab: Lab) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    first = agent.credentials.serial
    ask(lab, {"serials": [first], "spread_s": 1})
    await agent._poll()
    assert agent.lifecycle.due <= agent.telemetry.clock.time() + 1.5
    await agent.renew()
    assert lab.server.store.replaced() == {first}
    (row,) = lab.server.recalls._show()["recalls"]
    assert (row["selected"], row["replaced"]) == (1, 1)


async def test_an_order_replaces_a_certificate_once(lab: Lab, browser: Browser) -> None:
    await browser.register()
    old = await issued(browser)
    body = {"identifiers": [{"type": "dns", "value": "www.example.com"}], "replaces": renewal_id(lab, old)}
    status, order, _ = await browser.post("/acme/new-order", body)
    assert (status, order["replaces"]) == (201, renewal_id(lab, old))
    status, problem, _ = await browser.post("/acme/new-order", body)
    assert (status, kind(problem)) == (409, "alreadyReplaced")


@pytest.mark.parametrize("case", ["no-such-certificate", "other-names", "other-account", "no-text"])
async def test_replaces_must_identify_a_certificate_of_the_account(lab: Lab, browser: Browser, case: str) -> None:
    await browser.register()
    old, name = await issued(browser), "www.example.com"
    replaces: object = renewal_id(lab, old)
    if case == "no-such-certificate":
        replaces = renewal_id(lab, "0a")
    elif case == "other-names":
        name = "far.example.com"
    elif case == "other-account":
        (own,) = [each for each in lab.server.store.certificates() if each.account is None]
        replaces = renewal_id(lab, f"{x509.load_pem_x509_certificate(own.pem.encode()).serial_number:x}")
    else:
        replaces = 7
    body = {"identifiers": [{"type": "dns", "value": name}], "replaces": replaces}
    assert kind((await browser.post("/acme/new-order", body))[1]) == "malformed"


@pytest.mark.parametrize(
    "body",
    [[], {"other": 1}, {"serials": []}, {"serials": ["0a"]}, {"spread_s": -1}, {"in_s": True},
     {"explanation_url": "javascript:"}, {"issuer": 7}, {"issuer": []}, {"issuer": ""}, {"issuer": "nope"}],
)  # fmt: skip
async def test_recalls_that_are_refused(lab: Lab, body: object) -> None:
    with pytest.raises(AdminError, match="expected"):
        ask(lab, body)
    assert lab.server.store.recalls() == []
