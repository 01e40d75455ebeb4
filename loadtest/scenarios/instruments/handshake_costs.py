"""Proving an identity in memory, in every way that this OpenSSL knows: what `handshake` says of CPU, octets and flights."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from experiments import Bars, Chart, Curve, Panel, Run
from scenarios.instruments import memory_handshake
from theory import handshake, slow_start

#: ML-DSA certificates and X25519MLKEM768 came with it.
POST_QUANTUM_OPENSSL = (3, 5)
#: By how many octets a flight may differ: an ECDSA signature in DER has 70 to 72.
SIGNATURE_VARIES = 4
#: Handshakes per chain length: octets hardly vary.
OF_EACH_CHAIN = 21


@dataclass(frozen=True, slots=True)
class Proof:
    """One way to prove who the server is (and the client, if *mutual*)."""

    key: str
    version: handshake.Protocol = "TLSv1.3"
    resumed: bool = False
    mutual: bool = False
    intermediates: int = 1
    #: The only key exchange group that the server takes.
    group: str | None = None
    #: Whether the client guesses another group than the server takes (RFC 8446 section 4.1.4).
    wrong_guess: bool = False

    @property
    def name(self) -> str:
        """As tables have it."""
        words = [self.version.replace("TLSv", "TLS "), self.key]
        words += ["resumed"] * self.resumed + ["mutual"] * self.mutual + ["wrong guess"] * self.wrong_guess
        return ", ".join(words + ([self.group] if self.group and not self.wrong_guess else []))

    @property
    def round_trips(self) -> int:
        """Flights of the server that the client has to wait for."""
        return handshake.tls_round_trips(self.version, resumed=self.resumed, hello_retry=self.wrong_guess)

    def ends(self) -> memory_handshake.Ends:
        """Return who will shake hands."""
        return memory_handshake.Ends(
            self.key, self.version, curve=self.group, intermediates=self.intermediates, mutual=self.mutual
        )


ECDSA, RSA = memory_handshake.KEYS
FULL, RESUMED, MUTUAL = Proof(ECDSA), Proof(ECDSA, resumed=True), Proof(ECDSA, mutual=True)
CLASSIC = Proof(ECDSA, group="X25519")
#: What every OpenSSL can.
EVERYWHERE = (
    Proof(ECDSA, "TLSv1.2"), Proof(ECDSA, "TLSv1.2", resumed=True), FULL, RESUMED,
    Proof(RSA, "TLSv1.2"), Proof(RSA, "TLSv1.2", resumed=True), Proof(RSA), Proof(RSA, resumed=True),
    MUTUAL, Proof(RSA, mutual=True), CLASSIC, Proof(ECDSA, group="secp384r1", wrong_guess=True),
)  # fmt: skip
POST_QUANTUM = tuple(Proof(key) for key in memory_handshake.POST_QUANTUM_KEYS)
CHAINS = tuple(
    Proof(key, intermediates=n)
    for key in (*memory_handshake.KEYS, *memory_handshake.POST_QUANTUM_KEYS)
    for n in (0, 1, 2)
)
_NUMBER = ("no intermediate", "one intermediate", "two intermediates")


def knows_post_quantum(version: tuple[Any, ...] = ssl.OPENSSL_VERSION_INFO) -> bool:
    """Return whether OpenSSL has ML-DSA certificates and agrees on X25519MLKEM768 unless told otherwise."""
    return version >= POST_QUANTUM_OPENSSL


def of_chain(proof: Proof) -> str:
    """Return the name of the row that holds a chain's flight."""
    return f"server's flight, {proof.key}, {_NUMBER[proof.intermediates]}"


