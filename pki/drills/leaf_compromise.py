"""Drill D12 `leaf-compromise`: an attacker steals and uses the private key of an mTLS client."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.serialization import load_pem_private_key

from drills.drill import Drill
from drills.enrolment import Enrolment, publish, serial_of
from drills.paths import PATHS, Paths
from drills.rehearsal import Rehearsal, distinct
from drills.revoke_client import EVERY, LABEL, LIMIT, ORIGIN_NAME, PARTNER, PORT, judge_with_openssl
from experiments import Control, Lane, Panel, Quantity, Run, parameter
from hostfiles.layout import TRUST_ANCHOR
from renewal.errors import AcmeError
from renewal.material import PrivateKey

#: Revocation reason codes (RFC 5280 section 5.3.1): keyCompromise and cessationOfOperation.
COMPROMISE, CESSATION = 1, 5
#: How long requests are sent before and after the response to the incident, in seconds.
AROUND = 1.5


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters of the drill `leaf-compromise`."""

    rate: float = parameter(100.0, quick=60.0, unit="requests/s", low=1, high=1000, help="half fresh, half kept alive")
    incidents: int = parameter(4, quick=1, low=1, high=20, help="stolen keys, one after the other")


@dataclass(slots=True)
class Incident:
    """A stolen key and the response to the theft; times are in seconds on the run's timeline."""

    attacker: Paths
    #: Requests by the partner, first with the old certificate and then with the new certificate.
    partner: list[Paths] = field(default_factory=list)
    #: Time of the revocation.
    at: float = float("inf")
    #: Serial numbers of the certificates with the stolen key.
    stolen: set[str] = field(default_factory=set)
    #: Serial numbers of the certificates that the CA revoked.
    revoked: set[str] = field(default_factory=set)
    #: The CA's error in response to an order with the stolen key; empty if the CA issued a certificate.
    refusal: str = ""
    #: Verdicts of ``openssl verify -crl_check`` on the certificates with the stolen key.
    judged: list[str] = field(default_factory=list)

    @property
    def lost(self) -> list[str]:
        """Errors of the partner's failed requests."""
        return [tried.error for ways in self.partner for tried in ways.tried if tried.error]


