"""Tests for the rate limit on orders per account, and for paging through an account's list of orders."""

import dataclasses

import pytest

from acme_server import server
from acme_server.rate_limit import RateLimit
from tests.acme_server.browser import Browser, Signer, kind
from tests.acme_server.conftest import Lab

NEW_ORDER = {"identifiers": [{"type": "dns", "value": "www.example.com"}]}


def test_the_window_slides_and_accounts_do_not_share_it() -> None:
    limit = RateLimit(2, 10.0)
    assert [limit.take("a", at) for at in (0.0, 4.0, 5.0, 9.5, 10.0, 11.0)] == [None, None, 5, 1, None, 3]
    assert limit.take("b", 11.0) is None


async def test_an_account_at_its_limit_is_told_when_to_come_back(lab: Lab, browser: Browser) -> None:
    lab.server.settings = dataclasses.replace(lab.server.settings, order_limit=RateLimit(1, 60.0))
    await browser.register()
    assert (await browser.post("/acme/new-order", NEW_ORDER))[0] == 201
    status, body, headers = await browser.post("/acme/new-order", NEW_ORDER)
    assert (status, kind(body)) == (429, "rateLimited")
    assert 1 <= int(headers["Retry-After"]) <= 60
    other = Browser(lab, browser.http, Signer())
    await other.register()
    assert (await other.post("/acme/new-order", NEW_ORDER))[0] == 201


async def test_a_long_list_of_orders_has_pages(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PAGE", 2)
    await browser.register()
    urls = [(await browser.order("www.example.com"))[1] for _ in range(5)]
    found, page = list[str](), f"{browser.kid}/orders"
    for expected in (2, 2, 1):
        _, body, headers = await browser.post(page, None)
        assert len(body["orders"]) == expected
        found += body["orders"]
        following = [each for each in headers.getall("Link") if 'rel="next"' in each]
        page = following[0].split(">")[0].lstrip("<") if following else ""
    assert (found, page) == (urls, "")


@pytest.mark.parametrize("cursor", ["x", "-1", "1e3", "9999999999"])
async def test_cursors_that_are_refused(browser: Browser, cursor: str) -> None:
    await browser.register()
    status, body, _ = await browser.post(f"{browser.kid}/orders?cursor={cursor}", None)
    assert (status, kind(body)) == (400, "malformed")
