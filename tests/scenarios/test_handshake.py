"""What a server's flight holds and costs, against the model; nothing here needs a lab."""

import asyncio
from pathlib import Path

import pytest

from experiments import parameters
from experiments.result import Quantity, Result
from experiments.run import Run
from experiments.undo_log import UndoLog
from reports.drawing import svg
from scenarios.handshake import ARMS, STAIRS_RTT_MS, Handshake, _stair
from scenarios.instruments import memory_handshake
from scenarios.instruments.handshake_costs import (
    CHAINS,
    EVERYWHERE,
    FULL,
    MUTUAL,
    SIGNATURE_VARIES,
    Proofs,
    knows_post_quantum,
)
from tests.experiments.lab import MemoryLab
from tests.scenarios.runs import failed, predicted
from theory import handshake

CLASSIC_CHAINS = [p for p in CHAINS if p.key in memory_handshake.KEYS]


@pytest.mark.parametrize("proof", EVERYWHERE, ids=lambda p: p.name)
def test_flights_that_a_client_waits_for_are_the_models_round_trips(proof) -> None:
    cost = proof.ends().cost(1, resumed=proof.resumed)
    assert (cost.round_trips, cost.resumed) == (proof.round_trips, proof.resumed)


@pytest.mark.parametrize("proof", CLASSIC_CHAINS, ids=lambda p: f"{p.key} + {p.intermediates}")
def test_a_flight_has_the_octets_of_the_model(proof) -> None:
    ends = proof.ends()
    assert len(ends.certificates) == 1 + proof.intermediates
    assert ends.cost(9).flight == pytest.approx(Proofs().predict(proof, ends.certificates), abs=SIGNATURE_VARIES)


def test_a_client_in_mutual_tls_sends_what_the_model_calls_proof() -> None:
    ends = MUTUAL.ends()
    proof = handshake.identity(ends.certificates, handshake.SIGNATURE[MUTUAL.key])
    assert ends.cost(9).sent - FULL.ends().cost(9).sent == pytest.approx(proof, abs=2 * SIGNATURE_VARIES)


@pytest.mark.parametrize(("version", "knows"), [((3, 0, 19), False), ((3, 4, 0), False), ((3, 5, 0), True), ((4, 0), True)])  # fmt: skip
def test_post_quantum_keys_came_with_openssl_3_5(version: tuple, knows: bool) -> None:
    assert knows_post_quantum(version) is knows


@pytest.fixture
def climbed(tmp_path: Path):
    """A run whose handshakes take what slow start lets them, and half a millisecond of CPU."""
    made = Handshake(parameters.bind(Handshake.settings, quick=True))
    run = predicted(made, tmp_path)
    for arm in ARMS:
        for rtt in made.p.rtt_ms:
            made.ttfb[arm, rtt] = [arm.round_trips * rtt + 2.0]
        made.reused[arm] = [arm.resumed]
    for octets in (0, *made.p.ballast):
        made.flights[octets] = 1500 + octets
        trips = handshake.tls_round_trips("TLSv1.3", server_flight=made.flights[octets])
        run.result.prediction[_stair(octets)] = Quantity(trips)
        made.stairs[octets] = [trips * STAIRS_RTT_MS + 0.5, trips * STAIRS_RTT_MS + 9]
    return made, run


def test_handshakes_as_slow_start_lets_them_pass(climbed) -> None:
    made, run = climbed
    made.conclude(run)
    assert (failed(run), len(run.result.checks)) == ([], len(ARMS) + len(made.p.ballast))
    assert [svg(chart).count("<circle") > 2 for chart in run.findings.charts] == [True, True]


def test_a_chain_that_comes_in_one_round_trip_too_few_fails(climbed) -> None:
    made, run = climbed
    longest = max(made.p.ballast)
    made.stairs[longest] = [each - STAIRS_RTT_MS for each in made.stairs[longest]]
    made.conclude(run)
    assert failed(run) == [_stair(longest)]


def test_costs_in_memory_are_held_against_theory(tmp_path: Path) -> None:
    proofs, run = Proofs(), Run(MemoryLab(), Result("handshake", "", {}), UndoLog(tmp_path))
    said: dict[str, int] = {}
    asyncio.run(run.blocking(proofs.shake, 10, said.__setitem__))
    proofs.costs[FULL] = proofs.costs[MUTUAL]  # as if nothing were asked of clients in mutual TLS
    proofs.conclude(run)
    assert len(said) == len(proofs.chains)
    assert "a client in mutual TLS sends as much proof" in failed(run)
