"""The renewal agent of a service, which obtains and renews a certificate, and serves admin requests about it."""

import asyncio
import contextlib
import random
import ssl
from dataclasses import replace
from typing import Any

from renewal import faults, health
from renewal.account import account_key
from renewal.challenges import Challenges
from renewal.client import AcmeClient, AcmeError, RenewalInfo
from renewal.credentials import Credentials, Reload
from renewal.material import Pair, PairError, new_key, new_pair_pem
from renewal.schedule import MAX_RETRY_AFTER, MIN_GAP, MIN_RETRY, Rule, renewal_time, retry_delay
from renewal.settings import Settings
from stub import AsyncStub
from telemetry import AdminError, Request, Telemetry, log

logger = log.get("renewal")

#: Interval at which the agent checks whether a renewal is due, in seconds.  It is short because drills use lifetimes of
#: a few seconds and change the clock at any time.
TICK = 0.1
#: Interval at which a process that does not renew itself looks for a new certificate on disk, in seconds.
FOLLOW = 0.5
#: Interval between polls of the CA's renewal information if it does not send Retry-After, in seconds (RFC 9773 section
#: 4.3.3: 6 h).
ASK_AGAIN = 6 * 3600.0


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
                the challenges, counters and faults of the first; their health checks and admin paths end with their
                name.
            shared: whether several processes of the service use the same folder; all but one set `renews` to False.
        """
        #: Whether this process orders certificates; otherwise it uses those that another process writes to the folder.
        self.renews: bool = True if first is None else first.renews
        self.settings, self.telemetry = settings, telemetry
        self.stub = stub if stub is not None else AsyncStub(clock=telemetry.clock)
        self.challenges: Challenges = (
            first.challenges if first is not None else Challenges(settings.tls_dir / "challenges" if shared else None)
        )
        self._others: list[Agent] = []
        self._suffix = "" if first is None else settings.names[0]
        self.credentials = Credentials(
            settings.tls_dir / "pair.pem",
            settings.trust,
            naive=lambda: telemetry.faults.get("naive_reload") is not None,
            padding=lambda name: faults.padding(telemetry.faults, name),
        )
        self.renewals = self.failures = 0
        self.last_error = ""
        self._rule = Rule(settings.renew_at)
        self._failed_in_a_row = 0
        #: Times of issuance, of the scheduled renewal, and of the next attempt, in seconds since the epoch.
        self._issued = self._due = self._next = 0.0
        self._rng = random.Random()
        #: The last renewal window from the CA that was processed: serial number, start and end.
        self._suggested: tuple[str, float, float] | None = None
        self._client: AcmeClient | None = None
        self._lock = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        if first is None:
            metrics = telemetry.metrics
            self._counter = metrics.counter("firstbyte_renewals_total", "Certificates asked for, by result", "result")
            self._end = metrics.gauge(
                "firstbyte_certificate_not_after_seconds", "End of the certificate in use, epoch", "name", across="min"
            )
            faults.declare(telemetry.faults)
        else:
            self._counter, self._end = first._counter, first._end  # noqa: SLF001 - same class
        telemetry.metrics.before_render(self._refresh)
        at = f"/{self._suffix}" if self._suffix else ""
        telemetry.route("POST", f"/admin/renew{at}", self._renew_now)
        telemetry.route("GET", f"/admin/certificate{at}", lambda _: self.describe())
        telemetry.route("GET", f"/admin/schedule{at}", lambda _: self._show_schedule())
        telemetry.route("PUT", f"/admin/schedule{at}", self._set_schedule)
        telemetry.route("DELETE", f"/admin/schedule{at}", self._reset_schedule)

    def additional(self, name: str, key: str) -> "Agent":
        """Create an agent for an additional certificate, which is presented to clients whose SNI is *name*.

        Args:
            name: DNS name of the certificate.
            key: key type, one of `renewal.material.KEYS`.
        """
        settings = replace(self.settings, tls_dir=self.settings.tls_dir / name, names=(name,), key=key)
        settings.tls_dir.mkdir(mode=0o700, exist_ok=True)
        other = Agent(settings, self.telemetry, self.stub, first=self)
        self._others.append(other)
        self.credentials.add(other.credentials)
        return other

    def _refresh(self) -> None:
        if self.credentials.ready:
            self._end.set(self.credentials.not_after, name=self.settings.names[0])
            self._check_health()

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
            await asyncio.sleep(TICK)  # until another process has obtained the certificate
            if self._load():
                return
        while True:
            try:
                await self.renew()
            except Exception as error:  # already logged by `renew`; keep trying
                pause = min(2.0, 0.25 * 2**self._failed_in_a_row)
                if isinstance(error, AcmeError) and error.retry_after is not None:
                    pause = max(pause, min(error.retry_after, MAX_RETRY_AFTER))
                self.telemetry.health.set(self._check("certificate"), ok=False, detail=f"none yet: {error}")
                await asyncio.sleep(pause)  # until the next attempt
            else:
                return

    def _load(self) -> bool:
        """Use the certificate on disk and schedule its renewal; return False if it is missing or invalid."""
        try:
            self._issued = self.credentials.load(self.settings.names, self.telemetry.clock.time())
        except PairError as error:
            logger.debug("no_certificate", reason=str(error))
            self.last_error = str(error)
            return False
        self.last_error = ""
        self._schedule()
        self._check_health()
        return True

    async def _follow_file(self) -> None:
        """Use each new certificate that another process of the service writes."""
        seen = self.credentials.stamp()
        while True:
            await asyncio.sleep(FOLLOW)  # until the next look at the file
            self._check_health()
            if (stamp := self.credentials.stamp()) != seen:
                seen = stamp
                if self._load():
                    logger.info("certificate_in_use", serial=self.credentials.serial)
                else:
                    logger.warning("certificate_refused", error=self.last_error)

    def start(self) -> None:
        """Start the tasks that renew by schedule and poll the CA's renewal information."""
        if not self.renews:
            self._tasks = [asyncio.create_task(self._follow_file())]
            return
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._poll_renewal_info())]

    async def stop(self) -> None:
        """Cancel the tasks started by `start`."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def renew(self) -> str:
        """Obtain a new key and certificate and use them; return the certificate's serial number.

        Raises:
            AcmeError, PairError, OSError: the renewal failed; the old certificate stays in use.
        """
        async with self._lock:
            try:
                serial = await self._renew()
            except Exception as error:  # count every failure; the old certificate stays in use
                self._failed(error)
                raise
        return serial

    async def _renew(self) -> str:
        client = self._acme_client()
        key = await asyncio.to_thread(new_key, self.settings.key)  # generating an RSA key must not block the event loop
        chain = await client.obtain(self.settings.names, key, self.challenges.put)
        now = self.telemetry.clock.time()
        pair = self._take(new_pair_pem(key, chain), now)
        self._issued = now
        self.renewals += 1
        self._failed_in_a_row, self.last_error = 0, ""
        self._counter.inc(result="ok")
        self._schedule()
        # If the local clock is ahead, a new certificate looks old.  A minimum interval prevents a renewal loop.
        self._next = max(self._next, now + MIN_GAP * (pair.not_after - pair.not_before))
        self._check_health()
        logger.info("certificate_in_use", serial=pair.serial, names=list(pair.names), not_after=pair.not_after)
        return pair.serial

    def _take(self, pem: bytes, now: float) -> Pair:
        """Put a new key and chain into use, after applying the faults ``broken_material`` and ``naive_reload``."""
        switches, names = self.telemetry.faults, self.settings.names
        pem = faults.material(switches, pem)
        if not (switches.any_on and switches.hit("naive_reload")):
            return self.credentials.replace(pem, names, now)
        naive = switches.get("naive_reload") or {}
        if naive["how"] == "live":
            return self.credentials.replace_naively(pem, names, now)
        return self.credentials.replace(pem, names, now, Reload(restart=True, down_s=float(naive["down_ms"]) / 1000))

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        self._failed_in_a_row += 1
        self.last_error = str(error) or type(error).__name__
        self._counter.inc(result="failed")
        lifetime = self.credentials.not_after - self._issued if self.credentials.ready else 60.0
        pause = retry_delay(self._failed_in_a_row, max(lifetime, 0.0), self._rng)
        if isinstance(error, AcmeError) and error.retry_after is not None:
            pause = max(pause, min(error.retry_after, MAX_RETRY_AFTER))
        if self.telemetry.faults.any_on and self.telemetry.faults.hit("eager_retry"):
            pause = 0.0
        self._next = self.telemetry.clock.time() + pause
        logger.warning("renewal_failed", error=self.last_error, failures=self._failed_in_a_row, retry_s=round(pause, 2))
        self._check_health()

    def _schedule(self) -> None:
        end = self.credentials.not_after
        self._due = self._next = renewal_time(self._issued, end, self._rng, self._rule.renew_at, self._rule.scale)

    def skew(self) -> float | None:
        """Return how far the local clock is ahead of the CA's, in seconds; None before the CA's first response."""
        if self._client is None or self._client.ca_time is None:
            return None
        said, heard = self._client.ca_time
        return self.telemetry.clock.time() - (said + asyncio.get_running_loop().time() - heard)

    def _check(self, name: str) -> str:
        """Return the health check's name, with this agent's suffix if it is an additional agent."""
        return f"{name} {self._suffix}".rstrip()

    def _check_health(self) -> None:
        if not self.credentials.ready:
            return
        if self.telemetry.faults.any_on and self.telemetry.faults.get("alarm_off") is not None:
            self.telemetry.faults.hit("alarm_off")
            for check in health.CHECKS:
                self.telemetry.health.set(self._check(check), ok=True, detail="the fault alarm_off is on")
            return
        condition = health.Condition(
            self._issued,
            self.credentials.not_before,
            self.credentials.not_after,
            self._due,
            self._failed_in_a_row,
            self.last_error,
            self.skew(),
        )
        for finding in health.judge(condition, self.telemetry.clock.time()):
            self.telemetry.health.set(self._check(finding.check), finding.ok, finding.detail)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(TICK)  # until the next check
            self._check_health()
            if self.telemetry.clock.time() < self._next:
                continue
            if self.telemetry.faults.any_on and self.telemetry.faults.get("renewal_off") is not None:
                if self._next == self._due:  # count each skipped renewal only once
                    self.telemetry.faults.hit("renewal_off")
                    self._next = self._due + TICK
                continue
            with contextlib.suppress(Exception):  # `renew` counts, logs and reschedules failures
                await self.renew()

    async def _poll_renewal_info(self) -> None:
        """Poll the CA's renewal information at the interval that the CA requests (RFC 9773 section 4.3).

        This runs in a separate task, so that errors in it do not affect scheduled renewals.
        """
        while True:
            pause = ASK_AGAIN
            try:
                pair = self.credentials.pair
                info = await self._acme_client().renewal_info(pair.leaf)
            except Exception as error:  # an error here must not stop the polling
                logger.debug("no_renewal_information", error=str(error))
            else:
                if info is not None:
                    self.follow(info, pair.serial)
                    pause = min(max(info.retry_after or ASK_AGAIN, MIN_RETRY), MAX_RETRY_AFTER)
            await asyncio.sleep(pause)  # until the next poll

    def follow(self, info: RenewalInfo, serial: str) -> None:
        """Schedule the renewal at a random time in the CA's suggested window, if that is before the scheduled time.

        A window in the past means an immediate renewal, for example of a revoked certificate.  A later window is
        ignored to keep the safety margin of the agent's own rule; so is a suggestion for a certificate that is no
        longer in use.
        """
        if serial != self.credentials.serial:
            return  # replaced during the poll; the old window would renew the new certificate at once
        if self._suggested == (self.credentials.serial, info.start, info.end):
            return  # already processed; drawing again and again would converge on the start of the window
        self._suggested = (self.credentials.serial, info.start, info.end)
        at = self._rng.uniform(info.start, info.end)
        if at < self._next and not self._failed_in_a_row:
            self._due = self._next = at
            logger.info("renewal_suggested", at=at, start=info.start, end=info.end)

    def _acme_client(self) -> AcmeClient:
        if self._client is None:
            trust = ssl.create_default_context(cafile=self.settings.trust)
            self._client = AcmeClient(
                self.settings.directory, account_key(self.settings.tls_dir / "account.pem"), trust, self.stub
            )
        return self._client

    # --- admin ------------------------------------------------------------------------------------------------------

    async def _renew_now(self, _: Request) -> dict[str, Any]:
        try:
            serial = await self.renew()
        except Exception as error:  # report every error in the admin response
            raise AdminError(502, str(error) or type(error).__name__) from None
        return {"serial": serial}

    def _show_schedule(self) -> dict[str, Any]:
        """Return the body of ``GET /admin/schedule``."""
        rule = self._rule
        return {"scale": rule.scale, "renew_at": rule.renew_at, "due": self._due, "next_renewal": self._next}

    def _set_schedule(self, request: Request) -> dict[str, Any]:
        """Change the renewal rule and reschedule the renewal (``PUT /admin/schedule``)."""
        try:
            rule, seed = self._rule.changed(request.json())
        except ValueError as error:
            raise AdminError(400, str(error)) from None
        if seed is not None:
            self._rng = random.Random(seed)
        self.telemetry.altered["renewal schedule"] = str(rule)
        logger.warning("schedule_changed", scale=rule.scale, renew_at=rule.renew_at)
        return self._follow(rule)

    def _reset_schedule(self, _: Request) -> dict[str, Any]:
        """Restore the rule from the settings and reschedule the renewal (``DELETE /admin/schedule``)."""
        self._rng = random.Random()
        self.telemetry.altered.pop("renewal schedule", None)
        return self._follow(Rule(self.settings.renew_at))

    def _follow(self, rule: Rule) -> dict[str, Any]:
        self._rule = rule
        if self.credentials.ready:
            self._schedule()
        return self._show_schedule()

    def _alarms(self) -> list[str]:
        """Return this certificate's failing health checks, as ``name: detail``."""
        self._check_health()
        checks = self.telemetry.health.as_dict()["checks"]
        named = ((name, checks.get(self._check(name), {})) for name in health.CHECKS)
        return [f"{name}: {check['detail']}" for name, check in named if not check.get("ok", True)]

    def describe(self) -> dict[str, Any]:
        """Return the body of ``GET /admin/certificate``."""
        now, credentials = self.telemetry.clock.time(), self.credentials
        body: dict[str, Any] = {
            "names": self.settings.names,
            "renewals": self.renewals,
            "failures": self.failures,
            "due": self._due,
            "next_renewal": self._next,
            "last_error": self.last_error,
            "alarms": self._alarms(),
            "key": self.settings.key,
            "additional": [each.settings.names[0] for each in self._others],
        }
        if (skew := self.skew()) is not None:
            body["skew_s"] = round(skew, 2)
        if credentials.ready:
            pair = credentials.pair
            body |= {
                "serial": pair.serial,
                "issuer": pair.issuer,
                "not_before": pair.not_before,
                "not_after": pair.not_after,
                "issued": self._issued,
                "seconds_left": round(pair.not_after - now, 1),
            }
        return body
