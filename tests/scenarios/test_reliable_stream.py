"""Tests for `reliable-stream` with synthetic exchanges: each fault that is not accounted for fails its check."""

import pytest

from experiments import ParameterError, Verdict, parameters
from experiments.recorders import Series
from reports.drawing import svg
from scenarios.instruments.corruption import body
from scenarios.instruments.datagrams import Ledger
from scenarios.reliable_stream import BETWEEN, FAULTS, Account, ReliableStream, extra, wrong_segments
from tests.scenarios.runs import failed, predicted
from theory import recovery
from theory.slow_start import MSS

INJECTED = 12
CLIENT = {
    "Tcp.InCsumErrors": INJECTED, "Udp.InCsumErrors": INJECTED, "TcpExt.TCPDSACKOldSent": INJECTED,
    "TcpExt.TCPOFOQueue": 90,
}  # fmt: skip


def concluded(tmp_path, *, negative=False, hidden=0, leaked=0, kernel=CLIENT, slower_ms=0.0, again=INJECTED, lost=5):
    """Return a synthetic run in which every fault is accounted for, apart from the deviations given as arguments.

    For each kind of fault, the application misses *hidden* faults over UDP and sees *leaked* faults over TCP.
    """
    experiment = ReliableStream(parameters.bind(ReliableStream.settings, quick=True), negative=negative)
    run = predicted(experiment, tmp_path)
    experiment.server = "edge"
    ends = {name: [0, 0] for name in ("Tcp.RetransSegs", "TcpExt.TCPFastRetrans", "TcpExt.TCPTimeouts")}
    for at, fault in enumerate(FAULTS):
        experiment.udp[fault] = Account(INJECTED, INJECTED - hidden, kernel)
        experiment.tcp[fault] = Account(INJECTED, INJECTED if negative else leaked, kernel, 10.0 * at, 10.0 * at + 5)
    for at, interval in enumerate(experiment.p.intervals_ms):
        delay = 1000 * recovery.lost_message_s(experiment.rtt, interval / 1000) + slower_ms
        experiment.delays[interval] = [delay] * lost
        experiment.spans[interval] = (100.0 + 10 * at, 105.0 + 10 * at)
    times = tuple(float(t) for t in range(200))
    columns = {name: [t / 5 * again if t < 100 else 100 * again + (t - 100) for t in range(200)] for name in ends}
    run.recorders.series["edge"] = Series(times, columns)
    experiment.conclude(run)
    return run


def test_faults_that_are_all_accounted_for_pass(tmp_path):
    run = concluded(tmp_path)
    assert failed(run) == []
    assert all(check.ok for check in run.result.validity)
    assert [svg(chart).startswith("<svg") for chart in run.findings.charts] == [True] * 2


@pytest.mark.parametrize(
    ("deviation", "check"),
    [
        pytest.param({"hidden": 1}, "dropped: seen over UDP", id="a-drop-that-udp-hides"),
        pytest.param({"hidden": 2}, "reordered: seen over UDP", id="two-late-datagrams-that-udp-hides"),
        pytest.param({"leaked": 1}, "faults that the application sees over TCP", id="a-fault-that-tcp-delivers"),
        pytest.param(
            {"kernel": CLIENT | {"Udp.InCsumErrors": INJECTED - 1}},
            "corrupted UDP packets that the client's kernel refused",
            id="corruption-that-no-kernel-counted",
        ),
        pytest.param(
            {"kernel": CLIENT | {"TcpExt.TCPDSACKOldSent": INJECTED + 1}},
            "copies that the client's kernel reported",
            id="a-copy-that-wan-did-not-make",
        ),
        pytest.param(
            {"kernel": CLIENT | {"TcpExt.TCPOFOQueue": INJECTED - 1}},
            "segments that the client's kernel kept for an earlier one",
            id="reordering-without-a-queue",
        ),
        pytest.param({"again": 2}, "segments that the server sent again, packets dropped", id="drops-without-repair"),
        pytest.param({"slower_ms": 30.0}, "delay of a lost message, one every 20 ms", id="slower-than-fast-retransmit"),
        pytest.param({"lost": 20}, "repaired by a timer, one message every 300 ms", id="losses-without-a-timer"),
    ],
)
def test_a_deviation_fails_its_check(deviation, check, tmp_path):
    assert check in failed(concluded(tmp_path, **deviation))


def test_the_control_without_tcp_fails(tmp_path):
    assert failed(concluded(tmp_path, negative=True)) == list(ReliableStream.control.fails)


def test_few_lost_messages_make_the_run_invalid(tmp_path):
    assert concluded(tmp_path, lost=2).result.verdict is Verdict.INVALID


@pytest.mark.parametrize(
    ("arrived", "missing", "repeated", "overtaken"),
    [
        pytest.param([0, 1, 2, 3], 0, 0, 0, id="in-order"),
        pytest.param([0, 2, 3], 1, 0, 0, id="a-gap"),
        pytest.param([0, 1, 1, 2, 3], 0, 1, 0, id="a-copy"),
        pytest.param([0, 2, 3, 1], 0, 0, 1, id="a-late-one"),
        pytest.param([2, 3, 1, 0, 1], 0, 1, 2, id="two-late-ones-and-a-copy"),
    ],
)
def test_the_ledger_names_each_fault(arrived, missing, repeated, overtaken):
    ledger = Ledger(4, arrived)
    assert (ledger.missing, ledger.repeated, ledger.overtaken) == (missing, repeated, overtaken)
    assert ledger.faults == missing + repeated + overtaken


@pytest.mark.parametrize(
    ("damage", "wrong"),
    [
        pytest.param(lambda data: data, 0, id="intact"),
        pytest.param(lambda data: b"\xff" + data[1:], 1, id="one-wrong-byte"),
        pytest.param(lambda data: data[:-1], 1, id="the-end-is-missing"),
        pytest.param(lambda data: data[:MSS] + data[2 * MSS :], 2, id="a-gap-in-the-middle"),
        pytest.param(lambda data: data + data[:5], 1, id="too-long"),
    ],
)
def test_wrong_segments_of_a_stream_are_counted(damage, wrong):
    sent = body(3 * MSS)
    assert wrong_segments(damage(sent), sent) == wrong


def test_the_delay_of_a_lost_message_is_its_age_above_the_usual_one():
    ages = [30.0] * (3 * BETWEEN + 1)
    ages[BETWEEN : BETWEEN + 3] = [110.0, 90.0, 70.0]
    ages[2 * BETWEEN] = 270.0
    assert extra(ages, BETWEEN) == [80.0, 240.0]


def test_a_stream_longer_than_the_server_sends_is_refused():
    with pytest.raises(ParameterError, match="expected streams of less than 1000 messages, got 3030"):
        parameters.bind(ReliableStream.settings, quick=True, given=["intervals_ms=10", "losses=100"])
