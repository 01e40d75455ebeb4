"""Tests for `dns-privacy` with synthetic times and captures: passing runs, deviations that fail, negative control."""

import struct

import pytest

from experiments import parameters
from reports.drawing import svg
from scenarios.dns_privacy import LENGTHS, TRANSPORTS, DnsPrivacy
from scenarios.instruments.dns_clients import Observed
from tests.scenarios.runs import failed, predicted
from theory import privacy
from wireformat.pcap import LINKTYPE_RAW, file_header, record

CLIENT, RESOLVER = (b"\xc6\x13\x01\x0a", 40_000), (b"\xc6\x13\x02\x35", 53)


def packet(payload, *, seq=None, source=CLIENT, target=RESOLVER):
    """Return an IPv4 packet that contains UDP, or TCP if *seq* is given; checksums are 0."""
    if seq is None:
        transport = struct.pack("!HHHH", source[1], target[1], 8 + len(payload), 0)
    else:
        transport = struct.pack("!HHIIBBHHH", source[1], target[1], seq, 0, 0x50, 0x18, 1000, 0, 0)
    size = 20 + len(transport) + len(payload)
    head = struct.pack("!BBHHHBBH", 0x45, 0, size, 0, 0, 64, 17 if seq is None else 6, 0)
    return head + source[0] + target[0] + transport + payload


def concluded(tmp_path, *, set_up=0.0, slower=0.0, hidden=(), leaked=(), padded=152):
    """Return a synthetic run whose queries follow the prediction, apart from the deviations given as arguments.

    The first query takes *set_up* additional round trips, and each later query *slower* additional ones.  Names sent
    over the transports *hidden* cannot be read, and names sent over *leaked* can.  TLS records with padded queries
    have *padded* bytes.
    """
    experiment = DnsPrivacy(parameters.bind(DnsPrivacy.settings, quick=True))
    run, packets = predicted(experiment, tmp_path), []
    for transport in TRANSPORTS:
        for n in experiment.p.queries:
            for rtt in experiment.p.rtt_ms:
                first = 1.0 + rtt * (privacy.round_trips(transport) + set_up)
                times = [first, *[1.0 + rtt * (1 + slower)] * (n - 1)]
                experiment.times[transport, n][rtt] = [times, [each + 3 for each in times]]
        experiment.labels[transport] = [f"secret{transport}{i}" for i in range(4)]
        readable = transport in leaked or (privacy.readable(transport) and transport not in hidden)
        packets += [packet(label.upper().encode()) for label in experiment.labels[transport] if readable]
    for rtt in experiment.p.rtt_ms:
        experiment.large[rtt] = [[1 + 3 * rtt]]
    experiment.capture = file_header(LINKTYPE_RAW) + b"".join(record(0, each) for each in packets)
    experiment.sizes = {True: ([padded] * 6, [492] * 6), False: ([70 + each for each in LENGTHS], [])}
    experiment.conclude(run)
    return run


def test_queries_as_predicted_pass(tmp_path):
    run = concluded(tmp_path)
    assert failed(run) == []
    assert [svg(chart).startswith("<svg") for chart in run.findings.charts] == [True] * 2


@pytest.mark.parametrize(
    ("deviation", "check"),
    [
        pytest.param({"set_up": 1.0}, "round trips of N = 1, DoT", id="one-more-per-connection"),
        pytest.param({"slower": 0.05}, "round trips of N = 20, DoH", id="queries-that-wait"),
        pytest.param({"hidden": ("udp",)}, "names that the observer reads, UDP", id="plain-names-are-missing"),
        pytest.param({"padded": 130}, "record of a padded query", id="another-block"),
        # As in the negative control, which sends queries over TCP instead of TLS.
        pytest.param({"leaked": ("dot",)}, DnsPrivacy.control.fails[0], id="names-over-tls-are-read"),
    ],
)
def test_a_deviation_fails_its_check(deviation, check, tmp_path):
    assert check in failed(concluded(tmp_path, **deviation))


def test_a_stream_is_reassembled_in_order_and_without_duplicates():
    seen = Observed([packet(b"cret", seq=102), packet(b"se", seq=100), packet(b"cret", seq=102)])
    assert list(seen.streams.values()) == [b"secret"]
    assert seen.reads("SECRET")
    assert not seen.reads("secrets")


def test_encrypted_records_are_measured_with_their_headers():
    stream = b"\x16\x03\x03\x00\x02ab" + b"\x17\x03\x03\x00\x03abc" + b"\x17\x03\x03\x00\x01a"
    sizes = Observed([packet(stream, seq=1)]).records(None, ("198.19.2.53", 53))
    assert list(sizes.values()) == [[8, 6]]