class Proofs:
    """Shakes hands in memory, and says what came of it."""

    def __init__(self) -> None:
        self.costs: dict[Proof, memory_handshake.Cost] = {}
        self.chains: dict[Proof, memory_handshake.Cost] = {}
        #: How often RSA costs the server what ECDSA does: the median of handshakes a few milliseconds apart.
        self.rsa_times = 0.0
        #: Octets of the certificates that are sent, by chain; of the first flight, as theory has it.
        self.certificates: dict[Proof, tuple[int, ...]] = {}
        self.predicted: dict[Proof, int] = {}

    def predict(self, proof: Proof, certificates: tuple[int, ...]) -> int:
        """Keep and return the octets of the server's flight, once its certificates are there."""
        # Who knows ML-DSA knows the hybrid group, too.
        hybrid = proof.group is None and (knows_post_quantum() or proof.key in memory_handshake.POST_QUANTUM_KEYS)
        share = handshake.KEY_SHARE["X25519MLKEM768" if hybrid else "X25519"]
        self.certificates[proof] = certificates
        self.predicted[proof] = handshake.server_flight(certificates, handshake.SIGNATURE[proof.key], share)
        return self.predicted[proof]

    def shake(self, times: int, said: Callable[[str, int], None]) -> None:
        """Measure everything; *said* hears the octets that theory has for a chain before hands are shaken with it."""
        able = knows_post_quantum()
        ends_of = {proof: proof.ends() for proof in (*EVERYWHERE, *(POST_QUANTUM if able else ()))}
        # In turn: a core of a shared machine is half as fast a second later, and each way shall have its share of that.
        made: dict[Proof, list[memory_handshake.Cost]] = {proof: [] for proof in ends_of}
        for _ in range(times):
            for proof, ends in ends_of.items():
                made[proof].append(ends.shake(resumed=proof.resumed))
        for proof, costs in made.items():
            self.certificates[proof] = ends_of[proof].certificates
            self.costs[proof] = memory_handshake.Cost.of(costs)
        self.rsa_times = median(
            rsa.server_ms / ecdsa.server_ms for rsa, ecdsa in zip(made[Proof(RSA)], made[FULL], strict=True)
        )
        for proof in CHAINS:
            if proof.key in memory_handshake.KEYS or able:
                ends = proof.ends()
                said(of_chain(proof), self.predict(proof, ends.certificates))
                self.chains[proof] = ends.cost(OF_EACH_CHAIN)
            else:  # certificates can be made here, though not used
                self.predict(proof, memory_handshake.chain_octets(proof.key, proof.intermediates))

    def conclude(self, run: Run) -> None:
        """Say what each way costs, and hold octets and flights against theory."""
        if not knows_post_quantum():
            run.findings.leave_out(
                f"ML-DSA certificates and X25519MLKEM768: need OpenSSL 3.5, this is {ssl.OPENSSL_VERSION}"
            )
        if not self.costs:
            return
        for proof, cost in self.costs.items():
            run.findings.row(f"server CPU, {proof.name}", cost.server_ms, "ms")
            run.findings.fact(f"client CPU, {proof.name}, ms", round(cost.client_ms, 4))
            run.findings.fact(f"bytes to and from the server, {proof.name}", f"{cost.sent} / {cost.received}")
        for proof, cost in self.chains.items():
            run.findings.row(of_chain(proof), cost.flight, "octets")
            self._octets(run, of_chain(proof), self.predicted[proof], cost.flight, SIGNATURE_VARIES)
            run.findings.fact(f"client CPU, {proof.key}, {_NUMBER[proof.intermediates]}, ms", round(cost.client_ms, 4))
        wrong = [p.name for p, cost in self.costs.items() if cost.round_trips != p.round_trips]
        run.findings.check("round trips in memory, each way", f"as theory in {len(self.costs)} of {len(self.costs)} ways", f"wrong in {', '.join(wrong)}" if wrong else f"as theory in {len(self.costs)}", not wrong)  # fmt: skip
        self._compare(run)
        run.findings.chart(self._cpu())
        run.findings.chart(self._flights())

    def _compare(self, run: Run) -> None:
        full, resumed = self.costs[FULL], self.costs[RESUMED]
        proof = handshake.identity(self.certificates[FULL], handshake.SIGNATURE[ECDSA])
        run.findings.check("an RSA signature costs the server more than ECDSA's", "> 1.5 ×", f"{self.rsa_times:.2f} ×", self.rsa_times > 1.5)  # fmt: skip
        self._octets(run, "TLS 1.3 resumed spares certificates and signature", proof - handshake.PRE_SHARED_KEY, full.flight - resumed.flight)  # fmt: skip
        self._octets(run, "a client in mutual TLS sends as much proof", proof, self.costs[MUTUAL].sent - full.sent)
        if knows_post_quantum():
            # The client's hello holds both shares either way; the server's answer tells the groups apart.
            more = handshake.KEY_SHARE["X25519MLKEM768"] - handshake.KEY_SHARE["X25519"]
            self._octets(run, "X25519MLKEM768 adds its ciphertext", more, full.flight - self.costs[CLASSIC].flight)

    @staticmethod
    def _octets(run: Run, name: str, expected: int, got: int, room: int = 2 * SIGNATURE_VARIES) -> None:
        run.findings.check(name, f"{expected:,} ± {room} octets", f"{got:,} octets", abs(got - expected) <= room, value=got, low=expected - room, high=expected + room)  # fmt: skip

    def _cpu(self) -> Chart:
        shown = [p for p in self.costs if p.group is None and not (p.key == RSA and p.resumed)]
        costs = [self.costs[p] for p in shown]
        server, client = ([(i + at, i + at + 0.38, each) for i, each in enumerate(values)] for at, values in (
            (-0.38, [c.server_ms for c in costs]), (0.0, [c.client_ms for c in costs]),
        ))  # fmt: skip
        return Chart(
            "RSA costs the server, ECDSA the client; resuming spares both",
            [Panel([Bars("server", server, 0), Bars("client", client, 1)], y="CPU per handshake, ms", height=220)],
            x="both ends in memory, on one core; a chain of leaf and one intermediate",
            caption="Signing is what RSA makes dear, for the server; verifying is dear in ECDSA, for the client. Mutual: either end signs and verifies. "
            "Resumed: no certificate, no signature; TLS 1.3 still agrees on a fresh key.",
            categories=[p.name for p in shown],
            name="handshake-cpu",
        )

    def _flights(self) -> Chart:
        shown = list(self.predicted)
        window = slow_start.bytes_within(1)
        theirs = [Curve("theory", [(i - 0.4, self.predicted[p]), (i + 0.4, self.predicted[p])], "mark") for i, p in enumerate(shown)]  # fmt: skip
        flights = [(i - 0.3, i + 0.3, float(self.chains[p].flight)) for i, p in enumerate(shown) if p in self.chains]
        verified = [(i - 0.3, i + 0.3, self.chains[p].client_ms) for i, p in enumerate(shown) if p in self.chains]
        return Chart(
            "Post-quantum chains outgrow the initial window",
            [
                Panel(
                    [
                        Bars("server's first flight", flights, 0),
                        *theirs,
                        Curve("initial window: ten segments", [(-0.5, window), (len(shown) - 0.5, window)], "bad", dashed=True),
                    ],
                    y="octets sent", height=240,
                ),
                Panel([Bars("client, verifying included", verified, 1)], y="CPU, ms", height=110),
            ],
            x="TLS 1.3, by key and intermediates (the root is not sent)",
            caption="What a server sends before it is believed. A flight above the dashed line costs a round trip more, on any path."
            + ("" if self.chains.keys() == self.predicted.keys() else " A short line without a bar: theory alone, as this OpenSSL has no ML-DSA."),
            categories=[f"{p.key} +{p.intermediates}" for p in shown],
            name="handshake-flights",
        )  # fmt: skip
