"""Scenario `encryption`: measures cost per byte, the size at which a handshake is negligible, and who reads what."""

import platform
import secrets
import shutil
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from statistics import median

from experiments import Bars, Chart, Control, Curve, Dots, Estimate, Experiment, Lesson, Panel, Quantity, Run, parameter
from hostfiles.layout import TRUST_ANCHOR
from origin.correspondent import views
from scenarios.instruments import vantage_points
from scenarios.instruments.bulk_cipher import HIDING, Arm, Bulk, Worker, openssl_speed
from scenarios.instruments.connection import Address
from scenarios.instruments.key_update import Updated, update_keys
from stub import Stub
from theory import encryption

AES = Arm("AES-128-GCM", "TLS_AES_128_GCM_SHA256", "aes-128-gcm")
MASKED = Arm("AES-128-GCM without its instructions", "TLS_AES_128_GCM_SHA256", "aes-128-gcm", hidden=True)
ARMS = (
    AES, Arm("AES-256-GCM", "TLS_AES_256_GCM_SHA384", "aes-256-gcm"),
    Arm("ChaCha20-Poly1305", "TLS_CHACHA20_POLY1305_SHA256", "chacha20-poly1305"), MASKED,
)  # fmt: skip
#: Bytes that each arm encrypts and decrypts in one round.
ROUND = 4 << 20
#: Sizes of responses in bytes for which the handshake's share is measured, in addition to the predicted size.
SIZES = (1 << 14, 1 << 17, 1 << 20, 1 << 23)
#: Largest relative error of a cost per byte.  It is large because the cipher alone and TLS are measured seconds apart,
#: and the speed of a shared core changes.
COST = 0.2
#: Largest error of the handshake's share of the CPU time, relative to the larger of the handshake's and the transfer's
#: shares.
SHARE = 0.3
#: Largest relative error of the ratio of two costs.
RATIO = 0.25
#: Largest error of the duration of a request after a key update, in round trips.
UPDATE = 0.25
TARGET_SHARE = 0.01
RATIO_ROW = "CPU per byte, AES-128-GCM without its instructions / with them"
SIZE_ROW = "handshake's share of a connection of the predicted size"


