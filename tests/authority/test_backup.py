"""Tests that a backup of the CA is consistent while the CA issues, and that unsuitable backups are refused."""

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from authority import AuthorityError, Ceremony, Certificate, IssuanceLog, Store, issue_leaf, load_issuer, new_key
from authority.__main__ import main
from authority.backup import MANIFEST, Contents, backup, restore
from authority.issuance_log import FILE
from tests.authority.test_authority import NOW, folders
from tests.authority.test_ceremony import content

NAMES = ("www.example.com",)


def issue(base: Path, count: int, account: str | None = "account") -> list[str]:
    """Issue, log and store *count* leaves for *account* (None: the CA itself); return their serial numbers."""
    issuer, log, serials = load_issuer(base / "ca", base / "passphrase/passphrase"), IssuanceLog(base / "ca" / FILE), []
    with closing(Store(base / "ca/store.sqlite")) as store:
        for _ in range(count):
            leaf = issue_leaf(issuer, new_key().public_key(), NAMES, NOW, 60.0)
            log.append(NOW, leaf, NAMES, account)
            pem = leaf.public_bytes(Encoding.PEM).decode()
            store.put_certificate(Certificate(f"{leaf.serial_number:x}", None, NAMES, NOW, NOW + 60, NOW, pem))
            serials.append(f"{leaf.serial_number:x}")
    return serials


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """Return the folders of a CA that issued three leaves, one of which is revoked."""
    base = tmp_path / "lab"
    base.mkdir()
    Ceremony(*folders(base)).run(NOW)
    serials = issue(base, 3)
    with closing(Store(base / "ca/store.sqlite")) as store:
        store.revoke(serials[0], NOW, 1, "print")
    return base


def saved(base: Path) -> bytes:
    out = io.BytesIO()
    backup(base / "ca", out, NOW)
    return out.getvalue()


def restored(base: Path, data: bytes, *, discard_newer: bool = False) -> Contents:
    files = base / "passphrase/passphrase", base / "trust/root.pem"
    return restore(io.BytesIO(data), base / "ca", *files, discard_newer=discard_newer)


def test_a_backup_brings_back_a_lost_ca(lab: Path) -> None:
    data, before = saved(lab), content(lab / "ca")
    for each in (lab / "ca").iterdir():
        each.unlink()
    assert restored(lab, data) == Contents(issuers=1, certificates=3, entries=3)
    after = content(lab / "ca")
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} <= {"store.sqlite"}
    assert all(each.stat().st_mode & 0o077 == 0 for each in (lab / "ca").iterdir())
    with closing(Store(lab / "ca/store.sqlite")) as store:
        assert [each.reason for each in store.certificates()].count(1) == 1
        assert store.compromised("print")
    assert Ceremony(*folders(lab)).run(NOW)[-1] == "trust anchor: kept"
    issue(lab, 1)


WRITER = """
import sys
from pathlib import Path
from tests.authority.test_backup import issue
while True:
    print(*issue(Path(sys.argv[1]), 20), flush=True)
"""


