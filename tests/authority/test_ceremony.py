"""Tests for the key ceremony: atomic writes, errors that change no files, and a tamper-evident transcript."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from authority import AuthorityError, Ceremony, CeremonyError, ChainError
from authority.__main__ import main
from authority.transcript import Transcript
from dnsmessage.keyfile import load_keys
from tests.authority.test_authority import NOW, folders

#: The private files of a ceremony; the other files are certificates.
PRIVATE = ("root/passphrase", "root/root.key.pem", "passphrase/passphrase", "ca/issuing.key.pem", "token/admin.token")
#: The files that a ceremony cannot restore.
NEEDED = (*PRIVATE[:-1], "root/root.pem", "ca/issuing.pem")


def ceremony(base: Path) -> list[str]:
    return Ceremony(*folders(base)).run(NOW)


def content(base: Path) -> dict[str, bytes]:
    return {str(path.relative_to(base)): path.read_bytes() for path in base.rglob("*") if path.is_file()}


def flags(base: Path) -> list[str]:
    names = ("--root", "--ca", "--trust", "--passphrase-dir", "--token-dir")
    return [str(word) for pair in zip(names, folders(base), strict=True) for word in pair]


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    base = tmp_path / "lab"
    base.mkdir()
    ceremony(base)
    return base


def lose(*names: str) -> Callable[[Path], None]:
    def change(base: Path) -> None:
        for name in names:
            (base / name).unlink()

    return change


def open_to_all(name: str) -> Callable[[Path], None]:
    return lambda base: (base / name).chmod(0o644)


def swap(*names: str) -> Callable[[Path], None]:
    """Return a function that replaces the files *names* with those of another ceremony."""

    def change(base: Path) -> None:
        other = base.parent / "other"
        other.mkdir()
        ceremony(other)
        for name in names:
            shutil.copy(other / name, base / name)

    return change


def copy(source: str, target: str) -> Callable[[Path], None]:
    def change(base: Path) -> None:
        shutil.copy(base / source, base / target)

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        *(pytest.param(lose(name), f"{name} is missing", id=f"lost-{name}") for name in NEEDED),
        pytest.param(lose("ca/issuing.key.pem", "ca/issuing.pem"), "ca/issuing.key.pem, .* is missing", id="lost-ca"),
        pytest.param(lose("root/passphrase", "root/root.key.pem", "root/root.pem", "root/transcript.jsonl"),
            "is missing", id="lost-root"),
        *(pytest.param(open_to_all(name), "expected mode 600, got 644", id=f"open-{name}") for name in PRIVATE),
        pytest.param(copy("ca/issuing.pem", "trust/root.pem"), "among the trust anchors", id="another-anchor"),
        pytest.param(swap("trust/root.pem"), "among the trust anchors", id="anchor-of-another-lab"),
        pytest.param(swap("root/root.pem"), "is not the key of", id="root-of-another-lab"),
        pytest.param(swap("root/passphrase"), "encrypted with the given passphrase", id="passphrase-of-another-lab"),
        pytest.param(swap("ca/issuing.pem"), "is not the key of", id="certificate-of-another-lab"),
        pytest.param(swap("ca/issuing.pem", "ca/issuing.key.pem", "passphrase/passphrase"), "was not issued by",
            id="ca-of-another-lab"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_refused_and_nothing_is_written(
    lab: Path, change: Callable[[Path], None], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(lab)
    before = content(lab)
    with pytest.raises(AuthorityError, match=reason):
        ceremony(lab)
    assert main(["ceremony", *flags(lab)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert content(lab) == before


@pytest.mark.parametrize("name", ["trust/root.pem", "token/admin.token"])
def test_what_can_be_restored_is_restored(lab: Path, name: str) -> None:
    before = content(lab)
    (lab / name).unlink()
    assert [line for line in ceremony(lab) if line.endswith("made")] == [
        {"trust/root.pem": "trust anchor: made", "token/admin.token": "admin token: made"}[name]
    ]
    after = content(lab)
    changed = {each for each in after if after[each] != before[each]}
    assert changed == {"root/transcript.jsonl"} | ({name} if "token" in name else set())


def test_a_bundle_with_more_anchors_is_kept(lab: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    ceremony(other)
    bundle = (lab / "trust/root.pem").read_bytes() + (other / "trust/root.pem").read_bytes()
    (lab / "trust/root.pem").write_bytes(bundle)
    ceremony(lab)
    assert (lab / "trust/root.pem").read_bytes() == bundle


@pytest.mark.parametrize("kept", range(9))
def test_a_ceremony_that_is_cut_off_leaves_nothing_to_the_next(lab: Path, kept: int) -> None:
    """The first *kept* files exist, and the transcript has only its first entry, as after SIGKILL during a ceremony."""
    old = content(lab)
    order = [f"{Path(each).parent.name}/{Path(each).name}" for each in Transcript(
        lab / "root/transcript.jsonl").entries[0].facts["files"]]  # fmt: skip
    assert len(order) == 8
    lose(*order[kept:])(lab) if kept < 8 else None
    lines = (lab / "root/transcript.jsonl").read_text().splitlines(keepends=True)
    (lab / "root/transcript.jsonl").write_text(lines[0])
    assert all(line.endswith("made") for line in ceremony(lab))
    new = content(lab)
    assert not [name for name in order if new[name] == old[name]]
    assert ceremony(lab)[0] == "admin token: kept"


def test_a_full_disk_leaves_no_files(lab: Path, tmp_path: Path) -> None:
    base = tmp_path / "bal"  # a name of the same length as the lab's, so that the transcripts have the same size
    base.mkdir()
    first, last = (lab / "root/transcript.jsonl").read_bytes().splitlines()
    size = len(first) + len(last) // 2  # all files fit, but not the transcript's last entry
    command = ["prlimit", f"--fsize={size}", sys.executable, "-m", "authority", "ceremony", *flags(base)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("authority: error: expected to write all files, got [Errno 27]")
    assert list(content(base)) == ["root/transcript.jsonl"]
    assert all(line.endswith("made") for line in ceremony(base))


def test_the_transcript_tells_an_auditor_what_was_made(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (lab / "token/admin.token").unlink()
    ceremony(lab)
    assert main(["transcript", "--root", str(lab / "root")]) == 0
    shown = capsys.readouterr().out
    assert "CN=firstbyte lab issuing CA 1,O=firstbyte lab" in shown
    assert shown.count(" begin") == 2
    secrets = [(lab / name).read_text().strip() for name in ("root/passphrase", "passphrase/passphrase")]
    assert not [each for each in secrets if each in (lab / "root/transcript.jsonl").read_text()]


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [lines[0].replace('"at": ', '"at": 1'), *lines[1:]],
        lambda lines: lines[1:],
        lambda lines: [lines[0], lines[0], *lines[1:]],
        lambda lines: [*lines, "nonsense\n"],
        lambda lines: [*lines, json.dumps([1]) + "\n"],
        lambda lines: [lines[0].replace(": ", ":"), *lines[1:]],
    ],
    ids=["time", "removed", "inserted", "nonsense", "no-object", "spelling"],
)
def test_a_changed_transcript_is_refused(lab: Path, change: Callable[[list[str]], list[str]]) -> None:
    file = lab / "root/transcript.jsonl"
    file.write_text("".join(change(file.read_text().splitlines(keepends=True))))
    with pytest.raises(ChainError):
        ceremony(lab)
    with pytest.raises(CeremonyError, match="expected a folder"):
        Ceremony(*(lab / name for name in ("root", "ca", "trust", "passphrase", "none"))).run(NOW)


def test_the_tsig_key_is_made_once_and_restored_if_it_is_lost(tmp_path: Path) -> None:
    (tmp_path / "tsig").mkdir()
    path = tmp_path / "tsig" / "lab.key"

    def log() -> list[str]:
        made = Ceremony(*folders(tmp_path))
        made.tsig = path.parent
        return [line for line in made.run(NOW) if line.startswith("TSIG")]

    assert log() == ["TSIG key: made"]
    (key,) = load_keys(path).values()
    assert (str(key.name), str(key.algorithm), len(key.secret)) == ("lab.", "hmac-sha256.", 32)
    assert path.stat().st_mode & 0o777 == 0o600
    assert log() == ["TSIG key: kept"]
    path.unlink()
    assert log() == ["TSIG key: made"]
    assert load_keys(path)[key.name].secret != key.secret
