"""`integrity`: damage that TCP's checksum can not see is delivered over TCP, and ends the connection over TLS."""

import socket
import ssl
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import theory
from experiments import HERE, Chart, Control, Dots, Estimate, Experiment, Panel, Quantity, Run, parameter
from experiments.chart import Bars
from scenarios.connection import TRUST
from stub import Stub
from waterfall.errors import WaterfallError
from waterfall.tls import Channel, context

HOST = "www.example.com"
#: Octets of each response; the origin repeats 0 to 255, so what it has to be is known.
SIZE = 8192
EXPECTED = bytes(range(256)) * (SIZE // 256)
#: Kinds of damage, as `wan` names them.
DAMAGES: tuple[theory.integrity.Damage, ...] = ("swap16", "plusminus", "bitflip")
TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Parameters:
    """What can be varied."""

    share: float = parameter(0.03, low=0.001, high=0.3, help="of the packets towards the client that are damaged")
    responses: int = parameter(400, quick=60, low=10, high=10_000, help="of each kind of damage, over TCP and over TLS")


class Integrity(Experiment[Parameters]):
    """Packets are damaged on their way to the client, in ways that TCP's checksum sees and does not see."""

    name = "integrity"
    claim = "Two words swapped in a packet pass TCP's checksum and are delivered wrong; over TLS not one wrong byte arrives, the connection ends instead."
    says = (
        "The seed: TCP's checksum is not entirely reliable; one error in 16 GB to 10 TB gets through, and TLS's authentication catches it. More subtle: "
        "it depends on the damage. A flipped bit never passes; swapped 16-bit words always do, since a sum does not know their order."
    )
    source = "J. Stone, C. Partridge, “When the CRC and TCP checksum disagree”, SIGCOMM 2000; RFC 1071; RFC 8446 section 5.2."
    production = (
        "Never rely on TCP for integrity of what you store: damage happens in memory of routers and network cards, past the link's own CRC. "
        "TLS inside the data centre is also a checksum; without it add one end to end. A rising InCsumErrors is a broken device on the way."
    )
    settings = Parameters
    control = Control("bits are flipped instead of words swapped", ("wrong responses over TCP, swap16",))
    records = ("edge",)
    paths = ("edge",)

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        #: By damage and by tcp or tls: right, wrong, ended.
        self.seen: dict[tuple[str, str], Counter[str]] = {}
        self.windows: dict[str, tuple[float, float]] = {}

    def duration(self) -> float:
        """About 0.1 s for each response, retransmissions more."""
        return 3 + len(DAMAGES) * self.p.responses * 0.16

    def predict(self) -> Mapping[str, Quantity]:
        """Return the share of responses that arrive wrong: each data segment is hit on its own."""
        segments = -(-(SIZE + 300) // theory.slow_start.MSS)
        said = {}
        for damage in DAMAGES:
            hit = self.p.share * theory.integrity.passes(damage, "checksum")
            said[f"wrong responses over TCP, {damage}"] = Quantity(1 - (1 - hit) ** segments)
            said[f"wrong responses over TLS, {damage}"] = Quantity(0.0)
        return said

    async def measure(self, run: Run) -> None:
        """One kind of damage after the other, TCP and TLS in turn."""
        address = (await run.blocking(Stub().resolve, HOST)).rdata[0]
        tls = context("1.3", TRUST)
        for damage in DAMAGES:
            injected = "bitflip" if self.negative else damage
            undo = await run.link("near", "access", one_way=True, **{f"corrupt_{injected}": self.p.share})
            run.phase(f"damage: {damage}")
            began = run.now()
            for way in ("tcp", "tls"):
                self.seen[damage, way] = Counter()
            for _ in range(self.p.responses):
                for way, chosen in (("tcp", None), ("tls", tls)):
                    outcome = await run.blocking(_fetch, address, chosen)
                    self.seen[damage, way][outcome] += 1
            self.windows[damage] = (began, run.now())
            await run.undo(undo)

    def conclude(self, run: Run) -> None:
        """Count wrong responses, ended connections, and what the checksum caught."""
        for damage in DAMAGES:
            for way in ("TCP", "TLS"):
                counts = self.seen[damage, way.lower()]
                row = run.row(f"wrong responses over {way}, {damage}", Estimate.share(counts["wrong"], counts.total()))
                run.fact(f"connections that ended, {way}, {damage}", counts["ended"])
                if way == "TLS" or not row.predicted:
                    run.check(row.name, "0", str(counts["wrong"]), counts["wrong"] == 0)
                else:
                    held = row.measured.low <= row.predicted <= row.measured.high
                    run.check(row.name, f"{row.predicted:.1%}, within the interval", f"{row.measured.value:.1%} ({row.measured.low:.1%} to {row.measured.high:.1%})", held)  # fmt: skip
            caught = run.series[HERE].rise("Tcp.InCsumErrors", *self.windows[damage]) if HERE in run.series else 0
            run.fact(f"caught by TCP's checksum, {damage}", caught)
            if damage == "bitflip":
                run.check("flipped bits are caught by the checksum", "> 0", f"{caught:.0f}", caught > 0)
        ended = sum(self.seen[damage, "tls"]["ended"] for damage in ("swap16", "plusminus"))
        run.check("TLS ends connections that carry damage", "> 0", str(ended), ended > 0 or self.negative)
        low, high = (theory.integrity.octets_per_error(n) for n in theory.integrity.PACKETS_PER_ERROR)
        run.fact("the seed's range, computed: one error in, GB", f"{low / 1e9:,.0f} to {high / 1e9:,.0f}")
        run.chart(self._picture())

    def _picture(self) -> Chart:
        cases = [(damage, way) for damage in DAMAGES for way in ("tcp", "tls")]
        predicted = self.predict()
        bars = [(i - 0.3, i + 0.3, 100 * predicted[f"wrong responses over {way.upper()}, {damage}"].value) for i, (damage, way) in enumerate(cases)]  # fmt: skip
        dots: list[tuple[float, float, float, float]] = []
        ended: list[tuple[float, float, float, float]] = []
        for i, case in enumerate(cases):
            counts = self.seen[case]
            for target, word, shift in ((dots, "wrong", -0.12), (ended, "ended", 0.12)):
                e = Estimate.share(counts[word], counts.total()).scaled(100)
                target.append((i + shift, e.value, e.low, e.high))
        return Chart(
            "Responses that arrive wrong",
            [Panel([Bars("theory: delivered wrong", bars, 0), Dots("delivered wrong", dots, 1), Dots("connection ended instead", ended, 2)], y="% of the responses", height=260)],
            x="",
            caption=f"{self.p.share:.1%} of the packets to the client are damaged. swap16: two words change places; plusminus: one grows by what another "
            "shrinks; bitflip: one bit.",
            categories=[f"{damage} over {way.upper()}" for damage, way in cases],
            name="integrity",
        )  # fmt: skip


def _fetch(address: str, tls: ssl.SSLContext | None) -> str:
    """Return right, wrong or ended; blocking."""
    request = f"GET /bytes/{SIZE} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode("ascii")
    data = b""
    try:
        with socket.create_connection((address, 443 if tls else 80), TIMEOUT) as sock:
            channel = Channel(sock, tls, HOST) if tls else None
            if channel is not None:
                channel.handshake()
                channel.write(request)
            else:
                sock.sendall(request)
            while piece := (channel.read() if channel is not None else sock.recv(1 << 16)):
                data += piece
    except (OSError, WaterfallError):  # ssl.SSLError is an OSError
        return "ended"
    head, _, body = data.partition(b"\r\n\r\n")
    if body == EXPECTED and head.startswith(b"HTTP/1.1 200 "):
        return "right"
    if tls is not None and EXPECTED.startswith(body):
        return "ended"
    return "wrong"
