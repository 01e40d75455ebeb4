"""Tests for `quic` with synthetic times: each deviation from theory fails its check."""

import asyncio
import random

import pytest

from experiments import Verdict, parameters
from reports.drawing import svg
from scenarios.instruments.connection import Address
from scenarios.instruments.http2_client import Http2Connection
from scenarios.quic import ARMS, RESPONSES, WAYS, Page, Quic
from tests.peers import NAME, OK, replying
from tests.scenarios.runs import failed, predicted


def concluded(tmp_path, *, trips=0, scatter=3.0, tcp_order=True, independent=True, busy=0.0, moved=1.0, **answers):
    """Return a synthetic run whose times follow the prediction, apart from the deviations given as arguments.

    Args:
        tmp_path: folder for the results.
        trips: number of additional round trips.
        scatter: largest random addition to the times to first byte, in milliseconds.
        tcp_order: whether HTTP/2 delays all responses after a lost packet.
        independent: whether HTTP/3 and HTTP/1.1 delay only the response in the lost packet.
        busy: share of pages that are delayed although no packet was lost.
        moved: round trips of a request after a change of address.
        answers: whether the server received early data (``early``) and saw the new addresses (``seen``).
    """
    experiment, rng = Quic(parameters.bind(Quic.settings, quick=True, given=["pages=1000"])), random.Random(3)
    run, rtt = predicted(experiment, tmp_path), experiment.p.page_rtt_ms
    for arm, number in ARMS.items():
        for each in experiment.p.rtt_ms:
            times = [5.0 + (number + trips) * each + scatter * rng.random() for _ in range(experiment.p.repeats)]
            experiment.ttfb[arm, each] = times
    experiment.early = [answers.get("early", True)] * 12
    for loss in experiment.p.losses:
        for way in WAYS:
            for _ in range(experiment.p.pages):
                lost = [rng.random() < loss for _ in range(RESPONSES)]
                blocking = tcp_order if way == "http2" else not independent
                waits = [any(lost[: i + 1]) if blocking else lost[i] for i in range(RESPONSES)]
                slow = rng.random() < busy
                times = [rtt * (2.1 if wait or slow else 1.05) for wait in waits]
                experiment.pages[way, loss].append(Page(times, RESPONSES, sum(lost)))
    experiment.moved = [(moved * 1.02 * rtt, answers.get("seen", True))] * experiment.p.moves
    experiment.conclude(run)
    return run


def test_times_as_predicted_pass(tmp_path):
    run = concluded(tmp_path)
    assert failed(run) == []
    assert all(check.ok for check in run.result.validity)
    assert [svg(chart).startswith("<svg") for chart in run.findings.charts] == [True] * 3


@pytest.mark.parametrize(
    ("deviation", "check"),
    [
        pytest.param({"trips": 1}, "round trips, QUIC", id="the-handshake-takes-another-trip"),
        pytest.param({"trips": 1}, Quic.control.fails[0], id="nothing-is-sent-early"),
        pytest.param({"tcp_order": False}, "responses delayed by one lost packet, HTTP/2 / HTTP/3", id="no-difference"),
        pytest.param(
            {"independent": False}, f"responses delayed by one lost packet, {WAYS['quic']}", id="streams-block"
        ),
        pytest.param({"independent": False}, f"responses delayed, 5% lost, {WAYS['quic']}", id="streams-block-often"),
        pytest.param({"moved": 3.0}, "round trips of a request from a new address", id="a-move-needs-a-handshake"),
        pytest.param(
            {"seen": False}, "changes of address that the server saw, without a new connection", id="it-did-not-move"
        ),
    ],
)
def test_a_deviation_fails_its_check(deviation, check, tmp_path):
    run = concluded(tmp_path, **deviation)
    assert check in failed(run)
    assert run.result.verdict is Verdict.FAIL


@pytest.mark.parametrize(
    "deviation", [{"busy": 0.2}, {"scatter": 400.0}, {"early": False}], ids=["slow", "scattered", "early-data-refused"]
)
def test_a_run_on_an_unfit_machine_or_server_is_invalid(deviation, tmp_path):
    assert concluded(tmp_path, **deviation).result.verdict is Verdict.INVALID


async def test_a_server_without_http2_is_an_error(peers, papers):
    context = papers.client()
    context.set_alpn_protocols(["h2"])
    to = Address(NAME, "127.0.0.1", await peers.start(replying(OK), papers.server()))
    with pytest.raises(ConnectionError, match="expected HTTP/2, the server selected None"):
        await asyncio.to_thread(Http2Connection, to, context)
