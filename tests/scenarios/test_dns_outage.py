"""Tests for `dns-outage` with synthetic answers: passing runs, deviations that fail, and the negative control."""

import asyncio
import math

import pytest

from experiments import Verdict, parameters
from reports.drawing import svg
from scenarios.dns_outage import DnsOutage, _stride
from scenarios.instruments.local_resolvers import PROGRAMS, ROOTS, Resolver, running
from tests.scenarios.runs import failed, predicted
from theory import ttl


def concluded(tmp_path, *, negative=False, early=0.0, stale=1.0, half=1.0, resolved=0.522, unfilled=0):
    """Return a synthetic run whose queries are answered as predicted, apart from the deviations given as arguments.

    Records expire *early* seconds sooner.  *stale*, *half* and *resolved* are shares of answered queries: with
    serve-stale, with one of two servers down, and through the lossy link.
    """
    experiment = DnsOutage(parameters.bind(DnsOutage.settings, quick=True), negative=negative)
    run, p = predicted(experiment, tmp_path), experiment.p
    for number, program in enumerate(PROGRAMS):
        for serves in (False, True):
            name = f"{program.name}, serve-stale" if serves else program.name
            experiment.resolvers.append(Resolver(name, ("", 0), program.rounding, serves, f"r{number}"))
            experiment.half[name] = [(i < half * 40, 0.1) for i in range(40)]
            for ttl_s in p.ttl_s:
                life = ttl.lifetime(ttl_s, program.rounding) - early
                for i in range(600):
                    at, age = (ttl_s + 1.2) * i / 600, experiment._cycle(ttl_s) * (i * _stride(600) % 600) / 600
                    ok = (i % 100) < 100 * stale if serves else negative or at < life - age
                    experiment.answers[name, ttl_s].append((at, ok))
    experiment.lossy = [i < 1000 * resolved for i in range(1000)]
    experiment.late = [0.001]
    experiment.unfilled = unfilled
    experiment.conclude(run)
    return run


def test_answers_as_predicted_pass(tmp_path):
    run = concluded(tmp_path)
    assert failed(run) == []
    assert all(check.ok for check in run.result.validity)
    assert svg(run.findings.charts[0]).startswith("<svg")


@pytest.mark.parametrize(
    ("deviation", "check"),
    [
        pytest.param({"early": 1.0}, "distance of BIND from the curve, T = 4 s", id="records-expire-early"),
        pytest.param({"early": -1.5}, "distance of firstbyte from the curve, T = 8 s", id="records-expire-late"),
        pytest.param({"stale": 0.9}, "answered by Unbound, serve-stale", id="stale-answers-are-missing"),
        pytest.param({"half": 0.9}, "answered by firstbyte, 1 of 2 servers down", id="the-other-server-is-not-asked"),
        pytest.param({"resolved": 0.6}, "answered through a lossy link", id="more-than-the-tries-allow"),
    ],
)
def test_a_deviation_fails_its_check(deviation, check, tmp_path):
    assert check in failed(concluded(tmp_path, **deviation))


def test_the_control_with_name_servers_that_stay_up_fails(tmp_path):
    assert set(DnsOutage.control.fails) <= set(failed(concluded(tmp_path, negative=True)))


def test_caches_that_could_not_be_filled_make_the_run_invalid(tmp_path):
    assert concluded(tmp_path, unfilled=100).result.verdict is Verdict.INVALID


@pytest.mark.parametrize("names", [50, 100, 150, 2000])
def test_the_order_of_the_queries_reaches_every_name(names):
    stride = _stride(names)
    assert math.gcd(stride, names) == 1
    assert 0.6 < stride / names < 0.7


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda each: each.name)
def test_the_configuration_names_the_labs_roots(program, tmp_path):
    command = program.command(tmp_path, 5399, stale=True)
    text = " ".join(command) + "".join(path.read_text() for path in tmp_path.iterdir())
    assert all(address in text for address in ROOTS.values())
    assert "5399" in text


def test_a_resolver_without_an_answer_is_reported_and_stopped(monkeypatch):
    """The first query fails because the lab's root servers are unreachable in this test."""
    monkeypatch.setattr("scenarios.instruments.local_resolvers.STARTS", 0.1)

    async def start():
        async with running(PROGRAMS[:1]):
            raise AssertionError("unreachable: the resolver cannot answer")

    with pytest.raises(OSError, match="firstbyte did not answer within"):
        asyncio.run(start())
