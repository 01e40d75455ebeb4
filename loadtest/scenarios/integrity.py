"""`integrity`: TCP's checksum lets some damage pass for certain; TLS lets none, and pays with the connection."""

import ssl
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

from experiments import (
    Chart,
    Control,
    Curve,
    Dots,
    Estimate,
    Experiment,
    Lane,
    Panel,
    Quantity,
    Run,
    Span,
    parameter,
)
from hostfiles.layout import TRUST_ANCHOR
from linuxnet import counters
from scenarios.instruments.connection import Address, Connection
from scenarios.instruments.corruption import Fetch, K, judge, total
from stub import Stub
from theory import integrity, slow_start
from wireformat.tls import client_context

HOST = "www.example.com"
#: Seconds without an octet after which an answer is given up: a record whose length was damaged is waited for in vain.
PATIENCE = 4.0
#: Round-trip time meanwhile: what is counted here are packets, not milliseconds.
RTT_MS = 6.0
#: Of a TLS connection, the segments beside the body's: server flight, tickets, head, close_notify.
OTHER_SEGMENTS = 6
#: Damaged packets of each kind and arm without which their shares say nothing.
ENOUGH = 8
KINDS: dict[integrity.Damage, str] = {
    "swap16": "words swapped",
    "plusminus": "words ± k",
    "bitflip": "bit flipped",
    "random": "16 random bytes",
}
#: What protects the answer: port 80; port 80 and a check of the application's own, of the body only; port 443.
ARMS = ("TCP", "TCP + CRC", "TLS")


@dataclass(frozen=True, slots=True)
class Parameters:
    """What can be varied."""

    share: float = parameter(0.02, low=0.001, high=0.2, help="probability that a packet is damaged")
    segments: int = parameter(100, low=10, high=1000, help="in the body of each answer")
    answers: int = parameter(60, quick=12, low=5, high=1000, help="of each kind of damage and each protection")
    lengths: tuple[int, ...] = parameter((10, 25, 50, 100, 200, 400), quick=(10, 50, 200), low=1, high=2000, unit="segments", help="of answers over TLS, to see which survive")  # fmt: skip
    connections: int = parameter(120, quick=30, low=10, high=2000, help="over TLS, of each length")
    lasting_share: float = parameter(0.01, low=0.0005, high=0.1, help="probability of damage for those")


