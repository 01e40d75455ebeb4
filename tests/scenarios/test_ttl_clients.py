"""What a client that ignores a TTL knows, and until when; and that theory's clients make the scenario pass."""

import math
import random

import pytest

from experiments import parameters
from reports.drawing import svg
from scenarios.instruments.ttl_clients import Client, Crowd, Habit, Seen
from scenarios.ttl import NEW_ORIGIN, OLD, RESOLVER, Ttl
from tests.scenarios.runs import failed, predicted

#: An origin behind the edge that the name leaves.
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
def test_an_answer_is_kept_as_the_habit_says(habit: Habit, ttl_s: float, knows_until: float) -> None:
    client = Client(habit)
    client.learn(OLD, ttl_s, now=100.0)
    last = min(knows_until, 1e9) + 100.0
    assert client.knows(last - 0.001) == OLD
    assert (client.knows(last) is None) == math.isfinite(knows_until)


def test_a_connection_is_used_until_it_has_its_age() -> None:
    client = Client(Habit("pool", connection_s=30))
    client.connected(now=10.0)
    assert (client.may_reuse(39.9), client.may_reuse(40.0)) == (True, False)


def test_who_opens_a_connection_for_each_request_reuses_none() -> None:
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
    """A run whose clients moved as theory has them: each on its own, at a time drawn from its curve."""
    experiment = Ttl(parameters.bind(Ttl.settings, quick=True))
    run = predicted(experiment, tmp_path)
    rng, p = random.Random(4), experiment.p
    for habit in experiment.habits:
        crowd = Crowd(habit, [f"c{i}" for i in range(p.clients)], p.requests, rng, RESOLVER)
        for client in range(p.clients):
            rest = rng.random() * experiment.longest if rng.random() < 0.85 else 0.0
            held = rng.random() < p.requests * habit.hold / (1 + p.requests * habit.hold) if habit.hold else False
            moves = rest + (rng.random() * habit.hold if held else 0.0) if math.isfinite(habit.hold) else math.inf
            at = rng.expovariate(p.requests)
            while at < experiment.gone + 3:
                crowd.seen.append(Seen(at, client, OLD_ORIGIN if at < moves else NEW_ORIGIN, not habit.connection_s))
                at += rng.expovariate(p.requests)
        experiment.crowds.append(crowd)
    return experiment, run


def test_clients_that_move_as_theory_has_them_pass(moved) -> None:
    experiment, run = moved
    experiment._clients(run)
    assert failed(run) == []
    assert svg(experiment._leaving(run)).count(" halo") > 40


def test_a_client_that_stays_after_everybody_has_moved_fails(moved) -> None:
    experiment, run = moved
    experiment.crowds[0].seen.append(Seen(experiment.gone + 1, 3, OLD_ORIGIN, True))
    experiment._clients(run)
    assert failed(run) == ["gone at the end: honours the TTL"]


def test_clients_that_never_let_go_must_not(moved) -> None:
    experiment, run = moved
    experiment.crowds[-1].seen.append(Seen(experiment.gone + 1, 3, NEW_ORIGIN, True))
    experiment._clients(run)
    assert failed(run) == ["on the old address at the end: never asks again"]


def test_clients_that_keep_what_they_should_not_are_off_their_curve(moved) -> None:
    experiment, run = moved
    experiment.crowds[0].seen = [
        *experiment.crowds[2].seen
    ]  # a minimum of six seconds, where the TTL was to be honoured
    experiment._clients(run)
    assert "on the old address, mean: honours the TTL" in failed(run)
