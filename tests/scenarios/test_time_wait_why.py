"""Tests for `time-wait-why` with synthetic captures: each missing or wrong segment fails its check."""

import pytest

from experiments import parameters
from experiments.recorders import Series
from reports.drawing import svg
from scenarios.instruments.closing import Ending, Segment
from scenarios.time_wait_why import TimeWaitWhy
from tests.scenarios.runs import failed, predicted

AT = 1_764_000_000.0
ACK, FIN, RST, RESET = (frozenset(flags.split("+")) for flags in ("ACK", "FIN+ACK", "RST", "RST+ACK"))


def segments(*sent):
    """Return the segments described by tuples of (seconds, sender, flags, payload bytes)."""
    return tuple(Segment(AT + at, sender == "client", flags, length) for at, sender, flags, length in sent)


def close(*, repeated=0.24, answer=ACK):
    end = [(0, "client", FIN, 0), (0.02, "server", FIN, 0), (0.04, "client", ACK, 0)]
    if repeated:
        end += [(0.02 + repeated, "server", FIN, 0), (0.04 + repeated, "client", answer, 0)]
    return segments(*end)


def abort(*, answer=True):
    end = [(0, "client", RESET, 0), (0.1, "server", ACK, 300), (0.1, "server", FIN, 0)]
    return segments(*end, *([(0.12, "client", RST, 0)] if answer else []))


def replayed(*, refused=1):
    return segments((0, "client", ACK, 60), (0.02, "server", ACK, 0), *[(1.02, "server", ACK, 0)] * refused)


def concluded(tmp_path, *, negative=False, state="TIME-WAIT", paws=5, executed=0, refused=1, answer=True, **closing):
    experiment = TimeWaitWhy(parameters.bind(TimeWaitWhy.settings, quick=True), negative=negative)
    run = predicted(experiment, tmp_path)
    count = experiment.p.repeats
    lost = abort() if negative else close(**closing)
    experiment.lost = [Ending(20_000, lost, state="" if negative else state)] * count
    experiment.aborted = [Ending(20_000, abort(answer=answer))] * count
    experiment.after_close = [Ending(20_000, replayed(refused=refused), AT + 1)] * count
    experiment.into_new = [Ending(20_000, replayed(), AT + 1, asked=1, answered=1 + executed)] * count
    experiment.span, experiment.host = (10.0, 20.0), "edge"
    run.recorders.series["edge"] = Series((0.0, 10.0, 20.0), {"TcpExt.PAWSEstab": [7, 7, 7 + paws]})
    experiment.conclude(run)
    return run


def test_ends_as_predicted_pass(tmp_path):
    run = concluded(tmp_path)
    assert failed(run) == []
    assert svg(run.findings.charts[0]).startswith("<svg")


@pytest.mark.parametrize(
    ("deviation", "check"),
    [
        pytest.param({"repeated": 0}, "repeated FINs that the client acknowledges", id="a-fin-that-is-not-repeated"),
        pytest.param({"answer": True, "repeated": 0.5}, "time until the FIN is sent again", id="a-late-fin"),
        pytest.param({"state": ""}, "client's sockets in TIME-WAIT", id="a-socket-that-is-gone"),
        pytest.param({"answer": False}, "aborts that answer the server with a reset", id="a-silent-abort"),
        pytest.param({"refused": 0}, "old segments that TIME-WAIT refuses", id="an-old-segment-without-an-answer"),
        pytest.param({"executed": 1}, "old requests that the server executes", id="an-old-request-that-is-executed"),
        pytest.param({"paws": 4}, "segments that the server's kernel refused by their time stamp", id="no-time-stamps"),
    ],
)
def test_a_deviation_fails_its_check(deviation, check, tmp_path):
    assert check in failed(concluded(tmp_path, **deviation))


def test_the_control_without_time_wait_fails(tmp_path):
    assert set(TimeWaitWhy.control.fails) <= set(failed(concluded(tmp_path, negative=True)))


def test_a_fin_that_meets_a_reset_is_not_acknowledged():
    assert Ending(20_000, close()).acknowledged()
    assert not Ending(20_000, close(answer=RST)).acknowledged()
