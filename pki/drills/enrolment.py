"""Obtains certificates for a drill's own DNS names, with records that point to this host and ACME orders with http-01.

The names exist only during a run: the drill adds their DNS records at the zone's primary server, and the undo log
removes the records.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from urllib.parse import quote

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from experiments import Run, Undo
from hostfiles.layout import TRUST_ANCHOR, lab_address
from origin.application import answer_challenges
from renewal.challenges import Challenges
from renewal.client import AcmeClient
from renewal.material import PrivateKey, new_key, new_pair_pem
from stub import AsyncStub

#: URL of the CA's directory, and the last two numbers of the CA's IPv4 address.
DIRECTORY, CA_ADDRESS = "https://ca.example.com/directory", "20.5"
ZONE, PRIMARY, SECONDARY = "example.com.", "ns1", "ns2"
#: TTL of the DNS records, in seconds.
TTL = 5
#: Time-out for a changed record to reach the secondary server, and interval between checks, in seconds.
ARRIVES, POLL = 10.0, 0.1


class Enrolment:
    """An ACME client and its http-01 responder on port 80 of this host."""

    def __init__(self, directory: str = DIRECTORY, trust: Path = TRUST_ANCHOR, stub: AsyncStub | None = None) -> None:
        """Create a client without an account; the first order registers an account.

        Args:
            directory: URL of the CA's directory.
            trust: PEM file with the root that verifies the CA's own certificate.
            stub: stub resolver for the CA's name; the default uses the system's resolver.
        """
        self.challenges = Challenges()
        self._directory, self._stub = directory, stub if stub is not None else AsyncStub()
        self._trust = ssl.create_default_context(cafile=trust)
        self.client = self.new_client()

    def new_client(self, kind: type[AcmeClient] = AcmeClient) -> AcmeClient:
        """Return a client of class *kind*, with a new account key."""
        account = ec.generate_private_key(ec.SECP256R1())
        return kind(self._directory, account, self._trust, self._stub)

    async def obtain(
        self,
        names: Sequence[str],
        client: AcmeClient | None = None,
        key: PrivateKey | None = None,
        replaces: x509.Certificate | None = None,
    ) -> bytes:
        """Return a private key and its new certificate chain for *names*, in PEM.

        Args:
            names: DNS names, which must resolve to this host.
            client: ACME client whose account places the order; None uses this object's client.
            key: private key of the certificate; None creates a new key.
            replaces: the certificate that the new one replaces (RFC 9773 section 5), or None.

        Raises:
            AcmeError: the CA rejected the order or did not respond in time.
        """
        key = key or new_key("ecdsa-p256")
        chain = await (client or self.client).obtain(names, key, self.challenges.put, replaces=replaces)
        return new_pair_pem(key, chain)

    @contextlib.asynccontextmanager
    async def responding(self, address: str = "0.0.0.0", port: int = 80) -> AsyncIterator[int]:
        """Answer http-01 challenges inside an ``async with`` block; yield the listening port."""
        runner = web.AppRunner(answer_challenges(web.Application(), self.challenges.answer), access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, address, port).start()
            yield runner.addresses[0][1]
        finally:
            await runner.cleanup()


def serial_of(pair: bytes) -> str:
    """Return the serial number of the leaf in *pair* (key and chain in PEM), in lower-case hexadecimal."""
    return f"{x509.load_pem_x509_certificates(pair)[0].serial_number:x}"


def own_address() -> str:
    """Return this host's IP address in the lab's network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((lab_address(CA_ADDRESS), 9))  # on UDP, connect selects the source address and sends no packet
        address: str = sock.getsockname()[0]
        return address


async def publish(run: Run, owner: str, rdtype: str = "A", rdata: Sequence[str] = ()) -> Undo:
    """Add a record to `ZONE`, and wait until both name servers have the record.

    Args:
        run: the run whose undo log removes the record.
        owner: name relative to the zone; it must not have a record of this type yet.
        rdtype: type of the record.
        rdata: data of the record; by default the address of this host.

    Raises:
        TimeoutError: the secondary server did not receive the record in time.
    """
    path, data = f"/admin/zones/{ZONE}/records", list(rdata) or [own_address()]
    undo = Undo(f"{rdtype} of {owner}", PRIMARY, "DELETE", f"{path}?name={quote(owner)}&type={rdtype}")
    body = {"name": owner, "type": rdtype, "ttl": TTL, "rdata": data}
    changed = await run.lab.inject(f"{owner} {rdtype} {data[0]}", PRIMARY, "PUT", path, body, undo=undo)
    await _arrival(run, changed["serial"])
    return undo


async def _arrival(run: Run, serial: int) -> None:
    async with asyncio.timeout(ARRIVES):
        while True:
            zones = await run.lab.call(SECONDARY, "GET", "/admin/zones")
            if any(each["zone"] == ZONE and each["serial"] >= serial for each in zones):
                return
            await asyncio.sleep(POLL)  # polls: no event signals that the secondary server has the record
