"""Tests of the signed manifest of a drill's run, including verification with OpenSSL."""

import base64
import json
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from drills import DRILLS, evidence
from drills.evidence import FILE, KEY, REQUIREMENTS, SECTIONS, EvidenceError, sections, verify, write

CHECKS = [
    {"name": name, "expected": "all", "got": "all", "ok": True}
    for name in ("requests lost", "exposure, new handshake", "OpenSSL with the CRL agrees")
]
RESULT = {"name": "revoke-client", "verdict": "pass", "control": "", "quick": True, "seed": 1, "checks": CHECKS,
          "manifest": {"time": "2026-11-28T17:00:00+00:00"}}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "revoke-client" / "20261128T170000Z"
    made.mkdir(parents=True)
    (made / "result.json").write_text(json.dumps(RESULT))
    (made / "report.html").write_text("<p>report</p>")
    write(made, tmp_path)
    return made


def test_each_check_names_the_sections_that_it_concerns(folder: Path) -> None:
    body = verify(folder)
    assert [check["sections"] for check in body["checks"]] == [["5.7.1"], ["4.9.5"], ["4.9.7", "4.9.9"]]
    assert set(body["sections"]) == {"4.9.5", "4.9.7", "4.9.9", "5.7.1"}
    assert sections("year", "requests lost") == []


def test_the_table_names_drills_and_sections_that_exist() -> None:
    assert REQUIREMENTS.keys() <= {kind.name for kind in DRILLS}
    assert {n for checks in REQUIREMENTS.values() for found in checks.values() for n in found} <= SECTIONS.keys()


def test_all_runs_of_a_lab_are_signed_with_one_key_that_only_its_owner_can_read(folder: Path) -> None:
    before = verify(folder)["public_key"]
    write(folder, folder.parents[1])
    assert verify(folder)["public_key"] == before
    assert (folder.parents[1] / KEY).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("report.html", "<p>better</p>", "changed"),
        ("more.svg", "<svg/>", "added"),
        ("report.html", None, "missing"),
        (FILE, None, "got no file"),
        (FILE, "[]", "expected a manifest"),
        (FILE, "{", "expected a manifest"),
    ],
    ids=["changed", "added", "removed", "no-manifest", "not-an-object", "not-JSON"],
)
def test_what_was_changed_is_named(folder: Path, name: str, content: str | None, says: str) -> None:
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)
    with pytest.raises(EvidenceError, match=says):
        verify(folder)


def test_a_changed_verdict_is_a_wrong_signature(folder: Path) -> None:
    path = folder / FILE
    path.write_text(path.read_text().replace('"pass"', '"fail"'))
    with pytest.raises(EvidenceError, match="wrong signature"):
        verify(folder)


def test_a_key_of_another_type_is_refused_and_kept(folder: Path) -> None:
    key = folder.parents[1] / KEY
    key.write_text("no key")
    with pytest.raises(EvidenceError, match="move the file away"):
        write(folder, folder.parents[1])
    assert key.read_text() == "no key"


def test_openssl_verifies_the_signature(folder: Path, tmp_path: Path) -> None:
    body = verify(folder)
    signature = base64.b64decode(body.pop("signature"))
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(body["public_key"]))
    files = {"key": public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), "signature": signature,
             "body": evidence._canonical(body)}  # fmt: skip
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(tmp_path / "key"), "-rawin", "-in",
               str(tmp_path / "body"), "-sigfile", str(tmp_path / "signature")]  # fmt: skip
    done = subprocess.run(command, check=False, capture_output=True)
    assert b"Signature Verified Successfully" in done.stdout, done.stderr
