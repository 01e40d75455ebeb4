"""The shell: gets a certificate at start, renews it by schedule, shows and takes orders on the admin port."""

import argparse
import asyncio
import random
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from renewal.client import AcmeClient, AcmeError
from renewal.credentials import Credentials, PairError, new_pair_pem
from renewal.files import write_secret
from renewal.schedule import renewal_time, retry_delay
from stub import AsyncStub
from telemetry import AdminError, Request, Telemetry, log

logger = log.get("renewal")

#: Seconds between looks at the clock; short lives are seconds long, and a drill may move the clock at any time.
TICK = 0.1
#: Share of life that must be left while renewals fail; below it health fails: somebody must look.
ALARM_BELOW = 1 / 3


@dataclass(frozen=True, slots=True)
class Settings:
    """What a service needs to know to have a certificate."""

    #: URL of the ACME directory.
    directory: str
    #: Folder of ``account.pem`` and ``pair.pem``.
    tls_dir: Path
    #: Root certificate, PEM.
    trust: Path
    names: tuple[str, ...]
    #: Share of life at which to renew; None follows the lifetime (RFC 9773's advice).
    renew_at: float | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a service that renews."""
    group = parser.add_argument_group("certificate")
    group.add_argument("--acme", metavar="URL", help="ACME directory, for example https://ca.example.com/directory")
    group.add_argument("--tls-dir", type=Path, metavar="DIR", help="keeps the account key, the key and the chain")
    group.add_argument("--trust", type=Path, metavar="FILE", help="root certificate (PEM)")
    group.add_argument("--cert-name", action="append", default=[], metavar="NAME", help="may be repeated")
    group.add_argument(
        "--renew-at", type=_fraction, metavar="SHARE", help="of life, 0.1 to 0.9 (default 1/2, or 2/3 from 10 days on)"
    )


def from_args(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Settings:
    """Return the settings that *args* hold; a missing one is a usage error."""
    wanted = {"--acme": args.acme, "--tls-dir": args.tls_dir, "--trust": args.trust, "--cert-name": args.cert_name}
    if missing := [flag for flag, value in wanted.items() if not value]:
        parser.error(f"expected {', '.join(missing)}")
    return Settings(args.acme, args.tls_dir, args.trust, tuple(args.cert_name), args.renew_at)


class Challenges:
    """Key authorizations by token, while the CA looks (RFC 8555 section 8.3)."""

    def __init__(self) -> None:
        self._answers: dict[str, str] = {}

    def put(self, token: str, answer: str | None) -> None:
        """Answer *token* from now on, or (None) no more."""
        if answer is None:
            self._answers.pop(token, None)
        else:
            self._answers[token] = answer

    def answer(self, token: str) -> str | None:
        """Return what to answer on ``/.well-known/acme-challenge/<token>``; None is 404."""
        return self._answers.get(token)


class Agent:
    """Keeps one certificate fresh."""

    def __init__(self, settings: Settings, telemetry: Telemetry, stub: AsyncStub | None = None) -> None:
        """Make one; `obtain`, then `start`."""
        self.settings, self.telemetry = settings, telemetry
        self.stub = stub if stub is not None else AsyncStub(clock=telemetry.clock)
        self.challenges = Challenges()
        self.credentials = Credentials(settings.tls_dir / "pair.pem", settings.trust)
        self.renewals = self.failures = 0
        self.last_error = ""
        self._failed_in_a_row = 0
        self._issued = self._next = 0.0
        self._rng = random.Random()
        self._client: AcmeClient | None = None
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        metrics = telemetry.metrics
        self._counter = metrics.counter("firstbyte_renewals_total", "Certificates asked for, by result", "result")
        end = metrics.gauge("firstbyte_certificate_not_after_seconds", "End of the certificate in use, epoch", "name")

        def refresh() -> None:
            if self.credentials.ready:
                end.set(self.credentials.not_after, name=settings.names[0])
                self._check_health()

        metrics.before_render(refresh)
        telemetry.faults.declare("renewal_off", "Do not renew")
        telemetry.faults.declare("naive_reload", "Reload as a restart does: cut every connection")
        telemetry.route("POST", "/admin/renew", self._renew_now)
        telemetry.route("GET", "/admin/certificate", lambda _: self.describe())

    async def obtain(self) -> None:
        """Use the pair on disk, or get one; try until it works or the task is cancelled."""
        now = self.telemetry.clock.time()
        try:
            self._issued = self.credentials.load(self.settings.names, now)
        except PairError as error:
            logger.info("no_certificate_yet", reason=str(error))
        else:
            self._schedule()
            self._check_health()
            return
        while True:
            try:
                await self.renew()
            except (AcmeError, PairError, OSError) as error:
                pause = min(2.0, 0.25 * 2**self._failed_in_a_row)
                self.telemetry.health.set("certificate", ok=False, detail=f"none yet: {error}")
                await asyncio.sleep(pause)
            else:
                return

    def start(self) -> None:
        """Renew by schedule from now on."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Renew no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def renew(self) -> str:
        """Get a new key and certificate and use them; return the serial.

        Raises:
            AcmeError, PairError, OSError: it did not work; what was in use stays in use.
        """
        async with self._lock:
            try:
                serial = await self._renew()
            except (AcmeError, PairError, OSError) as error:
                self._failed(error)
                raise
        return serial

    async def _renew(self) -> str:
        client = self._acme_client()
        key = ec.generate_private_key(ec.SECP256R1())
        chain = await client.obtain(self.settings.names, key, self.challenges.put)
        now = self.telemetry.clock.time()
        naive = self.telemetry.faults.any_on and self.telemetry.faults.hit("naive_reload")
        pair = self.credentials.replace(new_pair_pem(key, chain), self.settings.names, now, naive=naive)
        self._issued = now
        self.renewals += 1
        self._failed_in_a_row, self.last_error = 0, ""
        self._counter.inc(result="ok")
        self._schedule()
        self._check_health()
        logger.info("certificate_in_use", serial=pair.serial, names=list(pair.names), not_after=pair.not_after)
        return pair.serial

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        self._failed_in_a_row += 1
        self.last_error = str(error)
        self._counter.inc(result="failed")
        lifetime = self.credentials.not_after - self._issued if self.credentials.ready else 60.0
        pause = retry_delay(self._failed_in_a_row, lifetime, self._rng)
        if isinstance(error, AcmeError) and error.retry_after is not None:
            pause = max(pause, error.retry_after)
        self._next = self.telemetry.clock.time() + pause
        logger.warning("renewal_failed", error=str(error), failures=self._failed_in_a_row, retry_s=round(pause, 2))
        self._check_health()

    def _schedule(self) -> None:
        self._next = renewal_time(self._issued, self.credentials.not_after, self._rng, self.settings.renew_at)

    def _check_health(self) -> None:
        if not self.credentials.ready:
            return
        now, end = self.telemetry.clock.time(), self.credentials.not_after
        left, life = end - now, end - self._issued
        if left <= 0:
            self.telemetry.health.set(
                "certificate", ok=False, detail=f"expired {-left:.0f} s ago; {self.last_error or 'not renewed'}"
            )
        elif left < ALARM_BELOW * life:
            detail = f"{left:.0f} s of {life:.0f} s left and not renewed; {self.last_error or 'renewal is off'}"
            self.telemetry.health.set("certificate", ok=False, detail=detail)
        else:
            self.telemetry.health.set("certificate", ok=True, detail=f"{left:.0f} s left")

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self._check_health()
            faults = self.telemetry.faults
            if self.telemetry.clock.time() < self._next or (faults.any_on and faults.get("renewal_off") is not None):
                continue
            try:
                await self.renew()
            except (AcmeError, PairError, OSError):
                continue  # counted, logged and scheduled again

    def _acme_client(self) -> AcmeClient:
        if self._client is None:
            trust = ssl.create_default_context(cafile=self.settings.trust)
            self._client = AcmeClient(self.settings.directory, self._account_key(), trust, self.stub)
        return self._client

    def _account_key(self) -> ec.EllipticCurvePrivateKey:
        path = self.settings.tls_dir / "account.pem"
        try:
            key = load_pem_private_key(path.read_bytes(), None)
        except FileNotFoundError:
            key = None
        except ValueError as error:
            logger.warning("account_key_unreadable", path=str(path), error=str(error))
            key = None
        if isinstance(key, ec.EllipticCurvePrivateKey):
            return key
        fresh = ec.generate_private_key(ec.SECP256R1())
        write_secret(path, fresh.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return fresh

    # --- admin ------------------------------------------------------------------------------------------------------

    async def _renew_now(self, _: Request) -> dict[str, Any]:
        try:
            serial = await self.renew()
        except (AcmeError, PairError, OSError) as error:
            raise AdminError(502, str(error)) from None
        return {"serial": serial}

    def describe(self) -> dict[str, Any]:
        """Return the body of ``GET /admin/certificate``."""
        now, credentials = self.telemetry.clock.time(), self.credentials
        body: dict[str, Any] = {
            "names": self.settings.names,
            "renewals": self.renewals,
            "failures": self.failures,
            "next_renewal": self._next,
            "last_error": self.last_error,
        }
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


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 0.9:
        raise argparse.ArgumentTypeError(f"expected 0.1 to 0.9, got {text!r}")
    return value
