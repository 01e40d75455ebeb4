"""Tests for the verdicts of drills about a subject, and for the advice in their reports."""

from pathlib import Path

import pytest

from drills import TARGETED
from drills.rehearsal import Rehearsal
from drills.subject import Life, SubjectRenewal, lives
from experiments import ParameterError, Run, Verdict, parameters
from generator import Request
from monitor.openssl import Probe
from tests.drills.synthetic import EPOCH, break_requests, prepared, stage, verdict

CERTBOT = "letsencrypt/archive/mine.example.com/cert2.pem"
SERVED = Life("0b", 10.0, 40.0, 10.5, 11.2, CERTBOT)


def run_of(tmp_path: Path, *new: Life) -> tuple[SubjectRenewal, Run, Rehearsal]:
    experiment, run = prepared(SubjectRenewal, tmp_path, rate=20)
    assert isinstance(experiment, SubjectRenewal)
    made = experiment.stage = stage(run, 30, 20, ())
    experiment.found, experiment.before = [Life("0a", -5.0, 25.0, -4.0, 0.0), *new], {"0a"}
    return experiment, run, made


def test_a_renewal_that_is_served_at_once_passes(tmp_path: Path) -> None:
    experiment, run, _ = run_of(tmp_path, SERVED)
    assert verdict(run, experiment) == (Verdict.PASS, set())
    rows = {row.name: row.measured.value for row in run.result.rows}
    assert rows["issued → on disk, median"] == pytest.approx(0.5)
    assert rows["on disk → served, median"] == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("life", "says"),
    [
        (
            Life("0b", 10.0, 40.0, 10.5, None, CERTBOT),
            "renewed on disk at 10.5 s, old certificate served until the end; certbot: --deploy-hook",
        ),
        (Life("0b", 10.0, 40.0, 10.5, None, "own.pem"), "old certificate served until the end; run the reload"),
        (Life("0b", 10.0, 40.0, None, None), "0b was issued at 10.0 s, but not found below /srv/subject or served"),
        (Life("0b", 10.0, 40.0, 10.5, 19.5, CERTBOT), "0b was served 9.0 s after it was written"),
    ],
    ids=["no-hook", "unknown-client", "nowhere", "late"],
)
def test_a_renewal_that_is_not_served_fails_with_what_to_change(tmp_path: Path, life: Life, says: str) -> None:
    experiment, run, _ = run_of(tmp_path, life)
    assert verdict(run, experiment) == (Verdict.FAIL, {"renewed certificate is served"})
    assert says in next(check.got for check in run.result.checks if not check.ok)


def test_a_certificate_that_is_replaced_at_once_need_not_be_served(tmp_path: Path) -> None:
    replaced = Life("0b", 9.0, 40.0, None, None)
    experiment, run, _ = run_of(tmp_path, replaced, Life("0c", 10.0, 41.0, 10.5, 11.2, CERTBOT))
    assert verdict(run, experiment) == (Verdict.PASS, set())
    experiment, run, _ = run_of(tmp_path, replaced, Life("0c", 10.0, 41.0, 10.5, None, CERTBOT))
    assert verdict(run, experiment) == (Verdict.FAIL, {"renewed certificate is served"})


def test_several_renewals_that_are_not_served_are_one_complaint_and_a_number(tmp_path: Path) -> None:
    lost = [Life(f"0{at}", at, at + 30.0, at + 0.5, None, CERTBOT) for at in (3.0, 10.0, 17.0)]
    experiment, run, _ = run_of(tmp_path, *lost)
    assert verdict(run, experiment)[0] is Verdict.FAIL
    got = next(check.got for check in run.result.checks if not check.ok)
    assert got.count("old certificate served until the end") == 1
    assert got.endswith("; 2 more renewals were not served in time")


def test_certificates_that_the_observer_cannot_find_are_left_out(tmp_path: Path) -> None:
    experiment, run, _ = run_of(tmp_path, Life("0b", 10.0, 40.0, None, 11.2))
    experiment.unreadable = 2
    assert verdict(run, experiment) == (Verdict.PASS, set())
    assert run.result.left_out == [
        "on disk: no new certificate was found below /srv/subject; the observer may not read 2 files or folders there"
    ]


def test_a_certificate_that_was_on_disk_before_the_drill_counts_if_it_was_never_served(tmp_path: Path) -> None:
    experiment, run, _ = run_of(tmp_path, Life("0b", -2.0, 28.0, -1.0, None, CERTBOT))
    assert verdict(run, experiment) == (Verdict.FAIL, {"renewed certificate is served"})


def test_a_subject_that_does_not_renew_fails(tmp_path: Path) -> None:
    experiment, run, _ = run_of(tmp_path)
    assert verdict(run, experiment)[1] == {"renewals", "renewed certificate is served"}


def test_requests_and_handshakes_after_the_end_of_the_certificate_are_counted(tmp_path: Path) -> None:
    experiment, run, made = run_of(tmp_path, SERVED)
    break_requests(made, 25, 30, "certificate has expired")
    made.prober.probes = [
        Probe(each.at, "certificate has expired" if each.at >= 25 else "", "0a") for each in made.prober.probes
    ]
    assert verdict(run, experiment)[1] == {"requests lost", "handshakes from outside that failed"}
    exposure = next(row for row in run.result.rows if row.name.startswith("an expired"))
    assert exposure.measured.value == pytest.approx(4.5)


def test_records_of_the_ca_the_observer_and_clients_are_joined_by_serial_number() -> None:
    issued = [{"serial": "0a", "issued": EPOCH + 1, "not_after": EPOCH + 21}]
    on_disk = [{"serial": "0a", "written": EPOCH + 2, "file": "cert.pem"}, {"serial": "ff", "written": 0, "file": "x"}]
    (one,) = lives(issued, on_disk, {"0a": 3.0}, EPOCH)
    assert (one.serial, one.served, one.file) == ("0a", 3.0, "cert.pem")
    assert (one.issued, one.written, one.end) == pytest.approx((1.0, 2.0, 21.0), abs=1e-3)


def test_the_first_time_that_a_certificate_was_received_counts(tmp_path: Path) -> None:
    _, run = prepared(SubjectRenewal, tmp_path)
    made = Rehearsal(run, 20, ())
    for serial in ("0a", "0b", "0a"):
        made._done(Request(0.0, "fresh", serial=serial))
    made.prober.probes = [Probe(-1.0, "", "0a"), Probe(0.5, "", "0c"), Probe(0.6, "refused")]
    first = made.first_seen()
    assert set(first) == {"0a", "0b", "0c"}
    assert first["0a"] == -1.0


@pytest.mark.parametrize("text", ["mine.example.com", ":443", "mine.example.com:https"])
def test_a_target_needs_a_name_and_a_port(text: str) -> None:
    with pytest.raises(ParameterError, match="NAME:PORT"):
        parameters.bind(TARGETED["year"].settings, quick=True, given=[f"target={text}"])
