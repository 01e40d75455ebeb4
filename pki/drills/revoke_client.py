"""Drill D11 `revoke-client`: the CA revokes an mTLS client's certificate, and origins must then refuse the client."""

import asyncio
import tempfile
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from drills.drill import Drill
from drills.enrolment import Enrolment, publish, serial_of
from drills.paths import PATHS, Paths
from drills.rehearsal import Rehearsal
from experiments import Control, Lane, Lesson, Panel, Quantity, Run, parameter
from hostfiles.layout import TRUST_ANCHOR
from renewal.revocation import list_url

#: DNS name and label of the client whose certificate is revoked; origins accept the name, which exists only in drills.
PARTNER, LABEL = "partner.example.com", "partner"
#: Host name and DNS name of the origin that the client uses, and the origin's port for mutual TLS.
ORIGIN, ORIGIN_NAME, PORT = "catalog-1", "catalog-1.example.com", 8443
#: Interval at which an origin fetches the CRL, in seconds (`renewal.revocation.INTERVAL`).
INTERVAL = 5.0
#: Maximum time from a revocation until the origin refuses the client on every path, in seconds: one polling interval,
#: and one second to issue, fetch and check the CRL.
LIMIT = INTERVAL + 1.0
#: Time-out of a request for the CRL, in seconds.
TIMEOUT = 5.0
#: Interval between rounds of requests, and duration of the requests before a revocation, in seconds.
EVERY, ACCEPTED = 0.1, 1.0


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters of the drill `revoke-client`."""

    rate: float = parameter(100.0, quick=60.0, unit="requests/s", low=1, high=1000, help="half fresh, half kept alive")
    clients: int = parameter(8, quick=3, low=1, high=50, help="certificates that are revoked, one after the other")


@dataclass(slots=True)
class Revoked:
    """A client certificate and the requests sent with this certificate; times are in seconds on the run's timeline."""

    ways: Paths
    serial: str
    #: Time of the revocation.
    at: float
    #: End of the requests.
    end: float
    #: Verdict of ``openssl verify -crl_check`` with the CRL that the CA serves after the last request.
    judged: str = ""

    def exposure(self, path: str) -> float:
        """Return how long requests on *path* succeeded after the revocation, in seconds."""
        return self.ways.exposure(path, self.at)

    def first_error(self, path: str) -> str:
        """Return the error of the first failed request on *path*; empty if none failed."""
        return next((t.error for t in self.ways.tried if t.path == path and t.error), "")