class Integrity(Experiment[Parameters]):
    """Answers over a link that damages payloads in four ways, with three protections."""

    name = "integrity"
    claim = "Damage that keeps TCP's checksum valid reaches the application every time over TCP and never over TLS, whose connection dies instead."
    says = (
        "The seed: a checksum verifies the integrity of a delivered segment; yet TCP's is not fully reliable, one wrong packet slips through "
        "in 16 GB to 10 TB, and TLS's authentication code is what detects it. More subtle: it is not a matter of luck. The sum of "
        "16-bit words does not know their order, so two words that change places pass with certainty, and a flipped bit never does. Such damage "
        "is made by memory and software in hosts and routers, behind the link layer's CRC, which is why nobody else sees it."
    )
    source = (
        "RFC 1071 (the sum), RFC 9293 section 3.1; J. Stone and C. Partridge, “When the CRC and TCP checksum disagree” (SIGCOMM 2000): one packet in "
        "16 million to 10 billion is delivered wrong; RFC 8446 sections 5.2 (a record that does not verify ends the connection) and 5.5."
    )
    production = (
        "Use TLS inside the data centre too: it is the only layer here that never delivers a wrong byte. Where there is none (replication, backups, "
        "caches), carry a checksum of your own from end to end, and test that a mismatch is refused. Watch two signals: InCsumErrors "
        "(damage that was seen, and thus says how much was not) and bad_record_mac alerts: a single host with many of them has broken memory or a "
        "broken offload. A client must be ready to retry: over TLS damage looks like a lost connection."
    )
    settings = Parameters
    control = Control("TLS is taken away: those answers come over port 80, too", ("wrong octets over TLS",))
    paths = ("edge",)

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.fetches: dict[tuple[integrity.Damage, str], list[Fetch]] = defaultdict(list)
        self.lasting: dict[int, list[Fetch]] = defaultdict(list)

    def duration(self) -> float:
        """A connection takes a few round trips, and some wait for a retransmission."""
        return 3 + 0.07 * self.p.answers * len(KINDS) * len(ARMS) + 0.06 * self.p.connections * len(self.p.lengths)

    def predict(self) -> Mapping[str, Quantity]:
        """Return shares of damaged packets, and of connections."""
        predicted = {}
        for kind, words in KINDS.items():
            passes = integrity.passes(kind, "checksum")
            predicted[f"{words}: delivered over TCP"] = Quantity(passes, "of damaged packets")
            predicted[f"{words}: refused by TCP's checksum"] = Quantity(1 - passes, "of damaged packets")
            predicted[f"{words}: wrong bodies that a CRC-32 accepts"] = Quantity(passes * integrity.passes(kind, "crc32"), "of bodies")  # fmt: skip
            predicted[f"{words}: TLS connections that end"] = Quantity(passes * (1 - integrity.passes(kind, "tag")), "of those hit")  # fmt: skip
        predicted["wrong octets over TLS"] = Quantity(0, "octets")
        predicted["TLS connections that end when hit"] = Quantity(1, "of those hit")
        for packets in integrity.PACKETS_PER_ERROR:
            predicted[_rare(packets)] = Quantity(integrity.bytes_per_error(packets) / integrity.GB, "GB")
        for length in self.p.lengths:
            survives = integrity.connection_survives(self.p.lasting_share, length + OTHER_SEGMENTS, "swap16")
            predicted[f"TLS answers of {length} segments that arrive"] = Quantity(survives, "of connections")
        return predicted

    async def measure(self, run: Run) -> None:
        """Damage what the edge sends, one way at a time; ask again and again."""
        address = (await run.blocking(Stub().resolve, HOST)).rdata[0]
        await run.lab.link("access", "near", rtt_ms=RTT_MS)
        asker = _Asker(run, address, tls=not self.negative)
        await run.blocking(asker.prepare)
        for kind, words in KINDS.items():
            run.phase(words)
            await self._damage(run, kind, self.p.share)
            for _, arm in run.interleaved(ARMS, self.p.answers):
                fetch = await run.blocking(asker.ask, arm, self.p.segments * slow_start.MSS, kind)
                self.fetches[kind, arm].append(fetch)
        run.phase("which TLS connections survive")
        await self._damage(run, "swap16", self.p.lasting_share)
        for _, length in run.interleaved(self.p.lengths, self.p.connections):
            self.lasting[length].append(await run.blocking(asker.ask, "TLS", length * slow_start.MSS, "swap16"))
        await self._damage(run, "swap16", 0.0)

    async def _damage(self, run: Run, kind: integrity.Damage, share: float) -> None:
        settings = {f"corrupt_{each}": share if each == kind else 0.0 for each in KINDS}
        await run.lab.link("near", "access", one_way=True, **settings, corrupt_k=K)

    def conclude(self, run: Run) -> None:
        """Hold what was delivered against what `wan` damaged."""
        run.raw["fetches"] = {f"{kind}, {arm}": [str(f) for f in found] for (kind, arm), found in self.fetches.items()}
        for (kind, arm), found in self.fetches.items():
            count = total(found, "damaged")
            run.findings.gate(
                f"{KINDS[kind]}, {arm}: packets that wan damaged", f">= {ENOUGH}", str(count), count >= ENOUGH
            )
        for kind, words in KINDS.items():
            self._over_tcp(run, kind, words)
            self._checked_by_the_application(run, kind, words)
            self._each_over_tls(run, kind, words)
        self._over_tls(run)
        self._survivors(run)
        self._rarely(run)
        run.findings.fact("the same, with packets of 1,448 bytes", _sizes(slow_start.MSS))
        run.findings.fact("packets damaged at random, for one that passes the checksum", 65_535)
        run.findings.chart(self._fates())
        run.findings.chart(self._survival())

    def _over_tcp(self, run: Run, kind: integrity.Damage, words: str) -> None:
        # Of a segment that came twice one copy is thrown away unread, wrong or not: such answers prove nothing.
        found = [each for each in self.fetches[kind, "TCP"] if not each.twice or kind in {"bitflip", "random"}]
        damaged = total(found, "damaged")
        passes = integrity.passes(kind, "checksum") == 1.0
        for row, count, expected in (
            (f"{words}: delivered over TCP", total(found, "delivered"), damaged if passes else 0),
            (f"{words}: refused by TCP's checksum", total(found, "refused"), 0 if passes else damaged),
        ):
            run.findings.row(row, Estimate.share(min(count, damaged), damaged))
            run.findings.check(row, f"{expected} of {damaged}", f"{count} of {damaged}", count == expected)

    def _checked_by_the_application(self, run: Run, kind: integrity.Damage, words: str) -> None:
        found = self.fetches[kind, "TCP + CRC"]
        wrong = [each for each in found if each.wrong]
        accepted = sum(1 for each in wrong if each.crc_holds)
        name = f"{words}: wrong bodies that a CRC-32 accepts"
        run.findings.row(name, Estimate.share(accepted, len(found)))
        run.findings.check(name, "0", f"{accepted} of {len(wrong)} wrong ones, among {len(found)}", accepted == 0)
        heads = sum(1 for each in found if each.head_is_wrong)
        run.findings.fact(f"{words}: wrong heads, which the body's CRC-32 does not cover", f"{heads} of {len(found)}")

    def _each_over_tls(self, run: Run, kind: integrity.Damage, words: str) -> None:
        passes = integrity.passes(kind, "checksum") == 1.0
        hit = [each for each in self.fetches[kind, "TLS"] if each.damaged and not (passes and each.twice)]
        ended = sum(each.ended for each in hit)
        name = f"{words}: TLS connections that end"
        run.findings.row(name, Estimate.share(ended, len(hit)))
        expected = len(hit) if passes else 0
        run.findings.check(name, f"{expected} of {len(hit)} hit", f"{ended} of {len(hit)}", ended == expected)

    def _rarely(self, run: Run) -> None:
        """Compute what the seed's rates come to with the share of swapped words that was measured to pass."""
        found = [each for each in self.fetches["swap16", "TCP"] if not each.twice]
        passed = total(found, "delivered") / (total(found, "damaged") or 1)
        for packets in integrity.PACKETS_PER_ERROR:
            if passed:
                run.findings.row(_rare(packets), integrity.bytes_per_error(packets / passed) / integrity.GB)

    def _over_tls(self, run: Run) -> None:
        found = [each for kind in KINDS for each in self.fetches[kind, "TLS"]]
        found += [each for each_length in self.lasting.values() for each in each_length]
        wrong, octets = total(found, "wrong"), total(found, "octets")
        run.findings.row("wrong octets over TLS", wrong)
        run.findings.check("wrong octets over TLS", "0", f"{wrong:,} of {octets:,}", wrong == 0)
        # What the checksum refuses is sent again, so only the other kinds end a connection.
        passing = [each for kind in KINDS if integrity.passes(kind, "checksum") == 1.0 for each in self.fetches[kind, "TLS"]]  # fmt: skip
        passing += [each for each_length in self.lasting.values() for each in each_length]
        hit = [each for each in passing if each.damaged and not each.twice]
        ended = sum(each.ended for each in hit)
        run.findings.row("TLS connections that end when hit", Estimate.share(ended, len(hit)))
        run.findings.check("TLS connections that end when hit", f"{len(hit)} of {len(hit)}", f"{ended} of {len(hit)}", ended == len(hit))  # fmt: skip
        whole = sum(each.ended for each in passing if not each.damaged)
        run.findings.check("TLS connections that end unharmed", "0", str(whole), whole == 0)

    def _survivors(self, run: Run) -> None:
        expected = variance = survived = 0.0
        for length, found in sorted(self.lasting.items()):
            arrived = sum(not each.ended for each in found)
            run.findings.row(f"TLS answers of {length} segments that arrive", Estimate.share(arrived, len(found)))
            chance = integrity.connection_survives(self.p.lasting_share, length + OTHER_SEGMENTS, "swap16")
            expected, variance = expected + len(found) * chance, variance + len(found) * chance * (1 - chance)
            survived += arrived
        room = 4 * sqrt(variance) + 1
        run.findings.check("TLS answers that arrive", f"{expected:.0f} ± {room:.0f} (four standard deviations)", f"{survived:.0f}", abs(survived - expected) <= room)  # fmt: skip

    def _fates(self) -> Chart:
        passed = {arm: sum(total(self.fetches[kind, arm], "delivered") for kind in KINDS) for arm in ("TCP", "TLS")}
        panels = []
        for kind, words in KINDS.items():
            lanes = []
            for arm in ARMS:
                spans, begin = [], 0
                for fate, (count, colour) in _fates(self.fetches[kind, arm], arm).items():
                    if count:
                        spans.append(Span(begin, begin + count, f"{count} {fate}", colour))
                    begin += count
                lanes.append(Lane(arm, spans))
            panels.append(Panel(lanes=lanes, y=words))
        return Chart(
            f"Damaged on the way: TCP delivers {passed['TCP']} packets as if they were right, TLS {passed['TLS'] or 'none'}",
            panels,
            x="damaged packets",
            caption="What became of every damaged packet. Theory: swapped words, and one word that grows by what another shrinks, keep the sum of 16-bit words: over TCP alone every such packet is "
            "delivered (red). A flipped bit always breaks the sum, 16 random bytes all but once in 65,535 times. Over TLS whatever passes the "
            "sum ends the connection.",
            low=0.0,
            name="integrity",
        )

    def _survival(self) -> Chart:
        far = max(self.p.lengths) * 1.05
        share = self.p.lasting_share
        step = max(1, round(far / 80))
        lengths = range(0, round(far) + 1, step)
        curve = [(float(n), 100 * integrity.connection_survives(share, n + OTHER_SEGMENTS, "swap16")) for n in lengths]
        dots = []
        for length, found in sorted(self.lasting.items()):
            measured = Estimate.share(sum(not each.ended for each in found), len(found)).scaled(100)
            dots.append((float(length), measured.value, measured.low, measured.high))
        return Chart(
            "Over TLS, damage costs the connection: the longer an answer, the fewer arrive",
            [
                Panel(
                    [
                        Curve("theory: (1 - p) to the power of the segments", curve, 0),
                        Dots("measured, 95 % interval", dots, 1),
                    ],
                    y="arrive whole and right, %",
                    height=260,
                    high=105.0,
                )
            ],
            x=f"length of the answer, segments; {100 * share:g} % of the packets are damaged",
            caption="None of them arrives wrong. The price of that certainty is the connection: the longer an answer, the less likely that it arrives "
            "at the first attempt.",
            low=0.0,
            high=far,
            name="integrity-survival",
        )


