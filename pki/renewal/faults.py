"""Faults that drills switch on in a renewal agent, and their effects on new certificates and chains."""

from renewal.material import CORRUPTIONS, corrupt
from telemetry import Faults

#: Maximum padding in a chain, in bytes; OpenSSL clients reject chains above 100 kB (SSL_MAX_CERT_LIST_DEFAULT).
MAX_PADDING = 65536


def declare(faults: Faults) -> None:
    """Declare the faults of the renewal agent in a service's fault registry."""
    faults.declare("renewal_off", "Do not renew by schedule")
    faults.declare("eager_retry", "Retry at once after a failure: no back-off, no Retry-After")
    faults.declare("alarm_off", "Report the certificate as healthy, whatever its state")
    faults.declare(
        "naive_reload",
        "Reload a new pair the wrong way: restart (stop listening, close every connection, listen again after down_ms)"
        " or live (load it, unchecked, into the live contexts)",
        how=("restart", "live"), down_ms=300.0,
    )  # fmt: skip
    faults.declare("broken_material", "Corrupt each new pair before it is used", kind=CORRUPTIONS)
    faults.declare(
        "long_chain",
        "Add an unneeded certificate of this size to the chain, for clients whose SNI is sni (empty: all)",
        bytes=16384, sni="",
    )  # fmt: skip


def material(faults: Faults, pem: bytes) -> bytes:
    """Return *pem*, a new key and chain, corrupted if the fault ``broken_material`` is on."""
    if faults.any_on and faults.hit("broken_material"):
        return corrupt(str((faults.get("broken_material") or {})["kind"]), pem)
    return pem


def padding(faults: Faults, name: str | None) -> int:
    """Return how many bytes of padding the fault ``long_chain`` adds to the chain for a client.

    Args:
        faults: the service's faults.
        name: host name in the client's SNI extension; None if it was not sent.
    """
    on = faults.get("long_chain") if faults.any_on else None
    if on is None or on["sni"] not in {"", name} or not faults.hit("long_chain"):
        return 0
    return max(0, min(int(on["bytes"]), MAX_PADDING))
