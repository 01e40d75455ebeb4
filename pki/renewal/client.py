"""ACME client (RFC 8555) based on aiohttp: account, order, http-01 or dns-01, finalize, download.

Each call of `AcmeClient.obtain` obtains one certificate.  Callers manage files and renewal schedules.
"""

import asyncio
import base64
import contextlib
import datetime as dt
import hashlib
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from renewal.dns01 import Dns01
from renewal.errors import AcmeError
from renewal.lifecycle import RenewalInfo
from renewal.material import PrivateKey
from stub import AsyncStub, StubError

#: Time-out of an HTTP request, in seconds.
REQUEST_TIMEOUT = 10.0
#: Time-out of an order from first request to download, including validation, in seconds.
ORDER_TIMEOUT = 45.0
#: Initial and maximum interval between polls of a pending order or authorization, in seconds, for responses without
#: Retry-After.
FIRST_POLL, LAST_POLL = 0.05, 1.0
#: Maximum number of attempts if the CA rejects the nonce; a retry uses the nonce in the error response (RFC 8555
#: section 6.5).
NONCE_RETRIES = 5
#: Maximum size of a response, in bytes: OpenSSL clients accept at most 100 kB of certificates, or 137 kB of PEM.
MAX_ANSWER = 256 * 1024

T = TypeVar("T")


class _MalformedError(Exception):
    """A response from the CA does not conform to RFC 8555 or RFC 9773."""


class StubResolver(AbstractResolver):
    """Adapter that makes aiohttp resolve names with the lab's stub resolver."""

    def __init__(self, stub: AsyncStub) -> None:
        self._stub = stub

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the host's IPv4 addresses; raise `OSError` if resolution fails, as aiohttp expects."""
        try:
            answer = await self._stub.resolve(host)
        except StubError as error:
            raise OSError(str(error)) from None
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=socket.AI_NUMERICHOST)
            for address in answer.rdata
        ]

    async def close(self) -> None:
        """Do nothing: the resolver does not own any resources."""