class LeafCompromise(Drill[Parameters]):
    """Drill in which a client's key is stolen: the client gets a new key, and the CA revokes the old certificates."""

    name = "leaf-compromise"
    claim = (
        "After a new key is in use, the stolen one is revoked: the attacker is refused within seconds, the CA never "
        "certifies the key again, and the partner loses no request."
    )
    says = (
        "A private key is in a backup, a container image or a public repository. From then on it is compromised, "
        "whether or not someone has used it. A CA must revoke the certificate within 24 hours after it learns of the "
        "compromise; its owner wants to lose neither traffic nor time."
    )
    source = (
        "CA/Browser Forum Baseline Requirements sections 4.9.1.1 (revocation within 24 hours after a key compromise), "
        "4.9.12 and 6.1.1.3 (a compromised key must not be certified again); RFC 5280 section 5.3.1."
    )
    production = (
        "Replace the key first, then revoke. Give the reason keyCompromise: with any other reason the CA may certify "
        "the same key again, and certificates with the same key stay valid. Measure how long the attacker is still "
        "accepted on open connections. Rehearse it with the tools that you would use."
    )
    settings = Parameters
    control = Control(
        "the certificate is revoked first, as superseded, and replaced later",
        (
            "requests of the partner lost",
            "all certificates with the key revoked",
            "the stolen key is not certified again",
        ),
    )
    after = 0.5

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.incidents: list[Incident] = []

    def duration(self) -> float:
        """Return the expected duration in seconds: each incident consists of orders, requests and a revocation."""
        return self.before + self.p.incidents * (2 * AROUND + LIMIT + 5) + self.after

    def predict(self) -> Mapping[str, Quantity]:
        """Predict that no request fails, and that the CA revokes two certificates for each stolen key."""
        return {
            "requests lost": Quantity(0),
            "requests of the partner lost": Quantity(0),
            "certificates revoked": Quantity(2 * self.p.incidents),
        }

    async def inject(self, run: Run, _: Rehearsal) -> None:
        """Obtain a certificate, give its key to an attacker, and respond to the incident."""
        await publish(run, LABEL)
        enrolment = Enrolment()
        self.began = run.now()
        async with enrolment.responding():
            for number in range(self.p.incidents):
                run.phase(f"incident {number + 1} of {self.p.incidents}")
                await self._one(run, enrolment)
        self.ended = run.now()

    async def _one(self, run: Run, enrolment: Enrolment) -> None:
        old = await enrolment.obtain([PARTNER])
        key = key_of(old)
        other = await enrolment.obtain([PARTNER], key=key)  # a second certificate with the same key
        incident = Incident(self._client(run, old), stolen={serial_of(old), serial_of(other)})
        self.incidents.append(incident)
        partner = await self._begin(run, incident, old)
        await run.blocking(incident.attacker.start)
        try:
            run.note("injection", "the key is stolen")
            await asyncio.sleep(AROUND)  # both the partner and the attacker are accepted
            if self.negative:
                await self._revoke(run, incident, serial_of(old), CESSATION)
                await asyncio.sleep(LIMIT)  # the partner replaces its key only after being refused
            new = await self._begin(run, incident, await enrolment.obtain([PARTNER]))
            await run.blocking(partner.stop)
            if not self.negative:
                await self._revoke(run, incident, serial_of(old), COMPROMISE)
            run.phase("the new key is in use")
            await run.until(incident.at + LIMIT + AROUND)
            try:
                await enrolment.obtain([PARTNER], key=key)
            except AcmeError as error:
                incident.refusal = str(error)
            incident.judged = [await judge_with_openssl(pair) for pair in (old, other)]
            await run.blocking(new.stop)
        finally:
            for ways in (incident.attacker, *incident.partner):
                await run.blocking(ways.stop)

    @staticmethod
    def _client(run: Run, pair: bytes) -> Paths:
        return Paths(ORIGIN_NAME, TRUST_ANCHOR, run.now, PORT, pair=pair, every=EVERY)

    async def _begin(self, run: Run, incident: Incident, pair: bytes) -> Paths:
        """Start sending the partner's requests with *pair* (key and chain in PEM)."""
        ways = self._client(run, pair)
        incident.partner.append(ways)
        await run.blocking(ways.start)
        return ways

    @staticmethod
    async def _revoke(run: Run, incident: Incident, serial: str, reason: int) -> None:
        incident.at = run.now()
        path = f"/admin/revoke/{serial}"
        answer = await run.lab.inject(f"{serial[:8]} revoked", "ca", "POST", path, {"reason": reason}, undo=None)
        incident.revoked = set(answer["revoked"])

    def judge(self, run: Run, stage: Rehearsal) -> None:
        """Check how long the attacker could use the key, and how the CA responded.

        Also check that no request by the partner or by any other client was lost.
        """
        stage.gates(self.began)
        check, row, incidents = run.findings.check, run.findings.row, self.incidents
        early = sorted({t.error for i in incidents for t in i.attacker.tried if t.error and t.at < i.at})
        good = "on every path"
        run.findings.gate("the attacker is accepted before the revocation", good, ", ".join(early) or good, not early)
        self.check_nothing_lost(run, stage)
        lost = [error for incident in incidents for error in incident.lost]
        row("requests of the partner lost", len(lost))
        check("requests of the partner lost", "0", distinct(lost), not lost)
        for path in PATHS:
            longest = max((i.attacker.exposure(path, i.at) for i in incidents), default=0.0)
            row(f"exposure to the attacker, {path}", longest, "s")
            check(f"exposure to the attacker, {path}", f"<= {LIMIT:g} s", f"{longest:.1f} s", longest <= LIMIT)
        row("certificates revoked", sum(len(i.revoked & i.stolen) for i in incidents))
        stolen, left = sum(len(i.stolen) for i in incidents), sum(len(i.stolen - i.revoked) for i in incidents)
        agree = sum("revoked" in words for i in incidents for words in i.judged)
        got = f"{stolen - left} of {stolen}; OpenSSL agrees on {agree}"
        check("all certificates with the key revoked", f"all {stolen}", got, stolen == agree and left == 0)
        issued = [i for i in incidents if "compromise" not in i.refusal]
        got = incidents[0].refusal.rpartition(": ")[2] if incidents and not issued else f"certified {len(issued)} times"
        check("the stolen key is not certified again", "refused as compromised", got, not issued and bool(incidents))
        stage.facts(self.began, self.ended)
        who = (("attacker", [[i.attacker] for i in incidents]), ("partner", [i.partner for i in incidents]))
        lanes = [
            Lane(f"{name}: {path}", [s for group in groups for ways in group for s in ways.lane(path).spans])
            for name, groups in who
            for path in PATHS
        ]
        stage.picture(
            "A client's key is stolen",
            "The panel shows the requests with the stolen key, and those of the partner, on three paths each: green "
            "while the origin accepts them, red once it refuses them.",
            Panel(lanes=lanes, y="requests at the origin"),
        )


def key_of(pair: bytes) -> PrivateKey:
    """Return the private key in *pair* (key and chain in PEM)."""
    key: PrivateKey = load_pem_private_key(pair, None)  # type: ignore[assignment]  # `Enrolment` only creates EC keys
    return key
