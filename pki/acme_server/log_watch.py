"""Compares the CA's store with its issuance log, and reports certificates that were stored but never logged."""

from cryptography import x509

from authority import AuthorityError, IssuanceLog, Store
from authority.issuance_log import fingerprint_of
from telemetry import Telemetry, log

logger = log.get("acme_server")

#: Maximum number of serial numbers in the message of the health check.
MAX_NAMED = 3


class LogWatch:
    """Compares each newly stored certificate with the issuance log; records the health check ``issuance log``."""

    def __init__(self, telemetry: Telemetry, store: Store, issued: IssuanceLog) -> None:
        """Declare the gauges for comparisons of *store* with the issuance log *issued*."""
        self._health, self._store, self._log = telemetry.health, store, issued
        #: Serial numbers, in hexadecimal, of certificates in the store that the log does not contain.
        self.unlogged: list[str] = []
        self._row = 0
        self._entries = telemetry.metrics.gauge("firstbyte_ca_log_entries", "Entries of the issuance log")
        self._unlogged = telemetry.metrics.gauge(
            "firstbyte_ca_unlogged_certificates", "Certificates in the CA's store that the issuance log does not have"
        )

    def check(self) -> None:
        """Compare the certificates stored since the last call with the log; set the gauges and the health check."""
        try:
            new = self._store.leaves_after(self._row)
            certificates = [fingerprint_of(x509.load_pem_x509_certificate(pem.encode())) for _, pem in new]
            unlogged = self._log.missing(certificates)
            self._log.check()
        except AuthorityError as error:
            self._health.set("issuance log", ok=False, detail=str(error))
            return
        for serial in unlogged:
            logger.error("certificate_not_logged", serial=serial)
        self._row = new[-1][0] if new else self._row
        self.unlogged += unlogged
        self._entries.set(len(self._log))
        self._unlogged.set(len(self.unlogged))
        named = ", ".join(self.unlogged[:MAX_NAMED]) + (", …" if len(self.unlogged) > MAX_NAMED else "")
        detail = (
            f"{len(self.unlogged)} certificates are not in the log: {named}" if named else f"{len(self._log)} entries"
        )
        self._health.set("issuance log", not self.unlogged, detail)