class AcmeClient:
    """A client for one account at one CA."""

    def __init__(self, directory: str, key: ec.EllipticCurvePrivateKey, trust: ssl.SSLContext, stub: AsyncStub) -> None:
        """Create a client without sending any requests.

        Args:
            directory: URL of the CA's directory.
            key: the account's P-256 private key.
            trust: TLS client context that verifies the ACME server's certificate.
            stub: resolves the ACME server's host name.
        """
        self._directory_url, self._key, self._stub = directory, key, stub
        #: TLS client context for the next connections to the CA.
        self.trust = trust
        numbers = key.public_key().public_numbers()
        self._jwk = {"crv": "P-256", "kty": "EC", "x": _b64(numbers.x.to_bytes(32)), "y": _b64(numbers.y.to_bytes(32))}
        canonical = json.dumps(self._jwk, separators=(",", ":"), sort_keys=True)
        #: JWK thumbprint of the account key, in base64url (RFC 7638).
        self.thumbprint = _b64(hashlib.sha256(canonical.encode()).digest())
        self._directory: dict[str, Any] = {}
        self._nonce: str | None = None
        self._account: str | None = None
        #: The CA's time in its last response (HTTP Date plus half a second, in seconds since the epoch), and the
        #: monotonic time when that response arrived.
        self.ca_time: tuple[float, float] | None = None

    async def obtain(
        self,
        names: Sequence[str],
        key: PrivateKey,
        answer: Callable[[str, str | None], None],
        dns: Dns01 | None = None,
        profile: str = "",
        replaces: x509.Certificate | None = None,
    ) -> str:
        """Obtain a certificate for *names* and *key*.

        Args:
            names: DNS names; the first becomes the common name.
            key: the certificate's private key.
            answer: called with each challenge token and its http-01 response body, and at the end with the token and
                None.
            dns: responds to dns-01 challenges; None selects http-01.
            profile: one of the CA's certificate profiles (draft-ietf-acme-profiles); empty selects its default.
            replaces: the certificate that the new one replaces (RFC 9773 section 5), or None.

        Returns:
            The certificate chain as PEM, leaf first.

        Raises:
            AcmeError: the CA rejected the order, sent a malformed response, or did not respond in time.
        """
        tokens: list[str] = []
        try:
            async with self._session() as http:
                return await self._obtain(http, names, key, answer, tokens, dns, profile, replaces)
        finally:
            for token in tokens:
                answer(token, None)
            if dns is not None:
                await dns.remove()

    async def renewal_info(self, leaf: x509.Certificate) -> RenewalInfo | None:
        """Fetch the suggested renewal window for *leaf*; return None if the CA does not support RFC 9773.

        Raises:
            AcmeError: the request failed, or the response is malformed.
        """
        async with self._session() as http:
            await self._read_directory(http)
            if "renewalInfo" not in self._directory:
                return None
            url = _field(self._directory, "renewalInfo", str)
            async with http.get(f"{url}/{unique_id(leaf)}") as response:
                await self._heard(response)
                window = _field(await _json(response), "suggestedWindow", dict)
                start, end = _moment(window, "start"), _moment(window, "end")
                if start >= end:
                    raise _MalformedError(f"expected start before end, got {window!r}"[:200])
                return RenewalInfo(start, end, retry_after(response.headers.get("Retry-After")))

    @contextlib.asynccontextmanager
    async def _session(self) -> AsyncIterator[aiohttp.ClientSession]:
        """Open an HTTP session; convert network errors and malformed responses inside the block to `AcmeError`."""
        connector = aiohttp.TCPConnector(resolver=StubResolver(self._stub), ssl=self.trust, limit=4)
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT)
        try:
            async with (
                asyncio.timeout(ORDER_TIMEOUT),
                aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as http,
            ):
                yield http
        except AcmeError:
            self._directory = {}  # a URL may have changed: read the directory again in the next session
            raise
        except TimeoutError:
            self._directory = {}
            raise AcmeError(f"{self._directory_url}: no answer in time") from None
        except (aiohttp.ClientError, OSError) as error:
            self._directory = {}
            raise AcmeError(f"{self._directory_url}: {str(error) or type(error).__name__}") from None
        except _MalformedError as error:
            self._directory = {}
            raise AcmeError(f"{self._directory_url}: the CA's answer is malformed: {error}") from None

    async def _read_directory(self, http: aiohttp.ClientSession) -> None:
        if not self._directory:
            async with http.get(self._directory_url) as response:
                await self._heard(response)
                self._directory = await _json(response)

    async def _obtain(
        self,
        http: aiohttp.ClientSession,
        names: Sequence[str],
        key: PrivateKey,
        answer: Callable[[str, str | None], None],
        tokens: list[str],
        dns: Dns01 | None,
        profile: str,
        replaces: x509.Certificate | None,
    ) -> str:
        await self._read_directory(http)
        await self._register(http)
        identifiers = [{"type": "dns", "value": name} for name in names]
        wanted = {"identifiers": identifiers, **({"profile": profile} if profile else {})}
        order, order_url = await self._order(http, wanted, replaces)
        authorizations = _fields(order, "authorizations", str)
        kind, chosen = "http-01" if dns is None else "dns-01", []
        for url in authorizations:
            authorization, _, _ = await self._post(http, url, None)
            if _field(authorization, "status", str) == "valid":
                continue
            challenges = _fields(authorization, "challenges", dict)
            challenge = next((each for each in challenges if each.get("type") == kind), None)
            if challenge is None:
                raise AcmeError(f"{_name(authorization)}: the CA offers no {kind}")
            token = _field(challenge, "token", str)
            if dns is None:
                tokens.append(token)
                answer(token, f"{token}.{self.thumbprint}")
            else:
                await dns.add(_name(authorization), f"{token}.{self.thumbprint}")
            chosen.append(_field(challenge, "url", str))
        if dns is not None:
            await dns.propagated()
        waits = [(await self._change(http, url, {}))[1] for url in chosen]
        for url in authorizations:
            await self._until(http, url, {"valid"}, {"pending", "processing"}, max(waits, default=0.0))
            waits.clear()
        order = await self._until(http, order_url, {"ready", "valid"}, {"pending"})
        csr = _csr(names, key)
        request = {"csr": _b64(csr.public_bytes(Encoding.DER))}
        _, wait = await self._change(http, _field(order, "finalize", str), request)
        order = await self._until(http, order_url, {"valid"}, {"processing", "ready"}, wait)
        return await self._download(http, _field(order, "certificate", str))

    async def _order(
        self, http: aiohttp.ClientSession, body: dict[str, Any], replaces: x509.Certificate | None
    ) -> tuple[dict[str, Any], str]:
        """Open an order, omitting ``replaces`` if the CA does not accept this member; return the order and its URL."""
        if replaces is not None and "renewalInfo" in self._directory:
            try:
                return (await self._post(http, self._url("newOrder"), {**body, "replaces": unique_id(replaces)}))[:2]
            except AcmeError as error:
                if error.kind not in {"alreadyReplaced", "malformed"}:
                    raise
        return (await self._post(http, self._url("newOrder"), body))[:2]

    def _url(self, resource: str) -> str:
        return _field(self._directory, resource, str)

    async def _register(self, http: aiohttp.ClientSession) -> None:
        if self._account is None:
            agreed = {"termsOfServiceAgreed": True}
            self._account, _ = await self._change(http, self._url("newAccount"), agreed)

    async def _until(
        self, http: aiohttp.ClientSession, url: str, good: set[str], wait: set[str], first: float = 0.0
    ) -> dict[str, Any]:
        """Poll *url* until its status is in *good*; raise `AcmeError` if the status is not in *good* or *wait*.

        The first poll waits for *first* seconds.
        """
        pause = FIRST_POLL
        await asyncio.sleep(first)  # the CA requested this delay with Retry-After
        while True:
            body, _, after = await self._post(http, url, None)
            status = _field(body, "status", str)
            if status in good:
                return body
            if status not in wait:
                raise AcmeError(_why(body), str(_problem_of(body).get("type", "")).rpartition(":")[2])
            await asyncio.sleep(pause if after is None else after)  # poll, as RFC 8555 section 7.5.1 specifies
            pause = min(LAST_POLL, pause * 1.5)

    async def _change(self, http: aiohttp.ClientSession, url: str, payload: dict[str, Any]) -> tuple[str, float]:
        """Send a request that changes an object; return the object's URL, and Retry-After in seconds (0 if absent).

        Raises:
            _MalformedError: the response contains no object with a status.  The CA may not have processed the request,
                so polling for the change might never end.
        """
        body, location, after = await self._post(http, url, payload)
        _field(body, "status", str)
        return location, after or 0.0

    async def _download(self, http: aiohttp.ClientSession, url: str) -> str:
        async with await self._send(http, url, None) as response:
            return await _text(response)

    async def _post(
        self, http: aiohttp.ClientSession, url: str, payload: dict[str, Any] | None
    ) -> tuple[dict[str, Any], str, float | None]:
        """Send a signed request; a *payload* of None makes it a POST-as-GET.

        Returns:
            The JSON body; the Location header, or *url* if it is missing; Retry-After in seconds, or None.
        """
        async with await self._send(http, url, payload) as response:
            return (
                await _json(response),
                response.headers.get("Location", url),
                retry_after(response.headers.get("Retry-After")),
            )

    async def _send(
        self, http: aiohttp.ClientSession, url: str, payload: dict[str, Any] | None
    ) -> aiohttp.ClientResponse:
        for _ in range(NONCE_RETRIES):
            if self._nonce is None:
                async with http.head(self._url("newNonce")) as response:
                    await self._heard(response)
                    self._nonce = response.headers.get("Replay-Nonce")
            body = self._sign(url, payload)
            self._nonce = None
            response = await http.post(url, data=body, headers={"Content-Type": "application/jose+json"})
            self._nonce = response.headers.get("Replay-Nonce")
            try:
                await self._heard(response)
            except AcmeError as error:
                if error.kind == "badNonce":
                    continue
                if error.kind == "accountDoesNotExist":
                    self._account = None  # register again before the next order
                raise
            return response
        raise AcmeError(f"{url}: {NONCE_RETRIES} nonces in a row were refused", "badNonce")

    async def _heard(self, response: aiohttp.ClientResponse) -> None:
        """Record the CA's time from the Date header.

        Raises:
            AcmeError: the status is not 2xx; the connection has been released.
        """
        try:
            stamp = parsedate_to_datetime(response.headers["Date"]).timestamp()
            self.ca_time = (stamp + 0.5, time.monotonic())
        except (KeyError, ValueError, OverflowError):
            pass  # keep the last known time if the Date header is missing or malformed
        await _check(response)

    def _sign(self, url: str, payload: dict[str, Any] | None) -> bytes:
        header: dict[str, Any] = {"alg": "ES256", "nonce": self._nonce or "", "url": url}
        header |= {"jwk": self._jwk} if self._account is None else {"kid": self._account}
        protected = _b64(json.dumps(header).encode())
        content = "" if payload is None else _b64(json.dumps(payload).encode())
        der = self._key.sign(f"{protected}.{content}".encode(), ec.ECDSA(hashes.SHA256()))
        r, s = decode_dss_signature(der)
        signature = _b64(r.to_bytes(32) + s.to_bytes(32))
        return json.dumps({"protected": protected, "payload": content, "signature": signature}).encode()


