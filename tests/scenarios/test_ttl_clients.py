"""Tests for clients that ignore a TTL, and for the conclusions of `ttl` with synthetic requests that follow theory."""

import math
import random

import pytest

from experiments import parameters
from reports.drawing import svg
from scenarios.instruments.ttl_clients import Answered, Client, Crowd, Habit
from scenarios.instruments.ttl_move import NEW_ORIGIN
from scenarios.ttl import OLD, RESOLVER, Ttl
from tests.scenarios.runs import failed, predicted

#: An origin behind the edge that the name points to before the change.
OLD_ORIGIN = "catalog-1.example.com"


@pytest.mark.parametrize(
    ("habit", "ttl_s", "knows_until"),
    [
        pytest.param(Habit("honours"), 4.0, 4.0, id="honours-the-ttl"),
        pytest.param(Habit("keeps", answer_s=30), 4.0, 30.0, id="a-minimum-of-its-own"),
        pytest.param(Habit("keeps", answer_s=30), 300.0, 300.0, id="a-minimum-is-no-maximum"),
        pytest.param(Habit("never", answer_s=math.inf), 4.0, math.inf, id="never-asks-again"),
        pytest.param(Habit("pool", connection_s=30), 4.0, 4.0, id="a-connection-is-not-an-answer"),
    ],
)
def test_the_habit_determines_how_long_an_answer_is_kept(habit: Habit, ttl_s: float, knows_until: float) -> None:
    client = Client(habit)
    client.learn(OLD, ttl_s, now=100.0)
    last = min(knows_until, 1e9) + 100.0
    assert client.knows(last - 0.001) == OLD
    assert (client.knows(last) is None) == math.isfinite(knows_until)


def test_a_connection_is_reused_until_its_maximum_age() -> None:
    client = Client(Habit("pool", connection_s=30))
    client.connected(now=10.0)
    assert (client.may_reuse(39.9), client.may_reuse(40.0)) == (True, False)


def test_a_client_with_a_connection_per_request_reuses_none() -> None:
    client = Client(Habit("honours"))
    client.connected(now=10.0)
    assert not client.may_reuse(10.0)


def test_only_the_first_hold_of_a_client_is_shortened() -> None:
    client = Client(Habit("keeps", answer_s=30), shortened=0.5)
    client.learn(OLD, 4.0, now=0.0)
    assert (client.knows(14.9), client.knows(15.0)) == (OLD, None)
    client.learn(OLD, 4.0, now=20.0)
    assert client.knows(49.9) == OLD


@pytest.fixture
def moved(tmp_path):
    """Return a `Move` with synthetic requests of five crowds that follow theory, and its run.

    Each client switches to the new address independently of the other clients.
    """
    experiment = Ttl(parameters.bind(Ttl.settings, quick=True))
    run, move = predicted(experiment, tmp_path), experiment.move
    rng, p = random.Random(4), experiment.p
    for habit in move.habits:
        crowd = Crowd(habit, [f"c{i}" for i in range(p.clients)], p.requests, rng, RESOLVER)
        for client in range(p.clients):
            rest = rng.random() * experiment.longest if rng.random() < 0.85 else 0.0
            held = rng.random() < p.requests * habit.hold / (1 + p.requests * habit.hold) if habit.hold else False
            moves = rest + (rng.random() * habit.hold if held else 0.0) if math.isfinite(habit.hold) else math.inf
            at = rng.expovariate(p.requests)
            while at < move.end:
                origin = OLD_ORIGIN if at < moves else NEW_ORIGIN
                crowd.answered.append(Answered(at, client, origin, not habit.connection_s))
                at += rng.expovariate(p.requests)
        move.crowds.append(crowd)
    return move, run


def test_clients_that_move_as_predicted_pass(moved) -> None:
    move, run = moved
    move.conclude(run)
    assert failed(run) == []
    assert svg(run.findings.charts[0]).count(" halo") > 40


def test_a_client_that_stays_too_long_fails(moved) -> None:
    move, run = moved
    move.crowds[0].answered.append(Answered(move.gone + 1, 3, OLD_ORIGIN, True))
    move.conclude(run)
    assert failed(run) == ["gone at the end: honours the TTL"]


def test_a_client_that_should_never_move_and_does_fails(moved) -> None:
    move, run = moved
    move.crowds[-1].answered.append(Answered(move.gone + 1, 3, NEW_ORIGIN, True))
    move.conclude(run)
    assert failed(run) == ["on the old address at the end: never asks again"]


def test_clients_with_another_hold_than_predicted_deviate_from_their_curve(moved) -> None:
    move, run = moved
    move.crowds[0].answered = [*move.crowds[2].answered]  # requests of clients that keep answers for at least 6 s
    move.conclude(run)
    assert "on the old address, mean: honours the TTL" in failed(run)
