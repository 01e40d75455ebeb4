"""An ACME client for tests: it sends valid requests unless a test overrides part of a request to make it malformed."""

import json
from typing import TYPE_CHECKING, Any

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from acme_server.jws import encode, public_jwk, thumbprint
from authority import new_key
from tests.waiting import until

if TYPE_CHECKING:  # a circular import: conftest imports this module
    from tests.acme_server.conftest import Lab


class Signer:
    """An account key of any supported type, which signs JWS requests."""

    def __init__(self, kind: str = "ES256") -> None:
        self.kind = kind
        match kind:
            case "ES256":
                self.key: Any = new_key()
            case "EdDSA":
                self.key = ed25519.Ed25519PrivateKey.generate()
            case _:
                self.key = rsa.generate_private_key(65537, 2048)
        self.jwk: Any = public_jwk(self.key.public_key())

    @classmethod
    def of(cls, key: ec.EllipticCurvePrivateKey) -> "Signer":
        """Return a signer with the P-256 key *key*."""
        signer = cls()
        signer.key, signer.jwk = key, public_jwk(key.public_key())
        return signer

    def sign(self, data: bytes) -> bytes:
        if self.kind == "ES256":
            r, s = decode_dss_signature(self.key.sign(data, ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(32) + s.to_bytes(32)
        return self.key.sign(data) if self.kind == "EdDSA" else self.key.sign(data, padding.PKCS1v15(), hashes.SHA256())

    def jws(self, header: dict[str, Any], payload: Any) -> dict[str, str]:
        protected = encode(json.dumps({"alg": self.kind, **header}).encode())
        content = "" if payload is None else encode(json.dumps(payload).encode())
        return {
            "protected": protected,
            "payload": content,
            "signature": encode(self.sign(f"{protected}.{content}".encode())),
        }


class Browser:
    """An ACME client that sends valid requests unless a test overrides part of a request to make it malformed."""

    def __init__(self, lab: "Lab", http: aiohttp.ClientSession, signer: Signer) -> None:
        self.lab, self.http, self.signer = lab, http, signer
        self.base = lab.server.settings.base
        self.kid: Any = None

    async def nonce(self) -> str:
        async with self.http.head(f"{self.base}/acme/new-nonce") as response:
            return response.headers["Replay-Nonce"]

    async def post(
        self, path: str, payload: Any, *, content_type="application/jose+json", body: bytes | None = None, **header
    ):
        url = path if path.startswith("https") else self.base + path
        key = {"kid": self.kid} if self.kid else {"jwk": self.signer.jwk}
        fields = {"nonce": await self.nonce(), "url": url, **key, **header}
        data = body if body is not None else json.dumps(self.signer.jws(fields, payload)).encode()
        async with self.http.post(url, data=data, headers={"Content-Type": content_type}) as response:
            text = await response.text()
            return response.status, (json.loads(text) if text.startswith("{") else text), response.headers

    async def register(self) -> None:
        status, _, headers = await self.post("/acme/new-account", {"contact": ["mailto:x@example.com"]})
        assert status == 201
        self.kid = headers["Location"]

    async def order(self, *names: str) -> tuple[dict[str, Any], str]:
        """Open an order; return the order and its URL."""
        identifiers = [{"type": "dns", "value": name} for name in names]
        status, order, headers = await self.post("/acme/new-order", {"identifiers": identifiers})
        assert status == 201, order
        return order, headers["Location"]

    async def challenge(self, order: dict[str, Any]) -> None:
        """Answer all challenges of *order* and request their validation."""
        for url in order["authorizations"]:
            challenge = (await self.post(url, None))[1]["challenges"][0]
            self.lab.answers[challenge["token"]] = f"{challenge['token']}.{thumbprint(self.signer.jwk)}"
            await self.post(challenge["url"], {})

    async def status(self, url: str) -> str:
        return (await self.post(url, None))[1]["status"]

    async def ready(self, *names: str) -> tuple[dict[str, Any], str]:
        """Open an order and validate its names; when the order is ready, return the order and its URL."""
        order, url = await self.order(*names)
        await self.challenge(order)
        await until(lambda: all(self.stored(each) == "valid" for each in order["authorizations"]))
        assert await self.status(url) == "ready"
        return order, url

    def stored(self, authorization_url: str) -> str:
        """Return the status of an authorization in the CA's store."""
        found = self.lab.server.store.authorization(authorization_url.rpartition("/")[2])
        assert found is not None
        return found.status

    async def finalize(self, order: dict[str, Any], csr: bytes) -> tuple[int, str]:
        """Send a CSR; return the status code, and the problem type or the order's status."""
        status, body, _ = await self.post(order["finalize"], {"csr": encode(csr)})
        return status, body["status"] if status == 200 else kind(body)


def csr(*names: str, common_name: str = "", key: Any = None) -> bytes:
    """Return a CSR (DER) with *names* in subjectAltName, and a subject with *common_name* if it is not empty."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])
    builder = x509.CertificateSigningRequestBuilder(subject)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False)
    key = key or new_key()
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, digest).public_bytes(Encoding.DER)


def kind(body: Any) -> str:
    return body["type"].removeprefix("urn:ietf:params:acme:error:")
