"""The shell: gets a certificate at start, renews it by schedule, shows and takes orders on the admin port."""

import argparse
import asyncio
import contextlib
import random
import ssl
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from renewal.client import AcmeClient, AcmeError, Suggestion
from renewal.credentials import Credentials, Reload
from renewal.material import KEYS, SPOILT, Pair, PairError, new_key, new_pair_pem, spoil
from renewal.schedule import MAX_RETRY_AFTER, MIN_GAP, MIN_RETRY, overdue, renewal_time, retry_delay, tolerated_skew
from stub import AsyncStub
from telemetry import AdminError, Request, Telemetry, log
from telemetry.whole_file import write_whole

logger = log.get("renewal")

#: Seconds between looks at the clock; short lives are seconds long, and a drill may move the clock at any time.
TICK = 0.1
#: Seconds until the CA is asked again when it would like us to renew, where it does not say (RFC 9773 section 4.3.3: 6 h).
ASK_AGAIN = 6 * 3600.0
#: Octets of a fault's ballast: clients refuse a chain of 100 kB (OpenSSL's SSL_MAX_CERT_LIST_DEFAULT).
LONGEST_BALLAST = 65536
#: Failures in a row at which health says so, however much life is left: one may be a hiccup, two are a pattern.
ALARM_AFTER = 2


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
    #: Of `renewal.material.KEYS`.
    key: str = KEYS[0]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a service that renews."""
    group = parser.add_argument_group("certificate")
    group.add_argument("--acme", metavar="URL", help="ACME directory, for example https://ca.example.com/directory")
    group.add_argument("--tls-dir", type=Path, metavar="DIR", help="keeps the account key, the key and the chain")
    group.add_argument("--trust", type=Path, metavar="FILE", help="root certificate (PEM)")
    group.add_argument("--cert-name", action="append", default=[], metavar="NAME", help="may be repeated")
    group.add_argument("--cert-key", choices=KEYS, default=KEYS[0], help="kind of its key (default %(default)s)")
    group.add_argument(
        "--renew-at", type=_fraction, metavar="SHARE", help="of life, 0.1 to 0.9 (default 1/2, or 2/3 from 10 days on)"
    )


def from_args(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Settings:
    """Return the settings that *args* hold; a missing one is a usage error."""
    wanted = {"--acme": args.acme, "--tls-dir": args.tls_dir, "--trust": args.trust, "--cert-name": args.cert_name}
    if missing := [flag for flag, value in wanted.items() if not value]:
        parser.error(f"expected {', '.join(missing)}")
    return Settings(args.acme, args.tls_dir, args.trust, tuple(args.cert_name), args.renew_at, args.cert_key)


def further(text: str) -> tuple[str, str]:
    """Parse NAME=KIND: a further certificate, and the kind of its key (an argparse type)."""
    name, _, kind = text.partition("=")
    if not name or kind not in KEYS:
        raise argparse.ArgumentTypeError(f"expected NAME=KIND with a kind of {', '.join(KEYS)}; got {text!r}")
    return name.lower(), kind


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
    """Keeps one certificate fresh; `beside` makes one more for the same service."""

    def __init__(
        self, settings: Settings, telemetry: Telemetry, stub: AsyncStub | None = None, *, first: "Agent | None" = None
    ) -> None:
        """Make one; `enrol` (or `obtain`), then `start`.

        Args:
            settings: which certificate, and where it comes from.
            telemetry: clock, faults, health, counters and admin port of the service.
            stub: finds the CA.
            first: the service's first agent; ours shares its challenges, counters and faults, and its own health checks
                and admin paths end in its name.
        """
        self.settings, self.telemetry = settings, telemetry
        self.stub = stub if stub is not None else AsyncStub(clock=telemetry.clock)
        self.challenges: Challenges = Challenges() if first is None else first.challenges
        self._others: list[Agent] = []
        self._suffix = "" if first is None else settings.names[0]
        self.credentials = Credentials(
            settings.tls_dir / "pair.pem", settings.trust, naive=self._naive, overweight=self._overweight
        )
        self.renewals = self.failures = 0
        self.last_error = ""
        #: Nominal seconds in one second, and the share of life at which to renew: a drill may change both.
        self.scale, self.renew_at = 1.0, settings.renew_at
        self._failed_in_a_row = 0
        #: When the certificate came, when its renewal is due, and when it is tried next: seconds since the epoch.
        self._issued = self._due = self._next = 0.0
        self._rng = random.Random()
        #: The suggestion that was taken in: serial, window.
        self._suggested: tuple[str, float, float] | None = None
        self._client: AcmeClient | None = None
        self._lock = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        if first is None:
            metrics = telemetry.metrics
            self._counter = metrics.counter("firstbyte_renewals_total", "Certificates asked for, by result", "result")
            self._end = metrics.gauge(
                "firstbyte_certificate_not_after_seconds", "End of the certificate in use, epoch", "name"
            )
            self._declare_faults()
        else:
            self._counter, self._end = first._counter, first._end  # noqa: SLF001 - our own class
        telemetry.metrics.before_render(self._refresh)
        at = f"/{self._suffix}" if self._suffix else ""
        telemetry.route("POST", f"/admin/renew{at}", self._renew_now)
        telemetry.route("GET", f"/admin/certificate{at}", lambda _: self.describe())
        telemetry.route("GET", f"/admin/schedule{at}", lambda _: self._show_schedule())
        telemetry.route("PUT", f"/admin/schedule{at}", self._set_schedule)
        telemetry.route("DELETE", f"/admin/schedule{at}", self._reset_schedule)

    def beside(self, name: str, key: str) -> "Agent":
        """Return an agent for one more certificate of this service, which clients get who ask for *name*."""
        settings = replace(self.settings, tls_dir=self.settings.tls_dir / name, names=(name,), key=key)
        settings.tls_dir.mkdir(mode=0o700, exist_ok=True)
        other = Agent(settings, self.telemetry, self.stub, first=self)
        self._others.append(other)
        self.credentials.beside(other.credentials)
        return other

    def _refresh(self) -> None:
        if self.credentials.ready:
            self._end.set(self.credentials.not_after, name=self.settings.names[0])
            self._check_health()

    def _declare_faults(self) -> None:
        telemetry = self.telemetry
        telemetry.faults.declare("renewal_off", "Do not renew by schedule")
        telemetry.faults.declare("eager_retry", "Try again at once after a failure: no back-off, no Retry-After")
        telemetry.faults.declare("alarm_off", "Say that the certificate is well, whatever it is")
        telemetry.faults.declare(
            "naive_reload",
            "Take a new pair as it should not be taken: restart (stop listening, cut every connection, listen again after"
            " down_ms) or live (load it, unchecked, into the contexts that are serving)",
            how=("restart", "live"), down_ms=300.0,
        )  # fmt: skip
        telemetry.faults.declare("broken_material", "Spoil each new pair before it is used", kind=SPOILT)
        telemetry.faults.declare(
            "long_chain",
            "Send so many octets of a certificate that nobody needs behind the chain, to clients that ask for sni (empty: all)",
            octets=16384, sni="",
        )  # fmt: skip

    async def enrol(self) -> bool:
        """Say in health that there is no certificate yet, and `obtain` one; return False when the service is stopped before."""
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
            except Exception as error:  # `renew` has logged it; without a certificate all that is left is to try again
                pause = min(2.0, 0.25 * 2**self._failed_in_a_row)
                if isinstance(error, AcmeError) and error.retry_after is not None:
                    pause = max(pause, min(error.retry_after, MAX_RETRY_AFTER))
                self.telemetry.health.set(self._check("certificate"), ok=False, detail=f"none yet: {error}")
                await asyncio.sleep(pause)
            else:
                return

    def start(self) -> None:
        """Renew by schedule from now on."""
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._listen_to_the_ca())]

    async def stop(self) -> None:
        """Renew no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def renew(self) -> str:
        """Get a new key and certificate and use them; return the serial.

        Raises:
            AcmeError, PairError, OSError: it did not work; what was in use stays in use.
        """
        async with self._lock:
            try:
                serial = await self._renew()
            except Exception as error:  # whatever it is, it is counted, and the old pair goes on serving
                self._failed(error)
                raise
        return serial

    async def _renew(self) -> str:
        client = self._acme_client()
        key = await asyncio.to_thread(new_key, self.settings.key)  # no connection has to wait for RSA's primes
        chain = await client.obtain(self.settings.names, key, self.challenges.put)
        now = self.telemetry.clock.time()
        pair = self._take(new_pair_pem(key, chain), now)
        self._issued = now
        self.renewals += 1
        self._failed_in_a_row, self.last_error = 0, ""
        self._counter.inc(result="ok")
        self._schedule()
        # A clock that is ahead sees a new certificate as old: without a floor it would renew in a loop.
        self._next = max(self._next, now + MIN_GAP * (pair.not_after - pair.not_before))
        self._check_health()
        logger.info("certificate_in_use", serial=pair.serial, names=list(pair.names), not_after=pair.not_after)
        return pair.serial

    def _take(self, pem: bytes, now: float) -> Pair:
        """Use a new pair: safely, unless a fault says otherwise."""
        faults, names = self.telemetry.faults, self.settings.names
        if faults.any_on and faults.hit("broken_material"):
            pem = spoil(str((faults.get("broken_material") or {})["kind"]), pem)
        if not (faults.any_on and faults.hit("naive_reload")):
            return self.credentials.replace(pem, names, now)
        naive = faults.get("naive_reload") or {}
        if naive["how"] == "live":
            return self.credentials.replace_naively(pem, names, now)
        return self.credentials.replace(pem, names, now, Reload(restart=True, down_s=float(naive["down_ms"]) / 1000))

    def _overweight(self, name: str | None) -> int:
        faults = self.telemetry.faults
        on = faults.get("long_chain") if faults.any_on else None
        if on is None or on["sni"] not in {"", name} or not faults.hit("long_chain"):
            return 0
        return max(0, min(int(on["octets"]), LONGEST_BALLAST))

    def _naive(self) -> bool:
        return self.telemetry.faults.get("naive_reload") is not None

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
        self._due = self._next = renewal_time(self._issued, end, self._rng, self.renew_at, self.scale)

    def skew(self) -> float | None:
        """Return by how many seconds our clock is ahead of what the CA's said last; None before it said anything."""
        if self._client is None or self._client.ca_time is None:
            return None
        said, heard = self._client.ca_time
        return self.telemetry.clock.time() - (said + asyncio.get_running_loop().time() - heard)

    def _check(self, name: str) -> str:
        """Return the name of a health check."""
        return f"{name} {self._suffix}".rstrip()

    def _check_health(self) -> None:
        if not self.credentials.ready:
            return
        if self.telemetry.faults.any_on and self.telemetry.faults.get("alarm_off") is not None:
            self.telemetry.faults.hit("alarm_off")
            for check in ("certificate", "renewal", "clock"):
                self.telemetry.health.set(self._check(check), ok=True, detail="the fault alarm_off is on")
            return
        health, now, end = self.telemetry.health, self.telemetry.clock.time(), self.credentials.not_after
        left, life = end - now, end - self._issued
        why = self.last_error or "not renewed"
        if left <= 0:
            health.set(self._check("certificate"), ok=False, detail=f"expired {-left:.0f} s ago; {why}")
        elif now > overdue(self._due, life):
            detail = f"renewal was due {now - self._due:.0f} s ago, {left:.0f} s of {life:.0f} s left; {why}"
            health.set(self._check("certificate"), ok=False, detail=detail)
        else:
            health.set(self._check("certificate"), ok=True, detail=f"{left:.0f} s left")
        tried = f"{self._failed_in_a_row} failures in a row"
        bad = self._failed_in_a_row >= ALARM_AFTER
        health.set(
            self._check("renewal"), ok=not bad, detail=f"{tried}: {self.last_error}" if self._failed_in_a_row else ""
        )
        if (skew := self.skew()) is not None:
            limit = tolerated_skew(end - self.credentials.not_before)
            detail = (
                f"{abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} the CA; up to {limit:.1f} s is tolerated"
            )
            health.set(self._check("clock"), ok=abs(skew) <= limit, detail=detail)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self._check_health()
            if self.telemetry.clock.time() < self._next:
                continue
            if self.telemetry.faults.any_on and self.telemetry.faults.get("renewal_off") is not None:
                if self._next == self._due:  # counted once for each renewal that did not happen
                    self.telemetry.faults.hit("renewal_off")
                    self._next = self._due + TICK
                continue
            with contextlib.suppress(Exception):  # counted, logged and scheduled again by `renew`: never fatal
                await self.renew()

    async def _listen_to_the_ca(self) -> None:
        """Ask when the CA would like us to renew, as often as it says (RFC 9773 section 4.3).

        In a task of its own: whatever goes wrong here, renewal goes on as if nobody had been asked.
        """
        while True:
            pause = ASK_AGAIN
            try:
                pair = self.credentials.pair
                suggestion = await self._acme_client().suggestion(pair.leaf)
            except Exception as error:  # never a reason not to renew
                logger.debug("no_renewal_information", error=str(error))
            else:
                if suggestion is not None:
                    self.suggest(suggestion, pair.serial)
                    pause = min(max(suggestion.retry_after or ASK_AGAIN, MIN_RETRY), MAX_RETRY_AFTER)
            await asyncio.sleep(pause)

    def suggest(self, suggestion: Suggestion, serial: str) -> None:
        """Follow the CA where it wants *serial* renewed earlier than by our own rule: at a random moment of its window.

        A window that is over means now: the certificate is about to be revoked.  One that is later than our own rule
        changes nothing: the margin is ours to keep.
        """
        if serial != self.credentials.serial:
            return  # renewed while the CA answered: its window is over, and would have the new one renewed at once
        if self._suggested == (self.credentials.serial, suggestion.start, suggestion.end):
            return  # drawn already: drawing again with each answer would always end at the window's beginning
        self._suggested = (self.credentials.serial, suggestion.start, suggestion.end)
        at = self._rng.uniform(suggestion.start, suggestion.end)
        if at < self._next and not self._failed_in_a_row:
            self._due = self._next = at
            logger.info("renewal_suggested", at=at, start=suggestion.start, end=suggestion.end)

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
        write_whole(path, fresh.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
        return fresh

    # --- admin ------------------------------------------------------------------------------------------------------

    async def _renew_now(self, _: Request) -> dict[str, Any]:
        try:
            serial = await self.renew()
        except Exception as error:  # the operator gets the reason, whatever it is
            raise AdminError(502, str(error) or type(error).__name__) from None
        return {"serial": serial}

    def _show_schedule(self) -> dict[str, Any]:
        """Return the body of ``GET /admin/schedule``."""
        return {"scale": self.scale, "renew_at": self.renew_at, "due": self._due, "next_renewal": self._next}

    def _set_schedule(self, request: Request) -> dict[str, Any]:
        """Change the rule by which this service renews, and what is due under it."""
        body = request.json()
        if not isinstance(body, dict) or set(body) - {"scale", "renew_at", "seed"}:
            raise AdminError(400, f"expected scale, renew_at and seed at most, got {body!r}"[:200])
        scale, share = body.get("scale", self.scale), body.get("renew_at", self.renew_at)
        if not _number(scale) or not 1 <= scale <= 1e8:
            raise AdminError(400, f"expected scale (nominal seconds in one) from 1 to 1e8, got {scale!r}")
        if share is not None and (not _number(share) or not 0.1 <= share <= 0.99):
            raise AdminError(400, f"expected renew_at (share of life) from 0.1 to 0.99, or null; got {share!r}")
        if "seed" in body:
            if not isinstance(body["seed"], int):
                raise AdminError(400, f"expected seed to be a whole number, got {body['seed']!r}")
            self._rng = random.Random(body["seed"])
        self.scale, self.renew_at = float(scale), share
        self.telemetry.altered["schedule"] = f"x{self.scale:g}{f', at {share:g} of life' if share is not None else ''}"
        logger.warning("schedule_changed", scale=self.scale, renew_at=self.renew_at)
        if self.credentials.ready:
            self._schedule()
        return self._show_schedule()

    def _reset_schedule(self, _: Request) -> dict[str, Any]:
        """Go back to the rule that the service was started with."""
        self.scale, self.renew_at, self._rng = 1.0, self.settings.renew_at, random.Random()
        self.telemetry.altered.pop("schedule", None)
        if self.credentials.ready:
            self._schedule()
        return self._show_schedule()

    def _alarms(self) -> list[str]:
        """Return what health complains about in matters of this certificate."""
        self._check_health()
        checks = self.telemetry.health.as_dict()["checks"]
        named = ((name, checks.get(self._check(name), {})) for name in ("certificate", "renewal", "clock"))
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
            "further": [each.settings.names[0] for each in self._others],
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


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 0.9:
        raise argparse.ArgumentTypeError(f"expected 0.1 to 0.9, got {text!r}")
    return value
