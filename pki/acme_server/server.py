"""The CA's ACME server over HTTPS (RFC 8555), with one handler per resource and shared request validation."""

import datetime as dt
import functools
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from acme_server import injection, problems
from acme_server.group_commit import GroupCommit
from acme_server.jws import SignedRequest, decode, encode, public_jwk, read_jws, thumbprint
from acme_server.leaves import Leaves
from acme_server.names import is_wildcard
from acme_server.nonces import Nonces
from acme_server.orders import Orders, check_names, check_ready, find_certificate, offered
from acme_server.problems import Problem
from acme_server.publication import Publications
from acme_server.rate_limit import RateLimit
from acme_server.recall import Recalls
from acme_server.redirects import Ports
from acme_server.renewal_info import ask_again, window
from acme_server.revocation import Revocation
from acme_server.validations import Validations
from authority import (
    Account,
    Authorization,
    BadCSRError,
    IssuanceLog,
    Issuer,
    Order,
    Store,
    StoreError,
    Urls,
    fingerprint,
    read_csr,
)
from authority.issuance_log import FILE
from authority.profiles import PEER, Profile
from stub import AsyncStub
from telemetry import Telemetry, log

logger = log.get("acme_server")

#: Maximum request body, in bytes; a request with an RSA key and a CSR for fifty names is smaller than 20 kB.
MAX_BODY = 64 * 1024
#: Maximum number of orders on one page of an account's list of orders (RFC 8555 section 7.1.2.1).
PAGE = 100
#: Retry-After in responses while the store is busy or its disk is full, in seconds.
STORE_RETRY_AFTER = 1
#: URL pattern of the identifiers that the server generates.
ID = "{id:[A-Za-z0-9_-]{1,64}}"
Handler = Callable[["_Call"], Awaitable[web.Response]]


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the ACME server."""

    #: Scheme and host (and port) of all the server's URLs, for example ``https://ca.example.com``.
    base: str
    #: Leaf lifetime, in seconds.
    lifetime: float
    #: TCP port for http-01 validation; only tests use a port other than 80.
    http01_port: int = 80
    #: The CA's issuer name in CAA records; None disables the CAA check.
    caa: str | None = None
    #: TCP port of HTTPS servers to which http-01 may be redirected; only tests use a port other than 443.
    https_port: int = 443
    #: Scheme and host (and port) of the CRL's URL in leaves; None if the CRL is not served.
    http_base: str | None = None
    #: Port of authoritative name servers; only tests change it.
    dns_port: int = 53
    #: Rate limit on new orders per account; None means no limit.
    order_limit: RateLimit | None = None
    #: Keys for external account binding, keyed by identifier; None if accounts need no binding.
    external_accounts: Mapping[str, bytes] | None = None
    #: Certificate profiles, keyed by name; the first is the default.
    profiles: dict[str, Profile] = field(default_factory=lambda: {PEER.name: PEER})


@dataclass(slots=True)
class _Call:
    """A request whose signature, nonce, URL and account have been validated."""

    http: web.Request
    jws: SignedRequest
    account: Account
    now: float


class AcmeServer:
    """The CA's ACME server: HTTP handlers, pending validations and faults."""

    def __init__(
        self, telemetry: Telemetry, issuer: Issuer, store: Store, stubs: Sequence[AsyncStub], settings: Settings
    ) -> None:
        """Create a server that validates names through all *stubs*, and open the issuance log in the store's folder.

        The caller runs `application` and, over plain HTTP, `published.application` with an aiohttp runner.

        Raises:
            ChainError: the issuance log was tampered with.
            LogError: the issuance log cannot be read or written.
        """
        self.telemetry, self.issuer, self.store, self.settings = telemetry, issuer, store, settings
        profiles = settings.profiles
        self.orders, self.commits = Orders(store, issuer, profiles), GroupCommit(store)
        ports = Ports(settings.http01_port, settings.https_port, settings.dns_port)
        self.validations = Validations(telemetry, self.orders, self.commits, stubs, issuer, ports, settings.caa)
        self.log = IssuanceLog(store.path.with_name(FILE))
        store.before_commit = self.log.flush
        self.published = Publications(telemetry, store, self.log)
        self.revocation = Revocation(telemetry, self.orders, self.published)
        self.leaves = Leaves(telemetry, issuer, store, settings.lifetime, self._urls(issuer), self.log, profiles)
        self.recalls = Recalls(telemetry, store)
        #: Time of the last change of the issuing CA, in seconds since the epoch; 0 if the CA never changed.
        self._switched = 0.0
        self._nonces = Nonces()
        metrics = telemetry.metrics
        self._requests = metrics.counter(
            "firstbyte_acme_requests_total", "Requests by resource and status", "resource", "status"
        )
        injection.declare(telemetry.faults)
        self.application = self._build()

    def _urls(self, issuer: Issuer) -> Urls | None:
        base = self.settings.http_base
        published = self.published.add(issuer)
        return None if base is None else published.urls(base)

    def use(self, signing: Issuer, issuers: Iterable[Issuer]) -> None:
        """Sign all future leaves with the CA *signing*, and publish revocation data for all *issuers*."""
        self.published.keep(issuers)
        if signing.key_id != self.issuer.key_id:
            self._switched = self.telemetry.clock.time()
            logger.warning("issuer_in_use", issuer=signing.certificate.subject.rfc4514_string())
        self.issuer = signing
        self.leaves.use(signing, self._urls(signing))

    def _build(self) -> web.Application:
        application = web.Application(client_max_size=MAX_BODY, middlewares=[self._guard])
        application.add_routes(
            [
                web.get("/directory", self._directory),
                web.head("/acme/new-nonce", self._nonce),
                web.get("/acme/new-nonce", self._nonce, allow_head=False),
                web.post("/acme/new-account", self._new_account),
                web.post("/acme/new-order", self._signed(self._new_order)),
                web.post("/acme/revoke-cert", self._revoke),
                web.post("/acme/key-change", self._signed(self._key_change)),
                web.post(f"/acme/account/{ID}", self._signed(self._account)),
                web.post(f"/acme/account/{ID}/orders", self._signed(self._list, as_get=True)),
                web.post(f"/acme/order/{ID}", self._signed(self._order, as_get=True)),
                web.post(f"/acme/order/{ID}/finalize", self._signed(self._finalize)),
                web.post(f"/acme/authorization/{ID}", self._signed(self._authorization)),
                web.post(f"/acme/challenge/{ID}/{{method}}", self._signed(self._challenge)),
                web.post(f"/acme/certificate/{ID}", self._signed(self._certificate, as_get=True)),
                web.post(f"/acme/certificate/{ID}/{{chain:[1-9]}}", self._signed(self._certificate, as_get=True)),
                web.get("/acme/renewal-info/{id}", self._renewal_info),
            ]
        )
        return application

    def renewal_id(self, serial: int, issuer: str = "") -> str:
        """Return the unique identifier of a certificate (RFC 9773 section 4.1).

        Args:
            serial: serial number of the certificate.
            issuer: key identifier of its issuer, in hexadecimal; empty means the CA that currently signs leaves.
        """
        # The length leaves room for the sign bit (0) of a DER INTEGER.
        der = serial.to_bytes(serial.bit_length() // 8 + 1)
        return f"{encode(bytes.fromhex(issuer) or self.issuer.key_id)}.{encode(der)}"

    # --- request validation and error responses ---------------------------------------------------------------------

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Apply faults, convert exceptions to problem documents, and add nonce and directory link to responses."""
        faults = self.telemetry.faults
        response: web.StreamResponse
        try:
            skipped = await injection.before(faults, request) if faults.any_on else None
            response = await handler(request) if skipped is None else skipped
            await self.commits.durable()
            if faults.any_on:
                injection.after(faults, request)
        except Problem as problem:
            response = _problem(problem)
        except StoreError as error:
            logger.error("store_failed", path=request.path, error=str(error))
            detail = "the CA's store is busy or full: try again later"
            response = _problem(problems.unavailable(detail, retry_after=STORE_RETRY_AFTER))
        except web.HTTPRequestEntityTooLarge:
            response = _problem(problems.too_large(f"expected at most {MAX_BODY} bytes"))
        except web.HTTPNotFound:
            response = _problem(problems.not_found(f"there is no {request.path}"))
        except web.HTTPMethodNotAllowed as error:
            allowed = ", ".join(sorted(error.allowed_methods))
            detail = f"expected {allowed} on {request.path}, got {request.method}"
            response = _problem(problems.method_not_allowed(detail, headers={"Allow": allowed}))
        except Exception as error:
            logger.error("request_failed", path=request.path, error=repr(error))
            response = _problem(problems.server_internal("the server failed; its log says why"))
        response.headers["Replay-Nonce"] = self._nonces.new()
        response.headers.add("Link", f'<{self.settings.base}/directory>;rel="index"')
        response.headers.setdefault("Cache-Control", "no-store")
        # Use the service's clock, which drills can skew; clients detect clock skew with this header.
        response.headers["Date"] = _http_date(int(self.telemetry.clock.time()))
        resource = injection.resource_of(request.path)
        self._requests.inc(resource=resource if response.status != 404 else "other", status=str(response.status))
        return response

    async def _read(self, request: web.Request) -> SignedRequest:
        """Parse a request's JWS and validate its content type, nonce and URL (RFC 8555 sections 6.2 to 6.5)."""
        if request.content_type != "application/jose+json":
            detail = f"expected Content-Type application/jose+json, got {request.content_type}"
            raise problems.unsupported_media_type(detail)
        jws = read_jws(await request.read())
        self._nonces.use(jws.nonce)
        if jws.url != self.settings.base + request.path_qs:
            raise problems.unauthorized(f"expected url {self.settings.base + request.path_qs}, got {jws.url}"[:300])
        return jws

    def _signed(self, handler: Handler, *, as_get: bool = False) -> Callable[[web.Request], Awaitable[web.Response]]:
        """Wrap a handler so that it receives authenticated requests only.

        Args:
            handler: handles the validated request.
            as_get: whether the payload must be empty (POST-as-GET, RFC 8555 section 6.3).
        """

        async def handle(request: web.Request) -> web.Response:
            jws = await self._read(request)
            if as_get and jws.payload:
                raise problems.malformed("expected an empty payload (POST-as-GET)")
            return await handler(_Call(request, jws, self._authenticate(jws), self.telemetry.clock.time()))

        return handle

    def _authenticate(self, jws: SignedRequest) -> Account:
        prefix = f"{self.settings.base}/acme/account/"
        if jws.kid is None or not jws.kid.startswith(prefix):
            raise problems.malformed(f"expected kid to be an account URL below {prefix}")
        account = self.store.account(jws.kid.removeprefix(prefix))
        if account is None:
            raise problems.account_does_not_exist("there is no such account")
        jws.verify(account.jwk)
        if account.status != "valid":
            raise problems.unauthorized(f"this account is {account.status}")
        return account

    # --- resources --------------------------------------------------------------------------------------------------

    async def _directory(self, _: web.Request) -> web.Response:
        base = self.settings.base
        resources = ("newNonce", "newAccount", "newOrder", "revokeCert", "keyChange")
        paths = ("new-nonce", "new-account", "new-order", "revoke-cert", "key-change")
        body: dict[str, Any] = {name: f"{base}/acme/{path}" for name, path in zip(resources, paths, strict=True)}
        body["renewalInfo"] = f"{base}/acme/renewal-info"
        body["meta"] = {
            "caaIdentities": [self.settings.caa] if self.settings.caa else [],
            "website": "https://ca.example.com/",
            "externalAccountRequired": self.settings.external_accounts is not None,
            "profiles": {name: each.description for name, each in self.settings.profiles.items()},
        }
        return web.json_response(body)

    async def _nonce(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if request.method == "HEAD" else 204)

    async def _new_account(self, request: web.Request) -> web.Response:
        jws = await self._read(request)
        account, new = self.orders.register(jws, self.telemetry.clock.time(), self.settings.external_accounts)
        if new:
            logger.info("account_created", account=account.id)
        return self._show_account(account, 201 if new else 200)

    async def _account(self, call: _Call) -> web.Response:
        if call.http.match_info["id"] != call.account.id:
            raise problems.unauthorized("this is another account")
        account = self.orders.update_account(call.account, call.jws.json()) if call.jws.payload else call.account
        return self._show_account(account)

    def _show_account(self, account: Account, status: int = 200) -> web.Response:
        url = f"{self.settings.base}/acme/account/{account.id}"
        body: dict[str, Any] = {"status": account.status, "contact": account.contact, "orders": f"{url}/orders"}
        if account.binding is not None:
            body["externalAccountBinding"] = account.binding
        return web.json_response(body, status=status, headers={"Location": url})

    async def _list(self, call: _Call) -> web.Response:
        if call.http.match_info["id"] != call.account.id:
            raise problems.unauthorized("this is another account")
        cursor = call.http.query.get("cursor", "0")
        if not cursor.isdecimal() or len(cursor) > 9:
            raise problems.malformed("expected a URL from the Link header of another page")
        skip, base = int(cursor), self.settings.base
        found = self.store.orders(call.account.id, skip, PAGE + 1)
        response = web.json_response({"orders": [f"{base}/acme/order/{each}" for each in found[:PAGE]]})
        if len(found) > PAGE:
            url = f"{base}/acme/account/{call.account.id}/orders?cursor={skip + PAGE}"
            response.headers.add("Link", f'<{url}>;rel="next"')
        return response

    async def _key_change(self, call: _Call) -> web.Response:
        inner = read_jws(call.jws.payload, nested=True)
        if inner.url != call.jws.url:
            raise problems.malformed("expected the same url in the inner JWS")
        url = f"{self.settings.base}/acme/account/{call.account.id}"
        return self._show_account(self.orders.change_key(call.account, inner, url))

    async def _new_order(self, call: _Call) -> web.Response:
        limit = self.settings.order_limit
        if limit is not None and (wait := limit.take(call.account.id, call.now)) is not None:
            detail = f"expected at most {limit.orders} orders of an account within {limit.window:g} s"
            raise problems.rate_limited(detail, retry_after=wait)
        order = self.orders.create(call.account, call.jws.json(), call.now)
        logger.info("order_created", order=order.id, names=list(order.names))
        return self._show_order(order, 201)

    async def _order(self, call: _Call) -> web.Response:
        return self._show_order(self.orders.order(call.account, call.http.match_info["id"], call.now))

    def _show_order(self, order: Order, status: int = 200) -> web.Response:
        base = self.settings.base
        wait = injection.in_progress(self.telemetry.faults, "order") if order.status == "valid" else None
        body: dict[str, Any] = {
            "status": order.status if wait is None else "processing",
            "expires": _rfc3339(order.expires),
            "identifiers": [{"type": "dns", "value": name} for name in order.names],
            "authorizations": [f"{base}/acme/authorization/{a.id}" for a in self.store.authorizations(order.id)],
            "finalize": f"{base}/acme/order/{order.id}/finalize",
        }
        if order.profile:
            body["profile"] = order.profile
        if order.error is not None:
            body["error"] = order.error
        if order.replaces is not None and (old := self.store.certificate(order.replaces)) is not None:
            body["replaces"] = self.renewal_id(int(old.serial, 16), old.issuer)
        if order.serial is not None and wait is None:
            body["certificate"] = f"{base}/acme/certificate/{order.serial}"
        headers = {"Location": f"{base}/acme/order/{order.id}", **_retry_after(wait)}
        return web.json_response(body, status=status, headers=headers)

    async def _authorization(self, call: _Call) -> web.Response:
        found = self.orders.authorization(call.account, call.http.match_info["id"])
        if call.jws.payload and call.jws.json().get("status") == "deactivated":
            found = self.orders.deactivate(found)
        elif found.status == "processing":
            await self.validations.ended(found)
            found = self.orders.authorization(call.account, found.id)
        return self._show_authorization(found)

    def _show_authorization(self, authorization: Authorization) -> web.Response:
        valid = authorization.status == "valid"
        wait = injection.in_progress(self.telemetry.faults, "authorization") if valid else None
        if wait is not None:
            authorization = replace(authorization, status="processing", validated=None)
        body: dict[str, Any] = {
            "status": "pending" if authorization.status == "processing" else authorization.status,
            "expires": _rfc3339(authorization.expires),
            "identifier": {"type": "dns", "value": authorization.name.removeprefix("*.")},
            "challenges": [
                self._challenge_object(authorization, method)
                for method in ([authorization.method] if authorization.method else offered(authorization.name))
            ],
        }
        if is_wildcard(authorization.name):
            body["wildcard"] = True
        return web.json_response(body, headers=_retry_after(wait))

    def _challenge_object(self, authorization: Authorization, method: str) -> dict[str, Any]:
        body: dict[str, Any] = {
            "type": method,
            "url": f"{self.settings.base}/acme/challenge/{authorization.id}/{method}",
            "status": authorization.status if authorization.status != "deactivated" else "invalid",
            "token": authorization.token,
        }
        if authorization.validated is not None:
            body["validated"] = _rfc3339(authorization.validated)
        if authorization.error is not None:
            body["error"] = authorization.error
        return body

    async def _challenge(self, call: _Call) -> web.Response:
        found = self.orders.authorization(call.account, call.http.match_info["id"])
        if found.expires <= call.now:
            raise problems.malformed("this authorization expired: open a new order")
        method = call.http.match_info["method"]
        if method not in ([found.method] if found.method else offered(found.name)):
            raise problems.not_found("there is no such challenge")
        if call.jws.payload and found.status == "pending":
            call.jws.json()
            found = self.validations.begin(found, call.account, method)
        up = f'<{self.settings.base}/acme/authorization/{found.id}>;rel="up"'
        response = web.json_response(self._challenge_object(found, method))
        response.headers.add("Link", up)
        return response

    async def _finalize(self, call: _Call) -> web.Response:
        order = self.orders.order(call.account, call.http.match_info["id"], call.now)
        check_ready(order)
        request = call.jws.json().get("csr")
        try:
            csr, names = read_csr(decode(request) if isinstance(request, str) else b"")
        except BadCSRError as error:
            raise problems.bad_csr(str(error)) from None
        check_names(order, names)
        key: Any = csr.public_key()  # an EC or RSA key, as `read_csr` has checked
        if self._is_account_key(key):
            raise problems.bad_csr("expected a key that is not an account key (RFC 8555 section 11.1)")
        if self.store.compromised(fingerprint(key)):
            raise problems.bad_csr("expected a new key: a certificate with this key was revoked for key compromise")
        certificate = self.leaves.issue(key, order.names, call.now, call.account.id, order.profile)
        order = self.orders.finalize(order, certificate, call.now)
        took_ms = round((self.telemetry.clock.time() - call.now) * 1000, 1)
        logger.info("certificate_issued", serial=certificate.serial, names=list(order.names), took_ms=took_ms)
        return self._show_order(order)

    def _is_account_key(self, public_key: Any) -> bool:
        jwk = public_jwk(public_key)
        return jwk is not None and self.store.account_by_thumbprint(thumbprint(jwk)) is not None

    async def _certificate(self, call: _Call) -> web.Response:
        found = self.store.certificate(call.http.match_info["id"])
        if found is None:
            raise problems.not_found("there is no such certificate")
        if found.account != call.account.id:
            raise problems.unauthorized("this certificate belongs to another account")
        issuer = self.published.issuer(found.issuer)
        alternates = () if issuer is None else issuer.alternates
        number, pem = int(call.http.match_info.get("chain", 0)), found.pem
        if number > len(alternates):
            raise problems.not_found("there is no such alternate chain")
        if number:
            leaf = x509.load_pem_x509_certificate(pem.encode())
            pem = "".join(each.public_bytes(Encoding.PEM).decode() for each in (leaf, *alternates[number - 1]))
        response = web.Response(text=pem, content_type="application/pem-certificate-chain")
        for other in range(1, len(alternates) + 1):
            url = f"{self.settings.base}/acme/certificate/{found.serial}/{other}"
            response.headers.add("Link", f'<{url}>;rel="alternate"')
        return response

    async def _revoke(self, request: web.Request) -> web.Response:
        self.revocation.request(await self._read(request), self._authenticate)
        return web.Response()

    async def _renewal_info(self, request: web.Request) -> web.Response:
        """Reply with the suggested renewal window (RFC 9773)."""
        found = find_certificate(self.store, request.match_info["id"])
        if found is None:
            raise problems.not_found("expected AUTHORITY-KEY-ID.SERIAL of a certificate of this CA, in base64url")
        previous = found.issuer not in {"", self.issuer.key_id.hex()}
        start, end, url = window(found, self._switched or None if previous else None, self.recalls.of(found))
        after = _retry_after(ask_again(found))
        bent = injection.renewal_window(self.telemetry.faults, start, end)
        if isinstance(bent, dict):
            return web.json_response(bent, headers=after)
        start, end = bent or (start, end)
        body: dict[str, Any] = {"suggestedWindow": {"start": _rfc3339(start), "end": _rfc3339(end)}}
        if url:
            body["explanationURL"] = url
        return web.json_response(body, headers=after)


@functools.lru_cache(maxsize=2)
def _http_date(at: int) -> str:
    return formatdate(at, usegmt=True)


def _problem(problem: Problem) -> web.Response:
    response = web.json_response(problem.document(), status=problem.status, headers=problem.headers)
    response.content_type = "application/problem+json"
    return response


def _retry_after(seconds: int | None) -> dict[str, str]:
    return {} if seconds is None else {"Retry-After": str(seconds)}


def _rfc3339(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
