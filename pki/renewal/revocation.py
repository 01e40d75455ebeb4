"""The CA's CRL (RFC 5280 section 5), fetched from the URL in a leaf certificate.

TLS libraries check revocation only in full handshakes.  A service that checks `Revocations` for each request also
rejects revoked clients on connections opened before the revocation and on resumed sessions.
"""

from dataclasses import dataclass

import aiohttp
from cryptography import x509

from renewal.client import StubResolver
from renewal.errors import UNREADABLE, RenewalError
from stub import AsyncStub

#: Interval between requests for the CRL, in seconds; the response to most requests is 304 (Not Modified).
INTERVAL = 5.0
#: Maximum size of a CRL, in bytes; sufficient for 200,000 entries.
MAX_LIST = 8 * 1024 * 1024
#: An alarm is raised when less than this fraction of a CRL's lifetime is left.  The CA issues the next CRL when half is
#: left, so this alarm precedes the expiry of the CRL by hours, or by days if the CRL is valid for a week.
ALARM_LEFT = 0.4
#: Time-out of a request for the CRL, in seconds.
TIMEOUT = 10.0


class RevocationError(RenewalError):
    """The CRL cannot be fetched or is invalid; the previous CRL stays in use."""


class NoListError(RevocationError):
    """The certificate contains no HTTP URL of a CRL."""


@dataclass(slots=True)
class Revocations:
    """The newest valid CRL of one issuer."""

    #: Number of the CRL (RFC 5280 section 5.2.3); 0 before the first CRL.
    number: int = 0
    #: Times of thisUpdate and of nextUpdate, in seconds since the epoch.
    this_update: float = 0.0
    next_update: float = 0.0
    #: Error of the last request for the CRL; empty if the request succeeded.
    error: str = ""
    _serials: frozenset[int] = frozenset()

    def __repr__(self) -> str:
        return f"<Revocations number={self.number} entries={len(self._serials)}>"

    def __len__(self) -> int:
        return len(self._serials)

    def __contains__(self, serial: object) -> bool:
        return serial in self._serials

    def current(self, now: float) -> bool:
        """Return whether more than `ALARM_LEFT` of the CRL's lifetime is left at *now*, in seconds since the epoch."""
        return self.next_update - now > ALARM_LEFT * (self.next_update - self.this_update)

    def take(self, der: bytes, issuer: x509.Certificate, now: float) -> bool:
        """Validate a CRL and make it the current CRL; return whether it revokes additional certificates.

        Args:
            der: the CRL in DER.
            issuer: the CA certificate whose key must have signed the CRL.
            now: current time, in seconds since the epoch.

        Raises:
            RevocationError: the CRL is malformed, from another issuer, expired, or older than the current CRL.
        """
        try:
            crl = x509.load_der_x509_crl(der)
            number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
            signed = crl.issuer == issuer.subject and crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]  # CA keys have types that the method accepts
            begin, end = crl.last_update_utc.timestamp(), crl.next_update_utc
            serials = frozenset(each.serial_number for each in crl)
        except (*UNREADABLE, x509.ExtensionNotFound) as error:
            raise RevocationError(f"expected a revocation list with a number, in DER: {error}") from None
        if not signed:
            raise RevocationError(f"expected a list signed by {issuer.subject.rfc4514_string()}")
        if end is None or end.timestamp() <= now:
            raise RevocationError(f"expected a list that is in date, got one until {end}")
        if number < self.number:
            raise RevocationError(f"expected list {self.number} or a later one, got {number}")
        return self.use(number, serials, begin, end.timestamp())

    def use(self, number: int, serials: frozenset[int], this_update: float, next_update: float) -> bool:
        """Make a validated CRL the current CRL; return whether it revokes additional certificates."""
        more = not serials <= self._serials
        self.number, self._serials = number, serials
        self.this_update, self.next_update = this_update, next_update
        return more


class ListSource:
    """Fetches a CRL, with conditional requests for repeated fetches (RFC 9110 section 13.1.2)."""

    def __init__(self, stub: AsyncStub) -> None:
        """Create a source; *stub* resolves host names."""
        self._stub = stub
        self._known = ("", "")

    async def fetch(self, leaf: x509.Certificate) -> bytes | None:
        """Return the CRL from the URL in *leaf*, in DER; None if it has not changed since the last call.

        Raises:
            RevocationError: *leaf* contains no CRL URL, or the CRL cannot be fetched.
        """
        url = list_url(leaf)
        tag = self._known[1] if self._known[0] == url else ""
        connector = aiohttp.TCPConnector(resolver=StubResolver(self._stub))
        headers = {"If-None-Match": tag} if tag else {}
        try:
            async with (
                aiohttp.ClientSession(
                    connector=connector, timeout=aiohttp.ClientTimeout(total=TIMEOUT), auto_decompress=False
                ) as http,
                http.get(url, headers=headers, allow_redirects=False) as response,
            ):
                if response.status == 304 and tag:
                    return None
                if response.status != 200:
                    raise RevocationError(f"{url}: expected status 200, got {response.status}")
                body = bytearray()
                while data := await response.content.readany():
                    body += data
                    if len(body) > MAX_LIST:
                        raise RevocationError(f"{url}: expected at most {MAX_LIST} bytes")
        except (aiohttp.ClientError, OSError) as error:
            raise RevocationError(f"{url}: {str(error) or type(error).__name__}") from None
        self._known = (url, response.headers.get("ETag", ""))
        return bytes(body)

    def forget(self) -> None:
        """Make the next fetch unconditional, because the last CRL was invalid."""
        self._known = ("", "")


def list_url(leaf: x509.Certificate) -> str:
    """Return the first CRL URL in *leaf* that uses HTTP; raise `NoListError` if there is none."""
    try:
        points = leaf.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except x509.ExtensionNotFound:
        points = x509.CRLDistributionPoints([])
    for point in points:
        for name in point.full_name or ():
            if isinstance(name, x509.UniformResourceIdentifier) and name.value.startswith("http://"):
                return name.value
    raise NoListError("expected a certificate that names a revocation list over HTTP")
