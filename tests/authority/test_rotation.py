"""Tests for rotations of the issuing CA and the root: independent verification and crashes in each step."""

import datetime as dt
import itertools
import json
import os
import signal
import subprocess
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import verification

from acme_server.issuing_files import IssuingFiles
from authority import Ceremony, Issuer, issue_crl, issue_leaf, load_issuer, new_key
from authority.__main__ import main
from authority.keys import active_number, issuing_numbers
from authority.rotation import STEPS, TRANSCRIPT, Rotation, RotationError, State, read_state
from authority.transcript import Transcript
from renewal.credentials import TRUST_VERSION
from tests import judges
from tests.authority.test_judges import lint

FOLDERS = ("root", "ca", "trust", "passphrase", "token")
NAME = "www.example.com"


@dataclass(frozen=True)
class Papers:
    """The folders of a ceremony and its rotation."""

    base: Path
    rotation: Rotation

    def ceremony(self) -> None:
        Ceremony(*(self.base / each for each in FOLDERS)).run(time.time())

    def advance(self, kind: str, step: str) -> State:
        return self.rotation.advance(kind, step, time.time())

    def signing(self) -> Issuer:
        return IssuingFiles(self.base / "ca", self.base / "passphrase" / "passphrase").signing

    @property
    def bundle(self) -> Path:
        return self.base / "trust" / "root.pem"


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    for each in FOLDERS:
        (tmp_path / each).mkdir()
    found = Papers(tmp_path, Rotation(*(tmp_path / each for each in FOLDERS[:4])))
    found.ceremony()
    return found


def write(path: Path, *certificates: x509.Certificate | x509.CertificateRevocationList) -> str:
    path.write_bytes(b"".join(each.public_bytes(Encoding.PEM) for each in certificates))
    return str(path)


def revocation_lists(papers: Papers, chain: tuple[x509.Certificate, ...]) -> list[x509.CertificateRevocationList]:
    """Return an empty CRL for each CA above a leaf, signed with the keys of the test's ceremony."""
    now = time.time()
    issuing = IssuingFiles(papers.base / "ca", papers.base / "passphrase" / "passphrase").issuers.values()
    passphrase = papers.base / "root" / "passphrase"
    roots = []
    for key in (papers.base / "root").glob("root*.key.pem"):
        certificate = key.with_name(key.name.replace(".key", ""))
        folder = papers.base / f"as-issuer-{certificate.stem}"
        folder.mkdir(exist_ok=True)
        for file, source in (("issuing.pem", certificate), ("issuing.key.pem", key)):
            (folder / file).write_bytes(source.read_bytes())
        roots.append(load_issuer(folder, passphrase))
    assert chain
    return [issue_crl(each, [], 1, now, 600.0, 60.0) for each in (*issuing, *roots)]


def verify_everywhere(papers: Papers, leaf: x509.Certificate, chain: tuple[x509.Certificate, ...], trust: Path) -> None:
    """Assert that four independent implementations accept *leaf* with *chain*, trusting the roots in *trust*."""
    folder = papers.base / "judged"
    folder.mkdir(exist_ok=True)
    files = {
        "leaf": write(folder / "leaf.pem", leaf),
        "chain": write(folder / "chain.pem", *chain),
        "all": write(folder / "all.pem", leaf, *chain),
        "crl": write(folder / "crl.pem", *revocation_lists(papers, chain)),
    }
    openssl = [*judges.command("openssl", files=papers.base), "verify", "-x509_strict", "-purpose", "sslserver",
               "-crl_check_all", "-CRLfile", files["crl"], "-CAfile", str(trust), "-untrusted", files["chain"],
               files["leaf"]]  # fmt: skip
    certtool = [*judges.command("certtool", files=papers.base), "--verify", "--load-ca-certificate", str(trust),
                "--infile", files["all"], "--verify-hostname", NAME]  # fmt: skip
    for command in (openssl, certtool):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (command[-8:], done.stdout + done.stderr)
    roots = x509.load_pem_x509_certificates(trust.read_bytes())
    policy = verification.PolicyBuilder().store(verification.Store(roots)).time(dt.datetime.now(dt.UTC))
    policy.build_server_verifier(x509.DNSName(NAME)).verify(leaf, list(chain))


