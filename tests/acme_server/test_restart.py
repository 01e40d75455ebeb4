"""Tests of crash recovery: the ACME server's process is killed with SIGKILL while orders are in progress."""

import asyncio
import contextlib
import functools
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from cryptography import x509

from acme_server.server import Settings
from authority import Store, new_key
from authority.issuance_log import FILE, IssuanceLog
from renewal import AcmeClient, AcmeError
from tests.acme_server.conftest import Lab, free_port
from tests.waiting import until


@contextlib.asynccontextmanager
async def process(lab: Lab, settings: Settings, log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run ``python -m acme_server`` with the test's CA; kill the process on exit if it is still running."""
    host, port = lab.stub.servers[0]
    # setpriv makes the kernel kill the server when the test process dies.
    command = ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "acme_server",
               "--listen", f"127.0.0.1:{settings.base.rpartition(':')[2]}",
               "--ca", str(lab.folder / "ca"), "--passphrase-file", str(lab.folder / "passphrase/passphrase"),
               "--trust", str(lab.trust), "--name", "ca.example.com", "--resolver", f"{host}:{port}",
               "--http01-port", str(settings.http01_port)]  # fmt: skip
    with log.open("ab") as errors:
        running = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=errors, env={**os.environ, "PYTHONUNBUFFERED": "1"}
        )
        assert running.stdout is not None
        assert b"listening on" in await asyncio.wait_for(running.stdout.readline(), 15)
        try:
            yield running
        finally:
            with contextlib.suppress(ProcessLookupError):
                running.kill()
            await running.wait()


def status(lab: Lab, authorization: str) -> str | None:
    store = Store(lab.folder / "ca" / "store.sqlite")
    found = store.authorization(authorization)
    store.close()
    return None if found is None else found.status


async def test_killed_in_the_middle_of_an_order_nothing_acknowledged_is_lost(lab: Lab, tmp_path: Path) -> None:
    settings = Settings(f"https://ca.example.com:{free_port()}", 60.0, lab.server.settings.http01_port)
    acme = AcmeClient(f"{settings.base}/directory", new_key(), lab.context(), lab.stub)
    asked, log = asyncio.Event(), tmp_path / "stderr"

    def answer(token: str, text: str | None) -> None:
        if text is None:
            lab.answers.pop(token, None)
        else:
            lab.answers[token] = text
            asked.set()

    async with process(lab, settings, log) as first:
        account_key_print = acme.thumbprint
        lab.answering.clear()  # delay the http-01 response, so that validation is in progress when the server is killed
        ordering = asyncio.create_task(acme.obtain(["www.example.com"], new_key(), answer))
        await asyncio.wait_for(lab.challenged.wait(), 10)
        first.send_signal(signal.SIGKILL)
        await first.wait()
        lab.answering.set()
    failed = await asyncio.gather(ordering, return_exceptions=True)
    assert isinstance(failed[0], Exception)
    store = Store(lab.folder / "ca" / "store.sqlite")
    (before,) = store.processing(0.0)
    store.close()
    lab.answers[before.token] = (
        f"{before.token}.{account_key_print}"  # the web server still has the client's http-01 response
    )
    async with process(lab, settings, log):
        await until(lambda: status(lab, before.id) == "valid")
        # The account has survived, too: the client keeps using its account URL (kid).
        kid = acme._account
        assert await acme.obtain(["www.example.com"], new_key(), answer)
        assert acme._account == kid
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert [e["validations_resumed"] for e in events if e["event"] == "serving"] == [0, 1]
    secrets = [(lab.folder / "passphrase/passphrase").read_text().strip(), "PRIVATE KEY", before.token]
    assert not [secret for secret in secrets if secret in log.read_text()]


#: Number of times that the server is killed; the environment variable ``FIRSTBYTE_KILLS`` changes this number.
KILLS = int(os.environ.get("FIRSTBYTE_KILLS", "3"))


class Witness(AcmeClient):
    """An ACME client that records the last acknowledged status of each order and authorization."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        #: Last acknowledged status of each resource, by the last two segments of its URL, for example ``order/x``.
        self.seen: dict[str, str] = {}
        self.chains: list[str] = []

    async def _post(self, http: Any, url: str, payload: Any) -> tuple[dict[str, Any], str, float | None]:
        body, location, after = await super()._post(http, url, payload)
        place = "/".join(location.split("/")[-2:])
        if place.startswith(("order/", "authorization/")) and "status" in body:
            self.seen[place] = body["status"]
        return body, location, after

    async def work(self, answers: dict[str, str]) -> None:
        """Order certificates until the server is killed."""

        def answer(token: str, text: str | None) -> None:
            answers.pop(token, None) if text is None else answers.update({token: text})

        with contextlib.suppress(AcmeError):
            while True:
                self.chains.append(await self.obtain(["www.example.com"], new_key(), answer))


def issued(witnesses: list[Witness], wanted: int) -> bool:
    return sum(len(each.chains) for each in witnesses) >= wanted


async def test_any_number_of_kills_loses_nothing_that_was_acknowledged(lab: Lab, tmp_path: Path) -> None:
    settings = Settings(f"https://ca.example.com:{free_port()}", 3600.0, lab.server.settings.http01_port)
    witnesses = [Witness(f"{settings.base}/directory", new_key(), lab.context(), lab.stub) for _ in range(6)]
    rng = random.Random(7)
    for _ in range(KILLS):
        wanted = sum(len(each.chains) for each in witnesses) + 4
        async with process(lab, settings, tmp_path / "stderr") as server:
            working = [asyncio.create_task(each.work(lab.answers)) for each in witnesses]
            await until(functools.partial(issued, witnesses, wanted), 30.0)
            await asyncio.sleep(rng.uniform(0.0, 0.1))  # kill the server at a random time while orders are in progress
            server.kill()
            await server.wait()
            await asyncio.gather(*working)
    store = Store(lab.folder / "ca" / "store.sqlite")
    log = IssuanceLog(lab.folder / "ca" / FILE)
    try:
        for place, acknowledged in (item for each in witnesses for item in each.seen.items()):
            kind, key = place.split("/")
            found = store.order(key) if kind == "order" else store.authorization(key)
            assert found is not None, place
            # The client stops answering http-01 challenges when the server is killed, so a resumed validation may fail.
            may_fail = acknowledged in {"pending", "processing"}
            # A client deactivates authorizations that it no longer needs, for example after a time-out.
            progress = ("invalid", "pending", "ready", "processing", "valid", "deactivated")
            assert may_fail or progress.index(found.status) >= progress.index(acknowledged), place
        for chain in (each for witness in witnesses for each in witness.chains):
            serial = f"{x509.load_pem_x509_certificate(chain.encode()).serial_number:x}"
            known = store.certificate(serial)
            assert known is not None
            assert known.pem == chain
            assert serial in log.certificates
    finally:
        store.close()