def _readers(way: str) -> str:
    return (
        f"places that read {vantage_points.WAYS[way].partition(':')[0]}, {vantage_points.WAYS[way].partition(': ')[2]}"
    )


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters that the user can vary."""

    host: str = parameter("www.example.com", help="server whose keys are updated")
    rounds: int = parameter(40, quick=12, low=5, high=1000, help="rounds in which every cipher is measured once")
    speeds: int = parameter(5, quick=3, low=2, high=20, help="runs of `openssl speed` per cipher, one second each")
    connections: int = parameter(9, quick=5, low=3, high=100, help="connections of each size")
    rtt_ms: float = parameter(40.0, unit="ms", low=20, high=300, help="round-trip time between client and edge")
    updates: int = parameter(10, quick=5, low=1, high=100, help="key updates on one connection")


@dataclass(slots=True)
class Costs:
    """Measured costs of one arm."""

    #: CPU times measured within TLS, one element per round.
    rounds: list[Bulk] = field(default_factory=list)
    #: CPU seconds per byte of the cipher alone, one element per run of `openssl speed`.
    alone: list[float] = field(default_factory=list)

    def least(self, name: str) -> Estimate:
        """Return the smallest measured value of the field *name* of `Bulk`; a busy machine can only add CPU time."""
        return Estimate.least(getattr(each, name) for each in self.rounds)

    @property
    def theory(self) -> float:
        """Predicted CPU seconds per byte of encryption."""
        return encryption.per_byte_s(min(self.alone), self.least("sending").value, self.least("record").value)


class Encryption(Experiment[Parameters]):
    """Measures CPU time with TLS in memory and key updates with `openssl s_client`; taps show who can read what."""

    name = "encryption"
    claim = (
        "Encryption costs a fraction of a nanosecond per byte where the CPU has instructions for it, and protects only "
        "as far as it reaches."
    )
    says = (
        "The textbook says that symmetric encryption is cheap with dedicated CPU instructions, so there is no reason "
        "not to use TLS everywhere. In practice that holds for transfers: a handshake costs as much CPU time as "
        "encrypting a few megabytes, so short connections pay for asymmetric cryptography, not for AES. And TLS "
        "everywhere still lets every server on the way read everything."
    )
    source = (
        "RFC 8446 sections 4.6.3 (key update), 5.2 (records) and 5.5 (limits of a key); RFC 8439 (ChaCha20-Poly1305); "
        "OpenSSL, OPENSSL_ia32cap(3); the witness is `openssl speed`."
    )
    production = (
        "Do not turn TLS off to save CPU time: reuse connections instead, because the handshake is the expensive part. "
        "Check that the AES instructions are visible in virtual machines and containers (`grep aes /proc/cpuinfo`): "
        "without them AES-GCM costs ten times as much, and ChaCha20-Poly1305 is the better choice, so let clients "
        "without them put it first. Long-lived, fast connections need key updates before 2^24.5 records. Encrypt end "
        "to end what the operators of edge, origin and database must not read."
    )
    settings = Parameters
    control = Control("the CPU's instructions for AES stay visible", (RATIO_ROW,))
    paths = ("edge",)
    lessons = (
        Lesson(
            "A text is sent over HTTPS through an edge, and stored. How many of five places can read it: the network, "
            "the edge, the origin, the database file, the recipient?",
            _readers("https"), "", 0.5,
        ),
        Lesson(
            "The text is now encrypted end to end. How many of the five places can read it?",
            _readers("letter"), "", 0.5,
        ),
        Lesson(
            "A client sends a request right after it has announced a new key, on a path of 40 ms. After how many round "
            "trips does the response begin?",
            "round trips of a request right after a key update", "", 0.3,
        ),
    )  # fmt: skip

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.costs = {arm: Costs() for arm in ARMS}
        #: Pairs of CPU seconds (of the handshake, of the transfer), keyed by bytes transferred per connection.
        self.connections: dict[int, list[tuple[float, float]]] = defaultdict(list)
        #: The size in bytes at which the handshake is predicted to be `TARGET_SHARE` of the CPU time.
        self.size = 0
        self.suites: dict[Arm, str] = {}
        self.updated: Updated | None = None
        self.read: list[vantage_points.View] = []

    def duration(self) -> float:
        """Return the expected duration in seconds; `openssl speed` and AES without CPU support take most of it."""
        return 6 + len(ARMS) * self.p.speeds * 1.1 + self.p.rounds * 0.08 + self.p.connections * 0.15

    def predict(self) -> Mapping[str, Quantity]:
        """Predict the quantities that do not depend on the machine; the run predicts costs from `openssl speed`."""
        return {
            SIZE_ROW: Quantity(100 * TARGET_SHARE, "%"),
            "key updates answered by the server": Quantity(self.p.updates),
            "round trips of a request right after a key update": Quantity(1.0),
            **{_readers(way): Quantity(len(places)) for way, places in vantage_points.READS.items()},
            "places that read exactly what they should": Quantity(
                len(vantage_points.WAYS) * len(vantage_points.PLACES)
            ),
        }

    async def measure(self, run: Run) -> None:
        """Measure CPU time in separate processes, then update keys on a connection, then record who can read what."""
        if shutil.which("openssl") is None:
            run.skip("`openssl speed` is the witness, and this machine has no openssl program")
        arms = [arm for arm in ARMS if not arm.hidden or platform.machine() in HIDING]
        if len(arms) < len(ARMS):
            run.findings.leave_out(f"hidden instructions: OpenSSL has no switch for them on {platform.machine()}")
        await self._measure_ciphers(run, arms)
        address = (await run.blocking(Stub().resolve, self.p.host)).rdata[0]
        await run.lab.link("access", "near", rtt_ms=self.p.rtt_ms)
        run.phase("key updates")
        self.updated = await run.blocking(update_keys, Address(self.p.host, address, 443), TRUST_ANCHOR, self.p.updates)
        run.phase("one text, sent in four ways")
        edge = (await run.blocking(Stub().resolve, vantage_points.HOST)).rdata[0]
        send = partial(views, vantage_points.HOST, TRUST_ANCHOR, f"meet me at noon #{secrets.token_hex(3)}")
        evidence = await run.blocking(vantage_points.collect, run.lab.admin, edge, send)
        self.read = list(vantage_points.views_of(evidence))

    async def _measure_ciphers(self, run: Run, arms: list[Arm]) -> None:
        """Measure each cipher alone and within TLS, alternately; then measure whole connections of different sizes."""
        with ExitStack() as stack:
            workers = {}
            for arm in arms:
                started = Arm(arm.name, arm.suite, arm.cipher) if self.negative else arm
                workers[arm] = stack.enter_context(await run.blocking(Worker, started))
                self.suites[arm] = workers[arm].suite
            run.phase("each cipher alone: openssl speed")
            for _, arm in run.interleaved(arms, self.p.speeds):
                self.costs[arm].alone.append(await run.blocking(openssl_speed, arm))
            run.phase("each cipher within TLS")
            for _, arm in run.interleaved(arms, self.p.rounds):
                self.costs[arm].rounds.append(await run.blocking(workers[arm].bulk, ROUND))
            run.phase("whole connections")
            worker, costs = workers[AES], self.costs[AES]
            probes = [(await run.blocking(worker.connection, SIZES[0]))[0] for _ in range(2 * self.p.connections)]
            per_byte = costs.least("encrypt").value + costs.least("decrypt").value
            self.size = round(encryption.bytes_where_handshake_is(TARGET_SHARE, min(probes), per_byte))
            for _, size in run.interleaved((*SIZES, self.size), self.p.connections):
                self.connections[size].append(await run.blocking(worker.connection, size))

    # --- conclusions ------------------------------------------------------------------------------------------------

    def conclude(self, run: Run) -> None:
        """Compare the CPU times of TLS with those of the ciphers alone; check the key updates and who read what."""
        run.raw["encryption, s/byte"] = {
            arm.name: [each.encrypt for each in costs.rounds] for arm, costs in self.costs.items()
        }
        run.raw["connections, s"] = {str(size): each for size, each in self.connections.items()}
        wrong = [f"{arm.name}: {suite}" for arm, suite in self.suites.items() if suite != arm.suite]
        run.findings.gate("cipher suites negotiated", "as configured", ", ".join(wrong) or "as configured", not wrong)
        theory = {arm: costs.theory for arm, costs in self.costs.items() if costs.rounds and costs.alone}
        self._per_byte(run, theory)
        if self.connections:
            self._shares(run)
        if self.updated is not None:
            self._updates(run, self.updated)
        for way in vantage_points.WAYS:
            run.findings.row(_readers(way), sum(view.reads for view in self.read if view.way == way))
        right = sum(view.right for view in self.read)
        run.findings.check_near(run.findings.row("places that read exactly what they should", right), 0.0)
        run.findings.chart(self._cost_chart(theory))
        run.findings.chart(self._share_chart())

    def _per_byte(self, run: Run, theory: Mapping[Arm, float]) -> None:
        found, ns = run.findings, 1e9
        for arm, seconds in theory.items():
            costs, name = self.costs[arm], f"CPU to encrypt, {arm.name}"
            run.result.prediction[name] = Quantity(seconds * ns, "ns/byte")
            row = found.row(name, costs.least("encrypt").scaled(ns))
            if arm is not MASKED:  # this arm is checked as a ratio, which fails in the negative control
                found.check_near(row, COST)
            found.fact(f"CPU to decrypt, {arm.name}, ns/byte", round(costs.least("decrypt").value * ns, 3))
            found.fact(f"`openssl speed`, {arm.name}, GB/s", round(1e-9 / min(costs.alone), 2))
        if AES in theory:
            costs = self.costs[AES]
            found.fact("CPU to copy without encrypting, ns/byte", round(costs.least("sending").value * ns, 3))
            found.fact("CPU per record whatever its length, AES-128-GCM, ns", round(costs.least("record").value * ns))
            used_up = encryption.key_lasts_s(costs.least("encrypt").value)
            found.fact("CPU seconds of encryption after which an AES-GCM key must be updated", round(used_up))
        if MASKED in theory and AES in theory:
            run.result.prediction[RATIO_ROW] = Quantity(theory[MASKED] / theory[AES])
            slow, fast = (self.costs[arm].least("encrypt") for arm in (MASKED, AES))
            found.check_near(found.row(RATIO_ROW, slow.scaled(1 / fast.value)), RATIO)

    def _shares(self, run: Run) -> None:
        """Check the handshake's share of the CPU time of a connection."""
        run.findings.fact("bytes for which the handshake is predicted to be 1 % of the CPU time", self.size)
        run.findings.fact("CPU of a handshake, both ends, ms", round(1000 * self._handshake(), 3))
        if self.connections.get(self.size):
            row = run.findings.row(SIZE_ROW, self._share(self.size))
            run.findings.check_near(row, SHARE)

    def _updates(self, run: Run, updated: Updated) -> None:
        found = run.findings
        found.check_near(found.row("key updates answered by the server", updated.received), 0.0)
        trips = [taken / self.p.rtt_ms for taken in updated.requests_ms[1:]]
        row = found.row(
            "round trips of a request right after a key update", Estimate(min(trips), min(trips), max(trips))
        )
        found.check_near(row, UPDATE, absolute=True)

    def _handshake(self) -> float:
        """Return the smallest CPU time of a handshake in seconds, as the sum of client and server."""
        return min(handshake for each in self.connections.values() for handshake, _ in each)

    def _share(self, size: int) -> Estimate:
        """Return the handshake's share in % of the CPU time of connections that transfer *size* bytes."""
        handshakes, transfers = zip(*self.connections[size], strict=True)
        value = 100 * encryption.handshake_share(1.0, min(handshakes), min(transfers))
        return Estimate(value, value, value, len(handshakes))

    def _cost_chart(self, theory: Mapping[Arm, float]) -> Chart:
        ns, shown = 1e9, list(theory)
        encrypt = [(i - 0.3, float(i), ns * self.costs[arm].least("encrypt").value) for i, arm in enumerate(shown)]
        decrypt = [(float(i), i + 0.3, ns * self.costs[arm].least("decrypt").value) for i, arm in enumerate(shown)]
        copying = ns * median(self.costs[arm].least("sending").value for arm in shown) if shown else 0.0
        marks: list[Bars | Curve] = [
            Bars("encrypt", encrypt, 0), Bars("decrypt", decrypt, 1),
            *(Curve("theory: cipher alone + copying + record", [(i - 0.35, each), (float(i), each)], "mark")
              for i, each in enumerate(ns * seconds for seconds in theory.values())),
            Curve("copying alone", [(-0.5, copying), (len(shown) - 0.5, copying)], 3, dashed=True),
        ]  # fmt: skip
        return Chart(
            "AES-GCM is cheap with the CPU's instructions; without them ChaCha20-Poly1305 is cheaper",
            [Panel(marks, y="CPU time, ns per byte", height=260)],
            x="TLS 1.3 cipher suite, records of 16 KiB, one core",
            caption="Bars: CPU time per byte of TLS in memory, the fastest of the rounds. Marks: the cipher alone, as "
            "`openssl speed` measures it, plus copying the bytes through the same memory, plus 1/16,384 of the time "
            "per record. Dashed: only copying them, as the sender does.",
            categories=[arm.name.replace(" without its instructions", ", masked") for arm in shown],
            name="encryption",
        )

    def _share_chart(self) -> Chart:
        sizes = sorted(self.connections)
        costs = self.costs[AES]
        per_byte = costs.least("encrypt").value + costs.least("decrypt").value if costs.rounds else 0.0
        low, high = (sizes[0] / 1e6 / 2, sizes[-1] / 1e6 * 2) if sizes else (0.01, 100.0)
        handshake = self._handshake() if sizes else 0.0
        ticks = [low * (high / low) ** (i / 60) for i in range(61)]
        line = [(mb, 100 * encryption.handshake_share(mb * 1e6, handshake, per_byte)) for mb in ticks if handshake]
        dots = []
        for size in sizes:
            share = self._share(size).value
            dots.append((size / 1e6, share, share, share))
        return Chart(
            "A small transfer pays for the handshake, not for encryption",
            [
                Panel(
                    [Curve("theory", line, 0), Dots("measured", dots, 1)],
                    y="handshake, % of CPU time",
                    log=True,
                    low=None,
                )
            ],
            x="bytes per connection, MB",
            caption="TLS 1.3 with ECDSA P-256 and AES-128-GCM, client and server added up, without the kernel's share. "
            "The last dot is at the size at which theory expects 1 %.",
            log=True,
            low=low,
            high=high,
            name="encryption-share",
        )