def test_a_backup_is_consistent_while_the_ca_issues(lab: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(lab)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as writer:
        try:
            assert writer.stdout is not None
            acknowledged = writer.stdout.readline().split()
            backups = [saved(lab) for _ in range(5)]
        finally:
            writer.kill()
    assert len(acknowledged) == 20
    for each in (lab / "ca").iterdir():
        each.unlink()
    for data in backups:
        found = restored(lab, data)
        assert 23 <= found.certificates <= found.entries
        with closing(Store(lab / "ca/store.sqlite")) as store:
            assert all(store.certificate(each) for each in acknowledged)


def repacked(data: bytes, change: Callable[[dict[str, bytes]], None]) -> bytes:
    """Return the backup *data* after a change; *change* modifies a dictionary of the files' contents by name."""
    files: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for each in archive:
            found = archive.extractfile(each)
            assert found is not None
            files[each.name] = found.read()
    change(files)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, body in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            archive.addfile(entry, io.BytesIO(body))
    return out.getvalue()


def rehashed(files: dict[str, bytes], name: str, body: bytes) -> None:
    """Change a file and the manifest together, as an attacker can."""
    manifest = json.loads(files[MANIFEST])
    manifest["files"][name] = hashlib.sha256(body).hexdigest()
    files[MANIFEST], files[name] = json.dumps(manifest).encode(), body


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda files: files.update({FILE: files[FILE] + b"\n"}), "does not have the hash"),
        (lambda files: files.pop("issuing.key.pem"), "incomplete: it lacks issuing.key.pem"),
        (lambda files: files.pop(MANIFEST), "a manifest of version 1 as first file"),
        (lambda files: files.update({"../token/admin.token": b"x"}), "expected a file of a CA"),
        (lambda files: rehashed(files, "../token/admin.token", b"x"), "expected a file of a CA"),
        (lambda files: rehashed(files, "notes.txt", b"x"), "expected a file of a CA"),
        (lambda files: rehashed(files, FILE, files[FILE].replace(b"www", b"web", 1)), "issuance.log:2: "),
        (lambda files: rehashed(files, FILE, files[FILE].partition(b"\n")[0] + b"\n"), "without an entry"),
        (lambda files: rehashed(files, "active", b"7"), "expected the issuing CA 7"),
        (lambda files: rehashed(files, "store.sqlite", b"x" * 5000), "not a database"),
        (lambda files: rehashed(files, "issuing.key.pem", b"x"), "expected a PEM key"),
    ],
    ids=["changed", "incomplete", "no-manifest", "path", "listed-path", "foreign-file", "log", "short-log", "active",
         "store", "key"],
)  # fmt: skip
def test_a_damaged_backup_is_refused_and_nothing_is_written(lab: Path, change, reason: str) -> None:
    data, before = repacked(saved(lab), change), content(lab)
    with pytest.raises(AuthorityError, match=reason):
        restored(lab, data)
    assert content(lab) == before


@pytest.mark.parametrize("size", [0, 1, 512, 5000], ids=["empty", "one-byte", "one-block", "truncated"])
def test_a_truncated_backup_is_refused(lab: Path, size: int) -> None:
    data, before = saved(lab)[:size], content(lab)
    with pytest.raises(AuthorityError):
        restored(lab, data)
    assert content(lab) == before


def test_a_backup_of_another_lab_is_refused(lab: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    Ceremony(*folders(other)).run(NOW)
    issue(other, 1)
    before = content(lab)
    with pytest.raises(AuthorityError, match="expected a PEM key encrypted with the given passphrase"):
        restored(lab, saved(other), discard_newer=True)
    (lab / "passphrase/passphrase").write_bytes((other / "passphrase/passphrase").read_bytes())
    with pytest.raises(AuthorityError, match="issuing CA 1 is of another lab"):
        restored(lab, saved(other), discard_newer=True)
    (lab / "passphrase/passphrase").write_bytes(before["passphrase/passphrase"])
    assert content(lab) == before


def test_certificates_issued_since_are_forgotten_only_on_request(lab: Path) -> None:
    data = saved(lab)
    issue(lab, 2, None)
    assert restored(lab, data).entries == 3
    issue(lab, 2)
    before = content(lab)
    with pytest.raises(AuthorityError, match="2 certificates were issued to clients since this backup"):
        restored(lab, data)
    assert content(lab) == before
    assert restored(lab, data, discard_newer=True).entries == 3


def test_the_command_line_saves_and_restores(lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ca.tar"
    assert main(["backup", "--ca", str(lab / "ca"), str(file)]) == 0
    assert (file.stat().st_mode & 0o777, "3 certificates" in capsys.readouterr().err) == (0o600, True)
    words = ["--passphrase-file", str(lab / "passphrase/passphrase"), "--trust", str(lab / "trust/root.pem")]
    assert main(["restore", "--ca", str(lab / "ca"), *words, str(file)]) == 0
    file.write_bytes(b"x" * 2000)
    assert main(["restore", "--ca", str(lab / "ca"), *words, str(file)]) == 2
    assert "expected a backup" in capsys.readouterr().err
