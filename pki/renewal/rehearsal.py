"""Renewal agent with fault injection, for services that take part in drills.

All faults are off by default; these classes then behave like `Agent` and `Credentials`.
"""

import ssl
from collections.abc import Sequence
from typing import Any

from cryptography import x509

from renewal import health
from renewal.agent import Agent, logger
from renewal.corruption import CORRUPTIONS, MAX_PADDING, corrupt, padding_certificate
from renewal.credentials import MODE, Credentials, Kind, Listener, Reload
from renewal.errors import UNREADABLE, PairError
from renewal.material import Pair, read_pair
from renewal.proof import load_pair
from renewal.revocation import ListSource, RevocationError, Revocations
from telemetry import Faults


class RehearsalAgent(Agent):
    """An agent with fault injection."""

    _switches: Faults

    def _make_credentials(self) -> Credentials:
        settings = self.settings
        self._switches = self.telemetry.faults
        if not self._suffix:
            _declare(self._switches)
            self._switches.on_change(self.wake)
        self._rehearsed = RehearsalCredentials(
            settings.tls_dir / "pair.pem", settings.trust, self._switches, as_client=settings.as_client
        )
        return self._rehearsed

    async def _renew_by_schedule(self) -> None:
        if not self._switches.any_on or self._switches.get("renewal_off") is None:
            await super()._renew_by_schedule()
            return
        self._switches.hit("renewal_off")
        await self.until_woken(None)  # wait until a fault or the clock changes, or an operator renews the certificate

    async def _fetch_list(self, source: ListSource, leaf: x509.Certificate) -> bytes | None:
        if self._switches.any_on and self._switches.hit("crl_off"):
            return None
        return await super()._fetch_list(source, leaf)

    def _list_interval(self) -> float:
        on = self._switches.get("crl_every") if self._switches.any_on else None
        return super()._list_interval() if on is None else max(0.1, float(on["seconds"]))

    def check_revocations(self) -> Revocations:
        """Enable fetching of the CA's CRL; with the fault ``crl_unchecked``, any CRL is used."""
        if self.revocations is None:
            self.revocations = RehearsalRevocations(self._switches)
        return self.revocations

    def _take(self, pem: bytes, now: float) -> Pair:
        faults, names = self._switches, self.settings.names
        if not faults.any_on:
            return super()._take(pem, now)
        if (broken := faults.hit("broken_material")) is not None:
            pem = corrupt(str(broken["kind"]), pem)
        if (naive := faults.hit("naive_reload")) is None:
            return super()._take(pem, now)
        if naive["how"] == "live":
            return self._rehearsed.replace_naively(pem, names, now)
        return self._rehearsed.replace(pem, names, now, Reload(restart=True, down_s=float(naive["down_ms"]) / 1000))

    def _failed(self, error: Exception) -> None:
        super()._failed(error)
        if self._switches.any_on and self._switches.hit("eager_retry"):
            self.lifecycle.next_renewal = self.telemetry.clock.time()

    def check_health(self) -> None:
        """Record the health checks; while the fault ``alarm_off`` is on, record all of them as passed."""
        super().check_health()
        if self.credentials.ready and self._switches.any_on and self._switches.hit("alarm_off"):
            for check in health.CHECKS:
                self.telemetry.health.set(self._check(check), ok=True, detail="the fault alarm_off is on")


class RehearsalRevocations(Revocations):
    """A CRL with the fault ``crl_unchecked``."""

    def __init__(self, faults: Faults) -> None:
        """Start without a CRL; *faults* are the service's faults."""
        super().__init__()
        self._faults = faults

    def take(self, der: bytes, issuer: x509.Certificate, now: float) -> bool:
        """Validate a CRL as `Revocations.take` does, or use it without validation while the fault is on."""
        if not self._faults.any_on or self._faults.hit("crl_unchecked") is None:
            return super().take(der, issuer, now)
        try:
            crl = x509.load_der_x509_crl(der)
            number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        except (*UNREADABLE, x509.ExtensionNotFound) as error:
            raise RevocationError(f"expected a revocation list with a number, in DER: {error}") from None
        begin, end = crl.last_update_utc.timestamp(), crl.next_update_utc
        serials = frozenset(each.serial_number for each in crl)
        return self.use(number, serials, begin, end.timestamp() if end else 0.0)


