"""Tests for the traps with two real clients: a strict one, and one that accepts everything OpenSSL supports.

The second client accepts each certificate and TLS version, so the intended defect is the only obstacle.
"""

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.waiting import comes_true
from traps.audit import CLIENTS, JOBS, AuditError, Finding, audit
from traps.catalogue import CERTIFICATES, CONNECTION, CONTROLS, HTTP, TLS, TRAPS, Trap

#: Client that accepts every certificate, TLS 1.0 and later, and cipher suites without encryption or authentication.
CARELESS = """
import ssl, sys, urllib.request, warnings
warnings.simplefilter("ignore")
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
context.minimum_version = ssl.TLSVersion.TLSv1
context.set_ciphers("ALL:eNULL:aNULL@SECLEVEL=0")
urllib.request.urlopen(sys.argv[1], context=context, timeout=20).read()
"""
HANGING = {"silent-handshake", "half-handshake", "half-body", "no-answer", "silence"}


def audited(*command: str, traps: tuple[Trap, ...], limit: float = 60.0, jobs: int = JOBS) -> dict[str, Finding]:
    return {each.trap.name: each for each in asyncio.run(audit(command, traps, limit=limit, jobs=jobs))}


@pytest.fixture(scope="module")
def verifying() -> Mapping[str, Finding]:
    """Return the findings about Python's urllib for all traps that do not make a client wait."""
    return audited(*CLIENTS["urllib"], traps=tuple(each for each in TRAPS if each.name not in HANGING))


@pytest.fixture(scope="module")
def careless() -> Mapping[str, Finding]:
    """Return the findings about the careless client for all traps with a defect in the certificate or in TLS."""
    traps = tuple(each for each in (*CERTIFICATES, *TLS) if each.name not in HANGING)
    return audited(sys.executable, "-c", CARELESS, "{url}", traps=traps)


#: Traps to which urllib is known to react wrongly; for example, it takes a 103 for the final response.
KNOWN = {"early-hints", "no-names", "must-staple", "truncated", "two-lengths", "bad-length"}


@pytest.mark.parametrize(
    "trap", [each for each in (*CONTROLS, *CERTIFICATES) if each.name not in KNOWN], ids=lambda t: t.name
)
def test_a_client_that_verifies_reacts_as_expected(verifying: Mapping[str, Finding], trap: Trap) -> None:
    found = verifying[trap.name]
    assert (found.reaction, found.verdict) == ("accepted" if trap.expected == "accept" else "refused", ""), found.said
    assert found.requests == (1 if trap.expected == "accept" else 0)


@pytest.mark.parametrize("trap", CERTIFICATES, ids=lambda trap: trap.name)
def test_the_defect_of_a_certificate_is_the_only_obstacle(careless: Mapping[str, Finding], trap: Trap) -> None:
    found = careless[trap.name]
    assert (found.reaction, found.verdict) == ("accepted", "wrongly accepts"), found.said


@pytest.mark.parametrize(
    ("name", "accepted"),
    [("tls-1.0", True), ("tls-1.1", True), ("null-cipher", True), ("anonymous", True), ("truncated", True),
     ("alert", False), ("garbage", False), ("not-tls", False)],
)  # fmt: skip
def test_old_versions_are_served_and_broken_handshakes_are_not(
    careless: Mapping[str, Finding], name: str, accepted: bool
) -> None:
    assert careless[name].reaction == ("accepted" if accepted else "refused"), careless[name].said


@pytest.mark.parametrize("name", [each.name for each in (*HTTP, *CONNECTION) if each.name not in HANGING])
def test_a_broken_response_reaches_the_client(verifying: Mapping[str, Finding], name: str) -> None:
    found = verifying[name]
    assert found.reaction == ("accepted" if name in KNOWN else "refused"), found.said
    assert found.requests == {"refused": 0, "redirect-loop": 11}.get(name, 1)


def test_a_client_that_hangs_is_killed() -> None:
    sleeping = (sys.executable, "-c", "import sys, time; print(sys.argv[1]); time.sleep(600)", "{url}")
    found = audited(*sleeping, traps=(CONTROLS[0],), limit=1.0)["good"]
    assert (found.reaction, found.code, found.verdict) == ("hung", None, "hangs")
    assert found.took < 60


def test_children_that_a_client_leaves_behind_do_not_count_as_hanging(tmp_path: Path) -> None:
    """Such children inherit the client's standard error, and are killed together with the client's process group."""
    leaving = f"sleep 600 & echo $! > {tmp_path}/child; exec true {{url}}"
    found = audited("sh", "-c", leaving, traps=(CONTROLS[0],))["good"]
    assert (found.reaction, found.took < 60) == ("accepted", True)
    child = Path("/proc") / (tmp_path / "child").read_text().strip()
    assert comes_true(lambda: not child.exists() or " Z " in (child / "stat").read_text())


def test_traps_that_stall_neither_answer_nor_end() -> None:
    traps = tuple(each for each in TRAPS if each.name in HANGING)
    found = audited(*CLIENTS["urllib"], traps=traps, limit=6.0, jobs=len(traps))
    assert {name: (each.reaction, each.verdict) for name, each in found.items()} == dict.fromkeys(
        HANGING, ("hung", "hangs")
    )


def finding(trap: Trap, reaction: str, requests: int = 0, retried_after: float | None = None) -> Finding:
    return Finding(trap, reaction, 1, 0.1, requests, retried_after, "")  # type: ignore[arg-type]  # *reaction* is a str here


REFUSE, ACCEPT, BUSY = CERTIFICATES[0], CONTROLS[0], CONNECTION[-1]


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (finding(REFUSE, "refused"), ""),
        (finding(REFUSE, "accepted", 1), "wrongly accepts"),
        (finding(REFUSE, "refused", 1), "sends its request before it verifies"),
        (finding(ACCEPT, "accepted", 1), ""),
        (finding(ACCEPT, "refused", 1), "wrongly refuses"),
        (finding(ACCEPT, "hung", 1), "hangs"),
        (finding(HTTP[0], "hung", 3, 1.0), "keeps retrying"),
        (finding(HTTP[0], "refused", 3, 1.0), ""),
        (finding(BUSY, "accepted", 2, 2.1), ""),
        (finding(BUSY, "accepted", 2, 0.5), "ignores Retry-After"),
        (finding(BUSY, "refused", 1), ""),
    ],
)
def test_a_reaction_is_judged(found: Finding, verdict: str) -> None:
    assert found.verdict == verdict


@pytest.mark.parametrize(
    ("command", "expected"),
    [(["curl", "https://localhost/"], "expected {url}"), (["no-such-program", "{url}"], "expected a program, got")],
)
def test_a_client_that_cannot_be_audited_is_refused(command: list[str], expected: str) -> None:
    with pytest.raises(AuditError, match=expected):
        asyncio.run(audit(command, CONTROLS[:1]))


def test_names_are_unique_and_two_audits_agree() -> None:
    assert len({trap.name for trap in TRAPS}) == len(TRAPS) >= 60
    some = (CONTROLS[0], replace(CERTIFICATES[0]), HTTP[0])
    one, other = (
        [(f.trap.name, f.reaction, f.requests) for f in audited(*CLIENTS["urllib"], traps=some).values()] for _ in "12"
    )
    assert one == other
