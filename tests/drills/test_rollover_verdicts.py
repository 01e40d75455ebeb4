"""Tests for the verdicts of the rollover drills, on synthetic runs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from drills import root_rollover, verifiers
from drills.intermediate_rollover import BUNDLE, IntermediateRollover
from drills.pool_rotation import PoolRotation, Rotation, Seen
from drills.rollover import LAGS, SERVERS, Step
from drills.root_rollover import LAGGARD, RootRollover
from drills.watch import Identity
from experiments import Run, Verdict
from generator import Request
from tests.drills.synthetic import break_requests, prepared, stage, verdict

OLD, NEW = "CN=issuing CA 1", "CN=issuing CA 2"
CLIENTS = ("openssl s_client", "cryptography")


def judged(name: str, begin: float, roots: dict[str, bool]) -> Step:
    """Return a step that ends with each client accepting or refusing the chain; *roots*: the result by trust store."""
    verdicts = {each: dict.fromkeys(CLIENTS, "" if ok else "unknown issuer") for each, ok in roots.items()}
    return Step(name, begin, begin + 1.0, 0, "", verdicts)


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        (lambda _: None, set()),
        (lambda e: break_requests(e.stage, 9, 9.2, "reset"), {"requests lost"}),
        (lambda e: e.steps[1].verdicts[BUNDLE].update({CLIENTS[0]: "unknown CA"}), {"clients accept the chains"}),
        (lambda e: e.steps[2].verdicts.clear(), set()),
        (lambda e: [each.verdicts.clear() for each in e.steps], {"clients accept the chains"}),
        (lambda e: e.presented.update({"far.example.com": OLD}), {"presented after the last step"}),
        (lambda e: e.presented.update({"far.example.com": ""}), {"presented after the last step"}),
        (lambda e: setattr(e, "new_issuer", OLD), {"presented after the last step"}),
        (lambda e: setattr(e, "old_leaf", "unable to get certificate CRL"), {"CRL of the old CA after its retirement"}),
    ],
    ids=["good", "lost", "client-refuses", "one-step-unjudged", "nothing-judged", "forgotten-server", "silent-server",
         "same-issuer", "no-CRL"],
)  # fmt: skip
def test_intermediate_rollover(
    tmp_path: Path, change: Callable[[IntermediateRollover], object], failed: set[str]
) -> None:
    experiment, run = prepared(IntermediateRollover, tmp_path, rate=20)
    assert isinstance(experiment, IntermediateRollover)
    experiment.stage = stage(run, 20, 20, IntermediateRollover.hosts)
    experiment.began, experiment.ended = 4.0, 18.0
    experiment.old_issuer, experiment.new_issuer, experiment.old_leaf = OLD, NEW, "good"
    experiment.steps = [judged(name, 4.0 + 4 * n, {BUNDLE: True}) for n, name in enumerate(experiment.accepted)]
    experiment.presented = {name: NEW for name, _ in SERVERS}
    for host in experiment.hosts:
        experiment.stage.watch.identities[host] = [Identity(0.0, OLD, 1), Identity(9.0, NEW, 1)]
    change(experiment)
    assert verdict(run, experiment) == (Verdict.FAIL if failed else Verdict.PASS, failed)


def test_a_client_that_gives_no_verdict_in_time_makes_the_run_invalid(tmp_path: Path) -> None:
    experiment, run = rolled_over(tmp_path)
    experiment.steps[1].verdicts[BUNDLE][CLIENTS[0]] = verifiers.NO_VERDICT
    assert verdict(run, experiment)[0] is Verdict.INVALID


# --- D7 root-rollover -------------------------------------------------------------------------------------------------

REFUSAL = f"firstbyte pki: error: the next step is refused: {LAGGARD} trusts bundle 1, expected 2; wait for {LAGGARD}"


def rolled_over(tmp_path: Path, *, control: bool = False) -> tuple[RootRollover, Run]:
    """Return a synthetic run of `root-rollover` that passes."""
    experiment, run = prepared(RootRollover, tmp_path, rate=20)
    assert isinstance(experiment, RootRollover)
    experiment.negative = control
    experiment.stage = stage(run, 30, 20, RootRollover.hosts)
    experiment.began, experiment.ended = 4.0, 28.0
    experiment.old_issuer, experiment.new_issuer = OLD, NEW
    experiment.presented = {name: NEW for name, _ in SERVERS}
    for number, (name, accepted) in enumerate(RootRollover.accepted.items()):
        roots = (BUNDLE, root_rollover.OLD, *((root_rollover.NEW,) if number else ()))
        experiment.steps.append(judged(name, 4.0 + 4 * number, {each: each in accepted for each in roots}))
    experiment.steps.insert(2, Step(root_rollover.ATTEMPT, 9.0, 10.0, LAGS, REFUSAL))
    return experiment, run


def accept_too_early(experiment: RootRollover) -> None:
    experiment.steps[1].verdicts[root_rollover.NEW][CLIENTS[0]] = ""


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        (lambda _: None, set()),
        (lambda e: break_requests(e.stage, 9, 9.2, "certificate"), {"requests lost"}),
        (lambda e: setattr(e.steps[2], "code", 0), {"the next step while one host lags"}),
        (
            lambda e: setattr(e.steps[2], "said", REFUSAL.replace(LAGGARD, "news")),
            {"the next step while one host lags"},
        ),
        (lambda e: setattr(e.steps[2], "said", f"{LAGGARD} does not answer"), {"the next step while one host lags"}),
        (accept_too_early, {"clients accept the chains"}),
        (lambda e: e.presented.update({"news.example.com": OLD}), {"presented after the last step"}),
    ],
    ids=["good", "lost", "performed", "wrong-host", "another-reason", "accepted-too-early", "forgotten-server"],
)
def test_root_rollover(tmp_path: Path, change: Callable[[RootRollover], object], failed: set[str]) -> None:
    experiment, run = rolled_over(tmp_path)
    change(experiment)
    assert verdict(run, experiment) == (Verdict.FAIL if failed else Verdict.PASS, failed)


EXACT = "new connections fail exactly when predicted"


@pytest.mark.parametrize(
    ("begin", "end", "broken", "failed"),
    [
        (12.0, 15.0, (12.0, 15.0), {"requests lost"}),
        (12.0, 15.0, (12.3, 14.8), {"requests lost"}),
        (12.0, 13.5, (12.0, 15.0), {"requests lost", EXACT}),
        (10.0, 15.0, (12.0, 15.0), {"requests lost", EXACT}),
        (12.0, 17.0, (12.0, 15.0), {"requests lost", EXACT}),
        (12.0, 15.0, None, {"requests lost", EXACT}),
        (12.0, 12.0, (12.0, 15.0), {EXACT}),
    ],
    ids=["exactly", "within-the-tolerance", "too-short", "too-early", "too-long", "not-recorded", "no-failure"],
)
def test_failures_of_the_wrong_order_are_compared_with_their_prediction(
    tmp_path: Path, begin: float, end: float, broken: tuple[float, float] | None, failed: set[str]
) -> None:
    experiment, run = rolled_over(tmp_path, control=True)
    assert experiment.stage is not None
    for each in experiment.stage.requests:
        if each.kind == "fresh" and begin <= each.sent < end:
            each.error, each.failed_in = "certificate", "tls"
    experiment.broken = broken
    assert verdict(run, experiment) == (Verdict.FAIL, failed)


# --- D15 pool-rotation ------------------------------------------------------------------------------------------------


def pooled(tmp_path: Path) -> tuple[PoolRotation, Run]:
    """Return a synthetic run of `pool-rotation` that passes: two certificates, then two trust bundles."""
    experiment, run = prepared(PoolRotation, tmp_path, rate=20)
    assert isinstance(experiment, PoolRotation)
    experiment.stage = stage(run, 30, 20, PoolRotation.hosts)
    experiment.began, experiment.ended = 4.0, 28.0
    experiment.old_issuer, experiment.new_issuer = OLD, NEW
    changes = ((6.0, "b"), (10.0, "c"), (14.0, "trust-both"), (18.0, "trust-new"))
    experiment.rotations = [Rotation(begin - 0.3, begin, what) for begin, what in changes]
    experiment.slow = [Request(begin - 0.4, "fresh", begin - 0.4, begin + 1.1) for begin, _ in changes[:2]]
    for number in range(400, 2200):  # one request per 10 ms
        at = number / 100
        generation = sum(begin <= at for begin, _ in changes)
        connection = f"10.0.0.1:{40000 + 2 * generation + number % 2}", f"catalog-{1 + number % 2}"
        experiment.seen.append(Seen(at, at + 0.005, connection, "abccc"[generation]))
    return experiment, run


def used_again(experiment: PoolRotation, at: float, like: float) -> None:
    """Add a request at *at* on the connection of the request at *like*."""
    old = next(each for each in experiment.seen if each.sent >= like)
    experiment.seen.append(replace(old, sent=at, done=at + 0.005))


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        (lambda _: None, set()),
        (lambda e: break_requests(e.stage, 9, 9.2, "reset"), {"requests lost"}),
        (lambda e: e.failed.append(Request(6.0, "pooled", 6.0, 6.1, "reset")), {"observed requests lost"}),
        (lambda e: setattr(e.slow[0], "error", "reset"), {"slow requests completed"}),
        (lambda e: e.slow.clear(), {"slow requests completed"}),
        (lambda e: used_again(e, 6.4, 5.0), set()),
        (lambda e: used_again(e, 7.0, 5.0), {"pools on the new client certificate"}),
        (lambda e: used_again(e, 15.0, 13.0), {"pools on the new trust bundle"}),
        (lambda e: e.rotations.pop(), {"pools on the new trust bundle"}),
    ],
    ids=["good", "lost", "observed-lost", "slow-cut", "no-slow", "assigned-before", "old-certificate", "old-trust",
         "one-rotation"],
)  # fmt: skip
def test_pool_rotation(tmp_path: Path, change: Callable[[PoolRotation], object], failed: set[str]) -> None:
    experiment, run = pooled(tmp_path)
    change(experiment)
    assert verdict(run, experiment) == (Verdict.FAIL if failed else Verdict.PASS, failed)


def test_a_run_that_observed_one_pool_only_is_invalid(tmp_path: Path) -> None:
    experiment, run = pooled(tmp_path)
    experiment.seen = [each for each in experiment.seen if each.connection[1] == "catalog-1"]
    assert verdict(run, experiment)[0] is Verdict.INVALID
