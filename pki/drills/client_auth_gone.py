"""Drill D18 `client-auth-gone`: the CA issues certificates that are not valid for TLS clients."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from drills.drill import Drill
from drills.lifetimes import renew, renewal_when_undone
from drills.rehearsal import HOST, Rehearsal
from experiments import Control, Lane, Panel, Quantity, Run, Span, parameter
from hostfiles.layout import TRUST_ANCHOR
from monitor.openssl import Prober

#: Hosts that use their certificate as TLS clients of origins, and hosts that use their certificate only as servers.
CLIENTS, SERVERS = (HOST, "edge-far"), ("news", "catalog-1")
#: Name of the server whose certificate is inspected with OpenSSL.
INSPECTED = "news.example.com"
#: Number of renewal attempts by each host; after two failures the alarm must be active.
TRIES = 2
#: How long the load runs on new upstream connections, in seconds.
PURGED = 2.0


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters of the drill `client-auth-gone`."""

    rate: float = parameter(200.0, quick=100.0, unit="requests/s", low=1, high=2000, help="half fresh, half kept alive")
    rounds: int = parameter(3, quick=1, low=1, high=20, help="times that the usage disappears and comes back")


@dataclass(slots=True)
class Renewed:
    """The renewals of one host while the CA omits clientAuth; times are in seconds on the run's timeline."""

    host: str
    begin: float
    end: float = 0.0
    #: Error message of each rejected renewal.
    errors: list[str] = field(default_factory=list)
    #: Whether the host still used the old certificate at the end.
    kept: bool = False
    alarmed: bool = False


