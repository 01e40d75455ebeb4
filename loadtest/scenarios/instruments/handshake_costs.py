"""Measures CPU time, bytes and flights of in-memory TLS handshakes, for every kind that OpenSSL supports."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from experiments import Bars, Chart, Curve, Panel, Run
from scenarios.instruments import memory_handshake
from theory import handshake, slow_start

#: First OpenSSL version with ML-DSA certificates and X25519MLKEM768.
POST_QUANTUM_OPENSSL = (3, 5)
#: Largest deviation of a flight from theory in bytes: an ECDSA signature in DER has 70 to 72 bytes.
SIGNATURE_VARIES = 4
#: Number of handshakes per chain length; a few are enough, because the size hardly varies.
PER_CHAIN = 21


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of TLS handshake: key type, version, and options."""

    key: str
    version: handshake.Protocol = "TLSv1.3"
    resumed: bool = False
    #: Whether the client also authenticates with a certificate.
    mutual: bool = False
    intermediates: int = 1
    #: The only key exchange group that the server accepts; None for OpenSSL's default.
    group: str | None = None
    #: Whether the client's first key share is for a group that the server does not accept (RFC 8446 section 4.1.4).
    wrong_guess: bool = False

    @property
    def name(self) -> str:
        """Label in tables and charts."""
        words = [self.version.replace("TLSv", "TLS "), self.key]
        words += ["resumed"] * self.resumed + ["mutual"] * self.mutual + ["wrong guess"] * self.wrong_guess
        return ", ".join(words + ([self.group] if self.group and not self.wrong_guess else []))

    @property
    def flight_row(self) -> str:
        """Name of the results row for the size of the server's first flight with this chain length."""
        return f"server's flight, {self.key}, {_INTERMEDIATES[self.intermediates]}"

    @property
    def round_trips(self) -> int:
        """Predicted number of server flights that the client waits for."""
        return handshake.tls_round_trips(self.version, resumed=self.resumed, hello_retry=self.wrong_guess)

    def ends(self) -> memory_handshake.Ends:
        """Return a client and a server for this kind of handshake."""
        return memory_handshake.Ends(
            self.key, self.version, curve=self.group, intermediates=self.intermediates, mutual=self.mutual
        )


_INTERMEDIATES = ("no intermediate", "one intermediate", "two intermediates")
ECDSA, RSA = memory_handshake.KEYS
FULL, RESUMED, MUTUAL = Kind(ECDSA), Kind(ECDSA, resumed=True), Kind(ECDSA, mutual=True)
CLASSIC = Kind(ECDSA, group="X25519")
#: Kinds of handshake that every supported OpenSSL version can perform.
EVERYWHERE = (
    Kind(ECDSA, "TLSv1.2"), Kind(ECDSA, "TLSv1.2", resumed=True), FULL, RESUMED,
    Kind(RSA, "TLSv1.2"), Kind(RSA, "TLSv1.2", resumed=True), Kind(RSA), Kind(RSA, resumed=True),
    MUTUAL, Kind(RSA, mutual=True), CLASSIC, Kind(ECDSA, group="secp384r1", wrong_guess=True),
)  # fmt: skip
POST_QUANTUM = tuple(Kind(key) for key in memory_handshake.POST_QUANTUM_KEYS)
CHAINS = tuple(
    Kind(key, intermediates=n)
    for key in (*memory_handshake.KEYS, *memory_handshake.POST_QUANTUM_KEYS)
    for n in (0, 1, 2)
)


def supports_post_quantum(version: tuple[Any, ...] = ssl.OPENSSL_VERSION_INFO) -> bool:
    """Return whether this OpenSSL version has ML-DSA certificates and prefers X25519MLKEM768 by default."""
    return version >= POST_QUANTUM_OPENSSL


