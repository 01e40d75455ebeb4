"""Tests for the network: link selection and departure times."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.packets import ipv4, tcp
from wan import LinkSettings, Network, UnknownLinkError
from wan import network as network_module
from wan.drops import DropRule, Pattern

MS = 1_000_000
INTACT = {"bitflip": 0, "swap16": 0, "plusminus": 0, "random": 0}
REGIONS = {name: IPv4Network(f"198.19.{octet}.0/24") for name, octet in (("access", 1), ("near", 20), ("far", 30))}


PAIRS = [(a, b) for a in REGIONS for b in REGIONS if a != b]
#: IPv4 header of a TCP packet between two regions, with a total length of 48 bytes.
HEADED = b"\x45\0\0\x30" + bytes(5) + b"\x06" + bytes(2) + bytes((198, 19, 1, 10, 198, 19, 20, 10))


def network(rtt: dict[tuple[str, str], float] | None = None, **values: object) -> Network:
    links = dict.fromkeys(PAIRS, LinkSettings().changed(values))
    links |= {pair: LinkSettings(rtt_ms=value) for pair, value in (rtt or {}).items()}
    return Network(REGIONS, links)


def packet(source: str, target: str, body: bytes = b"") -> bytes:
    return ipv4(253, body, source, target)  # 253: a protocol number for experiments (RFC 3692)


def test_a_link_without_impairments_returns_the_packet_at_once() -> None:
    net, data = network(), packet("198.19.1.10", "198.19.20.10")
    assert net.receive(data, 5) is data
    assert net.next_due() is None
    assert net.link("access", "near").counters() == {
        "from": "access", "to": "near", "packets": 1, "bytes": 20, "dropped_loss": 0, "dropped_queue": 0,
        "dropped_rule": 0, "duplicated": 0, "reordered": 0, "corrupted": INTACT, "queued": 0,
    }  # fmt: skip


def test_each_direction_is_a_separate_link() -> None:
    net = network({("access", "near"): 20, ("near", "access"): 60})
    there, back = packet("198.19.1.10", "198.19.20.10"), packet("198.19.20.10", "198.19.1.10")
    net.receive(back, 0)
    net.receive(there, 0)
    assert repr(net) == "<Network regions=3 links=6 held=2 dropped=0>"
    assert net.due(10 * MS - 1) == []
    assert net.due(10 * MS) == [there]
    assert net.next_due() == 30 * MS
    assert net.due(40 * MS) == [back]
    assert net.link("near", "access").queued == 0


@pytest.mark.parametrize(
    ("data", "counter"),
    [
        (b"\x60" + bytes(60), "not_ipv4"),
        (b"", "not_ipv4"),
        (b"\x45" + bytes(10), "not_ipv4"),
        (packet("198.19.1.10", "192.0.2.1"), "unroutable"),
        (packet("192.0.2.1", "198.19.1.10"), "unroutable"),
    ],
    ids=["ipv6", "empty", "short", "to-nowhere", "from-nowhere"],
)
def test_a_packet_that_takes_no_link_is_counted_and_dropped(data, counter) -> None:
    net = network()
    assert net.receive(data, 0) is None
    assert getattr(net, counter) == 1
    assert len(net) == 0


def test_an_ipv6_packet_that_looks_like_a_known_pair_takes_no_link() -> None:
    net, data = network(), packet("198.19.1.10", "198.19.20.10", bytes(20))
    net.receive(data, 0)
    assert net.receive(b"\x60" + data[1:], 0) is None
    assert net.not_ipv4 == 1


@pytest.mark.parametrize("rtt", [0.0, 20.0], ids=["passthrough", "delayed"])
def test_a_replayed_segment_is_delivered_now_and_again_later(rtt: float) -> None:
    net, segment = network({("access", "near"): rtt}), tcp(b"old", 16)
    net.rules.append(DropRule(Pattern.of({"flags": "ack", "replay_ms": 3000})))
    arrived = [net.receive(segment, 0), *net.due(round(rtt / 2 * MS))]
    assert [data for data in arrived if data is not None] == [segment]
    later = tcp(b"new", 16)
    arrived = [net.receive(later, 100 * MS), *net.due(100 * MS + round(rtt / 2 * MS))]
    assert [data for data in arrived if data is not None] == [later]
    assert net.next_due() == 3000 * MS + round(rtt / 2 * MS)
    assert net.due(4000 * MS) == [segment]
    assert (len(net), net.link("access", "near").duplicated) == (0, 1)
    assert net.rules[0].as_dict()["replay_ms"] == 3000


def test_traffic_within_a_region_passes() -> None:
    net, data = network(rtt_ms=50), packet("198.19.1.10", "198.19.1.11")
    assert net.receive(data, 0) is data
    assert net.local.packets == 1


@given(st.lists(st.tuples(st.integers(0, 30 * MS), st.sampled_from(["1.10", "20.10", "30.10"])), max_size=80))
def test_every_packet_comes_out_once_when_due_and_in_order_per_link(events) -> None:
    net = network({("access", "near"): 20, ("access", "far"): 120, ("near", "access"): 0, ("far", "access"): 120})
    hosts, now = ["198.19.1.10", "198.19.20.10", "198.19.30.10"], 0
    entered: dict[bytes, tuple[int, str, str]] = {}
    left: dict[bytes, int] = {}
    for number, (gap, target) in enumerate(events):
        now += gap
        source = hosts[number % 3]
        data = packet(source, f"198.19.{target}", number.to_bytes(4, "big"))
        entered[data] = (now, source, target)
        left |= dict.fromkeys(net.due(now), now)
        if (straight := net.receive(data, now)) is not None:
            left[straight] = now
    while (due := net.next_due()) is not None:
        left |= dict.fromkeys(net.due(due), due)
    assert left.keys() == entered.keys()
    assert len(net) == net._held_bytes == 0
    last: dict[tuple[str, str], bytes] = {}
    for data in left:
        path = entered[data][1:]
        assert last.get(path, b"") < data
        last[path] = data
    for data, at in left.items():
        pair = (net.region(data[12:16]), net.region(data[16:20]))
        if pair[0] and pair[1] and pair[0] != pair[1]:
            assert at >= entered[data][0] + net.link(pair[0], pair[1]).settings.rtt_ms * MS / 2


def test_memory_for_held_packets_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_module, "MAX_HELD", 10_000)
    net = network(rtt_ms=1000)
    for _ in range(100):
        net.receive(packet("198.19.1.10", "198.19.20.10", bytes(1000)), 0)
    link = net.link("access", "near")
    assert (link.queued, link.dropped_queue) == (9, 91)
    net.due(10_000 * MS)
    net.receive(packet("198.19.1.10", "198.19.20.10"), 0)
    assert link.queued == 1


def test_the_number_of_cached_address_pairs_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_module, "MAX_ROUTES", 10)
    net = network()
    for host in range(200):
        net.receive(packet(f"198.19.1.{host}", "198.19.20.10"), 0)
    assert net.link("access", "near").packets == 200
    assert len(net._routes) <= 10


@pytest.mark.parametrize(("a", "b"), [("access", "moon"), ("moon", "access"), ("near", "near")])
def test_an_unknown_link_is_an_error(a, b) -> None:
    with pytest.raises(UnknownLinkError, match="expected"):
        network().link(a, b)


def test_restoring_gives_every_changed_link_its_declared_settings() -> None:
    net = network(rtt_ms=40)
    net.link("access", "near").configure(LinkSettings(loss=1))
    assert [link["changed"] for link in net.describe()].count(True) == 1
    net.restore()
    assert {link["rtt_ms"] for link in net.describe()} == {40.0}
    assert not any(link["changed"] for link in net.describe())


def test_a_link_that_became_shorter_lets_later_packets_overtake() -> None:
    net = network({("access", "near"): 200})
    first, second, third = (packet("198.19.1.10", "198.19.20.10", bytes([n])) for n in range(3))
    net.receive(first, 0)
    net.link("access", "near").configure(LinkSettings(rtt_ms=20))
    net.receive(second, 0)
    net.receive(third, 1 * MS)
    assert (net.due(10 * MS), net.due(11 * MS), net.due(99 * MS), net.due(100 * MS)) == ([second], [third], [], [first])
    assert len(net) == net._held_bytes == 0


@given(
    st.lists(st.binary(max_size=80) | st.binary(max_size=60).map(lambda tail: HEADED + tail), max_size=20),
    st.booleans(),
)
def test_no_input_raises_and_no_packet_is_invented(garbage, straight) -> None:
    """Only IPv4 packets between two regions are forwarded, with unchanged length and addresses."""
    worst = LinkSettings(corrupt_bitflip=1, corrupt_swap16=1, corrupt_plusminus=1, corrupt_random=1, duplicate=1)
    net = Network(REGIONS, dict.fromkeys(PAIRS, LinkSettings() if straight else worst))
    net.rules.append(DropRule(Pattern(flags="syn", acknowledges_fin=True)))
    passed = [out for data in garbage if (out := net.receive(data, 0)) is not None] + net.due(MS)
    routable = [data for data in garbage if data[:1] and data[0] >> 4 == 4 and len(data) >= 20 and known(data)]
    assert len(passed) == len(routable) * (1 if straight else 2)
    assert {(len(out), out[:20]) for out in passed} == {(len(data), data[:20]) for data in routable}
    counted = sum(link.packets for link in net.links.values()) + net.local.packets
    assert counted + net.not_ipv4 + net.unroutable == len(garbage)


def known(data: bytes) -> bool:
    return all(any(IPv4Address(data[at : at + 4]) in prefix for prefix in REGIONS.values()) for at in (12, 16))
