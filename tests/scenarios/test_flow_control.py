"""Tests for `flow-control` with synthetic transfers: each deviation from theory fails its check."""

import pytest

from experiments import Verdict, parameters
from experiments.recorders import HERE, Series
from reports.drawing import svg
from scenarios.flow_control import LONG, FlowControl, Transfer
from tests.scenarios.runs import failed, predicted

RTT = 0.1


def concluded(tmp_path, *, negative=False, limited=1.0, speed=1.0, slow=0.9653, read=True):
    """Return a synthetic run whose transfers follow the prediction, apart from the deviations given as arguments.

    *limited* scales the time for which the window stops the sender, and *speed* the throughput with small buffers;
    *slow* is the throughput over the slow link, relative to the link's rate.
    """
    experiment = FlowControl(parameters.bind(FlowControl.settings, quick=True), negative=negative)
    run = predicted(experiment, tmp_path)
    sockets: list[tuple[float, str, dict[str, int]]] = []

    def transfer(arrivals, **info):
        made = Transfer(arrivals, f"198.19.1.10:{40_000 + len(sockets)}", float(len(sockets)))
        if read:
            sockets.append((made.began + 1, f"198.19.20.10:80 {made.client}", info))
        return made

    for pause in experiment.p.pauses_s:
        stopped = 0 if negative else limited * experiment._limited(pause)
        rows = [transfer([(1000 * pause, LONG)], rwnd_limited_us=round(1e6 * stopped), bytes_acked=LONG) for _ in "12"]
        experiment.paused[pause] = rows
    for buffer in experiment.p.buffers:
        window = 1448 * (buffer // 1448)
        arrivals = [(100.0 * i, round(speed * window * i)) for i in range(1, 25)]
        experiment.read[buffer] = [transfer(arrivals, snd_wnd=window + 500) for _ in "12"]
    arrivals = [(100.0 * i, round(slow * 8e6 / 8 * RTT * i)) for i in range(1, 25)]
    experiment.slow = [transfer(arrivals, snd_wnd=200_000) for _ in "12"]
    run.recorders.series["edge"] = Series((0.0, 1.0), {"TcpExt.TCPWinProbe": [0, 0 if negative else 8]}, tuple(sockets))
    run.recorders.series[HERE] = Series((0.0, 1.0), {"TcpExt.TCPToZeroWindowAdv": [3, 3 if negative else 7]})
    experiment.conclude(run)
    return run


def test_transfers_as_predicted_pass(tmp_path):
    run = concluded(tmp_path)
    assert failed(run) == []
    assert all(check.ok for check in run.result.validity)
    assert [svg(chart).startswith("<svg") for chart in run.findings.charts] == [True] * 2


@pytest.mark.parametrize(
    ("deviation", "check"),
    [
        pytest.param({"limited": 0.9}, "sender limited / (pause - time to fill)", id="the-sender-went-on"),
        pytest.param({"speed": 0.9}, "bytes per RTT / window, SO_RCVBUF 16,384", id="slower-than-the-window"),
        pytest.param({"speed": 1.1}, "bytes per RTT / window, SO_RCVBUF 65,536", id="faster-than-the-window"),
        pytest.param({"slow": 1.1}, "throughput of the slow link", id="faster-than-the-link"),
    ],
)
def test_a_deviation_fails_its_check(deviation, check, tmp_path):
    assert check in failed(concluded(tmp_path, **deviation))


def test_the_control_without_a_pause_fails(tmp_path):
    assert set(FlowControl.control.fails) <= set(failed(concluded(tmp_path, negative=True)))


def test_without_the_senders_account_the_run_is_invalid(tmp_path):
    assert concluded(tmp_path, read=False).result.verdict is Verdict.INVALID