class ClientAuthGone(Drill[Parameters]):
    """Drill in which renewed certificates lack the extended key usage clientAuth."""

    name = "client-auth-gone"
    claim = (
        "Hosts that are also TLS clients refuse a certificate without clientAuth before they use it, keep the old one "
        "and raise an alarm; all other hosts renew."
    )
    says = (
        "Public CAs stop issuing certificates with the usage clientAuth in 2026, because the Chrome root programme "
        "requires hierarchies for servers only. A proxy that presents its public certificate to its backends finds out "
        "at its next renewal: the certificate is valid, the server side works, and every backend refuses the client."
    )
    source = (
        "Chrome Root Program Policy 1.6 (dedicated TLS server hierarchies); Let's Encrypt, Ending TLS Client "
        "Authentication Certificate Support in 2026; RFC 5280 section 4.2.1.12 (extended key usage)."
    )
    production = (
        "Find every certificate of a public CA that is used as a client: proxies to backends, mail servers to mail "
        "servers, database replicas. Move these to a private CA. Before a new certificate is used, test it in every "
        "role that it has, in a handshake with a strict peer."
    )
    settings = Parameters
    control = Control("the edges use the new certificate without a test", ("requests lost", "refused before use"))
    hosts = (*CLIENTS, *SERVERS)
    after = 1.0

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.renewals: list[Renewed] = []
        #: Extended key usages of the certificate that the inspected server presents after its renewal.
        self.usages: list[str] = []

    def duration(self) -> float:
        """Return the expected duration in seconds: each round consists of renewals by four hosts, then load."""
        return self.before + self.p.rounds * (8 + PURGED) + self.after

    def predict(self) -> Mapping[str, Quantity]:
        """Predict that hosts that act as clients keep their old certificates, and that the other hosts renew."""
        return {
            "requests lost": Quantity(0),
            "renewals refused": Quantity(TRIES * len(CLIENTS) * self.p.rounds),
            "renewals of servers": Quantity(len(SERVERS) * self.p.rounds),
        }

    async def inject(self, run: Run, stage: Rehearsal) -> None:
        """Make the CA omit clientAuth, renew all hosts, and make the edges open new connections to origins."""
        self.began = run.now()
        for host in self.hosts:
            run.lab.undo_log.add(renewal_when_undone(host, "certificate without clientAuth"))
        if self.negative:
            for host in CLIENTS:
                await run.lab.fault(host, "naive_reload", how="live")
        for number in range(self.p.rounds):
            run.phase(f"round {number + 1} of {self.p.rounds}: the CA omits clientAuth")
            async with run.lab.fault_on("ca", "misissue", kind="no-client-auth"):
                for host in self.hosts:
                    self.renewals.append(await self._renew(run, stage, host))
                for host in CLIENTS:  # origins check a certificate only on new connections
                    await run.lab.call(host, "POST", "/admin/pool/purge")
                await asyncio.sleep(PURGED)  # meanwhile, the load causes new upstream connections
                probe = await Prober(INSPECTED, TRUST_ANCHOR).look(run.now)
                self.usages = usages_of(probe.chain[0]) if probe.chain else []
            if not self.negative:
                for host in self.hosts:
                    await renew(run, host)
                    await stage.watch.look(host)
        self.ended = run.now()

    async def _renew(self, run: Run, stage: Rehearsal, host: str) -> Renewed:
        before = (await stage.watch.look(host))["serial"]
        one = Renewed(host, run.now())
        for _ in range(TRIES if host in CLIENTS else 1):
            try:
                await renew(run, host)
            except Exception as error:  # expected for clients, which must reject the new certificate
                one.errors.append(str(error))
        body = await stage.watch.look(host)
        one.kept = body["serial"] == before
        one.alarmed = any(text.startswith("renewal:") for text in body["alarms"])
        one.end = run.now()
        return one

    def judge(self, run: Run, stage: Rehearsal) -> None:
        """Check that clients rejected the certificate with an alarm, servers renewed, and no request failed."""
        stage.gates(self.began)
        check, gate = run.findings.check, run.findings.gate
        gate("usages in a new certificate", "serverAuth only", ", ".join(self.usages), self.usages == ["serverAuth"])
        self.check_nothing_lost(run, stage)
        clients = [r for r in self.renewals if r.host in CLIENTS]
        servers = [r for r in self.renewals if r.host in SERVERS]
        refused, wanted = sum(len(r.errors) for r in clients), TRIES * len(clients)
        run.findings.row("renewals refused", refused)
        run.findings.row("renewals of servers", sum(not r.kept for r in servers))
        named = sum("purpose" in error for r in clients for error in r.errors)
        got = f"{refused} of {wanted}, {named} because of the purpose"
        check("refused before use", f"all {wanted}, because of the purpose", got, named == wanted > 0)
        for name, wrong in (
            ("the old certificate stays in use", sorted({r.host for r in clients if not r.kept})),
            (f"alarm after {TRIES} failures", sorted({r.host for r in clients if not r.alarmed})),
        ):
            check(name, "on every edge", f"not on {', '.join(wrong)}" if wrong else "on every edge", not wrong)
        stuck = sorted({r.host for r in servers if r.kept})
        got, ok = f"not {', '.join(stuck)}" if stuck else "all", not stuck and bool(servers)
        check("hosts that are servers only renew", "all", got, ok)
        active = sorted({host for host in self.hosts if stage.watch.active(host)})
        check("the alarm ends with the fault", "no active alarm", ", ".join(active) or "none", not active)
        for each in clients[: len(CLIENTS)]:
            run.findings.fact(f"reason on {each.host}", (each.errors or ["accepted"])[0][:160])
        stage.facts(self.began, self.ended)
        lanes = [Lane(host, [_span(r) for r in self.renewals if r.host == host]) for host in self.hosts]
        stage.picture(
            "Certificates lose the usage clientAuth",
            "The panel shows the renewals of each host: green if the host did what it should (edges keep the old "
            "certificate, origins use the new one), red if not.",
            Panel(lanes=lanes, y="renewals without clientAuth"),
            shown=(),
        )


def usages_of(certificate: x509.Certificate) -> list[str]:
    """Return the sorted names of a certificate's extended key usages."""
    known = {ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth", ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth"}
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    return sorted(known.get(usage, usage.dotted_string) for usage in usages)


def _span(renewed: Renewed) -> Span:
    good = renewed.kept is (renewed.host in CLIENTS)
    return Span(
        renewed.begin, renewed.end, "kept the old one" if renewed.kept else "renewed", "good" if good else "bad"
    )