class _Asker:
    """Asks the edge for answers, and reads the counters around each; blocking."""

    def __init__(self, run: Run, address: str, *, tls: bool) -> None:
        self._lab = run.lab.admin
        self._plain, self._secure = Address(HOST, address, 80), Address(HOST, address, 443)
        self._context: ssl.SSLContext | None = client_context(TRUST_ANCHOR, "1.3") if tls else None
        self._head = b""

    def prepare(self) -> None:
        """See what an undamaged head looks like; the edge's connections to the origins are open from now on."""
        for _ in range(4):
            stream, _ = self._read(self._plain, None, 1000)
            self._head = stream[:-1000]

    def ask(self, arm: str, octets: int, kind: integrity.Damage) -> Fetch:
        """Fetch one answer of *octets*."""
        over_tls = arm == "TLS" and self._context is not None
        before, own = self._damaged(kind), counters.protocols()
        stream, ended = self._read(self._secure if over_tls else self._plain, self._context if over_tls else None, octets)  # fmt: skip
        after, own_after = self._damaged(kind), counters.protocols()
        refused, twice = (own_after.get(name, 0) - own.get(name, 0) for name in ("Tcp.InCsumErrors", "TcpExt.TCPDSACKOldSent"))  # fmt: skip
        return judge(stream, octets, self._head, ended=ended, damaged=after - before, refused=refused, twice=twice)

    @staticmethod
    def _read(to: Address, secure: ssl.SSLContext | None, octets: int) -> tuple[bytes, bool]:
        """Return what came, and whether the connection ended early."""
        parts = []
        try:
            with Connection(to, secure, timeout=PATIENCE) as connection:
                for _, data in connection.arrivals(f"/bytes/{octets}", last=True):
                    parts.append(data)
        except (ssl.SSLError, TimeoutError):
            if secure is None:
                raise
            return b"".join(parts), True
        return b"".join(parts), False

    def _damaged(self, kind: integrity.Damage) -> int:
        """Return how many packets `wan` has damaged, once nothing is on the way any more."""
        before = (-1, -1)
        while True:
            links = self._lab.call("wan", "GET", "/admin/counters")["links"]
            link = next(each for each in links if (each["from"], each["to"]) == ("near", "access"))
            now = (int(link["packets"]), int(link["corrupted"].get(kind, 0)))
            if now == before and not link["queued"]:
                return now[1]
            before = now
            time.sleep(RTT_MS / 1000)  # what is on the way arrives


def _fates(found: Sequence[Fetch], arm: str) -> dict[str, tuple[int, str | int]]:
    """Return what became of the damaged packets of an arm: how many, and the colour that it has."""
    refused = total(found, "refused")
    delivered = 0 if arm == "TLS" else total(found, "delivered")
    caught = total([each for each in found if not each.crc_holds], "delivered") if arm == "TCP + CRC" else 0
    ended = total([each for each in found if each.ended], "damaged") - total([each for each in found if each.ended], "refused")  # fmt: skip
    return {
        "delivered wrong, and nobody noticed": (delivered - caught, "bad"),
        "refused by TCP's checksum, and sent again": (refused, 0),
        "refused by the application's CRC-32": (caught, "mark"),
        "ended their connection: TLS's tag did not match": (ended, "good"),
    }


def _rare(packets: int) -> str:
    return f"computed: sent per wrong 1 kB packet, words swapped in one of {packets:,}"


def _sizes(packet: int) -> str:
    low, high = (integrity.bytes_per_error(each, packet) for each in integrity.PACKETS_PER_ERROR)
    return f"{low / integrity.GB:,.0f} GB to {high / integrity.TB:,.1f} TB"