def roots_of(papers: Papers) -> list[Path]:
    """Return the certificate file of each root; each file is the trust bundle of a host that trusts only that root."""
    return sorted(each for each in (papers.base / "root").glob("root*.pem") if ".key" not in each.name)


@pytest.mark.parametrize("kind", sorted(STEPS))
def test_every_step_leaves_chains_that_all_verifiers_accept(papers: Papers, kind: str) -> None:
    old = issue_leaf(papers.signing(), new_key().public_key(), [NAME], time.time(), 600.0)
    old_chain, first_root = papers.signing().chain, papers.base / "first-root.pem"
    first_root.write_bytes((papers.base / "root" / "root.pem").read_bytes())
    for step in STEPS[kind]:
        papers.advance(kind, step)
        papers.ceremony()  # restarting the lab during the rotation changes nothing
        leaf = issue_leaf(papers.signing(), new_key().public_key(), [NAME], time.time(), 600.0)
        verify_everywhere(papers, leaf, papers.signing().chain, papers.bundle)
        for alternate in papers.signing().alternates:
            verify_everywhere(papers, leaf, alternate, papers.bundle)
        # Until the trust bundle drops the old root, old leaves and hosts that trust only the first root still work.
        if step in {"prepare", "trust-both", "sign-new"}:
            verify_everywhere(papers, old, old_chain, papers.bundle)
            verify_everywhere(papers, leaf, papers.signing().chain, first_root)
    assert read_state(papers.base / "root").kind == ""


def test_a_new_root_replaces_the_old_one(papers: Papers) -> None:
    versions = []
    for step in STEPS["root"]:
        state = papers.advance("root", step)
        header = TRUST_VERSION.match(papers.bundle.read_bytes())
        count = len(x509.load_pem_x509_certificates(papers.bundle.read_bytes()))
        versions.append((step, int(header[1]) if header else 1, count, active_number(papers.base / "ca")))
    assert versions == [
        ("prepare", 1, 1, 1),
        ("trust-both", 2, 2, 1),
        ("sign-new", 2, 2, 2),
        ("trust-new", 3, 1, 2),
        ("retire", 3, 1, 2),
    ]
    assert state == State(root=2, issuer=2, bundle=3)
    assert issuing_numbers(papers.base / "ca") == [1, 2]  # the CA server removes the files of the retired issuing CA
    assert (papers.base / "ca" / "issuing.retired").exists()
    assert not (papers.base / "root" / "root.key.pem").exists()
    for kind in ("intermediate", "root"):  # more rotations can follow, including those of the other kind
        for step in STEPS[kind]:
            state = papers.advance(kind, step)
    assert state == State(root=3, issuer=4, bundle=5)
    papers.ceremony()


@pytest.mark.parametrize(
    ("kind", "step", "words"),
    [
        ("root", "trust-both", "expected prepare, the next step"),
        ("root", "retire", "expected prepare"),
        ("intermediate", "sign-new", "expected prepare"),
    ],
)
def test_steps_are_performed_in_order(papers: Papers, kind: str, step: str, words: str) -> None:
    with pytest.raises(RotationError, match=words):
        papers.advance(kind, step)
    papers.advance(kind, "prepare")
    other = "root" if kind == "intermediate" else "intermediate"
    with pytest.raises(RotationError, match=f"expected to finish the rotation of the {kind} first"):
        papers.advance(other, "prepare")


