"""The CA's maintenance task: it renews the server's own certificate and the CRL, and records the health checks.

It also stops listening while the fault ``acme_refuse`` is on.
"""

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from acme_server import health
from acme_server.issuing_files import IssuingFiles
from acme_server.log_watch import LogWatch
from acme_server.own_certificate import OwnCertificate
from acme_server.server import AcmeServer, logger
from authority import AuthorityError, Issuer, StoreError

#: Interval between checks, in seconds.  It is short because drills change the clock and the faults at any time.
INTERVAL = 0.1
#: Interval between test writes to the store, and between attempts to renew the server's own certificate after a
#: failure, in seconds.
STORE_INTERVAL, RETRY = 1.0, 1.0
#: How long expired orders are kept, in seconds, and maximum number of orders that are deleted in one transaction.
#: Deleting 500 orders takes about ten milliseconds, during which the server answers no requests.
KEEP, MAX_PRUNED = 3600.0, 500


class Watch:
    """Maintenance of one ACME server."""

    def __init__(
        self,
        server: AcmeServer,
        own: OwnCertificate,
        site: web.TCPSite | None,
        listen: Callable[[], Awaitable[web.TCPSite]],
        issuing: IssuingFiles | None = None,
    ) -> None:
        """Create a maintenance task; call `run` to start it.

        Args:
            server: the server to maintain.
            own: the server's own certificate.
            site: the server's listener; None if the server is not listening.
            listen: opens a new listener when the fault ``acme_refuse`` ends.
            issuing: the issuing CAs' files, which a rotation changes; None if these files never change.
        """
        self._server, self._own, self._listen, self._issuing = server, own, listen, issuing
        self._log = LogWatch(server.telemetry, server.store, server.log)
        self._site = site
        self._pruned = server.telemetry.metrics.counter(
            "firstbyte_ca_pruned_orders_total", "Expired orders that were deleted, with their authorizations"
        )
        self._failure = ""
        #: Due times of the next test write and of the next renewal, on the monotonic clock, in seconds.
        self._next_write = self._next_renewal = 0.0

    async def run(self) -> None:
        """Call `check` every `INTERVAL` seconds until the task is cancelled."""
        while True:
            self.check()
            await asyncio.sleep(INTERVAL)  # wait until the next check
            try:
                await self._refuse()
            except OSError as error:
                logger.error("cannot_listen", error=str(error))
                self._server.telemetry.health.set("listener", ok=False, detail=str(error))

    def check(self) -> None:
        """Renew the server's own certificate, test the store and prune it, each if due; record the health checks."""
        clock, store = self._server.telemetry.clock, self._server.store
        at, now = clock.monotonic(), clock.time()
        if at >= self._next_write:
            self._next_write = at + STORE_INTERVAL
            try:
                store.check()
                self._pruned.inc(store.prune(now - KEEP, MAX_PRUNED))
            except StoreError as error:
                logger.error("store_failed", error=str(error))
            self._log.check()
            self.follow_issuing()
        if at >= self._next_renewal:
            try:
                self._own.renew_if_due(now)
                self._server.published.renew_if_due(now)
                self._failure = ""
            except Exception as error:  # catch every error: renewal must be retried before expiry
                self._failure, self._next_renewal = str(error) or type(error).__name__, at + RETRY
                logger.error("certificate_or_crl_not_renewed", error=self._failure)
        issuing = self._server.issuer.certificate
        valid = issuing.not_valid_before_utc.timestamp(), issuing.not_valid_after_utc.timestamp()
        for finding in (
            health.own_certificate(now, self._own.issued, self._own.renew_at, self._own.not_after, self._failure),
            health.issuing_certificate(now, *valid, self._server.leaves.lifetime),
            health.store(store.failure),
            health.revocation_list(now, self._server.published.next_update),
        ):
            self._server.telemetry.health.set(finding.check, finding.ok, finding.detail)

    def follow_issuing(self) -> None:
        """Reload the issuing CAs' files if they changed; if another CA signs now, renew the server's own certificate.

        Retired issuing CAs whose last leaf has expired are removed.
        """
        if self._issuing is None:
            return
        try:
            self._issuing.remove_retired(self._has_leaves)
            if not self._issuing.reload():
                return
            before = self._server.issuer.key_id
            self._server.use(self._issuing.signing, self._issuing.issuers.values())
            if self._server.issuer.key_id != before:
                self._own.renew()
        except AuthorityError as error:
            self._server.telemetry.health.set("issuing files", ok=False, detail=str(error))
        else:
            self._server.telemetry.health.set("issuing files", ok=True)

    def _has_leaves(self, issuer: Issuer) -> bool:
        """Return whether a leaf of *issuer* is still valid, so that the issuer's revocation data is needed."""
        return self._server.store.last_expiry(issuer.key_id.hex()) > self._server.telemetry.clock.time()

    async def _refuse(self) -> None:
        faults = self._server.telemetry.faults
        refuse = faults.get("acme_refuse") is not None
        if refuse and self._site is not None and faults.hit("acme_refuse"):
            await self._site.stop()
            self._site = None
        elif not refuse and self._site is None:
            self._site = await self._listen()
            self._server.telemetry.health.set("listener", ok=True, detail=self._server.settings.base)