class RehearsalCredentials(Credentials):
    """Credentials with the faults ``long_chain``, ``naive_reload`` and ``trust_frozen``."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        """Create credentials; *args* are `file` and `trust` (see `Credentials`), and the service's faults."""
        *rest, self._switches = args
        super().__init__(*rest, **keywords)
        self._padded: dict[tuple[Kind, int, str], ssl.SSLContext] = {}

    def choose(self, listener: Listener, name: str | None) -> ssl.SSLContext | None:
        """Return the context for a client; faults select a context with a padded chain or an unvalidated pair."""
        faults: Faults = self._switches
        if listener.live:
            if faults.get("naive_reload") is not None:
                return None
            listener.live = False
        if not faults.any_on or not (size := self._padding(name)):
            return super().choose(listener, name)
        owner = self.owner(name)
        key = (listener.kind, size, owner.serial)
        if key not in self._padded:
            self._padded[key] = self.context(owner.pair.pem + padding_certificate(size), listener.kind)
        return self._padded[key]

    def follow_trust(self) -> bool:
        """Load changed roots, unless the fault ``trust_frozen`` is on; return whether new roots are in use."""
        faults: Faults = self._switches
        if faults.any_on and faults.hit("trust_frozen") is not None:
            return False
        return super().follow_trust()

    def replace_naively(self, pem: bytes, names: Sequence[str], now: float) -> Pair:
        """Overwrite `file` with *pem* and load it into the live contexts, without validation (negative control).

        Listeners use *pem* while the fault is on, and the last valid key and chain afterwards.

        Raises:
            PairError: OpenSSL failed to load *pem*; the listeners' contexts may be left in an inconsistent state.
        """
        for each in self._listeners:
            if not each.live and self.ready:
                # Like a naive server, start with the current pair in the live context.
                load_pair(each.outer, self.pair.pem)
                each.live = True
        self.file.touch(MODE)
        self.file.write_bytes(pem)
        for each in self._listeners:
            try:
                each.outer.load_cert_chain(self.file, password=b"")
            except (ssl.SSLError, ValueError) as error:
                raise PairError(f"load_cert_chain on a live context failed: {error}") from None
        # A naive server does not check names, dates or the chain, so it also uses an invalid certificate.
        leaf = x509.load_pem_x509_certificates(pem)[0]
        before, after = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
        try:
            pair = read_pair(pem, names, now, self._anchors()[0])
        except PairError:
            logger.warning("unchecked_pair_in_use", serial=f"{leaf.serial_number:x}")
            return Pair(pem, tuple(names), f"{leaf.serial_number:x}", leaf.issuer.rfc4514_string(), before, after)
        self._use(pair, Reload())
        return pair

    def _use(self, pair: Pair, reload: Reload) -> None:
        self._padded.clear()
        super()._use(pair, reload)

    def _padding(self, name: str | None) -> int:
        """Return the size of the padding in bytes that ``long_chain`` adds for a client whose SNI is *name*."""
        on = self._switches.get("long_chain")
        if on is None or on["sni"] not in {"", name} or not self._switches.hit("long_chain"):
            return 0
        return max(0, min(int(on["bytes"]), MAX_PADDING))


def _declare(faults: Faults) -> None:
    faults.declare("renewal_off", "Do not renew by schedule")
    faults.declare("eager_retry", "Retry at once after a failure: no back-off, no Retry-After")
    faults.declare("crl_off", "Do not fetch the CA's CRL: keep the last one, so that new revocations have no effect")
    faults.declare("crl_unchecked", "Use each CRL without validation: of any issuer, number and date")
    faults.declare("crl_every", "Request the CA's CRL at this interval", seconds=1.0)
    faults.declare("trust_frozen", "Do not load a changed trust bundle: keep the roots that are in use")
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
