"""Tests for the issuance log: its hash chain, crashes during a write, and concurrent writers."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from authority import Certificate, ChainError, IssuanceLog, Issuer, LogError, Store, issue_leaf, issue_root, new_key
from authority.__main__ import main
from authority.issuance_log import FILE, Audit, audit, facts, fingerprint_of
from tests.waiting import comes_true

NOW = time.time()
KEY = new_key()
ISSUER = Issuer(issue_root(KEY, "issuer", NOW), KEY, ())
NAMES = ["www.example.com"]


def leaf() -> x509.Certificate:
    return issue_leaf(ISSUER, KEY.public_key(), NAMES, NOW, 60.0)


def filled(path: Path, count: int = 3) -> list[x509.Certificate]:
    """Add *count* certificates to the issuance log at *path*; return the certificates."""
    log, leaves = IssuanceLog(path), [leaf() for _ in range(count)]
    for number, each in enumerate(leaves):
        log.append(NOW + number, each, NAMES, "account")
    return leaves


def test_an_entry_describes_its_certificate(tmp_path: Path) -> None:
    (each,) = filled(tmp_path / FILE, 1)
    serial, digest = fingerprint_of(each)
    assert json.loads((tmp_path / FILE).read_text()) == {
        "at": NOW,
        "event": "issued",
        "serial": serial,
        "issuer": "CN=issuer,O=firstbyte lab",
        "not_before": each.not_valid_before_utc.timestamp(),
        "not_after": each.not_valid_after_utc.timestamp(),
        "sha256": digest,
        "names": NAMES,
        "account": "account",
        "previous": "0" * 64,
    }


@pytest.mark.parametrize(
    ("change", "bad"),
    [
        (lambda lines: [lines[0].replace("www", "web"), *lines[1:]], 2),
        (lambda lines: [lines[0], lines[2]], 2),
        (lambda lines: [lines[1], lines[0], lines[2]], 1),
        (lambda lines: [*lines, lines[2]], 4),
        (lambda lines: [*lines[:2], "{}"], 3),
        (lambda lines: [*lines[:2], "\x00" * 20], 3),
    ],
    ids=["changed", "removed", "reordered", "repeated", "empty-object", "zeros"],
)
def test_the_first_bad_entry_is_named(tmp_path: Path, change, bad: int) -> None:
    path = tmp_path / FILE
    filled(path)
    path.write_text("".join(f"{line}\n" for line in change(path.read_text().splitlines())))
    with pytest.raises(ChainError, match=f"{FILE}:{bad}: "):
        IssuanceLog(path)
    found = audit(path, ())
    assert (found.ok, found.entries) == (False, bad - 1)
    assert f"{FILE}:{bad}: " in found.damage


def test_a_torn_last_line_is_removed_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / FILE
    leaves = filled(path)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"at": 1, "eve')
    assert audit(path, map(fingerprint_of, leaves)).torn
    assert len(IssuanceLog(path)) == 3
    assert path.read_bytes() == whole


def test_certificates_that_the_log_does_not_have_are_named(tmp_path: Path) -> None:
    leaves = filled(tmp_path / FILE)
    unknown, (serial, _) = leaf(), fingerprint_of(leaves[0])
    prints = [fingerprint_of(each) for each in (*leaves, unknown)]
    assert IssuanceLog(tmp_path / FILE).missing(prints) == [f"{unknown.serial_number:x}"]
    found = audit(tmp_path / FILE, prints[1:3], [(serial, "another certificate with this serial number")])
    assert (found.missing, found.unstored) == ((serial,), (serial,))


def test_two_writers_continue_the_same_chain(tmp_path: Path) -> None:
    one, two = IssuanceLog(tmp_path / FILE), IssuanceLog(tmp_path / FILE)
    for number in range(6):
        (one, two)[number % 2].append(NOW, leaf(), NAMES, None)
    assert (audit(tmp_path / FILE, ()).damage, audit(tmp_path / FILE, ()).entries) == ("", 6)
    assert len(IssuanceLog(tmp_path / FILE)) == 6


def test_added_entries_are_written_together_after_those_of_other_writers(tmp_path: Path) -> None:
    path = tmp_path / FILE
    one, two = IssuanceLog(path), IssuanceLog(path)
    leaves = [leaf() for _ in range(3)]
    for each in leaves[:2]:
        one.add(NOW, facts(each), NAMES, "account")
    two.append(NOW, leaves[2], NAMES, None)
    assert (audit(path, ()).entries, one.missing(map(fingerprint_of, leaves[2:]))) == (1, [])
    one.flush()
    one.flush()
    assert audit(path, map(fingerprint_of, leaves)) == Audit(3, "", False, (), ())
    assert IssuanceLog(path).certificates == one.certificates


@pytest.mark.parametrize("how", ["removed", "truncated", "replaced"])
def test_nothing_is_logged_after_entries_disappeared(tmp_path: Path, how: str) -> None:
    path = tmp_path / FILE
    filled(path)
    log, whole = IssuanceLog(path), path.read_bytes()
    if how == "truncated":
        os.truncate(path, len(whole) // 2)
    else:
        path.rename(tmp_path / "old")
        if how == "replaced":
            path.write_bytes(whole)
    for write in (log.check, lambda: log.append(NOW, leaf(), NAMES, None)):
        with pytest.raises(LogError):
            write()


def test_a_full_disk_leaves_the_log_unchanged(tmp_path: Path) -> None:
    path = tmp_path / FILE
    filled(path)
    log, whole = IssuanceLog(path), path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 100, limits[1]))
    try:
        with pytest.raises(LogError):
            log.append(NOW, leaf(), NAMES, None)
        log.add(NOW, facts(leaf()), NAMES, None)
        with pytest.raises(LogError):
            log.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old)
    log.flush()  # the entries that could not be written were discarded
    assert path.read_bytes() == whole
    log.append(NOW, leaf(), NAMES, None)
    assert len(IssuanceLog(path)) == 4


WRITER = """
import sys
from tests.authority.test_issuance_log import IssuanceLog, NAMES, NOW, Path, fingerprint_of, leaf
log = IssuanceLog(Path(sys.argv[1]))
while True:
    each = leaf()
    log.append(NOW, each, NAMES, None)
    print(*fingerprint_of(each), flush=True)
