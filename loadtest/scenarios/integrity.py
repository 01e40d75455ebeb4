"""Scenario `integrity`: some corruption passes TCP's checksum; TLS detects all of it, but closes the connection."""

import ssl
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

from experiments import Control, Estimate, Experiment, Lesson, Quantity, Run, parameter
from hostfiles.layout import TRUST_ANCHOR
from linuxnet import counters
from scenarios.instruments import integrity_charts
from scenarios.instruments.connection import Address, Connection
from scenarios.instruments.corruption import Fetch, K, compare, total
from stub import Stub
from theory import integrity, slow_start
from wireformat.tls import client_context

HOST = "www.example.com"
#: Seconds without data after which the client abandons a response.  After corruption of a TLS record's length, the
#: client waits for bytes that never arrive.
PATIENCE = 4.0
#: Round-trip time of the link in milliseconds; short, because the scenario does not measure time.
RTT_MS = 6.0
#: Segments of a TLS connection that carry no response body: server flight, session tickets, head, close_notify.
OTHER_SEGMENTS = 6
#: Minimum number of corrupted packets per kind and protection for a meaningful share.
ENOUGH = 8
KINDS: dict[integrity.Damage, str] = {
    "swap16": "words swapped",
    "plusminus": "words ± k",
    "bitflip": "bit flipped",
    "random": "16 random bytes",
}
#: Kinds of corruption that keep the checksum valid.
PASSING = [kind for kind in KINDS if integrity.passes(kind, "checksum") == 1.0]
#: Protection of the response: none (port 80), a CRC-32 of the body (port 80), or TLS (port 443).
ARMS = ("TCP", "TCP + CRC", "TLS")


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters that the user can vary."""

    share: float = parameter(0.02, low=0.001, high=0.2, help="probability that a packet is corrupted")
    segments: int = parameter(100, low=10, high=1000, help="segments in the body of each response")
    answers: int = parameter(60, quick=12, low=5, high=1000, help="responses per kind of corruption and protection")
    lengths: tuple[int, ...] = parameter(
        (10, 25, 50, 100, 200, 400), quick=(10, 50, 200), unit="segments", low=1, high=2000,
        help="lengths of the responses over TLS whose survival is measured",
    )  # fmt: skip
    connections: int = parameter(120, quick=30, low=10, high=2000, help="TLS connections of each length")
    lasting_share: float = parameter(
        0.01, low=0.0005, high=0.1, help="probability that a packet of these connections is corrupted"
    )


class Integrity(Experiment[Parameters]):
    """Fetches responses over a link that corrupts payloads in four ways, with three kinds of protection each."""

    name = "integrity"
    claim = (
        "Corruption that keeps TCP's checksum valid always reaches the application over TCP and never over TLS, whose "
        "connection ends instead."
    )
    says = (
        "The textbook says that a checksum verifies the integrity of a segment, that TCP's is not fully reliable "
        "(one wrong packet per 16 GB to 10 TB) and that TLS's authentication code detects it. In practice it is not "
        "a matter of luck. A sum of 16-bit words does not depend on their order, so two swapped words always pass "
        "and a flipped bit never does. Such corruption is made by memory and software in hosts and routers, behind "
        "the link layer's CRC, which is why nothing else notices it."
    )
    source = (
        "RFC 1071 (the sum), RFC 9293 section 3.1; J. Stone and C. Partridge, “When the CRC and TCP checksum "
        "disagree” (SIGCOMM 2000): one packet in 16 million to 10 billion is delivered wrong; RFC 8446 sections 5.2 "
        "(a record that does not verify ends the connection) and 5.5."
    )
    production = (
        "Use TLS inside the data centre as well: it is the only layer here that never delivers a wrong byte. Where "
        "there is no TLS (replication, backups, caches), carry your own checksum end to end and test that a mismatch "
        "is refused. Watch two signals: InCsumErrors, which counts the corruption that was detected and so indicates "
        "how much was not, and bad_record_mac alerts. A single host with many of them has broken memory or broken "
        "offloading. Clients must be ready to retry: with TLS, corruption looks like a lost connection."
    )
    settings = Parameters
    control = Control("TLS is removed: those responses come over port 80 as well", ("wrong bytes over TLS",))
    paths = ("edge",)
    lessons = (
        Lesson(
            "Two 16-bit words of a segment are swapped on the way. Which share of such segments does TCP deliver?",
            "words swapped: delivered over TCP", "of corrupted packets", 0.05,
        ),
        Lesson(
            "One bit is flipped instead. Which share does TCP deliver?",
            "bit flipped: delivered over TCP", "of corrupted packets", 0.05,
        ),
        Lesson(
            "Words are swapped on a TLS connection. How many wrong bytes does the application read?",
            "wrong bytes over TLS", "bytes", 0.5,
        ),
    )  # fmt: skip

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.fetches: dict[tuple[integrity.Damage, str], list[Fetch]] = defaultdict(list)
        #: Responses over TLS, keyed by body length in bytes.
        self.lasting: dict[int, list[Fetch]] = defaultdict(list)

    def duration(self) -> float:
        """Return the expected duration in seconds: a few round trips for each connection, and some retransmissions."""
        return 3 + 0.07 * self.p.answers * len(KINDS) * len(ARMS) + 0.06 * self.p.connections * len(self.p.lengths)

    def predict(self) -> Mapping[str, Quantity]:
        """Predict the share of corrupted packets that are delivered, and the share of connections that survive."""
        predicted: dict[str, Quantity] = {}
        for kind, words in KINDS.items():
            passes = integrity.passes(kind, "checksum")
            undetected, detected = passes * integrity.passes(kind, "crc32"), 1 - integrity.passes(kind, "tag")
            predicted |= {
                f"{words}: delivered over TCP": Quantity(passes, "of corrupted packets"),
                f"{words}: dropped by TCP's checksum": Quantity(1 - passes, "of corrupted packets"),
                f"{words}: wrong bodies that a CRC-32 accepts": Quantity(undetected, "of bodies"),
                f"{words}: TLS connections that end": Quantity(passes * detected, "of those hit"),
            }
        predicted["wrong bytes over TLS"] = Quantity(0, "bytes")
        predicted["TLS connections that end when hit"] = Quantity(1, "of those hit")
        for packets in integrity.PACKETS_PER_ERROR:
            predicted[_per_error(packets)] = Quantity(integrity.bytes_per_error(packets) / integrity.GB, "GB")
        for length in self.p.lengths:
            survives = integrity.connection_survives(self.p.lasting_share, length + OTHER_SEGMENTS, "swap16")
            predicted[_arriving(length)] = Quantity(survives, "of connections")
        return predicted

    async def measure(self, run: Run) -> None:
        """Corrupt packets from the edge, one kind of corruption at a time, and send requests meanwhile."""
        address = (await run.blocking(Stub().resolve, HOST)).rdata[0]
        await run.lab.link("access", "near", rtt_ms=RTT_MS)
        client = _Client(run, address, tls=not self.negative)
        await run.blocking(client.prepare)
        for kind, words in KINDS.items():
            run.phase(words)
            await self._corrupt(run, kind, self.p.share)
            for _, arm in run.interleaved(ARMS, self.p.answers):
                fetch = await run.blocking(client.fetch, arm, self.p.segments * slow_start.MSS, kind)
                self.fetches[kind, arm].append(fetch)
        run.phase("which TLS connections survive")
        await self._corrupt(run, "swap16", self.p.lasting_share)
        for _, length in run.interleaved(self.p.lengths, self.p.connections):
            self.lasting[length].append(await run.blocking(client.fetch, "TLS", length * slow_start.MSS, "swap16"))
        await self._corrupt(run, "swap16", 0.0)

    async def _corrupt(self, run: Run, kind: integrity.Damage, share: float) -> None:
        settings = {f"corrupt_{each}": share if each == kind else 0.0 for each in KINDS}
        await run.lab.link("near", "access", one_way=True, **settings, corrupt_k=K)

    def conclude(self, run: Run) -> None:
        """Compare the number of corrupted packets that were delivered with the number that `wan` corrupted."""
        run.raw["fetches"] = {f"{kind}, {arm}": [str(f) for f in found] for (kind, arm), found in self.fetches.items()}
        for (kind, arm), found in self.fetches.items():
            count = total(found, "corrupted")
            run.findings.gate(f"{KINDS[kind]}, {arm}: corrupted packets", f">= {ENOUGH}", str(count), count >= ENOUGH)
        for kind, words in KINDS.items():
            self._over_tcp(run, kind, words)
            self._over_tcp_with_crc(run, kind, words)
            self._each_over_tls(run, kind, words)
        self._over_tls(run)
        self._survivors(run)
        self._per_error(run)
        low, high = (integrity.bytes_per_error(each, slow_start.MSS) for each in integrity.PACKETS_PER_ERROR)
        sizes = f"{low / integrity.GB:,.0f} GB to {high / integrity.TB:,.1f} TB"
        run.findings.fact("computed: sent per wrong packet of 1,448 bytes", sizes)
        run.findings.fact("packets with random corruption per packet that passes the checksum", 65_535)
        run.findings.chart(integrity_charts.fates(self.fetches, KINDS, ARMS))
        run.findings.chart(integrity_charts.survival(self.lasting, self.p.lasting_share, OTHER_SEGMENTS))

    def _over_tcp(self, run: Run, kind: integrity.Damage, words: str) -> None:
        # When a segment arrives twice, TCP discards one copy, corrupt or not, so responses with duplicates are
        # excluded.
        found = [each for each in self.fetches[kind, "TCP"] if not each.duplicates or kind not in PASSING]
        corrupted = total(found, "corrupted")
        for row, count, expected in (
            (f"{words}: delivered over TCP", total(found, "delivered"), corrupted if kind in PASSING else 0),
            (f"{words}: dropped by TCP's checksum", total(found, "dropped"), 0 if kind in PASSING else corrupted),
        ):
            run.findings.row(row, Estimate.share(min(count, corrupted), corrupted))
            run.findings.check(row, f"{expected} of {corrupted}", f"{count} of {corrupted}", count == expected)

    def _over_tcp_with_crc(self, run: Run, kind: integrity.Damage, words: str) -> None:
        found = self.fetches[kind, "TCP + CRC"]
        wrong = [each for each in found if each.wrong]
        accepted = sum(1 for each in wrong if each.crc_holds)
        row = run.findings.row(f"{words}: wrong bodies that a CRC-32 accepts", Estimate.share(accepted, len(found)))
        got = f"{accepted} of {len(wrong)} wrong ones among {len(found)}"
        run.findings.check(row.name, "0", got, accepted == 0)
        heads = sum(1 for each in found if each.head_is_wrong)
        name = f"{words}: wrong heads, which the CRC-32 of the body does not cover"
        run.findings.fact(name, f"{heads} of {len(found)}")

    def _each_over_tls(self, run: Run, kind: integrity.Damage, words: str) -> None:
        passes = kind in PASSING
        hit = [each for each in self.fetches[kind, "TLS"] if each.corrupted and not (passes and each.duplicates)]
        ended, expected = sum(each.ended for each in hit), len(hit) if passes else 0
        row = run.findings.row(f"{words}: TLS connections that end", Estimate.share(ended, len(hit)))
        run.findings.check(row.name, f"{expected} of {len(hit)} hit", f"{ended} of {len(hit)}", ended == expected)

    def _over_tls(self, run: Run) -> None:
        lasting = [each for found in self.lasting.values() for each in found]
        every = [*(each for kind in KINDS for each in self.fetches[kind, "TLS"]), *lasting]
        wrong, received = total(every, "wrong"), total(every, "received")
        row = run.findings.row("wrong bytes over TLS", wrong)
        run.findings.check(row.name, "0", f"{wrong:,} of {received:,}", wrong == 0)
        # Only corruption that passes the checksum reaches TLS and ends the connection; TCP retransmits the rest.
        passing = [*(each for kind in PASSING for each in self.fetches[kind, "TLS"]), *lasting]
        hit = [each for each in passing if each.corrupted and not each.duplicates]
        ended = sum(each.ended for each in hit)
        row = run.findings.row("TLS connections that end when hit", Estimate.share(ended, len(hit)))
        run.findings.check(row.name, f"{len(hit)} of {len(hit)}", f"{ended} of {len(hit)}", ended == len(hit))
        unharmed = sum(each.ended for each in passing if not each.corrupted)
        run.findings.check("TLS connections that end without corruption", "0", str(unharmed), unharmed == 0)

    def _survivors(self, run: Run) -> None:
        expected = variance = survived = 0.0
        for length, found in sorted(self.lasting.items()):
            arrived = sum(not each.ended for each in found)
            run.findings.row(_arriving(length), Estimate.share(arrived, len(found)))
            chance = integrity.connection_survives(self.p.lasting_share, length + OTHER_SEGMENTS, "swap16")
            expected, variance = expected + len(found) * chance, variance + len(found) * chance * (1 - chance)
            survived += arrived
        room = 4 * sqrt(variance) + 1
        said = f"{expected:.0f} ± {room:.0f} (four standard deviations)"
        run.findings.check("TLS responses that arrive", said, f"{survived:.0f}", abs(survived - expected) <= room)

    def _per_error(self, run: Run) -> None:
        """Compute the textbook's bytes per error from the measured share of swapped words that pass the checksum."""
        found = [each for each in self.fetches["swap16", "TCP"] if not each.duplicates]
        passed = total(found, "delivered") / (total(found, "corrupted") or 1)
        for packets in integrity.PACKETS_PER_ERROR:
            if passed:
                volume = integrity.bytes_per_error(packets / passed) / integrity.GB
                run.findings.row(_per_error(packets), volume)


