"""Tests for the public keys that the CA rejects; the tests generate keys with each known weakness."""

import math
import secrets

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from authority import WeakKeyError, check_public_key


def prime(start: int, step: int) -> int:
    """Return the first probable prime among *start*, *start* + *step*, and so on."""
    while pow(2, start - 1, start) != 1:
        start += step
    return start


def roca() -> int:
    """Return a modulus whose primes have the form k · M + 65537^a mod M (Nemec et al., 2017)."""
    m = math.prod(n for n in range(2, 168) if all(n % d for d in range(2, n)))

    def one() -> int:
        base = (3 << 1022 | secrets.randbits(1022)) // m * m
        return next(p for a in range(10_000) if pow(2, (p := base + pow(65537, a, m)) - 1, p) == 1)

    return one() * one()


def neighbours() -> int:
    """Return the product of two consecutive primes."""
    first = prime(secrets.randbits(1024) | 3 << 1022 | 1, 2)
    return first * prime(first + 2, 2)


def multiple(factor: int) -> int:
    return factor * (secrets.randbits(2047 - factor.bit_length()) | 3 << 2046 - factor.bit_length() | 1)


@pytest.mark.parametrize(
    ("n", "e", "message"),
    [
        pytest.param(lambda: 2**1023 + 1, 65537, "2048 to 4096 bits", id="short"),
        pytest.param(lambda: 2**4096 + 1, 65537, "2048 to 4096 bits", id="long"),
        pytest.param(lambda: 2**2049 + 1, 65537, "multiple of 8", id="odd-size"),
        pytest.param(lambda: 2**2047 + 1, 3, "exponent", id="exponent-3"),
        pytest.param(lambda: multiple(751), 65537, "factors below 752", id="small-factor"),
        pytest.param(neighbours, 65537, "far apart", id="close-primes"),
        pytest.param(roca, 65537, "ROCA", id="roca"),
    ],
)
def test_a_weak_rsa_key_is_refused(n, e: int, message: str) -> None:
    with pytest.raises(WeakKeyError, match=message):
        check_public_key(rsa.RSAPublicNumbers(e, n()).public_key())


@pytest.mark.parametrize(
    "key",
    [ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256K1()), object()],
    ids=["ed25519", "secp256k1", "no-key"],
)
def test_keys_of_other_kinds_are_refused(key) -> None:
    with pytest.raises(WeakKeyError, match="expected"):
        check_public_key(key.public_key() if hasattr(key, "public_key") else key)


@pytest.mark.parametrize("bits", [2048, 3072])
def test_usual_keys_are_accepted(bits: int) -> None:
    check_public_key(rsa.generate_private_key(65537, bits).public_key())
    check_public_key(ec.generate_private_key(ec.SECP384R1()).public_key())
