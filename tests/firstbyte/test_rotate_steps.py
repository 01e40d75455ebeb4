"""Tests for ``firstbyte pki rotate`` with a real ceremony on disk, and hosts in memory that follow it or lag."""

import contextlib
import io
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from authority import Ceremony
from authority import __main__ as authority
from authority.keys import active_number, load_certificate
from authority.rotation import STEPS, read_state
from firstbyte import where
from firstbyte.cli import main
from renewal.credentials import TRUST_VERSION
from runtime import RefusedError

FOLDERS = ("root", "ca", "trust", "passphrase", "token")


class SmallLab:
    """A ceremony in *folder*, a CA that follows its files, and hosts that adopt each step when they are asked to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.topology = SimpleNamespace(always=[SimpleNamespace(name=name) for name in ("ca", "wan", "edge", "news")])
        #: Hosts that do not adopt a step.
        self.frozen: set[str] = set()
        #: Version of the trust bundle and number of the issuing CA, by host.
        self.used = dict.fromkeys(("ca", "edge", "news"), (1, 1))

    @property
    def newest(self) -> tuple[int, int]:
        header = TRUST_VERSION.match((self.folder / "trust" / "root.pem").read_bytes())
        return int(header[1]) if header else 1, active_number(self.folder / "ca")

    def run_once(self, service: str, arguments: Sequence[str]) -> tuple[int, bytes, bytes]:
        """Run the ceremony's command in this process."""
        assert service == "ceremony"
        out, err = io.StringIO(), io.StringIO()
        words = [word.replace("/srv", str(self.folder)) for word in arguments]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = authority.main(words)
        return code, out.getvalue().encode(), err.getvalue().encode()

    def call(self, host: str, method: str, path: str, body: Any = None, *, timeout: float = 15.0) -> Any:
        """Answer an admin request."""
        del body, timeout
        if host == "wan":
            raise RefusedError("wan: no certificates")
        if (host == "ca" or method == "POST") and host not in self.frozen:
            self.used[host] = self.newest
        bundle, issuer = self.used[host]
        name = f"CN=firstbyte lab issuing CA {issuer},O=firstbyte lab"
        if path == "/admin/certificates":
            return {"issuer": name}
        return {"trust_bundle": bundle, "issuer": name, "additional": []}


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallLab:
    for each in FOLDERS:
        (tmp_path / each).mkdir()
    Ceremony(*(tmp_path / each for each in FOLDERS)).run(time.time())
    found = SmallLab(tmp_path)
    subject = load_certificate(tmp_path / "ca" / "issuing.pem").subject.rfc4514_string()
    assert found.call("edge", "GET", "/admin/certificate")["issuer"] == subject

    @contextlib.contextmanager
    def outside(_: str) -> Iterator[SmallLab]:
        yield found

    monkeypatch.setattr(where, "outside", outside)
    return found


def step_of(lab: SmallLab) -> tuple[str, str]:
    state = read_state(lab.folder / "root")
    return state.kind, state.step


def test_each_call_performs_one_step_and_all_performs_the_rest(
    lab: SmallLab, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pki", "rotate", "root", "--json"]) == 0
    assert step_of(lab) == ("root", "prepare")
    assert main(["pki", "rotate", "root", "--all", "--json"]) == 0
    performed = [json.loads(line)["performed"] for line in capsys.readouterr().out.splitlines()]
    assert tuple(performed) == STEPS["root"]
    assert lab.used == dict.fromkeys(("ca", "edge", "news"), (3, 2))


def test_a_host_that_lags_stops_the_rotation_until_it_follows(
    lab: SmallLab, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.frozen = {"news"}
    assert main(["pki", "rotate", "root"]) == 0
    assert main(["pki", "rotate", "root", "--timeout", "1"]) == 1  # performed, but not adopted
    assert step_of(lab) == ("root", "trust-both")
    assert main(["pki", "rotate", "root"]) == 1
    assert "the next step is refused: news trusts bundle 1, expected 2" in capsys.readouterr().err
    assert step_of(lab) == ("root", "trust-both")
    lab.frozen.clear()
    assert main(["pki", "rotate", "--finish"]) == 0  # the host gets another chance to adopt the step
    assert step_of(lab) == ("", "")


def test_forced_steps_do_not_wait_and_finish_repairs_the_hosts(lab: SmallLab) -> None:
    for _ in STEPS["root"][:-1]:
        assert main(["pki", "rotate", "root", "--force"]) == 0
    assert lab.used["edge"] == (1, 1)
    assert main(["pki", "rotate", "--finish"]) == 0
    assert step_of(lab) == ("", "")
    assert lab.used["edge"] == (3, 2)


def test_finish_does_nothing_without_a_rotation_in_progress(lab: SmallLab, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pki", "rotate", "--finish"]) == 0
    assert capsys.readouterr().out == ""
    assert lab.newest == (1, 1)


@pytest.mark.parametrize("extra", [["root"], ["--all"], ["--force"]])
def test_finish_stands_alone(extra: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pki", "rotate", "--finish", *extra]) == 2
    assert "expected --finish alone" in capsys.readouterr().err
