"""Scenario `impostor`: poisoned DNS leads to a man in the middle; only clients that verify certificates notice it."""

import contextlib
import shutil
import socket
import ssl
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from experiments import Bars, Chart, Control, Estimate, Experiment, Lesson, Panel, Quantity, Run, parameter
from hostfiles.layout import TRUST_ANCHOR
from scenarios.instruments.connection import Address, Connection
from scenarios.instruments.false_server import HTTP, HTTPS, Impostor, false_names, self_signed
from stub import Stub, StubError, strict

#: Name in the certificate of the lab's resolver.
RESOLVER = "resolver.example.com"
VERIFYING, TRUSTING, PLAIN, PRIVATE = "verifying", "trusting", "plain HTTP", "trusting, DNS over TLS"
#: Kinds of clients: one that verifies certificates, one that accepts any certificate, one without TLS, and one that
#: accepts any certificate of a web server but resolves names over DNS over TLS and verifies the resolver's certificate.
KINDS = (VERIFYING, TRUSTING, PLAIN, PRIVATE)
#: Exit code of curl if the server's certificate cannot be verified (curl(1)).
CURL_NOT_VERIFIED = 60
PROGRAM_TIMEOUT = 20.0


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters that the user can vary."""

    requests: int = parameter(40, quick=10, low=4, high=1000, help="requests of each kind of client")
    host: str = parameter("www.example.com", help="server that the impostor imitates")
    path: str = parameter("/whoami", help="path that is requested")


@dataclass(frozen=True, slots=True)
class Request:
    """One request by a client, with or without a poisoned resolver."""

    #: A random text in the client's request; the impostor has read the request if it knows this text.
    secret: str
    #: Whether the client received a response.
    answered: bool
    #: Reason why the client received no response; "" if it did.
    reason: str = ""


class ImpostorScenario(Experiment[Parameters]):
    """Lets clients with a poisoned resolver send secrets to a server, while an impostor reads and relays requests."""

    name = "impostor"
    claim = (
        "With a forged address, a man in the middle reads every request of clients that do not verify certificates, "
        "unnoticed, and none of clients that do."
    )
    says = (
        "The textbook says that encryption alone does not help against an impostor: a key that no one vouches for may "
        "be anybody's, so the server has to prove its identity with a certificate. In practice nothing else fails "
        "visibly. A client that accepts any certificate gets the right response through the man in the middle, with "
        "a padlock, and a test suite that passes."
    )
    source = "RFC 9325 section 5 (verification), RFC 9525 (names in certificates), RFC 3833 (threats to DNS), RFC 8310."
    production = (
        "Search your code and configuration for verification that is switched off: `verify=False`, `-k`, "
        "`InsecureSkipVerify`, `CERT_NONE`, `check_hostname = False`, `rejectUnauthorized: false`. If a certificate "
        "of your own CA does not verify, install the root, do not switch off the check. Test that your clients "
        "refuse a self-signed certificate. Redirect plain HTTP and send HSTS, since the first request over HTTP "
        "is the impostor's. Signed or encrypted DNS protects the address, not the connection."
    )
    settings = Parameters
    control = Control("the verifying clients accept any certificate", (f"requests read by the impostor, {VERIFYING}",))
    paths = ("edge",)
    lessons = (
        Lesson(
            "A client's DNS is poisoned, and it verifies certificates. Which share of its requests does the impostor "
            "read?",
            f"requests read by the impostor, {VERIFYING}", "of requests", 0.05,
        ),
        Lesson(
            "Its neighbour has switched verification off. Which share of its requests gets the right response?",
            f"requests answered, {TRUSTING}", "of requests", 0.05,
        ),
        Lesson(
            "A third client does not verify servers, but uses DNS over TLS with a verified resolver. Which share of "
            "its requests does the impostor read?",
            f"requests read by the impostor, {PRIVATE}", "of requests", 0.05,
        ),
    )  # fmt: skip

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.sent: dict[str, list[Request]] = {each: [] for each in KINDS}
        #: Requests sent before and after there was an impostor, keyed by kind of client.
        self.honest: dict[str, list[Request]] = {each: [] for each in KINDS}
        #: Plaintext of the requests that the impostor read.
        self.read: list[str] = []
        #: Number of failed handshakes with the impostor, keyed by reason.
        self.failed: Counter[str] = Counter()
        #: Exit code of curl and the secret that it sent, with and without verification; empty if curl is not installed.
        self.curl: dict[str, tuple[int, str]] = {}

    def duration(self) -> float:
        """Return the expected duration in seconds, assuming a few round trips per request."""
        return 2 + 1.25 * len(KINDS) * self.p.requests * 0.06

    def predict(self) -> Mapping[str, Quantity]:
        """Predict which requests the impostor reads, and which are answered."""
        predicted = {}
        for kind in KINDS:
            fooled = float(kind in {TRUSTING, PLAIN})
            predicted[f"requests read by the impostor, {kind}"] = Quantity(fooled, "of requests")
            predicted[f"requests answered, {kind}"] = Quantity(fooled, "of requests")
        return predicted

    # --- measurement ------------------------------------------------------------------------------------------------

    async def measure(self, run: Run) -> None:
        """Send requests with the real resolver, then with a poisoned resolver that returns the impostor's address."""
        real = (await run.blocking(Stub().resolve, self.p.host)).rdata[0]
        resolver = (await run.blocking(Stub().resolve, RESOLVER)).rdata[0]
        with socket.socket(type=socket.SOCK_DGRAM) as probe:
            probe.connect((real, HTTPS))
            here = probe.getsockname()[0]
        run.phase("without an impostor")
        for _, kind in run.interleaved(KINDS, max(2, self.p.requests // 4)):
            await self._send_honest(run, kind, resolver)
        run.phase("with an impostor")
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="impostor-")))
            pair, names_pair = folder / "pair.pem", folder / "names.pem"
            pair.write_bytes(self_signed(self.p.host))
            names_pair.write_bytes(self_signed(RESOLVER))
            plain, tls = await run.blocking(stack.enter_context, false_names(self.p.host, here, names_pair))
            impostor = stack.enter_context(Impostor(self.p.host, real, pair, TRUST_ANCHOR))
            run.note("injection", f"{self.p.host} → {here} in the resolver of the clients")
            for _, kind in run.interleaved(KINDS, self.p.requests):
                private = kind == PRIVATE
                stub = Stub([tls], transport=strict(RESOLVER, TRUST_ANCHOR)) if private else Stub([plain])
                secret = f"{run.rng.getrandbits(48):012x}"
                self.sent[kind].append(await run.blocking(self._request, kind, stub, secret))
            await run.blocking(self._ask_curl, run, here)
            self.read, self.failed = list(impostor.requests), Counter(impostor.failed)
        for kind in KINDS:  # if the real server has died meanwhile, its clients received no answers for that reason
            await self._send_honest(run, kind, resolver)

    async def _send_honest(self, run: Run, kind: str, resolver: str) -> None:
        """Send a request with the lab's own resolver, so that the request does not reach the impostor."""
        names = strict(RESOLVER, TRUST_ANCHOR) if kind == PRIVATE else None
        stub = Stub([(resolver, 853)], transport=names) if names else Stub([(resolver, 53)])
        self.honest[kind].append(await run.blocking(self._request, kind, stub, f"{run.rng.getrandbits(48):012x}"))

    def _request(self, kind: str, stub: Stub, secret: str) -> Request:
        """Resolve the host with *stub* and send a request that contains *secret* to the resulting address."""
        try:
            with stub:
                address = stub.resolve(self.p.host).rdata[0]
            to = Address(self.p.host, address, HTTP if kind == PLAIN else HTTPS)
            with Connection(to, self._context(kind), timeout=5.0) as connection:
                body = b"".join(data for _, data in connection.arrivals(self._target(secret), last=True))
        except (OSError, StubError) as error:
            return Request(secret, answered=False, reason=getattr(error, "verify_message", "") or str(error))
        return Request(secret, answered=body.startswith(b"HTTP/1.1 200 "), reason=body[:40].decode("latin-1"))

    def _context(self, kind: str) -> ssl.SSLContext | None:
        if kind == PLAIN:
            return None
        context = ssl.create_default_context(cafile=TRUST_ANCHOR)
        if kind != VERIFYING or self.negative:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context

    def _target(self, secret: str) -> str:
        return f"{self.p.path}?token={secret}"

    def _ask_curl(self, run: Run, here: str) -> None:
        """Send requests with curl, an independent client, with and without verification of certificates."""
        program = shutil.which("curl")
        if program is None:
            run.findings.leave_out("curl as an independent client: not installed here")
            return
        for kind, options in ((VERIFYING, ["--cacert", str(TRUST_ANCHOR)]), (TRUSTING, ["--insecure"])):
            secret = f"{run.rng.getrandbits(48):012x}"
            url = f"https://{self.p.host}{self._target(secret)}"
            words = [program, "--silent", "--fail", "--resolve", f"{self.p.host}:{HTTPS}:{here}", *options, url]
            done = subprocess.run(words, capture_output=True, timeout=PROGRAM_TIMEOUT, check=False)
            self.curl[kind] = done.returncode, secret

    # --- conclusions ------------------------------------------------------------------------------------------------

    def conclude(self, run: Run) -> None:
        """Check whose requests the impostor read, and which clients received a response."""
        found, text = run.findings, "\n".join(self.read)
        for kind, requests in self.honest.items():
            got = sum(each.answered for each in requests)
            found.gate(
                f"requests answered without an impostor, {kind}",
                "all",
                f"{got} of {len(requests)}",
                got == len(requests),
            )
        for kind, requests in self.sent.items():
            expected = len(requests) if kind in {TRUSTING, PLAIN} else 0
            for name, got in (
                (f"requests read by the impostor, {kind}", sum(each.secret in text for each in requests)),
                (f"requests answered, {kind}", sum(each.answered for each in requests)),
            ):
                found.row(name, Estimate.share(got, len(requests)))
                found.check(name, f"{expected} of {len(requests)}", f"{got} of {len(requests)}", got == expected)
        for kind, (code, secret) in self.curl.items():
            expected_code = CURL_NOT_VERIFIED if kind == VERIFYING else 0
            read = secret in text
            ok = code == expected_code and read == (kind == TRUSTING)
            words = {True: "read by the impostor", False: "not read"}
            expected_words = f"exit code {expected_code}, {words[kind == TRUSTING]}"
            found.check(f"curl, {kind}", expected_words, f"exit code {code}, {words[read]}", ok)
        reasons = Counter(each.reason for each in self.sent[VERIFYING] if not each.answered)
        found.fact("why verifying clients refuse", reasons.most_common(1)[0][0] if reasons else "they do not")
        found.fact("why handshakes with the impostor failed", dict(self.failed))
        found.fact("what the impostor read, for example", self.read[0].splitlines()[0] if self.read else "nothing")
        found.chart(self._chart(text))

    def _chart(self, text: str) -> Chart:
        read, refused = [], []
        for at, requests in enumerate(self.sent.values()):
            share = 100 * sum(each.secret in text for each in requests) / max(1, len(requests))
            read.append((at - 0.3, at + 0.3, share))
            refused.append((at - 0.3, at + 0.3, 100 - share))
        return Chart(
            "The impostor reads every request of clients that do not verify",
            [Panel([Bars("read by the impostor", read, "bad"), Bars("not sent", refused, "good")],
                   y="requests, %", height=240, high=105)],
            x="kind of client",
            categories=KINDS,
            low=-0.5,
            high=len(KINDS) - 0.5,
            caption="All clients resolve the name with a poisoned resolver. Requests that are not sent fail in the TLS "
            "handshake with the impostor, or in the one with its resolver (DNS over TLS). The impostor forwards what "
            "it reads, so its victims receive the right response.",
            name="impostor",
        )  # fmt: skip
