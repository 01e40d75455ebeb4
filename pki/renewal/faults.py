"""What a drill can have the agent do wrong: the switches, and what they do to a pair and to a flight."""

from renewal.material import SPOILT, spoil
from telemetry import Faults

#: Octets of a fault's ballast: clients refuse a chain of 100 kB (OpenSSL's SSL_MAX_CERT_LIST_DEFAULT).
LONGEST_BALLAST = 65536


def declare(faults: Faults) -> None:
    """Declare the switches of a service that renews."""
    faults.declare("renewal_off", "Do not renew by schedule")
    faults.declare("eager_retry", "Try again at once after a failure: no back-off, no Retry-After")
    faults.declare("alarm_off", "Say that the certificate is well, whatever it is")
    faults.declare(
        "naive_reload",
        "Take a new pair as it should not be taken: restart (stop listening, cut every connection, listen again after"
        " down_ms) or live (load it, unchecked, into the contexts that are serving)",
        how=("restart", "live"), down_ms=300.0,
    )  # fmt: skip
    faults.declare("broken_material", "Spoil each new pair before it is used", kind=SPOILT)
    faults.declare(
        "long_chain",
        "Send so many octets of a certificate that nobody needs behind the chain, to clients that ask for sni (empty: all)",
        octets=16384, sni="",
    )  # fmt: skip


def material(faults: Faults, pem: bytes) -> bytes:
    """Return a new pair as it arrives: spoilt where ``broken_material`` hits."""
    if faults.any_on and faults.hit("broken_material"):
        return spoil(str((faults.get("broken_material") or {})["kind"]), pem)
    return pem


def overweight(faults: Faults, name: str | None) -> int:
    """Return octets of ballast for a client that asks for *name* (None: for none), by ``long_chain``."""
    on = faults.get("long_chain") if faults.any_on else None
    if on is None or on["sni"] not in {"", name} or not faults.hit("long_chain"):
        return 0
    return max(0, min(int(on["octets"]), LONGEST_BALLAST))
