"""Test of our agent with Pebble, Let's Encrypt's test CA, which misbehaves on purpose.

Pebble rejects 5 % of all valid nonces, sleeps before it validates, reuses half of all authorizations, and signs with a
root that it creates when it starts.
"""

import asyncio
import dataclasses
import json
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from authority import issue_leaf, new_key
from tests import judges
from tests.acme_server.conftest import Lab, free_port
from tests.renewal.conftest import agent_for
from tests.waiting import until

NAME = "pebble.example.com"
#: Validations wait for 0 or 1 s instead of up to 15 s; everything else is as by default.
ENVIRONMENT = {"PEBBLE_VA_SLEEPTIME": "2"}
#: Minimum and maximum number of certificates; the test ends after the minimum once Pebble has rejected a nonce.
CERTIFICATES, MAX_CERTIFICATES = 3, 60


@dataclasses.dataclass
class Pebble:
    directory: str
    #: File with the root of the test's CA, which issued Pebble's own certificate, and with Pebble's root.
    trust: Path
    log: Path

    def rejections(self) -> int:
        """Return the number of requests for orders and certificates that Pebble rejected, each because of its nonce."""
        text = self.log.read_text()
        asked = sum(text.count(f"POST {path}") for path in ("/order-plz", "/finalize-order/"))
        return asked - text.count('Added order "') - text.count("Issued certificate serial")


@pytest.fixture
async def pebble(lab: Lab) -> AsyncIterator[Pebble]:
    judges.require("pebble")
    folder = lab.folder / "pebble"
    folder.mkdir()
    key, (acme, management) = new_key(), (free_port(), free_port())
    leaf = issue_leaf(lab.server.issuer, key.public_key(), [NAME], time.time(), 600.0)
    chain = [leaf, *lab.server.issuer.chain]
    (folder / "chain.pem").write_bytes(b"".join(each.public_bytes(Encoding.PEM) for each in chain))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    settings = {
        "listenAddress": f"127.0.0.1:{acme}", "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": str(folder / "chain.pem"), "privateKey": str(folder / "key.pem"),
        "httpPort": lab.server.settings.http01_port, "tlsPort": free_port(), "ocspResponderURL": "",
    }  # fmt: skip
    (folder / "settings.json").write_text(json.dumps({"pebble": settings}))
    host, port = lab.stub.servers[0]
    log = folder / "log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            "pebble", "-strict", "-config", str(folder / "settings.json"), "-dnsserver", f"{host}:{port}",
            stdout=output, stderr=asyncio.subprocess.STDOUT, env={**ENVIRONMENT, "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
    try:
        await until(lambda: f"Listening on: 127.0.0.1:{acme}" in log.read_text() or process.returncode is not None)
        assert process.returncode is None, log.read_text()
        unverified = ssl._create_unverified_context()  # noqa: S323 - the management port serves Pebble's root, which is unknown until then
        roots = f"https://127.0.0.1:{management}/roots/0"
        async with aiohttp.ClientSession() as http, http.get(roots, ssl=unverified) as response:
            root = await response.text()
        trust = folder / "trust.pem"
        trust.write_text(lab.trust.read_text() + root)
        yield Pebble(f"https://{NAME}:{acme}/dir", trust, log)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_the_agent_obtains_and_renews_certificates_of_pebble(lab: Lab, pebble: Pebble) -> None:
    agent = agent_for(dataclasses.replace(lab, directory=pebble.directory, trust=pebble.trust))
    serials = set[int]()
    while len(serials) < CERTIFICATES or not pebble.rejections():
        assert len(serials) < MAX_CERTIFICATES
        await agent.renew()
        leaf, issuing = x509.load_pem_x509_certificates(agent.credentials.pair.pem)[:2]
        leaf.verify_directly_issued_by(issuing)
        serials.add(leaf.serial_number)
    assert "Pebble Intermediate CA" in agent.credentials.pair.issuer
    assert (agent.renewals, agent.failures) == (len(serials), 0)