class _Client:
    """Blocking client that fetches responses from the edge and reads the counters before and after each."""

    def __init__(self, run: Run, address: str, *, tls: bool) -> None:
        self._admin = run.lab.admin
        self._plain, self._secure = Address(HOST, address, 80), Address(HOST, address, 443)
        self._context: ssl.SSLContext | None = client_context(TRUST_ANCHOR, "1.3") if tls else None
        self._head = b""

    def prepare(self) -> None:
        """Fetch an uncorrupted head, and make the edge open its connections to the origins."""
        for _ in range(4):
            stream, _ = self._read(self._plain, None, 1000)
            self._head = stream[:-1000]

    def fetch(self, arm: str, size: int, kind: integrity.Damage) -> Fetch:
        """Fetch one response with a body of *size* bytes and compare it with the expected bytes."""
        context = self._context if arm == "TLS" else None
        before, own = self._corrupted(kind), counters.protocols()
        stream, ended = self._read(self._plain if context is None else self._secure, context, size)
        after, own_after = self._corrupted(kind), counters.protocols()
        dropped, duplicates = (
            own_after.get(name, 0) - own.get(name, 0) for name in ("Tcp.InCsumErrors", "TcpExt.TCPDSACKOldSent")
        )
        return compare(
            stream, size, self._head, ended=ended, corrupted=after - before, dropped=dropped, duplicates=duplicates
        )

    @staticmethod
    def _read(to: Address, context: ssl.SSLContext | None, size: int) -> tuple[bytes, bool]:
        """Return the bytes received, and whether the connection ended early."""
        parts = []
        try:
            with Connection(to, context, timeout=PATIENCE) as connection:
                for _, data in connection.arrivals(f"/bytes/{size}", last=True):
                    parts.append(data)
        except (ssl.SSLError, TimeoutError):
            if context is None:
                raise
            return b"".join(parts), True
        return b"".join(parts), False

    def _corrupted(self, kind: integrity.Damage) -> int:
        """Wait until no packet is in flight, and return the number of packets that `wan` has corrupted."""
        before = (-1, -1)
        while True:
            links = self._admin.call("wan", "GET", "/admin/counters")["links"]
            link = next(each for each in links if (each["from"], each["to"]) == ("near", "access"))
            now = (int(link["packets"]), int(link["corrupted"].get(kind, 0)))
            if now == before and not link["queued"]:
                return now[1]
            before = now
            time.sleep(RTT_MS / 1000)  # wait until packets in flight have arrived


def _arriving(length: int) -> str:
    return f"TLS responses of {length} segments that arrive"


def _per_error(packets: int) -> str:
    return f"computed: sent per wrong 1 kB packet, words swapped in one of {packets:,}"
