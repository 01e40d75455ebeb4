"""Test of crash recovery: the ACME server's process is killed with SIGKILL in the middle of an order."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from acme_server.server import Settings
from authority import Store, new_key
from renewal import AcmeClient
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
