"""Tests for `keepalive-race` with synthetic gaps, and for a real connection to a server that closes early."""

import asyncio
import random
import time

import pytest

from experiments import parameters
from experiments.recorders import Series
from reports.drawing import svg
from scenarios.instruments.keepalive_clients import Gap, KeptConnection
from scenarios.keepalive_race import KeepaliveRace, edge
from tests.scenarios.runs import failed, predicted
from theory import keepalive


def concluded(tmp_path, *, negative=False, window=1.0, silences=3000):
    """Return a synthetic run whose gaps end as in theory, except that the race window is *window* times as wide."""
    experiment = KeepaliveRace(parameters.bind(KeepaliveRace.settings, quick=True), negative=negative)
    run = predicted(experiment, tmp_path)
    ends, rtt, rng = experiment.p.timeout_s, experiment.rtt, random.Random(3)
    swept = experiment._swept(rng)
    draws = {"sweep": lambda: next(swept)}
    for arm in experiment.arms:
        for _ in range(silences):
            drawn = draws.get(arm.name, lambda: rng.expovariate(experiment.rate))()
            if drawn >= min(arm.idle, ends):
                arm.gaps.append(Gap(drawn, min(arm.idle, ends), "closed" if arm.idle > ends else "retired"))
            elif keepalive.races(drawn, ends, rtt * window):
                arm.gaps.append(Gap(drawn, drawn, "raced", ends - drawn, ends - drawn + 2 * rtt))
            else:
                arm.gaps.append(Gap(drawn, drawn, "answered", answer=rtt))
    races = sum(len(arm.ended("raced")) for arm in experiment.arms)
    run.recorders.series["edge"] = Series((0.0, 1.0), {"TcpExt.TCPAbortOnData": [5, 5 + races]})
    experiment.conclude(run)
    return run


def test_silences_that_end_as_predicted_pass(tmp_path):
    run = concluded(tmp_path)
    assert failed(run) == []
    assert all(check.ok for check in run.result.validity)
    assert [svg(chart).startswith("<svg") for chart in run.findings.charts] == [True] * 3


def test_a_window_of_half_a_round_trip_fails(tmp_path):
    assert {"the race begins, silence", "width of the window"} <= set(failed(concluded(tmp_path, window=0.5)))


def test_the_control_in_which_every_client_closes_first_fails(tmp_path):
    run = concluded(tmp_path, negative=True)
    assert set(KeepaliveRace.control.fails) <= set(failed(run))
    assert {row.name: row.measured.value for row in run.result.rows}["share of gaps that race, Poisson"] == 0


@pytest.mark.parametrize(
    ("below", "above", "at"),
    [
        pytest.param([1, 2, 3], [4, 5], 3.5, id="clean"),
        pytest.param([1, 2, 4.2], [4, 5, 6], 3.0, id="one-late"),
        pytest.param([1, 2, 3, 4], [0.5, 5, 6], 4.5, id="one-early"),
    ],
)
def test_the_boundary_between_two_outcomes(below, above, at):
    assert edge(below, above) == at


async def test_a_request_on_a_connection_that_the_server_closes_is_lost():
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        if next(impatient):
            writer.close()
            return
        await reader.readuntil(b"\r\n\r\n")  # the server's FIN and the second request cross on the path
        writer.close()

    impatient = iter([True, False])
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        seen = []
        for _ in range(2):
            kept = KeptConnection(time.monotonic, "127.0.0.1", port)
            assert await kept.ask() == ""
            seen.append(await kept.closed_within(kept.answered + 0.05))
        assert seen == [True, False]
        assert await kept.ask() in {"closed", "reset"}
