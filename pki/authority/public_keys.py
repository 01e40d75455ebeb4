"""Checks of public keys before a CA certifies them (CA/Browser Forum Baseline Requirements 6.1.1.3, 6.1.5 and 6.1.6).

Not checked: lists of known keys, such as those that Debian's OpenSSL generated in 2006 to 2008.
"""

import hashlib
import math

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from authority.errors import WeakKeyError

#: Accepted RSA key sizes, in bits: shorter keys are weak, longer keys make handshakes slow.
MIN_RSA_BITS, MAX_RSA_BITS = 2048, 4096
#: Bounds of the RSA public exponent (BR 6.1.6).
MIN_EXPONENT, MAX_EXPONENT = 2**16 + 1, 2**256 - 1
#: Rounds of Fermat's factorization, which finds primes that are close together (BR 6.1.1.3).
FERMAT_ROUNDS = 100
CURVES = ("secp256r1", "secp384r1", "secp521r1")
#: Primes up to 751: BR 6.1.6 forbids smaller factors of the modulus.
_PRIMES = [n for n in range(2, 752) if all(n % d for d in range(2, math.isqrt(n) + 1))]
_SMALL_FACTORS = math.prod(_PRIMES)
#: Fingerprint of ROCA keys (CVE-2017-15361): odd primes, each with the possible residues of such a key's modulus, which
#: are the powers of 65537.  A random modulus matches for all primes with a probability below 2⁻²⁷.
_ROCA = [(prime, {pow(65537, power, prime) for power in range(prime)}) for prime in _PRIMES[1:39]]


def check_public_key(key: object) -> None:
    """Raise `WeakKeyError` unless *key* is an RSA or EC public key that the Baseline Requirements permit."""
    if isinstance(key, rsa.RSAPublicKey):
        _check_rsa(key.public_numbers())
    elif not isinstance(key, ec.EllipticCurvePublicKey):
        raise WeakKeyError(f"expected an EC or RSA key, got {type(key).__name__}")
    elif key.curve.name not in CURVES:
        raise WeakKeyError(f"expected curve P-256, P-384 or P-521, got {key.curve.name}")


def fingerprint(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey) -> str:
    """Return the SHA-256 hash of the key's SubjectPublicKeyInfo, in hexadecimal."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _check_rsa(key: rsa.RSAPublicNumbers) -> None:
    bits = key.n.bit_length()
    if not MIN_RSA_BITS <= bits <= MAX_RSA_BITS or bits % 8:
        raise WeakKeyError(f"expected an RSA key of {MIN_RSA_BITS} to {MAX_RSA_BITS} bits, a multiple of 8; got {bits}")
    if not MIN_EXPONENT <= key.e <= MAX_EXPONENT or key.e % 2 == 0:
        raise WeakKeyError(f"expected an odd public exponent of at least 65537, got {key.e}"[:120])
    if math.gcd(key.n, _SMALL_FACTORS) != 1:
        raise WeakKeyError("expected an RSA modulus without factors below 752")
    if all(key.n % prime in residues for prime, residues in _ROCA):
        raise WeakKeyError("expected an RSA key without the weakness ROCA (CVE-2017-15361)")
    root = math.isqrt(key.n - 1) + 1
    for middle in range(root, root + FERMAT_ROUNDS):
        square = middle * middle - key.n
        if math.isqrt(square) ** 2 == square:
            raise WeakKeyError("expected an RSA modulus whose primes are far apart")
