"""The renewal agent of a service: performs the I/O for the state machine in `renewal.lifecycle`."""

import asyncio
import contextlib
import random
import ssl
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

from cryptography import x509

from renewal import health, revocation
from renewal.account import account_key
from renewal.challenges import Challenges
from renewal.client import AcmeClient
from renewal.credentials import Credentials
from renewal.dns01 import Dns01, load_key
from renewal.errors import UNREADABLE, AcmeError, PairError, RenewalError
from renewal.lifecycle import Lifecycle, RenewalInfo, Validity
from renewal.material import Pair, new_key, new_pair_pem
from renewal.revocation import ListSource, NoListError, Revocations
from renewal.schedule import Rule, tolerated_skew
from renewal.settings import Settings
from stub import AsyncStub
from telemetry import AdminError, Request, Telemetry, log

logger = log.get("renewal")

#: Maximum time between checks for changes of the trusted roots and for steps of the clock, in seconds.
MAX_SLEEP = 5.0
#: Polling interval of processes that load certificates written by another process, in seconds.
FOLLOW = 0.5
#: Minimum change of the offset between wall clock and monotonic clock that counts as a clock step, in seconds.
STEP = 1.0


#: Renewal window for a revoked certificate: it is in the past, so that the renewal is due immediately.
AT_ONCE = RenewalInfo(0.0, 1.0)