def unique_id(leaf: x509.Certificate) -> str:
    """Return the unique identifier of *leaf* for renewal information (RFC 9773 section 4.1)."""
    key = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier or b""
    # The length leaves room for the sign bit (0) of a DER INTEGER.
    serial = leaf.serial_number.to_bytes(leaf.serial_number.bit_length() // 8 + 1)
    return f"{_b64(key)}.{_b64(serial)}"


def retry_after(text: str | None) -> float | None:
    """Convert a Retry-After value (RFC 9110 section 10.2.3) to a delay in seconds; return None if it is invalid."""
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:  # the zone "-0000" yields a naive datetime, which is in UTC
        moment = moment.replace(tzinfo=dt.UTC)
    return max(0.0, (moment - dt.datetime.now(dt.UTC)).total_seconds())


async def _check(response: aiohttp.ClientResponse) -> None:
    if response.status < 300:
        return
    text = await _text(response)
    response.release()
    try:
        problem = json.loads(text)
        detail, kind = str(problem.get("detail", "")), str(problem.get("type", "")).rpartition(":")[2]
    except (ValueError, RecursionError, AttributeError):
        detail, kind = text[:80], ""
    after = retry_after(response.headers.get("Retry-After"))
    raise AcmeError(f"{response.url}: {response.status} {kind}: {detail}", kind, after)


async def _text(response: aiohttp.ClientResponse) -> str:
    """Return the body; raise `_MalformedError`, and close the connection, if it is longer than `MAX_ANSWER`."""
    body = bytearray()
    while data := await response.content.readany():
        body += data
        if len(body) > MAX_ANSWER:
            response.close()
            raise _MalformedError(f"expected at most {MAX_ANSWER} bytes from {response.url}")
    return body.decode(errors="replace")


async def _json(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """Parse the response body as a JSON object; an empty body counts as an empty object.

    Raises:
        _MalformedError: the body is not a JSON object.
    """
    text = await _text(response)
    try:
        body = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise _MalformedError(f"expected a JSON object from {response.url}, got {text[:80]!r}")
    return body


def _field(body: dict[str, Any], key: str, kind: type[T]) -> T:
    """Return ``body[key]``, after checking its type.

    Raises:
        _MalformedError: the member is missing or its type is not *kind*.
    """
    value = body.get(key)
    if not isinstance(value, kind):
        raise _MalformedError(f"expected {key} to be a {kind.__name__}, got {value!r}"[:200])
    return value


def _fields(body: dict[str, Any], key: str, kind: type[T]) -> list[T]:
    """Return ``body[key]``; raise `_MalformedError` unless it is a list whose elements have type *kind*."""
    values = _field(body, key, list)
    if not all(isinstance(each, kind) for each in values):
        raise _MalformedError(f"expected {key} to be a list of {kind.__name__}, got {values!r}"[:200])
    return values


def _moment(body: dict[str, Any], key: str) -> float:
    """Convert the RFC 3339 time ``body[key]`` to seconds since the epoch; raise `_MalformedError` if it is invalid."""
    text = _field(body, key, str)
    try:
        return dt.datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise _MalformedError(f"expected {key} to be a time, got {text!r}"[:200]) from None


def _name(body: dict[str, Any]) -> str:
    identifier = body.get("identifier")
    return str(identifier.get("value", "order")) if isinstance(identifier, dict) else "order"


def _why(body: dict[str, Any]) -> str:
    return f"{_name(body)}: {body.get('status')}: {_problem_of(body).get('detail', 'the CA does not say why')}"


def _problem_of(body: dict[str, Any]) -> dict[str, Any]:
    challenges = body.get("challenges")
    for each in (*(challenges if isinstance(challenges, list) else ()), body):
        if isinstance(each, dict) and isinstance(each.get("error"), dict):
            return dict(each["error"])
    return {}


def _csr(names: Sequence[str], key: PrivateKey) -> x509.CertificateSigningRequest:
    alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.add_extension(alternatives, critical=True).sign(key, hashes.SHA256())


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