class RevokeClient(Drill[Parameters]):
    """Drill in which certificates of an mTLS client with open connections and TLS sessions are revoked."""

    name = "revoke-client"
    claim = (
        "A revoked client is refused within seconds, also on connections that were open before and on resumed sessions."
    )
    says = (
        "A revocation changes a list at the CA. A server learns of the revocation only if it fetches the list. Most "
        "servers consult the list in full handshakes only, so a revoked client with an open connection stays connected."
    )
    source = (
        "RFC 5280 sections 5 and 6.3 (CRLs); RFC 8446 section 2.2 (a resumed session sends no certificate). If the "
        "origin requests the CRL every T seconds, the exposure is uniform between 0 and T: T/2 on average."
    )
    production = (
        "Know your exposure on each path. nginx and HAProxy read a CRL from a file when they are reloaded, and check "
        "it in full handshakes. Fetch the CRL on a schedule, check the serial number on every request, or limit the "
        "age of connections and tickets. Short-lived client certificates bound the exposure without any list."
    )
    settings = Parameters
    control = Control("the origin does not request the CRL", tuple(f"exposure, {path}" for path in PATHS))
    lessons = (
        Lesson(
            "The origin fetches the CRL every 5 s, and clients are revoked at moments spread over this interval. For "
            "how long is a revoked client accepted on new connections, on average?",
            f"mean exposure, {PATHS[0]}", "s", 1.5,
        ),
        Lesson("How many requests of other clients are lost meanwhile?", "requests lost", "", 0.5),
    )  # fmt: skip
    after = 1.0

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.revoked: list[Revoked] = []

    def duration(self) -> float:
        """Return the expected duration in seconds: an order, requests and a revocation for each client certificate."""
        return self.before + self.p.clients * (ACCEPTED + INTERVAL / 2 + LIMIT / 2 + 1.5) + self.after

    def predict(self) -> Mapping[str, Quantity]:
        """Predict a mean exposure of half the polling interval, and no failed requests by other clients."""
        exposures = {f"mean exposure, {path}": Quantity(INTERVAL / 2, "s") for path in PATHS}
        return {"requests lost": Quantity(0), **exposures}

    async def inject(self, run: Run, _: Rehearsal) -> None:
        """Obtain a client certificate, use it on all paths and revoke it; repeat with the next certificate."""
        await publish(run, LABEL)
        if self.negative:
            await run.lab.fault(ORIGIN, "crl_off")
        enrolment = Enrolment()
        self.began = run.now()
        async with enrolment.responding():
            for number in range(self.p.clients):
                run.phase(f"client {number + 1} of {self.p.clients}")
                pair = await enrolment.obtain([PARTNER])
                # Random waits spread the revocations over the polling interval.  Without these waits, all revocations
                # would fall on the same point of the interval, which restarts with each new certificate.
                wait = ACCEPTED + INTERVAL * (number + run.rng.random()) / self.p.clients
                self.revoked.append(await self._one(run, pair, wait))
        self.ended = run.now()

    async def _one(self, run: Run, pair: bytes, wait: float) -> Revoked:
        """Send requests with *pair* (key and chain in PEM), and revoke the certificate after *wait* seconds."""
        ways = Paths(ORIGIN_NAME, TRUST_ANCHOR, run.now, PORT, pair=pair, every=EVERY)
        serial = serial_of(pair)
        await run.blocking(ways.start)
        try:
            await asyncio.sleep(wait)  # before the revocation, the client is accepted
            one = Revoked(ways, serial, run.now(), 0.0)
            await run.lab.inject(
                f"{serial[:8]} revoked", "ca", "POST", f"/admin/revoke/{serial}", {"reason": 5}, undo=None
            )
            while run.now() < one.at + LIMIT + 0.5 and not all(map(one.first_error, PATHS)):  # noqa: ASYNC110 - polls: no event signals the result of a request in the background thread
                await asyncio.sleep(EVERY)  # wait for the next round of requests
            await asyncio.sleep(3 * EVERY)  # a path that has refused the client must not accept it again
        finally:
            await run.blocking(ways.stop)
        one.end = run.now()
        one.judged = await judge_with_openssl(pair)
        run.note("observation", f"{serial[:8]}: OpenSSL with the CRL says {one.judged}")
        return one

    def judge(self, run: Run, stage: Rehearsal) -> None:
        """Check the exposure on each path, the reason for the refusals, and that no other client was affected."""
        stage.gates(self.began)
        check, all_of_them = run.findings.check, f"all {len(self.revoked)} clients"
        early = [t.error for r in self.revoked for t in r.ways.tried if t.error and t.at < r.at]
        run.findings.gate(
            "accepted before the revocation", "on every path", ", ".join(early) or "on every path", not early
        )
        self.check_nothing_lost(run, stage)
        for path in PATHS:
            exposures = [r.exposure(path) for r in self.revoked]
            if not exposures:
                continue
            run.findings.row(f"mean exposure, {path}", mean(exposures), "s")
            longest, open_end = max(exposures), [r for r in self.revoked if not r.first_error(path)]
            got = f"unbounded: still accepted after {longest:.1f} s" if open_end else f"at most {longest:.1f} s"
            ok = not open_end and longest <= LIMIT
            check(f"exposure, {path}", f"<= {LIMIT:g} s", got, ok)
        reasons = {r.first_error(path) for r in self.revoked for path in PATHS} - {""}
        check("refused with status 403", "on every path", ", ".join(sorted(reasons)) or "never refused",
              bool(reasons) and all(each.startswith("status 403") for each in reasons))  # fmt: skip
        agree = sum("revoked" in r.judged for r in self.revoked)
        check(
            "OpenSSL with the CRL agrees",
            all_of_them,
            f"{agree} of {len(self.revoked)}",
            agree == len(self.revoked) > 0,
        )
        stage.facts(self.began, self.ended)
        stage.picture(
            "Client certificates are revoked",
            "The bars are requests of other clients, which must all succeed. The lower panel shows the requests of the "
            "revoked client on three paths: green while the origin accepts them, red once it refuses them.",
            Panel(lanes=[self._lane(path) for path in PATHS], y="requests of the revoked client"),
        )

    def _lane(self, path: str) -> Lane:
        return Lane(path, [span for each in self.revoked for span in each.ways.lane(path).spans])


async def judge_with_openssl(pair: bytes) -> str:
    """Return the verdict of ``openssl verify -crl_check`` on a leaf, with the CRL that its issuer currently serves.

    Args:
        pair: private key and chain in PEM; the key is not used.
    """
    leaf, *issuers = x509.load_pem_x509_certificates(pair)
    with tempfile.TemporaryDirectory() as folder:
        crl, own, chain = (Path(folder, name) for name in ("crl", "leaf", "chain"))
        crl.write_bytes(await asyncio.to_thread(download, list_url(leaf)))
        own.write_bytes(leaf.public_bytes(Encoding.PEM))
        chain.write_bytes(b"".join(each.public_bytes(Encoding.PEM) for each in issuers))
        process = await asyncio.create_subprocess_exec(
            "openssl", "verify", "-crl_check", "-CRLfile", crl, "-CAfile", TRUST_ANCHOR, "-untrusted", chain, own,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await process.communicate()
    errors = [line for line in output.decode(errors="replace").splitlines() if line.startswith("error")]
    return errors[0].partition("lookup: ")[2] if errors else "good"


def download(url: str) -> bytes:
    """Return the CRL at *url*, in DER; this call blocks."""
    with urllib.request.urlopen(url, timeout=TIMEOUT) as response:  # noqa: S310 - the URL comes from a certificate issued by the lab's CA
        data: bytes = response.read()
        return data
