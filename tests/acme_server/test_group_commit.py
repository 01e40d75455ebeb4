"""Tests for group commit: one transaction serves many requests, and its failure is reported to each of them."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from acme_server.group_commit import GroupCommit
from authority import Account, IssuanceLog, Store, StoreError
from tests.acme_server.browser import Browser, csr
from tests.acme_server.conftest import Lab


async def register(store: Store, commits: GroupCommit, number: int) -> None:
    store.put_account(Account(f"a{number}", f"t{number}", {}, "valid", (), 1.0))
    await commits.durable()


async def test_one_transaction_writes_the_changes_of_all_requests(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.sqlite")
    commits, statements = GroupCommit(store), list[str]()
    store._db.set_trace_callback(statements.append)
    await asyncio.gather(*(register(store, commits, n) for n in range(20)))
    assert statements.count("COMMIT") == 1
    other = Store(tmp_path / "store.sqlite")
    assert all(other.account(f"a{n}") for n in range(20))
    other.close()
    store.close()


async def test_a_failed_transaction_is_an_error_for_every_request(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.sqlite")
    commits = GroupCommit(store)
    lock = sqlite3.connect(tmp_path / "store.sqlite", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    failed = await asyncio.gather(*(register(store, commits, n) for n in range(3)), return_exceptions=True)
    assert [type(each) for each in failed] == [StoreError] * 3
    lock.execute("ROLLBACK")
    lock.close()
    await register(store, commits, 0)
    store.close()


async def test_a_client_that_polls_during_the_validation_gets_the_result_at_once(lab: Lab, browser: Browser) -> None:
    await browser.register()
    order, _ = await browser.order("www.example.com")
    lab.answering.clear()
    await browser.challenge(order)
    await lab.challenged.wait()
    poll = asyncio.create_task(browser.status(order["authorizations"][0]))
    asyncio.get_running_loop().call_later(0.05, lab.answering.set)
    assert await poll == "valid"


async def test_a_locked_store_refuses_to_finalize_and_the_client_can_retry(lab: Lab, browser: Browser) -> None:
    await browser.register()
    order, url = await browser.ready("www.example.com")
    lock = sqlite3.connect(lab.folder / "ca" / "store.sqlite", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    assert (await browser.finalize(order, csr("www.example.com")))[0] == 503
    lock.execute("ROLLBACK")
    lock.close()
    assert await browser.status(url) == "ready"
    assert await browser.finalize(order, csr("www.example.com")) == (200, "valid")


async def test_a_certificate_that_cannot_be_logged_is_not_stored(lab: Lab, browser: Browser) -> None:
    await browser.register()
    order, url = await browser.ready("www.example.com")
    path = lab.server.log.path
    stored, moved = len(lab.server.store.certificates()), path.rename(path.with_name("moved"))
    assert (await browser.finalize(order, csr("www.example.com")))[0] == 503
    moved.rename(path)
    assert (await browser.status(url), len(lab.server.store.certificates())) == ("ready", stored)
    assert await browser.finalize(order, csr("www.example.com")) == (200, "valid")
    assert (len(lab.server.store.certificates()), len(IssuanceLog(path))) == (stored + 1, len(lab.server.log))


@pytest.mark.parametrize("path", ["/directory", "/acme/new-nonce"])
async def test_a_locked_store_does_not_concern_requests_that_change_nothing(
    lab: Lab, browser: Browser, path: str
) -> None:
    lock = sqlite3.connect(lab.folder / "ca" / "store.sqlite", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    async with browser.http.get(browser.base + path) as response:
        assert response.status < 300
    lock.execute("ROLLBACK")
    lock.close()