class HandshakeCosts:
    """Measures in-memory handshakes and compares them with theory."""

    def __init__(self) -> None:
        self.costs: dict[Kind, memory_handshake.Cost] = {}
        self.chains: dict[Kind, memory_handshake.Cost] = {}
        #: Server CPU time of an RSA handshake divided by the server CPU time of an ECDSA handshake: median over pairs
        #: of handshakes that run within a few milliseconds of each other.
        self.rsa_ratio = 0.0
        #: Size in bytes (DER) of each certificate that the server sends.
        self.certificates: dict[Kind, tuple[int, ...]] = {}
        #: Predicted size of the server's first flight in bytes.
        self.predicted: dict[Kind, int] = {}

    def predict(self, kind: Kind, certificates: tuple[int, ...]) -> int:
        """Return and store the predicted bytes of the server's first flight for certificates of these DER sizes."""
        # Every OpenSSL version with ML-DSA also has the hybrid group X25519MLKEM768.
        hybrid = kind.group is None and (supports_post_quantum() or kind.key in memory_handshake.POST_QUANTUM_KEYS)
        share = handshake.KEY_SHARE["X25519MLKEM768" if hybrid else "X25519"]
        self.certificates[kind] = certificates
        self.predicted[kind] = handshake.server_flight(certificates, handshake.SIGNATURE[kind.key], share)
        return self.predicted[kind]

    def measure(self, times: int, predicted: Callable[[str, int], None]) -> None:
        """Measure every kind of handshake.

        Args:
            times: number of handshakes of each kind.
            predicted: called before each certificate chain is measured, with the name of the row and the predicted
                bytes.
        """
        post_quantum = supports_post_quantum()
        ends_of = {kind: kind.ends() for kind in (*EVERYWHERE, *(POST_QUANTUM if post_quantum else ()))}
        # All kinds are measured in turn, so that changes in the speed of a shared core affect all of them equally.
        made: dict[Kind, list[memory_handshake.Cost]] = {kind: [] for kind in ends_of}
        for _ in range(times):
            for kind, ends in ends_of.items():
                made[kind].append(ends.shake(resumed=kind.resumed))
        for kind, costs in made.items():
            self.certificates[kind] = ends_of[kind].certificates
            self.costs[kind] = memory_handshake.Cost.of(costs)
        pairs = zip(made[Kind(RSA)], made[FULL], strict=True)
        self.rsa_ratio = median(rsa.server_ms / ecdsa.server_ms for rsa, ecdsa in pairs)
        for kind in CHAINS:
            if kind.key in memory_handshake.KEYS or post_quantum:
                ends = kind.ends()
                predicted(kind.flight_row, self.predict(kind, ends.certificates))
                self.chains[kind] = ends.cost(PER_CHAIN)
            else:  # this OpenSSL version cannot use such certificates in a handshake
                self.predict(kind, memory_handshake.chain_bytes(kind.key, kind.intermediates))

    def conclude(self, run: Run) -> None:
        """Report the cost of each kind, and compare bytes and flights with theory."""
        found = run.findings
        if not supports_post_quantum():
            found.leave_out(f"ML-DSA certificates and X25519MLKEM768: need OpenSSL 3.5, this is {ssl.OPENSSL_VERSION}")
        if not self.costs:
            return
        for kind, cost in self.costs.items():
            found.row(f"server CPU, {kind.name}", cost.server_ms, "ms")
            found.fact(f"client CPU, {kind.name}, ms", round(cost.client_ms, 4))
            found.fact(f"bytes to and from the server, {kind.name}", f"{cost.sent} / {cost.received}")
        for kind, cost in self.chains.items():
            row = found.row(kind.flight_row, cost.flight, "bytes")
            self._check_bytes(run, row.name, self.predicted[kind], cost.flight, SIGNATURE_VARIES)
            client = f"client CPU, {kind.key}, {_INTERMEDIATES[kind.intermediates]}, ms"
            found.fact(client, round(cost.client_ms, 4))
        wrong = [kind.name for kind, cost in self.costs.items() if cost.round_trips != kind.round_trips]
        expected = f"as predicted for all {len(self.costs)} kinds"
        got = f"wrong for {', '.join(wrong)}" if wrong else expected
        found.check("round trips of handshakes in memory", expected, got, not wrong)
        self._compare(run)
        found.chart(self._cpu())
        found.chart(self._flights())

    def _compare(self, run: Run) -> None:
        full, resumed = self.costs[FULL], self.costs[RESUMED]
        identity = handshake.identity(self.certificates[FULL], handshake.SIGNATURE[ECDSA])
        name, ratio = "server CPU of an RSA handshake over ECDSA", self.rsa_ratio
        run.findings.check(name, "> 1.5 ×", f"{ratio:.2f} ×", ratio > 1.5)
        saved = "resuming TLS 1.3 saves certificates and signature"
        self._check_bytes(run, saved, identity - handshake.PRE_SHARED_KEY, full.flight - resumed.flight)
        mutual = "a client in mutual TLS sends as much to authenticate"
        self._check_bytes(run, mutual, identity, self.costs[MUTUAL].sent - full.sent)
        if supports_post_quantum():
            # The ClientHello contains both key shares in both cases, so only the server's flight differs.
            more = handshake.KEY_SHARE["X25519MLKEM768"] - handshake.KEY_SHARE["X25519"]
            added = full.flight - self.costs[CLASSIC].flight
            self._check_bytes(run, "X25519MLKEM768 adds its ciphertext", more, added)

    @staticmethod
    def _check_bytes(run: Run, name: str, expected: int, got: int, room: int = 2 * SIGNATURE_VARIES) -> None:
        run.findings.check(
            name, f"{expected:,} ± {room} bytes", f"{got:,} bytes", abs(got - expected) <= room,
            value=got, low=expected - room, high=expected + room,
        )  # fmt: skip

    def _cpu(self) -> Chart:
        shown = [kind for kind in self.costs if kind.group is None and not (kind.key == RSA and kind.resumed)]
        server = [(i - 0.38, float(i), self.costs[kind].server_ms) for i, kind in enumerate(shown)]
        client = [(float(i), i + 0.38, self.costs[kind].client_ms) for i, kind in enumerate(shown)]
        return Chart(
            "RSA loads the server, ECDSA the client; resuming relieves both",
            [Panel([Bars("server", server, 0), Bars("client", client, 1)], y="CPU per handshake, ms", height=220)],
            x="both ends in memory, on one core; the chain is a leaf and one intermediate",
            caption="Signing is expensive with RSA, on the server; verifying is expensive with ECDSA, on the client. "
            "Mutual: both ends sign and verify. Resumed: no certificate and no signature; TLS 1.3 still agrees on a "
            "new key.",
            categories=[kind.name for kind in shown],
            name="handshake-cpu",
        )

    def _flights(self) -> Chart:
        shown = list(self.predicted)
        measured = [(i, self.chains[kind]) for i, kind in enumerate(shown) if kind in self.chains]
        window = slow_start.bytes_within(1)
        limit = [(-0.5, window), (len(shown) - 0.5, window)]
        flights: list[Bars | Curve] = [
            Bars("server's first flight", [(i - 0.3, i + 0.3, float(cost.flight)) for i, cost in measured], 0),
            *(
                Curve("theory", [(i - 0.4, self.predicted[kind]), (i + 0.4, self.predicted[kind])], "mark")
                for i, kind in enumerate(shown)
            ),
            Curve("initial window: ten segments", limit, "bad", dashed=True),
        ]
        client = Bars("client, including verification", [(i - 0.3, i + 0.3, cost.client_ms) for i, cost in measured], 1)
        unmeasured = " A theory mark without a bar: this OpenSSL has no ML-DSA." if len(measured) < len(shown) else ""
        return Chart(
            "Post-quantum chains outgrow the initial window",
            [Panel(flights, y="bytes sent", height=240), Panel([client], y="CPU, ms", height=110)],
            x="TLS 1.3, by key and number of intermediates (the root is not sent)",
            caption="Upper panel: bytes of the server's first flight; one above the dashed line costs another round "
            "trip on any "
            "path. Lower panel: CPU time of the client." + unmeasured,
            categories=[f"{kind.key} +{kind.intermediates}" for kind in shown],
            name="handshake-flights",
        )
