"""Signed requests (RFC 8555 section 6.2, RFC 7515 flattened JSON, RFC 7638 thumbprints).

This module validates syntax and signatures only; `acme_server.server` validates the nonce, URL and account.
"""

import binascii
import functools
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from acme_server import problems
from acme_server.problems import Problem
from authority import WeakKeyError, check_public_key

#: Supported signature algorithms (RFC 7518, RFC 8037); each belongs to one key type.
ALGORITHMS = ("ES256", "ES384", "EdDSA", "RS256")
_CURVES: dict[str, tuple[ec.EllipticCurve, str, hashes.HashAlgorithm, int]] = {
    "P-256": (ec.SECP256R1(), "ES256", hashes.SHA256(), 32),
    "P-384": (ec.SECP384R1(), "ES384", hashes.SHA384(), 48),
}
#: Hash function of the signature, and size of the numbers r and s in bytes, keyed by algorithm.
_ECDSA = {algorithm: (ec.ECDSA(digest), size) for _, algorithm, digest, size in _CURVES.values()}
#: The prime of Curve25519's field, and the y coordinates of its points of small order.  Signatures can be forged if the
#: public key is such a point.
_P25519 = 2**255 - 19
_SMALL_ORDER = {
    0,
    1,
    _P25519 - 1,
    0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
    0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD83D3D706A17C7,
}
#: Maximum number of parsed and checked account keys in the cache.
MAX_KEYS = 4096
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