def killed(work: Callable[[], object], after: int) -> bool:
    """Run *work* in a child process that kills itself with SIGKILL before its system call number *after*.

    Only system calls that change files count: fsync, rename and unlink.  Return whether the child was killed.
    """
    child = os.fork()
    if not child:
        left = itertools.count()

        def deadly(original: Callable[..., object]) -> Callable[..., object]:
            def call(*args: object, **keywords: object) -> object:
                if next(left) >= after:
                    os.kill(os.getpid(), signal.SIGKILL)
                return original(*args, **keywords)

            return call

        try:
            os.fsync = deadly(os.fsync)  # type: ignore[assignment]  # the child ends in this function
            for name in ("replace", "unlink"):
                setattr(Path, name, deadly(getattr(Path, name)))
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in {0, -signal.SIGKILL}
    return code != 0


@pytest.mark.parametrize(("kind", "step"), [(kind, step) for kind in sorted(STEPS) for step in STEPS[kind]])
def test_a_step_that_was_killed_anywhere_is_repeated(papers: Papers, kind: str, step: str) -> None:
    for earlier in STEPS[kind][: STEPS[kind].index(step)]:
        papers.advance(kind, earlier)
    before = read_state(papers.base / "root")
    for number in itertools.count():  # the step that is not killed ends the loop
        if not killed(lambda: papers.advance(kind, step), number):
            break
        if read_state(papers.base / "root") != before:  # killed after the step was complete: nothing to repeat
            break
        papers.ceremony()  # restarting the lab after the crash changes nothing, and the CA can sign
        assert papers.signing().chain
    assert number >= 8
    assert read_state(papers.base / "root").step == ("" if step == "retire" else step)
    assert Transcript(papers.base / "root" / TRANSCRIPT).entries[-1].facts["rotation"]["step"] == step
    leaf = issue_leaf(papers.signing(), new_key().public_key(), [NAME], time.time(), 600.0)
    verify_everywhere(papers, leaf, papers.signing().chain, papers.bundle)


def test_a_removal_of_a_retired_issuing_ca_that_was_killed_anywhere_is_repeated(papers: Papers) -> None:
    for step in STEPS["intermediate"]:
        papers.advance("intermediate", step)
    folder, passphrase = papers.base / "ca", papers.base / "passphrase" / "passphrase"
    for number in range(4):
        was_killed = killed(lambda: IssuingFiles(folder, passphrase).remove_retired(lambda _: False), number)
        assert was_killed is (number < 3)
        assert 2 in IssuingFiles(folder, passphrase).issuers  # the CA can start again after each crash
    assert [each.name for each in sorted(folder.glob("issuing*"))] == ["issuing-2.key.pem", "issuing-2.pem"]


def test_pkilint_finds_nothing_in_new_certificates(papers: Papers) -> None:
    papers.advance("root", "prepare")
    issuer = IssuingFiles(papers.base / "ca", papers.base / "passphrase" / "passphrase").issuers[2]
    for number, each in enumerate((*issuer.chain, x509.load_pem_x509_certificate(roots_of(papers)[1].read_bytes()))):
        assert lint("lint_pkix_cert", write(papers.base / f"{number}.pem", each)) == ""
    issuing, cross = (papers.base / f"{number}.pem" for number in (0, 1))
    assert lint("lint_pkix_signer_signee_cert_chain", cross, issuing) == ""
    assert lint("lint_pkix_signer_signee_cert_chain", papers.base / "root" / "root.pem", cross) == ""


def test_the_command_shows_the_next_step(papers: Papers, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [word for each in ("root", "ca", "trust") for word in (f"--{each}", str(papers.base / each))]
    command = ["rotate", *folders, "--passphrase-dir", str(papers.base / "passphrase")]
    assert main(command) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["next"] == {"intermediate": "prepare", "root": "prepare"}
    assert main([*command, "intermediate", "prepare"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["step"], shown["next"]) == ("prepare", {"intermediate": "sign-new"})
    assert main([*command, "intermediate", "prepare"]) == 2
    assert "expected sign-new" in capsys.readouterr().err
