"""Tests for `congestion` with synthetic uploads: each deviation from theory fails its check."""

import contextlib
import socket
import threading

import pytest

from experiments import Verdict, parameters
from experiments.recorders import Series
from reports.drawing import svg
from scenarios.congestion import KEPT, MODELS, PAYLOAD, WARM_UP, Congestion, Measured
from scenarios.instruments.bulk import DATAGRAM, HZ, Flow, Reading, flood, upload
from tests.scenarios.runs import failed, predicted
from theory.slow_start import MSS

LINK = 8e6


def flow(control, seconds, *, rate, loss=0.0, rtt_ms=80.0, kept=0.5, limited=0.0):
    """Return a synthetic upload whose window falls once a second, from 30 segments to *kept* · 30.

    *rate* is the throughput in bits per second, or a function that returns the acknowledged bytes at a time.
    """
    made = Flow(control)
    for i in range(int(seconds * HZ)):
        at, second = i / HZ, i // HZ
        acked = rate(at) if callable(rate) else rate / 8 * at
        sent = acked / (1 - loss)
        threshold = round(30 * kept) - second % 2  # a changed threshold indicates a loss
        growth = (i % HZ) / (HZ - 1)
        window = round(threshold + (30 - threshold) * growth) if second else 30
        made.readings.append(
            Reading(at, window, threshold, int(acked), int(sent), int(sent * loss), limited * at, rtt_ms)
        )
    return made


def concluded(
    tmp_path, *, negative=False, speed=1.0, kept=KEPT, bbr=0.95, fair=0.5, starved=0.02, cubic=True, **changed
):
    """Return a synthetic run whose uploads follow the prediction, apart from the deviations given as arguments.

    *speed* scales the throughputs.  *kept* is the window after a loss relative to the window before it, by algorithm.
    *bbr*, *fair* and *starved* are shares of a link: of BBR under loss, of one of two competing flows, and of TCP
    during a flood.
    """
    experiment = Congestion(parameters.bind(Congestion.settings, quick=True), negative=negative)
    run = predicted(experiment, tmp_path)
    p, capacity, algorithms = experiment.p, LINK * PAYLOAD, MODELS if cubic else ["Reno"]
    for point in experiment.points:
        flows = {
            name: [
                flow(
                    name.lower(), WARM_UP + p.seconds, kept=kept[name], loss=point.loss, rtt_ms=point.rtt_ms,
                    rate=speed * MODELS[name](point.loss, point.rtt_ms / 1000), limited=changed.get("limited", 0.0),
                )
                for _ in range(p.flows)
            ]
            for name in algorithms
        }  # fmt: skip
        again = sum(each.readings[-1].again for every in flows.values() for each in every) / MSS
        experiment.measured[point] = Measured(flows, WARM_UP, round(changed.get("dropped", 1.0) * again))
    experiment.lossy = {"Reno": flow("reno", p.shared_s, rate=0.2 * capacity)}
    if bbr:
        experiment.lossy["BBR"] = flow("bbr", p.shared_s, rate=bbr * capacity)
    experiment.pair = [flow("reno", p.shared_s, rate=share * capacity) for share in (fair, 1 - fair)]
    half = experiment.flood_at = p.shared_s / 2
    experiment.flooded = flow(
        "reno", p.shared_s, rate=lambda at: capacity / 8 * (min(at, half) + starved * max(0.0, at - half))
    )
    run.timeline.began, experiment.host = 0.0, "news"
    per_second = changed.get("arrived", 1.0) * LINK / 8 / DATAGRAM
    times = tuple(i / 10 for i in range(int(10 * p.shared_s) + 1))
    run.recorders.series["news"] = Series(times, {"Udp.NoPorts": [max(0.0, at - half) * per_second for at in times]})
    experiment.conclude(run)
    return run


def test_uploads_as_predicted_pass(tmp_path):
    run = concluded(tmp_path)
    assert failed(run) == []
    assert all(check.ok for check in run.result.validity)
    assert [svg(chart).startswith("<svg") for chart in run.findings.charts] == [True] * 3


@pytest.mark.parametrize(
    ("deviation", "check"),
    [
        pytest.param({"speed": 1.5}, "Reno: throughput / theory", id="faster-than-mathis"),
        pytest.param({"speed": 0.5}, "CUBIC: throughput / theory", id="slower-than-rfc-9438"),
        pytest.param({"kept": KEPT | {"Reno": 0.6}}, "Reno: window after a loss / before", id="reno-keeps-60-percent"),
        pytest.param({"kept": KEPT | {"CUBIC": 0.5}}, "CUBIC: window after a loss / before", id="cubic-halves"),
        pytest.param({"dropped": 2.0}, "segments sent again, 0.4% loss, 80 ms", id="drops-that-no-one-repaired"),
        pytest.param({"bbr": 0.5}, "BBR: share of a link with 1 % loss", id="bbr-that-reacts-to-loss"),
        pytest.param({"bbr": 0.3}, "BBR's share / Reno's share", id="bbr-no-better-than-reno"),
        pytest.param({"fair": 0.3}, "two flows: share of the slower one", id="an-unfair-link"),
        pytest.param({"starved": 0.3}, "TCP's share of the link during a UDP flood", id="a-flood-that-yields"),
        pytest.param(
            {"arrived": 0.7}, "the flood's share of the link, as the receiver's kernel counts it", id="a-lost-flood"
        ),
    ],
)
def test_a_deviation_fails_its_check(deviation, check, tmp_path):
    assert check in failed(concluded(tmp_path, **deviation))


def test_the_control_with_the_other_model_fails(tmp_path):
    assert set(Congestion.control.fails) <= set(failed(concluded(tmp_path, negative=True)))


def test_a_receive_window_that_limits_makes_the_run_invalid(tmp_path):
    assert concluded(tmp_path, limited=0.2).result.verdict is Verdict.INVALID


def test_algorithms_that_the_kernel_lacks_are_left_out(tmp_path):
    run = concluded(tmp_path, cubic=False, bbr=0)
    assert failed(run) == []
    assert [text.partition(":")[0] for text in run.result.left_out] == ["CUBIC", "BBR"]


def test_an_upload_is_observed_until_it_is_cut_off(monkeypatch):
    received = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        monkeypatch.setattr("scenarios.instruments.bulk.PORT", server.getsockname()[1])

        def read():
            with server.accept()[0] as sock:
                sock.settimeout(10)
                with contextlib.suppress(ConnectionResetError):
                    while data := sock.recv(1 << 16):
                        received.append(data)

        reader = threading.Thread(target=read)
        reader.start()
        (made,) = upload([("127.0.0.1", "localhost")], [""], 0.3)
        reader.join(10)
    assert b"".join(received).startswith(b"POST /slow-read/10485760 HTTP/1.1\r\nHost: localhost\r\n")
    assert made.control
    assert made.readings[-1].acked > 0
    assert made.rate(0, float("inf")) > 0


def test_a_flood_never_exceeds_its_rate():
    assert 0 < flood("127.0.0.1", 8 * DATAGRAM * 200, 0.25) <= 50
