"""Charts of the scenario `integrity`: outcome of every corrupted packet, and share of TLS responses that arrive."""

from collections.abc import Mapping, Sequence

from experiments import Chart, Curve, Dots, Estimate, Lane, Panel, Span
from scenarios.instruments.corruption import Fetch, total
from theory import integrity

#: Fetched responses, keyed by kind of corruption and protection.
Fetches = Mapping[tuple[integrity.Damage, str], Sequence[Fetch]]


def fates(fetches: Fetches, kinds: Mapping[integrity.Damage, str], arms: Sequence[str]) -> Chart:
    """Draw the outcome of every corrupted packet, by kind of corruption and protection."""
    panels = []
    for kind, words in kinds.items():
        lanes = []
        for arm in arms:
            spans, begin = [], 0
            for fate, (count, colour) in _fates(fetches[kind, arm], arm).items():
                if count:
                    spans.append(Span(begin, begin + count, f"{count} {fate}", colour))
                begin += count
            lanes.append(Lane(arm, spans))
        panels.append(Panel(lanes=lanes, y=words))
    over_tcp, over_tls = (sum(total(fetches[kind, arm], "delivered") for kind in kinds) for arm in ("TCP", "TLS"))
    return Chart(
        f"TCP delivers {over_tcp} corrupted packets as if they were correct, TLS {over_tls or 'none'}",
        panels,
        x="corrupted packets",
        caption="Theory: swapped words, and a word that grows by what another one shrinks, keep the sum of 16-bit "
        "words, so TCP alone delivers every such packet (red). A flipped bit always breaks the sum; 16 random bytes "
        "pass it once in 65,535 times. With TLS, whatever passes the sum ends the connection.",
        low=0.0,
        name="integrity",
    )


def survival(by_length: Mapping[int, Sequence[Fetch]], share: float, other_segments: int) -> Chart:
    """Draw the share of TLS responses that arrive, by body length; packets are corrupted with probability *share*."""
    far = max(by_length, default=1) * 1.05
    lengths = range(0, round(far) + 1, max(1, round(far / 80)))
    curve = [(float(n), 100 * integrity.connection_survives(share, n + other_segments, "swap16")) for n in lengths]
    dots = []
    for length, found in sorted(by_length.items()):
        arrived = Estimate.share(sum(not each.ended for each in found), len(found)).scaled(100)
        dots.append((float(length), arrived.value, arrived.low, arrived.high))
    theory = Curve("theory: (1 - p) to the power of the number of segments", curve, 0)
    return Chart(
        "With TLS, corruption costs the connection: the longer a response, the fewer arrive",
        [Panel([theory, Dots("measured, 95 % interval", dots, 1)], y="arrive intact, %", height=260, high=105.0)],
        x=f"length of the response, segments; {100 * share:g} % of the packets are corrupted",
        caption="No response arrives wrong. The price is the connection: the longer a response, the less likely it "
        "arrives at the first attempt.",
        low=0.0,
        high=far,
        name="integrity-survival",
    )


def _fates(found: Sequence[Fetch], arm: str) -> dict[str, tuple[int, str | int]]:
    """Return the number of corrupted packets and the colour for each outcome."""
    over_tls = arm == "TLS"
    delivered = 0 if over_tls else total(found, "delivered")
    caught = total([each for each in found if not each.crc_holds], "delivered") if arm == "TCP + CRC" else 0
    cut = [each for each in found if each.ended]
    return {
        "delivered wrong, undetected": (delivered - caught, "bad"),
        "dropped by TCP's checksum, retransmitted": (total(found, "dropped"), 0),
        "detected by the application's CRC-32": (caught, "mark"),
        "ended the connection: TLS's tag did not match": (total(cut, "corrupted") - total(cut, "dropped"), "good"),
    }
