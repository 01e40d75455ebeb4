"""Tests for ``firstbyte pki rotate``: hosts that are not ready, advice to the user, and wrong arguments."""

import pytest

from firstbyte.cli import main
from firstbyte.rotate import Peer, RotationError, advice, laggards, next_step

NEW, OLD = "CN=issuing CA 2", "CN=issuing CA 1"


@pytest.mark.parametrize(
    ("peer", "reason"),
    [
        (Peer("edge", 2, (NEW, NEW)), None),
        (Peer("edge", 3, (NEW,)), None),
        (Peer("edge", 1, (NEW,)), "trusts bundle 1, expected 2"),
        (Peer("edge", 2, (NEW, OLD)), f"presents a certificate of {OLD}"),
        (Peer("edge", 2, ("none yet",)), "presents a certificate of none yet"),
        (Peer("edge", 0, (), "does not answer"), "does not answer"),
    ],
    ids=["ready", "ahead", "trusts-old-roots", "one-old-certificate", "no-certificate", "silent"],
)
def test_a_host_that_is_not_ready_is_named_with_the_reason(peer: Peer, reason: str | None) -> None:
    ready = Peer("news", 2, (NEW,))
    assert laggards([ready, peer], 2, NEW) == ({} if reason is None else {"edge": reason})


@pytest.mark.parametrize(
    ("late", "kind", "says"),
    [
        (
            {"edge": f"presents a certificate of {OLD}", "news": f"presents a certificate of {OLD}"},
            "root",
            "run `firstbyte pki renew edge news`, then repeat `firstbyte pki rotate root`",
        ),
        (
            {"edge": "does not answer: timed out"},
            "intermediate",
            "start edge, then repeat `firstbyte pki rotate intermediate`",
        ),
        (
            {"edge": "trusts bundle 1, expected 2", "ca": f"signs with {OLD}"},
            "root",
            "wait for edge, ca (`firstbyte pki rotate` shows the state), then repeat `firstbyte pki rotate root`",
        ),
        (
            {"edge": f"presents a certificate of {OLD}"},
            "",
            "run `firstbyte pki renew edge`, which completes the rotation",
        ),
    ],
    ids=["old-certificates", "silent", "old-roots-and-old-issuer", "last-step"],
)
def test_the_user_reads_what_to_do_about_hosts_that_lag(late: dict[str, str], kind: str, says: str) -> None:
    assert advice(late, kind) == says


def test_during_another_rotation_the_exit_code_is_1() -> None:
    state = {"kind": "intermediate", "step": "prepare", "next": {"intermediate": "sign-new"}}
    assert next_step(state, "intermediate") == "sign-new"
    with pytest.raises(RotationError, match="a rotation of the intermediate is in progress, at prepare") as refused:
        next_step(state, "root")
    assert refused.value.exit_code == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["root", "--timeout", "-3"], "expected seconds from 1 to 600"),
        (["root", "--timeout", "0"], "expected seconds from 1 to 600"),
        (["root", "--timeout", "nan"], "expected seconds from 1 to 600"),
        (["--all"], "expected intermediate or root with --all"),
        (["--force"], "expected intermediate or root with --force"),
    ],
    ids=["negative", "zero", "not-a-number", "all-of-nothing", "force-of-nothing"],
)
def test_wrong_arguments_are_one_line_and_exit_code_2(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pki", "rotate", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
