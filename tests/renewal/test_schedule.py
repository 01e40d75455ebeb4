"""Tests for the renewal schedule: renewal time, retry delay, and admin requests that change the rule."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renewal import renewal_time, retry_delay
from telemetry import AdminError, Request
from tests.acme_server.conftest import Lab
from tests.renewal.conftest import agent_for, issued_at


@given(st.floats(1, 400 * 86400), st.integers(0, 2**32))
def test_renewal_is_due_well_inside_life(lifetime: float, seed: int) -> None:
    at = renewal_time(1e9, 1e9 + lifetime, random.Random(seed))
    assert 0.47 * lifetime <= at - 1e9 <= 0.69 * lifetime


@pytest.mark.parametrize(
    ("lifetime", "scale", "share"),
    [(12.0, 1.0, 1 / 2), (12.0, 47 * 86400 / 12, 2 / 3), (12.0, 7 * 86400 / 12, 1 / 2), (47 * 86400.0, 1.0, 2 / 3)],
    ids=["12-s", "12-s-for-47-d", "12-s-for-7-d", "47-d"],
)
def test_rules_of_days_look_at_the_nominal_lifetime(lifetime: float, scale: float, share: float) -> None:
    rng = random.Random(1)
    times = [renewal_time(0.0, lifetime, rng, None, scale) / lifetime for _ in range(200)]
    assert share - 0.02 <= min(times) < max(times) <= share + 0.02
    assert max(times) - min(times) > 0.03


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], "at most"),
        ({"when": 1}, "at most"),
        ({"scale": 0}, "scale"),
        ({"scale": True}, "scale"),
        ({"renew_at": 1.0}, "renew_at"),
        ({"renew_at": "half"}, "renew_at"),
        ({"seed": 1.5}, "seed"),
    ],
)
async def test_a_schedule_that_makes_no_sense_is_refused(lab: Lab, body: object, message: str) -> None:
    agent = agent_for(lab)
    with pytest.raises(AdminError, match=message):
        agent._set_schedule(Request("PUT", "/admin/schedule", body=json.dumps(body).encode()))
    assert agent._show_schedule()["scale"] == 1.0


async def test_a_schedule_set_by_a_drill_is_seeded_and_undone(lab: Lab) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    body = json.dumps({"scale": 86400, "seed": 7}).encode()
    due = [agent._set_schedule(Request("PUT", "/admin/schedule", body=body))["due"] for _ in range(2)]
    assert due[0] == due[1]
    assert 0.6 < (due[0] - issued_at(agent)) / (agent.credentials.not_after - issued_at(agent)) < 0.7
    assert agent.telemetry._unusual() == ["renewal schedule runs 86,400 times faster"]
    reset = agent._reset_schedule(Request("DELETE", "/admin/schedule"))
    assert (reset["scale"], reset["renew_at"]) == (1.0, None)
    assert agent.telemetry._unusual() == []
    assert reset["due"] < due[0]


@given(st.integers(1, 50), st.floats(1, 400 * 86400), st.integers(0, 2**32))
def test_a_ca_in_trouble_is_never_asked_in_a_hot_loop(failures: int, lifetime: float, seed: int) -> None:
    assert 1.0 <= retry_delay(failures, lifetime, random.Random(seed)) <= 1.25 * 86400 * max(1, lifetime / (90 * 86400))
