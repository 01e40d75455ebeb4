"""Tests that compare the sizes and round trips of handshakes with theory, without a lab."""

import asyncio
from pathlib import Path

import pytest

from experiments import parameters
from experiments.result import Quantity, Result
from experiments.run import Run
from experiments.undo_log import UndoLog
from reports.drawing import svg
from scenarios.handshake import ARMS, EARLY, PADDED_RTT_MS, REPLAYED, Handshake, padded_row
from scenarios.instruments import early_data, memory_handshake
from scenarios.instruments.handshake_costs import (
    CHAINS,
    EVERYWHERE,
    FULL,
    MUTUAL,
    SIGNATURE_VARIES,
    HandshakeCosts,
    supports_post_quantum,
)
from tests.experiments.lab import MemoryLab
from tests.scenarios.runs import failed, predicted
from theory import handshake

CLASSIC_CHAINS = [kind for kind in CHAINS if kind.key in memory_handshake.KEYS]


@pytest.mark.parametrize("kind", EVERYWHERE, ids=lambda kind: kind.name)
def test_a_client_waits_for_as_many_flights_as_predicted(kind) -> None:
    cost = kind.ends().cost(1, resumed=kind.resumed)
    assert (cost.round_trips, cost.resumed) == (kind.round_trips, kind.resumed)


@pytest.mark.parametrize("kind", CLASSIC_CHAINS, ids=lambda kind: f"{kind.key} + {kind.intermediates}")
def test_a_flight_has_the_predicted_bytes(kind) -> None:
    ends = kind.ends()
    assert len(ends.certificates) == 1 + kind.intermediates
    predicted_bytes = HandshakeCosts().predict(kind, ends.certificates)
    assert ends.cost(9).flight == pytest.approx(predicted_bytes, abs=SIGNATURE_VARIES)


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_a_resumed_handshake_sends_no_certificate(version) -> None:
    ends = memory_handshake.Ends("ECDSA P-256", version)
    full, resumed = ends.cost(3), ends.cost(3, resumed=True)
    assert (full.resumed, resumed.resumed) == (False, True)
    assert full.flight - resumed.flight >= sum(ends.certificates)


def test_a_client_in_mutual_tls_sends_the_predicted_bytes_to_authenticate() -> None:
    ends = MUTUAL.ends()
    identity = handshake.identity(ends.certificates, handshake.SIGNATURE[MUTUAL.key])
    assert ends.cost(9).sent - FULL.ends().cost(9).sent == pytest.approx(identity, abs=2 * SIGNATURE_VARIES)


@pytest.mark.parametrize(
    ("version", "supported"), [((3, 0, 19), False), ((3, 4, 0), False), ((3, 5, 0), True), ((4, 0), True)]
)
def test_post_quantum_keys_need_openssl_3_5(version: tuple, supported: bool) -> None:
    assert supports_post_quantum(version) is supported


@pytest.fixture
def padded(tmp_path: Path):
    """Return a scenario and its synthetic run: the predicted round trips, plus 0.5 ms of CPU time per handshake."""
    made = Handshake(parameters.bind(Handshake.settings, quick=True))
    run = predicted(made, tmp_path)
    for arm in ARMS:
        for rtt in made.p.rtt_ms:
            made.ttfb[arm, rtt] = [arm.round_trips * rtt + 2.0]
        made.reused[arm] = [arm.resumed]
    made.early = early_data.Found(1, 2, 1, 2)
    for size in (0, *made.p.padding):
        made.flights[size] = 1500 + size
        trips = handshake.tls_round_trips("TLSv1.3", server_flight=made.flights[size])
        run.result.prediction[padded_row(size)] = Quantity(trips)
        made.padded[size] = [trips * PADDED_RTT_MS + 0.5, trips * PADDED_RTT_MS + 9]
    return made, run


def test_handshakes_with_the_round_trips_of_slow_start_pass(padded) -> None:
    made, run = padded
    made.conclude(run)
    assert (failed(run), len(run.result.checks)) == ([], len(ARMS) + len(made.p.padding) + 3)
    assert [svg(chart).count("<circle") > 2 for chart in run.findings.charts] == [True, True]


def test_a_chain_that_arrives_one_round_trip_too_early_fails(padded) -> None:
    made, run = padded
    longest = max(made.p.padding)
    made.padded[longest] = [each - PADDED_RTT_MS for each in made.padded[longest]]
    made.conclude(run)
    assert failed(run) == [padded_row(longest)]


def test_early_data_saves_a_round_trip_and_can_be_replayed_unless_each_ticket_is_accepted_once() -> None:
    found = early_data.measure(memory_handshake.key_and_chain("ECDSA P-256"))
    assert found == early_data.Found(round_trips=1, round_trips_without=2, executed=1, executed_unprotected=2)


@pytest.mark.parametrize(
    ("found", "row"),
    [(early_data.Found(2, 2, 1, 2), EARLY), (early_data.Found(1, 2, 2, 2), REPLAYED)],
    ids=["no-round-trip-saved", "a-replay-that-is-executed"],
)
def test_early_data_that_behaves_otherwise_fails(padded, found, row) -> None:
    made, run = padded
    made.early = found
    made.conclude(run)
    assert failed(run) == [row]


def test_a_key_without_a_certificate_is_an_error() -> None:
    with pytest.raises(early_data.EarlyDataError, match="expected a certificate and its key"):
        early_data.measure(b"")


def test_mutual_tls_that_sends_nothing_more_fails(tmp_path: Path) -> None:
    costs, run = HandshakeCosts(), Run(MemoryLab(), Result("handshake", "", {}), UndoLog(tmp_path))
    announced: dict[str, int] = {}
    asyncio.run(run.blocking(costs.measure, 10, announced.__setitem__))
    assert len(announced) == len(costs.chains)
    costs.costs[FULL] = costs.costs[MUTUAL]
    costs.conclude(run)
    assert "a client in mutual TLS sends as much to authenticate" in failed(run)