#: Translation tables between the alphabets of base64 and base64url (RFC 4648 section 5).
_TO_URL, _FROM_URL = bytes.maketrans(b"+/", b"-_"), bytes.maketrans(b"-_", b"+/")


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A syntactically valid JWS; call `verify` to check its signature."""

    algorithm: str
    nonce: str
    url: str
    #: The account key or the account URL; exactly one of `jwk` and `kid` is set.
    jwk: dict[str, Any] | None
    kid: str | None
    payload: bytes
    signed: bytes
    signature: bytes

    def json(self) -> dict[str, Any]:
        """Parse the payload; raise `Problem` if it is not a JSON object."""
        return read_object(self.payload, "expected a JSON object as payload")

    def verify(self, jwk: dict[str, Any]) -> None:
        """Verify the signature with the public key *jwk*; raise `Problem` if the key or the signature is invalid."""
        key, algorithm = read_jwk(jwk)
        if self.algorithm != algorithm:
            raise problems.bad_signature_algorithm(
                f"expected {algorithm} for this key, got {self.algorithm}",
                algorithms=list(ALGORITHMS),
            )
        try:
            _verify(key, algorithm, self.signature, self.signed)
        except InvalidSignature:
            raise problems.malformed("the signature does not match") from None


def read_jws(body: bytes, *, nested: bool = False) -> SignedRequest:
    """Parse a JWS in flattened JSON serialization; raise `Problem` if it is malformed.

    Args:
        body: the JSON text.
        nested: whether this is the inner JWS of a key change, which has no nonce (RFC 8555 section 7.3.5).
    """
    document = read_object(body, "expected a JSON object (flattened JWS)")
    if set(document) != {"protected", "payload", "signature"}:
        raise problems.malformed("expected the members protected, payload and signature, and no other")
    if not all(isinstance(value, str) for value in document.values()):
        raise problems.malformed("expected strings in protected, payload and signature")
    protected, payload, signature = (decode(document[part]) for part in ("protected", "payload", "signature"))
    header = read_object(protected, "expected a JSON object as protected header")
    algorithm, nonce, url = (header.get(key) for key in ("alg", "nonce", "url"))
    jwk, kid = header.get("jwk"), header.get("kid")
    if algorithm not in ALGORITHMS:
        detail = f"expected alg of {', '.join(ALGORITHMS)}; got {algorithm!r}"
        raise problems.bad_signature_algorithm(detail, algorithms=list(ALGORITHMS))
    if nested and nonce is None:
        nonce = ""
    if not isinstance(nonce, str):
        raise problems.bad_nonce("expected a nonce in the protected header")
    if not isinstance(url, str) or "crit" in header or "b64" in header:
        raise problems.malformed("expected a url, and neither crit nor b64, in the protected header")
    if (jwk is None) == (kid is None) or not isinstance(jwk, dict | None) or not isinstance(kid, str | None):
        raise problems.malformed("expected exactly one of jwk (an object) and kid (a URL)")
    signed = f"{document['protected']}.{document['payload']}".encode()
    return SignedRequest(algorithm, nonce, url, jwk, kid, payload, signed, signature)


def read_object(text: bytes, expected: str) -> dict[str, Any]:
    """Parse a JSON object; raise `Problem` with the detail *expected* if *text* is invalid or nested too deeply."""
    try:
        value = json.loads(text.decode())  # JSON is UTF-8 (RFC 8259 section 8.1)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise problems.malformed(expected)
    return value


def read_jwk(jwk: dict[str, Any]) -> tuple[PublicKey, str]:
    """Return the public key in *jwk* and its signature algorithm; raise `Problem` if *jwk* is malformed.

    Only one encoding of each key is accepted, so that each key has exactly one thumbprint and at most one account.
    """
    try:
        return _read_known(tuple(sorted(jwk.items())))
    except TypeError:  # a member is not hashable, or members cannot be sorted
        return _read_checked(jwk)


@functools.lru_cache(maxsize=MAX_KEYS)
def _read_known(members: tuple[tuple[str, Any], ...]) -> tuple[PublicKey, str]:
    return _read_checked(dict(members))


def _read_checked(jwk: dict[str, Any]) -> tuple[PublicKey, str]:
    try:
        key, algorithm = _read_jwk(jwk)
        if not isinstance(key, ed25519.Ed25519PublicKey):
            check_public_key(key)
    except (KeyError, TypeError, ValueError, WeakKeyError, Problem) as error:
        raise problems.bad_public_key(f"the jwk is malformed: {error}") from None
    if "d" in jwk or any(jwk[name] != value for name, value in (public_jwk(key) or {}).items()):
        raise problems.bad_public_key("expected the public key only, without leading zeros (RFC 7518 section 6)")
    return key, algorithm


def _read_jwk(jwk: dict[str, Any]) -> tuple[PublicKey, str]:
    kind = jwk.get("kty")
    if kind == "EC" and jwk.get("crv") in _CURVES:
        curve, algorithm, _, size = _CURVES[jwk["crv"]]
        point = b"\x04" + _sized(jwk["x"], size) + _sized(jwk["y"], size)
        return ec.EllipticCurvePublicKey.from_encoded_point(curve, point), algorithm
    if kind == "OKP" and jwk.get("crv") == "Ed25519":
        raw = _sized(jwk["x"], 32)
        y = int.from_bytes(raw, "little") & 2**255 - 1
        if y >= _P25519 or y in _SMALL_ORDER:
            raise ValueError("expected a point in its canonical encoding, and not of small order (RFC 8032)")
        return ed25519.Ed25519PublicKey.from_public_bytes(raw), "EdDSA"
    if kind == "RSA":
        exponent, modulus = (int.from_bytes(decode(jwk[name])) for name in ("e", "n"))
        return rsa.RSAPublicNumbers(exponent, modulus).public_key(), "RS256"
    raise ValueError("expected an EC (P-256, P-384), OKP (Ed25519) or RSA key")


def public_jwk(key: object) -> dict[str, Any] | None:
    """Return *key* as a JWK, or None if its type is not supported for account keys."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        for name, (curve, _, _, size) in _CURVES.items():
            if curve.name == key.curve.name:
                point = key.public_numbers()
                return {
                    "kty": "EC",
                    "crv": name,
                    "x": encode(point.x.to_bytes(size)),
                    "y": encode(point.y.to_bytes(size)),
                }
    if isinstance(key, ed25519.Ed25519PublicKey):
        return {"kty": "OKP", "crv": "Ed25519", "x": encode(key.public_bytes_raw())}
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        exponent, modulus = (encode(n.to_bytes((n.bit_length() + 7) // 8)) for n in (numbers.e, numbers.n))
        return {"kty": "RSA", "e": exponent, "n": modulus}
    return None


def thumbprint(jwk: dict[str, Any]) -> str:
    """Return the thumbprint of *jwk* in base64url (RFC 7638)."""
    members = {"EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x"), "RSA": ("e", "kty", "n")}[jwk["kty"]]
    canonical = json.dumps({name: jwk[name] for name in members}, separators=(",", ":"), sort_keys=True)
    return encode(hashlib.sha256(canonical.encode()).digest())


def encode(data: bytes) -> str:
    """Encode *data* as base64url without padding (RFC 7515 section 2)."""
    return binascii.b2a_base64(data, newline=False).translate(_TO_URL).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """Decode base64url without padding; raise `Problem` if *text* is malformed."""
    try:
        wire = text.encode("ascii")
        data = binascii.a2b_base64(wire.translate(_FROM_URL) + b"=" * (-len(wire) % 4), strict_mode=True)
    except (ValueError, AttributeError):
        raise problems.malformed("expected base64url without padding") from None
    if encode(data) != text:
        raise problems.malformed(
            "expected base64url, without padding and without bits after the last byte (RFC 4648 section 3.5)"
        )
    return data


def _sized(text: object, size: int) -> bytes:
    data = decode(text) if isinstance(text, str) else b""
    if len(data) != size:
        raise ValueError(f"expected {size} bytes, got {len(data)}")
    return data


def _verify(key: PublicKey, algorithm: str, signature: bytes, signed: bytes) -> None:
    if (curve := _ECDSA.get(algorithm)) is not None:
        ecdsa, size = curve
        if len(signature) != 2 * size:
            raise InvalidSignature
        numbers = int.from_bytes(signature[:size]), int.from_bytes(signature[size:])
        key.verify(encode_dss_signature(*numbers), signed, ecdsa)  # type: ignore[call-arg,arg-type]  # `read_jwk` returns an EC key for these algorithms
    elif algorithm == "RS256":
        key.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())  # type: ignore[call-arg,arg-type]  # `read_jwk` returns an RSA key for this algorithm
    else:
        key.verify(signature, signed)  # type: ignore[call-arg]  # `read_jwk` returns an Ed25519 key for EdDSA
