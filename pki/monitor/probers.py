"""Two independent probers of TLS endpoints, and a collector of evidence for both: the CRL and the server's file.

The first prober uses Python's ``ssl`` and the stub resolver; the second runs ``openssl`` with the system's resolver.  A
fault in one prober (its resolver, its trust store or a bug) therefore does not hide a problem at an endpoint.
"""

import asyncio
import contextlib
import ipaddress
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from monitor import openssl
from monitor.judgement import Evidence, Seen
from renewal.errors import UNREADABLE, RenewalError
from renewal.revocation import ListSource, NoListError, Revocations
from stub import AsyncStub, StubError

#: Time-out of one probe of an endpoint, in seconds.
TIMEOUT = 6.0


@dataclass(frozen=True, slots=True)
class Target:
    """An endpoint to monitor."""

    host: str
    port: int
    #: PEM file from which the server loads its certificate; None if there is no file to compare.
    file: Path | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Prober(Protocol):
    """Interface of a prober, which connects to endpoints and returns what it receives."""

    name: str

    async def look(self, target: Target) -> Seen:
        """Connect to *target* once, and return what was received; an unreachable endpoint raises no exception."""
        ...


class SslProber:
    """Prober that uses Python's ``ssl`` module and a stub resolver."""

    name = "python"

    def __init__(self, trust: Path | None, stub: AsyncStub) -> None:
        """Create a prober.

        Args:
            trust: PEM file with the trusted roots; None selects the system's roots.
            stub: stub resolver for host names.
        """
        self._verifying, self.stub = ssl.create_default_context(cafile=trust), stub
        self._accepting = ssl.create_default_context()
        self._accepting.check_hostname, self._accepting.verify_mode = False, ssl.CERT_NONE

    async def look(self, target: Target) -> Seen:
        """Connect to *target*; if its certificate is rejected, connect again without verification."""
        try:
            async with asyncio.timeout(TIMEOUT):
                address = await self._address(target.host)
                try:
                    return Seen(leaf=await self._leaf(target, address, self._verifying))
                except ssl.SSLCertVerificationError as error:
                    leaf = await self._leaf(target, address, self._accepting)
                    return Seen(leaf=leaf, rejected=error.verify_message)
        except TimeoutError:
            return Seen(error=f"no answer within {TIMEOUT:g} s")
        except StubError as error:
            return Seen(error=f"DNS: {error}")
        except (OSError, *UNREADABLE) as error:
            return Seen(error=str(error) or type(error).__name__)

    async def _address(self, host: str) -> str:
        with contextlib.suppress(ValueError):
            return str(ipaddress.ip_address(host))
        return (await self.stub.resolve(host)).rdata[0]

    @staticmethod
    async def _leaf(target: Target, address: str, context: ssl.SSLContext) -> x509.Certificate:
        _, writer = await asyncio.open_connection(address, target.port, ssl=context, server_hostname=target.host)
        try:
            return x509.load_der_x509_certificate(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
        finally:
            writer.close()


class OpensslProber:
    """Prober that runs ``openssl s_client``."""

    name = "openssl"

    def __init__(self, trust: Path | None) -> None:
        """Create a prober; *trust* is a PEM file with the trusted roots, or None for the system's roots."""
        self._trust = trust

    async def look(self, target: Target) -> Seen:
        """Connect to *target* once, and return what OpenSSL received."""
        probe = await openssl.Prober(target.host, self._trust, target.port).look(time.monotonic)
        if not probe.chain:
            return Seen(error=probe.error)
        return Seen(leaf=probe.chain[0], issuers=probe.chain[1:], rejected=probe.error)


class Collector:
    """Collects evidence about endpoints: revocation status from the issuer's CRL, and the server's certificate file."""

    def __init__(self, stub: AsyncStub) -> None:
        """Create a collector; *stub* resolves the hosts in CRL URLs."""
        self._stub = stub
        self._lists: dict[bytes, tuple[ListSource, Revocations]] = {}

    async def collect(self, target: Target, leaf: x509.Certificate | None, issuer: x509.Certificate | None) -> Evidence:
        """Return the evidence about *target*, which presents *leaf*, issued by *issuer*."""
        revoked, words = await self._revoked(leaf, issuer)
        if target.file is None:
            return Evidence(revoked, words)
        try:
            on_disk = x509.load_pem_x509_certificates(target.file.read_bytes())[0]
        except OSError as error:
            return Evidence(revoked, words, disk_error=f"{target.file}: {error.strerror}")
        except UNREADABLE as error:
            return Evidence(revoked, words, disk_error=f"{target.file}: expected a certificate in PEM: {error}")
        return Evidence(revoked, words, on_disk)

    async def _revoked(self, leaf: x509.Certificate | None, issuer: x509.Certificate | None) -> tuple[bool | None, str]:
        if leaf is None or issuer is None:
            return None, "no issuer certificate in the chain" if leaf else "no certificate"
        key = issuer.fingerprint(hashes.SHA256())
        source, known = self._lists.setdefault(key, (ListSource(self._stub), Revocations()))
        now, failure = time.time(), ""
        try:
            if (der := await source.fetch(leaf)) is not None:
                known.take(der, issuer, now)
        except NoListError:
            return False, "not checked: the certificate names no CRL"
        except RenewalError as error:
            source.forget()
            failure = str(error)
        if known.next_update <= now:
            return None, failure or "the CRL is out of date"
        return leaf.serial_number in known, f"CRL {known.number} of {len(known)} entries"