"""


def test_whatever_left_the_ca_is_in_the_log_after_a_kill(tmp_path: Path) -> None:
    """A process prints each certificate after logging it and is killed; the log contains all printed certificates."""
    path, out = tmp_path / FILE, tmp_path / "out"
    with out.open("wb") as stdout:
        command = [sys.executable, "-c", WRITER, str(path)]
        paths = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        writer = subprocess.Popen(command, stdout=stdout, cwd=Path(__file__).parents[2], env=paths)
        try:
            assert comes_true(lambda: out.read_bytes().count(b"\n") > 20, 30)
        finally:
            writer.kill()
            writer.wait()
    printed = [tuple(line.split()) for line in out.read_text().splitlines() if len(line.split()) == 2]
    found = audit(path, [(serial, digest) for serial, digest in printed if len(digest) == 64])
    assert (found.damage, found.missing) == ("", ())
    assert found.entries >= len(printed)


def test_verify_log_compares_the_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leaves = filled(tmp_path / FILE)
    with contextlib.closing(Store(tmp_path / "store.sqlite")) as store:
        for each in [*leaves, unlogged := leaf()]:
            pem = each.public_bytes(Encoding.PEM).decode()
            store.put_certificate(Certificate(f"{each.serial_number:x}", None, ("a.example.com",), 0, 1, 0, pem))
    assert main(["verify-log", "--ca", str(tmp_path)]) == 1
    assert f"not in the log: {unlogged.serial_number:x} (the store)" in capsys.readouterr().out
    IssuanceLog(tmp_path / FILE).append(NOW, unlogged, NAMES, None)
    assert main(["verify-log", "--ca", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "ok": True, "entries": 4, "damage": "", "torn": False, "missing": [], "unstored": [],
        "servers": {}, "unreachable": {},
    }  # fmt: skip
