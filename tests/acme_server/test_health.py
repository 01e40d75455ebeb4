"""Tests for the CA's health checks: its own certificate, the issuing certificate, and the store."""

import sqlite3
from collections.abc import Iterator

import pytest

from acme_server import health
from acme_server.watch import Watch
from tests.acme_server.conftest import Lab


@pytest.mark.parametrize(
    ("finding", "ok", "detail"),
    [
        (health.own_certificate(40, 0, 50, 100, ""), True, "60 s left"),
        (health.own_certificate(59, 0, 50, 100, "locked"), True, "41 s left"),
        (health.own_certificate(61, 0, 50, 100, "locked"), False, "39 s left, renewal is 11 s late; locked"),
        (health.own_certificate(101, 0, 50, 100, "locked"), False, "expired 1 s ago; locked"),
        (health.issuing_certificate(0, 0, 10 * 86400, 86400), True, "10.0 days left"),
        (health.issuing_certificate(9 * 86400, 0, 10 * 86400, 86400), False, "1.0 days left, less than 2 lifetimes"),
        (health.issuing_certificate(10 * 86400, 0, 10 * 86400, 60), False, "it is not valid now"),
        (health.issuing_certificate(-1, 0, 10 * 86400, 60), False, "it is not valid now"),
        (health.revocation_list(0, 90), True, "90 s to nextUpdate"),
        (health.revocation_list(91, 90), False, "ended 1 s ago"),
        (health.store(""), True, "written"),
        (health.store("database or disk is full"), False, "database or disk is full"),
    ],
    ids=["own", "own-due", "own-late", "own-expired", "issuing", "issuing-short", "issuing-expired", "issuing-early",
         "crl", "crl-stale", "store", "store-full"],
)  # fmt: skip
def test_findings(finding: health.Finding, ok: bool, detail: str) -> None:
    assert finding.ok is ok
    assert finding.detail.startswith(detail)


@pytest.fixture
def locked(lab: Lab) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(lab.folder / "ca" / "store.sqlite", isolation_level=None)
    yield connection
    connection.close()


async def test_the_cas_own_certificate_is_renewed_once_the_store_is_free(lab: Lab, locked: sqlite3.Connection) -> None:
    watch = Watch(lab.server, lab.own, None, lambda: pytest.fail("nothing listens again"))
    clock, checks = lab.server.telemetry.clock, lab.server.telemetry.health
    watch.check()
    assert checks.ok
    issued = lab.own.issued
    locked.execute("BEGIN IMMEDIATE")
    clock.offset = 0.7 * (lab.own.not_after - issued)
    watch._next_write = 0.0
    watch.check()
    failing = {name for name, check in checks.as_dict()["checks"].items() if not check["ok"]}
    assert failing == {"own certificate", "store"}
    locked.execute("ROLLBACK")
    watch._next_write = watch._next_renewal = 0.0
    watch.check()
    assert checks.ok
    assert lab.own.issued > issued
