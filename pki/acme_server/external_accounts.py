"""External account binding (RFC 8555 section 7.3.4): only holders of a key issued by the CA can create accounts.

This module verifies bindings; it does not store them, and a key may be used for any number of accounts.
"""

import hmac
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acme_server import problems
from acme_server.jws import SignedRequest, decode, read_object
from acme_server.problems import Problem
from authority import AuthorityError

#: Hash function of each permitted MAC algorithm (RFC 7518 section 3.2).
ALGORITHMS = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}
#: A line of the key file: an identifier, and the key in base64url.
LINE = re.compile(r"(?P<kid>[A-Za-z0-9._-]{1,64})\s+(?P<key>[A-Za-z0-9_-]+)")
#: Minimum size of a key in bytes, the size of an HS256 hash (RFC 7518 section 3.2).
MIN_KEY = 32
MEMBERS = {"protected", "payload", "signature"}


def load_keys(path: Path) -> dict[str, bytes]:
    """Return the keys in the file at *path*, keyed by identifier: one per line, ``KID KEY``, with the key in base64url.

    Raises:
        AuthorityError: the file cannot be read, or a line is malformed; the message has the line number, not the key.
    """
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError) as error:
        raise AuthorityError(f"{path}: {error}") from None
    keys: dict[str, bytes] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            match = LINE.fullmatch(line.strip())
            key = decode(match["key"]) if match else b""
        except Problem:
            key = b""
        if match is None or len(key) < MIN_KEY or match["kid"] in keys:
            raise AuthorityError(f"{path}:{number}: expected another KID and a KEY of {MIN_KEY} bytes in base64url")
        keys[match["kid"]] = key
    if not keys:
        raise AuthorityError(f"{path}: expected lines KID KEY, got none")
    return keys


def check_binding(keys: Mapping[str, bytes], request: SignedRequest, binding: object) -> dict[str, Any]:
    """Return *binding*, the field ``externalAccountBinding`` of a newAccount *request*, if its MAC is valid.

    Raises:
        Problem: the binding is missing (externalAccountRequired), malformed, or not made with one of *keys*.
    """
    if binding is None:
        raise problems.external_account_required("expected externalAccountBinding, made with a key of this CA")
    if (
        not isinstance(binding, dict)
        or set(binding) != MEMBERS
        or not all(isinstance(v, str) for v in binding.values())
    ):
        raise problems.malformed("expected protected, payload and signature, and nothing else, in the binding")
    header = read_object(decode(binding["protected"]), "expected a JSON object as protected header of the binding")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise problems.malformed(f"expected alg of {', '.join(ALGORITHMS)} in the binding, got {algorithm!r}"[:200])
    if "nonce" in header or header.get("url") != request.url:
        raise problems.malformed("expected the url of the request, and no nonce, in the binding")
    if read_object(decode(binding["payload"]), "expected the account key in the binding") != request.jwk:
        raise problems.malformed("expected the account key that signs the request in the binding")
    key = keys.get(kid) if isinstance(kid, str) else None
    signed = f"{binding['protected']}.{binding['payload']}".encode()
    expected = hmac.digest(key or b"", signed, ALGORITHMS[algorithm])
    if not hmac.compare_digest(expected, decode(binding["signature"])) or key is None:
        raise problems.unauthorized("expected a binding made with one of this CA's keys for external accounts")
    return binding
