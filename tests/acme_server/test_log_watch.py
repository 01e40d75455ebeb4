"""Tests for comparing the CA's store and a TLS server's certificate with the issuance log."""

import asyncio

from cryptography.hazmat.primitives.serialization import Encoding

from acme_server.log_watch import LogWatch
from authority import Certificate, issue_leaf
from authority.issuance_log import FILE, audit, fingerprint_of
from authority.verify_log import served
from tests.acme_server.browser import Browser
from tests.acme_server.conftest import Lab
from tests.acme_server.test_revocation_list import leaf_of


async def test_a_stored_certificate_that_was_not_logged_is_named(lab: Lab, browser: Browser) -> None:
    await browser.register()
    leaf, server = await leaf_of(browser), lab.server
    watch = LogWatch(server.telemetry, server.store, server.log)

    def finding() -> dict[str, object]:
        watch.check()
        return server.telemetry.health.as_dict()["checks"]["issuance log"]

    assert finding() == {"ok": True, "detail": "3 entries"}
    rogue = issue_leaf(server.issuer, leaf.public_key(), ["www.example.com"], server.telemetry.clock.time(), 60.0)
    serial, pem = f"{rogue.serial_number:x}", rogue.public_bytes(Encoding.PEM).decode()
    server.store.put_certificate(Certificate(serial, None, ("www.example.com",), 0, 1, 0, pem))
    assert finding() == finding() == {"ok": False, "detail": f"1 certificates are not in the log: {serial}"}
    assert "firstbyte_ca_unlogged_certificates 1" in server.telemetry.metrics.render()
    server.log.path.unlink()
    assert "No such file" in str(finding()["detail"])


async def test_a_server_presents_a_certificate_from_the_log(lab: Lab) -> None:
    port = int(lab.server.settings.base.rpartition(":")[2])
    seen = await asyncio.to_thread(served, "127.0.0.1", port)
    path = lab.folder / "ca" / FILE
    assert audit(path, (), [fingerprint_of(seen)]).ok
    assert audit(path, (), [(f"{seen.serial_number:x}", "0" * 64)]).missing
