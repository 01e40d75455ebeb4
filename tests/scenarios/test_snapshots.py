"""Tests for `snapshots` with synthetic sessions: each deviation from theory fails its check."""

import random

import pytest

from experiments import Verdict, parameters
from experiments.recorders import Series
from reports.drawing import svg
from scenarios.instruments.arena_players import Player
from scenarios.snapshots import PROTOCOLS, Snapshots
from tests.scenarios.runs import failed, predicted
from theory.recovery import lost_message_s

DELAY = 0.04


def session(protocol, rate, loss, seconds, rng, *, late=0.0, jitter=0.0, slower=0.0):
    """Return the player of a synthetic session with loss rate *loss*, and the number of lost snapshots.

    Over UDP, a lost snapshot never arrives; over TCP, it and its successors arrive after the retransmission.
    """
    player, ready, lost = Player(protocol), 0.0, 0
    for number in range(int(seconds * rate)):
        sent = 100.0 + number / rate + jitter * (number % 2)
        arrives = sent + DELAY + late
        if number and rng.random() < loss:  # the first snapshot is never lost
            lost += 1
            if protocol == "udp":
                continue
            arrives += lost_message_s(2 * DELAY, 1 / rate) + slower
        ready = max(ready, arrives)
        player.arrived, player.newest = player.arrived + 1, number
        player.numbers.append(number)
        player.shown.append((ready, sent))
    return player, lost


def concluded(tmp_path, *, late=0.0, jitter=0.0, dropped=1.0, tcp_loss=1.0, seconds=30, slower=0.0):
    """Return a synthetic run whose sessions follow the prediction, apart from the deviations given as arguments.

    Snapshots arrive *late* seconds later, and every second one is sent *jitter* seconds later.  *dropped* scales the
    number of packets that `wan` counts as dropped, and *tcp_loss* the loss rate over TCP.  Each session lasts *seconds*
    seconds, and a retransmission arrives *slower* seconds late.
    """
    bound = parameters.bind(Snapshots.settings, quick=True, given=[f"seconds={seconds}", "players=10"])
    experiment, rng = Snapshots(bound), random.Random(5)
    run, lost = predicted(experiment, tmp_path), {"udp": 0, "tcp": 0}
    for rate, loss in experiment.arms:
        players = experiment.players[rate, loss] = []
        for protocol in PROTOCOLS:
            for _ in range(bound.players):
                share = loss if protocol == "udp" else tcp_loss * loss
                player, gone = session(
                    protocol, rate, share, bound.seconds, rng, late=late, jitter=jitter, slower=slower
                )
                players.append(player)
                lost["udp" if protocol == "udp" else "tcp"] += gone
    experiment.dropped = round(dropped * sum(lost.values()))
    run.recorders.series["arena"] = Series((0.0, 1.0), {"Tcp.RetransSegs": [5, 5 + lost["tcp"]]})
    experiment.conclude(run)
    return run


def test_sessions_as_predicted_pass(tmp_path):
    run = concluded(tmp_path)
    assert failed(run) == []
    assert all(check.ok for check in run.result.validity)
    assert [svg(chart).startswith("<svg") for chart in run.findings.charts] == [True] * 2


@pytest.mark.parametrize(
    ("deviation", "check"),
    [
        pytest.param({"late": 0.02}, "mean age, UDP, 60/s, 0.0% lost", id="every-snapshot-is-late"),
        pytest.param({"late": 0.02}, "99th percentile of the age, UDP, 60/s, 5.0% lost", id="the-tail-too"),
        pytest.param({"tcp_loss": 0.0}, "age that TCP adds to UDP's", id="tcp-loses-nothing"),
        pytest.param({"tcp_loss": 0.0}, "stall behind one lost segment", id="no-stall"),
        pytest.param({"slower": 0.03}, "stall behind one lost segment", id="retransmitted-too-late"),
        pytest.param({"tcp_loss": 4.0}, "age that TCP adds to UDP's", id="tcp-loses-more"),
        pytest.param(
            {"dropped": 1.5},
            "packets lost, as players and arena count them / as the link counts them",
            id="unaccounted",
        ),
    ],
)
def test_a_deviation_fails_its_check(deviation, check, tmp_path):
    assert check in failed(concluded(tmp_path, **deviation))


@pytest.mark.parametrize(
    ("noise", "gate"),
    [
        pytest.param({"jitter": 0.012}, "lateness of snapshots sent, 95th percentile", id="late-ticks"),
        pytest.param({"late": 0.002}, "lateness of snapshots delivered, mean", id="slow-delivery"),
        pytest.param({"seconds": 3}, "losses expected over TCP", id="too-few-losses"),
    ],
)
def test_a_run_that_noise_or_chance_could_decide_is_invalid(noise, gate, tmp_path):
    run = concluded(tmp_path, **noise)
    assert run.result.verdict is Verdict.INVALID
    assert [check.name for check in run.result.validity if not check.ok] == [gate]


def test_the_age_of_what_is_shown_is_an_area_under_teeth():
    player = Player("udp", shown=[(1.0, 0.9), (2.0, 1.9), (3.0, 2.9)], arrived=3, newest=3)
    assert player.mean_age == pytest.approx(0.6)  # the age rises from 0.1 to 1.1 between snapshots
    assert player.longest_freeze == 1.0
    assert player.missing == 1
    assert max(player.ages(ticks_per_s=100)) == pytest.approx(1.09)