class Agent:
    """Obtains and renews one certificate; `additional` creates an agent for an additional certificate."""

    def __init__(
        self,
        settings: Settings,
        telemetry: Telemetry,
        stub: AsyncStub | None = None,
        *,
        first: "Agent | None" = None,
        shared: bool = False,
    ) -> None:
        """Create the agent; then call `enrol` (or `obtain`), and `start`.

        Args:
            settings: names, key type and files of the certificate, and the CA's address.
            telemetry: clock, faults, health checks, metrics and admin port of the service.
            stub: resolves the CA's host name.
            first: the service's first agent, if this agent is for an additional certificate.  Additional agents share
                the challenges and counters of the first; their health checks and admin paths end with their name.
            shared: whether several processes of the service use the same folder; all but one set `renews` to False.
        """
        #: Whether this process orders certificates; if False, it loads those that another process writes to disk.
        self.renews: bool = True if first is None else first.renews
        self.settings, self.telemetry = settings, telemetry
        self.stub = stub if stub is not None else AsyncStub(clock=telemetry.clock)
        self.challenges: Challenges = (
            first.challenges if first is not None else Challenges(settings.tls_dir / "challenges" if shared else None)
        )
        self._others: list[Agent] = []
        self._suffix = "" if first is None else settings.names[0]
        self.credentials = self._make_credentials()
        self.lifecycle = Lifecycle(Rule(settings.renew_at), random.Random())
        self.renewals = self.failures = 0
        #: The CA's CRL; None unless `check_revocations` was called.
        self.revocations: Revocations | None = None
        #: Called whenever a new CRL revokes additional certificates.
        self.on_revocation: Callable[[], None] = lambda: None
        self._client: AcmeClient | None = None
        self._lock = asyncio.Lock()
        self._wakeup = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        metrics = telemetry.metrics
        if first is None:
            self._counter = metrics.counter("firstbyte_renewals_total", "Renewal attempts by result", "result")
            self._end = metrics.gauge(
                "firstbyte_certificate_not_after_seconds",
                "End of the certificate in use, in seconds since the epoch",
                "name",
                across="min",
            )
            self._trust = metrics.gauge(
                "firstbyte_trust_bundle_version", "Version of the trusted roots in use", across="min"
            )
        else:
            self._trust = first._trust  # noqa: SLF001 - a private attribute of another instance of this class
            self._counter, self._end = first._counter, first._end  # noqa: SLF001 - private attributes of another instance of this class
        metrics.before_render(self._refresh)
        telemetry.health.before_report(self.check_health)
        telemetry.clock.on_step(self.wake)
        at = f"/{self._suffix}" if self._suffix else ""
        telemetry.route("POST", f"/admin/renew{at}", self._renew_now)
        telemetry.route("GET", f"/admin/certificate{at}", lambda _: self.describe())
        telemetry.route("POST", f"/admin/trust{at}", self._follow_trust)
        telemetry.route("GET", f"/admin/schedule{at}", lambda _: self._show_schedule())
        telemetry.route("PUT", f"/admin/schedule{at}", self._set_schedule)
        telemetry.route("DELETE", f"/admin/schedule{at}", self._reset_schedule)

    def _make_credentials(self) -> Credentials:
        settings = self.settings
        return Credentials(settings.tls_dir / "pair.pem", settings.trust, as_client=settings.as_client)

    def additional(self, name: str, key: str) -> Self:
        """Create an agent for an additional certificate, which is presented to clients whose SNI is *name*.

        Args:
            name: DNS name of the certificate.
            key: key type, one of `renewal.material.KEYS`.
        """
        settings = replace(self.settings, tls_dir=self.settings.tls_dir / name, names=(name,), key=key)
        settings.tls_dir.mkdir(mode=0o700, exist_ok=True)
        other = type(self)(settings, self.telemetry, self.stub, first=self)
        self._others.append(other)
        self.credentials.add(other.credentials)
        return other

    # --- obtaining and renewing ---------------------------------------------------------------------------------------

    async def enrol(self) -> bool:
        """Report the missing certificate as a failing health check, and `obtain` a certificate.

        Returns:
            False if the service is stopped before it has a certificate.
        """
        self.telemetry.health.set(self._check("certificate"), ok=False, detail="none yet")
        first = asyncio.ensure_future(self.obtain())
        stop = asyncio.ensure_future(self.telemetry.until_stopped())
        await asyncio.wait({first, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not first.done():
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            return False
        first.result()
        return True

    async def obtain(self) -> None:
        """Load the certificate from disk or obtain a new one; retry until this succeeds or the task is cancelled."""
        if self._load():
            return
        while not self.renews:
            await asyncio.sleep(FOLLOW)  # poll until another process has obtained the certificate
            if self._load():
                return
        while not self.credentials.ready:
            try:
                await self.renew()
            except Exception as error:  # already logged by `renew`; keep trying
                self.telemetry.health.set(self._check("certificate"), ok=False, detail=f"none yet: {error}")
                await asyncio.sleep(self.lifecycle.first_attempt_delay(_retry_after(error)))  # wait to retry

    def _load(self) -> bool:
        """Use the certificate on disk and schedule its renewal; return False if it is missing or invalid."""
        try:
            issued = self.credentials.load(self.settings.names, self.telemetry.clock.time())
        except PairError as error:
            logger.debug("no_certificate", reason=str(error))
            self.lifecycle.last_error = str(error)
            return False
        self.lifecycle.last_error = ""
        self.lifecycle.loaded(_validity(self.credentials.pair, issued))
        self.check_health()
        return True

    async def renew(self, *, deliberate: bool = False) -> str:
        """Obtain a new key and certificate and use them; return the certificate's serial number.

        Args:
            deliberate: whether an operator requested the renewal; then an earlier notAfter raises no alarm.

        Raises:
            RenewalError, OSError: the renewal failed; the old certificate stays in use.
        """
        async with self._lock:
            try:
                return await self._renew(deliberate=deliberate)
            except Exception as error:  # count every failure; the old certificate stays in use
                self._failed(error)
                raise
            finally:
                self.wake()

    async def _renew(self, *, deliberate: bool) -> str:
        client = self._acme_client()
        key = await asyncio.to_thread(new_key, self.settings.key)  # generating an RSA key must not block the event loop
        old = self.credentials.pair.leaf if self.credentials.ready else None
        put, dns = self.challenges.put, self._dns01()
        chain = await client.obtain(self.settings.names, key, put, dns, replaces=old)
        now = self.telemetry.clock.time()
        pair = self._take(new_pair_pem(key, chain), now)
        self.renewals += 1
        self._counter.inc(result="ok")
        used = self.credentials.pair
        self.lifecycle.succeeded(_validity(used, now), ahead=self._ahead(used), deliberate=deliberate)
        self.check_health()
        logger.info("certificate_in_use", serial=pair.serial, names=list(pair.names), not_after=pair.not_after)
        return pair.serial

    def _dns01(self) -> Dns01 | None:
        """Return a dns-01 responder that uses the current TSIG key; None if the settings select http-01."""
        if self.settings.dns01 is None:
            return None
        server, file = self.settings.dns01
        return Dns01(server, load_key(file), self.stub)

    def _take(self, pem: bytes, now: float) -> Pair:
        """Put a new key and chain into use."""
        return self.credentials.replace(pem, self.settings.names, now)

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        self._counter.inc(result="failed")
        text = str(error) or type(error).__name__
        pause = self.lifecycle.failed(self.telemetry.clock.time(), text, _retry_after(error))
        logger.warning("renewal_failed", error=text, failures=self.lifecycle.failures, retry_s=round(pause, 2))
        self.check_health()

    def _acme_client(self) -> AcmeClient:
        """Return the ACME client, updated to verify the CA with the current trusted roots."""
        trust = ssl.create_default_context(cafile=self.settings.trust)
        if self._client is None:
            key = account_key(self.settings.tls_dir / "account.pem")
            self._client = AcmeClient(self.settings.directory, key, trust, self.stub)
        self._client.trust = trust
        return self._client

    # --- the tasks that run with the service --------------------------------------------------------------------------

    def start(self) -> None:
        """Start the task that renews by schedule and polls the CA's renewal information."""
        self._begin(self._run() if self.renews else self._follow_file())
        if self.revocations is not None:
            self._begin(self._follow_revocations(self.revocations))

    async def stop(self) -> None:
        """Cancel the tasks started by `start`."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def wake(self) -> None:
        """Make the agent re-evaluate its next step, for example after a change of the clock or the schedule."""
        self._wakeup.set()

    async def until_woken(self, seconds: float | None) -> None:
        """Wait for a call of `wake`, for at most *seconds* (None: no limit)."""
        self._wakeup.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wakeup.wait()

    async def _run(self) -> None:
        clock, lifecycle = self.telemetry.clock, self.lifecycle
        offset = clock.time() - clock.monotonic()
        while True:
            stepped = clock.time() - clock.monotonic() - offset
            if abs(stepped) > STEP:
                lifecycle.clock_stepped(stepped)
                offset += stepped
            now = clock.time()
            step = lifecycle.next(now)
            if step.at > now:
                await self.until_woken(min(step.at - now, MAX_SLEEP))
                self.credentials.follow_trust()
                if self.credentials.unsaved:
                    self.credentials.save()
            elif step.action == "renew":
                await self._renew_by_schedule()
            else:
                lifecycle.polling()
                self._begin(self._poll())  # in a separate task: a slow poll must not delay a renewal

    def check_revocations(self) -> Revocations:
        """Enable fetching of the CA's CRL after `start`; return the CRL, which is empty at first.

        If the CRL contains the agent's own certificate, the agent renews it immediately.
        """
        if self.revocations is None:
            self.revocations = Revocations()
        return self.revocations

    async def _follow_revocations(self, revocations: Revocations) -> None:
        """Fetch the CRL periodically; the health check ``revocation`` fails long before the CRL expires."""
        source, checks = ListSource(self.stub), self.telemetry.health
        while True:
            failure = ""
            try:
                leaf, issuer, *_ = x509.load_pem_x509_certificates(self.credentials.pair.pem)
                der = await self._fetch_list(source, leaf)
                if der is not None:
                    more = revocations.take(der, issuer, self.telemetry.clock.time())
                    logger.info("revocations", number=revocations.number, entries=len(revocations))
                    if more:
                        self.on_revocation()
                if leaf.serial_number in revocations and self.lifecycle.informed(AT_ONCE, self.credentials.serial):
                    logger.warning("own_certificate_revoked", serial=self.credentials.serial)
                    self.wake()
            except NoListError as error:
                checks.set("revocation", ok=True, detail=f"not checked: {error}")
                await asyncio.sleep(self._list_interval())  # the next certificate may contain a CRL URL
                continue
            except (RenewalError, *UNREADABLE) as error:
                source.forget()
                failure = str(error)
                logger.warning("revocations_not_current", error=failure)
            revocations.error = failure
            now = self.telemetry.clock.time()
            left = revocations.next_update - now
            detail = f"{left:.0f} s to nextUpdate of list {revocations.number}" if revocations.number else "no list yet"
            checks.set("revocation", revocations.current(now), f"{detail}; {failure}" if failure else detail)
            await asyncio.sleep(self._list_interval())  # wait until the next request

    def _list_interval(self) -> float:
        """Return the time between two requests for the CRL, in seconds."""
        return revocation.INTERVAL

    async def _fetch_list(self, source: ListSource, leaf: x509.Certificate) -> bytes | None:
        return await source.fetch(leaf)

    async def _renew_by_schedule(self) -> None:
        with contextlib.suppress(Exception):  # `renew` counts, logs and reschedules failures
            await self.renew()

    async def _poll(self) -> None:
        """Poll the CA's renewal information (RFC 9773 section 4.3)."""
        after: float | None = None
        try:
            pair = self.credentials.pair
            info = await self._acme_client().renewal_info(pair.leaf)
        except Exception as error:  # an error here must not affect scheduled renewals
            logger.debug("no_renewal_info", error=str(error))
            after = _retry_after(error)
        else:
            if info is not None:
                after = info.retry_after
                if self.lifecycle.informed(info, pair.serial, self._ahead(pair)):
                    logger.info("renewal_moved", at=self.lifecycle.due, start=info.start, end=info.end)
        self.lifecycle.polled(self.telemetry.clock.time(), after)
        self.wake()

    async def _follow_file(self) -> None:
        """Load each new certificate that another process of the service writes to disk."""
        seen = self.credentials.stamp()
        while True:
            await asyncio.sleep(FOLLOW)  # polls: no event signals a change of the file
            self.credentials.follow_trust()
            if (stamp := self.credentials.stamp()) != seen:
                seen = stamp
                if self._load():
                    logger.info("certificate_in_use", serial=self.credentials.serial)
                else:
                    logger.warning("certificate_refused", error=self.lifecycle.last_error)

    def _begin(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- health and admin ---------------------------------------------------------------------------------------------

    def skew(self) -> float | None:
        """Return how far the local clock is ahead of the CA's, in seconds; None before the CA's first response."""
        if self._client is None or self._client.ca_time is None:
            return None
        said, heard = self._client.ca_time
        return self.telemetry.clock.time() - (said + self.telemetry.clock.monotonic() - heard)

    def _ahead(self, pair: Pair) -> float:
        """Return the clock skew in seconds; 0 if it is unknown or within the tolerance."""
        skew = self.skew() or 0.0
        return skew if abs(skew) > tolerated_skew(pair.not_after - pair.not_before) else 0.0

    def check_health(self) -> None:
        """Record the health checks of the certificate, if there is one."""
        held = self.lifecycle.held
        if held is None or not self.credentials.ready:
            return
        condition = health.Condition(held, self.lifecycle, self.skew(), self.credentials.unsaved)
        for finding in health.judge(condition, self.telemetry.clock.time()):
            self.telemetry.health.set(self._check(finding.check), finding.ok, finding.detail)

    def _check(self, name: str) -> str:
        """Return the name of a health check; additional agents append a suffix to *name*."""
        return f"{name} {self._suffix}".rstrip()

    def _refresh(self) -> None:
        if self.credentials.ready:
            self._end.set(self.credentials.not_after, name=self.settings.names[0])
            self._trust.set(self.credentials.trust_version)

    async def _renew_now(self, _: Request) -> dict[str, Any]:
        try:
            serial = await self.renew(deliberate=True)
        except Exception as error:  # report every error in the admin response
            raise AdminError(502, str(error) or type(error).__name__) from None
        return {"serial": serial}

    def _follow_trust(self, _: Request) -> dict[str, int]:
        """Reload the trusted roots if their file has changed; return the version of the trust bundle in use."""
        self.credentials.follow_trust()
        return {"trust_bundle": self.credentials.trust_version}

    def _show_schedule(self) -> dict[str, Any]:
        """Return the body of ``GET /admin/schedule``."""
        state = self.lifecycle
        rule = state.rule
        return {
            "scale": rule.scale,
            "renew_at": rule.renew_at,
            "due": state.due,
            "next_renewal": state.next_renewal,
        }

    def _set_schedule(self, request: Request) -> dict[str, Any]:
        """Change the renewal rule and reschedule the renewal (``PUT /admin/schedule``)."""
        try:
            rule, seed = self.lifecycle.rule.changed(request.json())
        except ValueError as error:
            raise AdminError(400, str(error)) from None
        self.telemetry.altered["renewal schedule"] = str(rule)
        logger.warning("schedule_changed", scale=rule.scale, renew_at=rule.renew_at)
        return self._change(rule, None if seed is None else random.Random(seed))

    def _reset_schedule(self, _: Request) -> dict[str, Any]:
        """Restore the rule from the settings and reschedule the renewal (``DELETE /admin/schedule``)."""
        self.telemetry.altered.pop("renewal schedule", None)
        return self._change(Rule(self.settings.renew_at), random.Random())

    def _change(self, rule: Rule, rng: random.Random | None) -> dict[str, Any]:
        self.lifecycle.change(rule, rng)
        self.wake()
        return self._show_schedule()

    def _alarms(self) -> list[str]:
        """Return this certificate's failing health checks, as ``name: detail``."""
        checks = self.telemetry.health.as_dict()["checks"]
        named = ((name, checks.get(self._check(name), {})) for name in (*health.CHECKS, "revocation"))
        return [f"{name}: {check['detail']}" for name, check in named if not check.get("ok", True)]

    def describe(self) -> dict[str, Any]:
        """Return the body of ``GET /admin/certificate``."""
        now, state = self.telemetry.clock.time(), self.lifecycle
        body: dict[str, Any] = {
            "names": self.settings.names,
            "renewals": self.renewals,
            "failures": self.failures,
            "due": state.due,
            "next_renewal": state.next_renewal,
            "last_error": state.last_error,
            "alarms": self._alarms(),
            "key": self.settings.key,
            "trust_bundle": self.credentials.trust_version,
            "additional": [each.settings.names[0] for each in self._others],
        }
        if (skew := self.skew()) is not None:
            body["skew_s"] = round(skew, 2)
        if (crl := self.revocations) is not None:
            body["crl"] = {
                "number": crl.number,
                "entries": len(crl),
                "this_update": crl.this_update,
                "next_update": crl.next_update,
                "error": crl.error,
            }
        if self.credentials.ready and state.held is not None:
            pair = self.credentials.pair
            body |= {
                "serial": pair.serial,
                "issuer": pair.issuer,
                "not_before": pair.not_before,
                "not_after": pair.not_after,
                "issued": state.held.issued,
                "seconds_left": round(pair.not_after - now, 1),
            }
        return body


def _validity(pair: Pair, issued: float) -> Validity:
    return Validity(pair.serial, issued, pair.not_before, pair.not_after)


def _retry_after(error: Exception) -> float | None:
    return error.retry_after if isinstance(error, AcmeError) else None
