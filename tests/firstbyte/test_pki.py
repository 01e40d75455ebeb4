"""Tests for ``firstbyte pki``: wrong arguments, refused requests, revocations and recalls at a real CA on loopback."""

import asyncio
import json
from argparse import Namespace
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from firstbyte import where
from firstbyte.certificates import failure
from firstbyte.cli import main
from renewal import AcmeClient, RenewalError
from runtime import RefusedError
from telemetry.call import CallError, call
from tests.acme_server.browser import Browser, csr
from tests.acme_server.conftest import Lab, browser, lab

__all__ = ["browser", "lab"]

TOKEN = "a-token-for-one-test"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["watch", "--once", "--trust", "/nonexistent", "localhost:1"], "expected a file with roots in PEM"),
        (["watch", "--once", "--json", "--trust", "/nonexistent", "localhost:1"], "expected a file with roots in PEM"),
        (["watch", "--once", "--inventory", "certificates.json"], "expected HOST:PORT, and no --lab, with --inventory"),
        (["watch", "--lab", "--inventory", "a.json", "a:1"], "expected HOST:PORT, and no --lab, with --inventory"),
        (["recall", "--spread", "5"], "expected SERIAL, --issuer or --all with --in, --spread or --url"),
        (["recall", "--end", "--url", "https://a.example/"], "expected SERIAL, --issuer or --all with --in, --spread"),
        (["verify-log", "nope"], "expected HOST:PORT, got 'nope'"),
        (["verify-log", "www.example.com:0"], "expected a port from 1 to 65535"),
    ],
    ids=[
        "no-roots",
        "no-roots-json",
        "inventory-without-endpoint",
        "inventory-in-the-lab",
        "spread-of-nothing",
        "end-with-url",
        "no-port",
        "port-0",
    ],
)
def test_a_wrong_argument_is_one_line_and_exit_code_2(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pki", *words]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert captured.out == ""
    assert says in line


@pytest.mark.parametrize(
    ("names", "profile", "says"),
    [
        (["nope.invalid"], "", "'nope.invalid': .*name constraints"),
        ([""], "", "expected a host name, got ''"),
        (["198.19.20.10"], "", "'198.19.20.10': .*rejectedIdentifier"),
        (["www.example.com"], "nope", "expected a profile of peer; got 'nope'"),
        (
            [f"n{number}.example.com" for number in range(150)],
            "",
            "^no certificate for 150 names: .* 1 to 50 identifiers",
        ),
    ],
    ids=["outside-the-constraints", "empty", "address", "profile", "too-many-names"],
)
async def test_a_request_that_the_ca_refuses_has_exit_code_2(
    lab: Lab, names: list[str], profile: str, says: str
) -> None:
    client = AcmeClient(lab.directory, ec.generate_private_key(ec.SECP256R1()), lab.context(), lab.stub)
    key = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(RenewalError) as error:
        await client.obtain(names, key, lambda _token, _answer: None, profile=profile)
    with pytest.raises(RefusedError, match=says) as refused:
        raise failure(names, error.value)
    assert refused.value.exit_code == 2


def test_a_ca_that_does_not_answer_has_exit_code_3() -> None:
    assert failure(["a.example.com"], OSError("connection refused")).exit_code == 3


class AdminPort:
    """The lab as the command line sees it: the admin port of one running CA."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._base = f"http://{address[0]}:{address[1]}"

    def call(self, host: str, method: str, path: str, body: Any = None, *, timeout: float = 15.0) -> Any:
        try:
            return call(self._base, method, path, body, token=TOKEN, timeout=timeout)
        except CallError as error:
            raise RefusedError(f"{host}: {error.message}") from None


async def test_certificates_are_revoked_and_recalled_once(
    lab: Lab, browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    await browser.register()
    order, url = await browser.ready("www.example.com")
    await browser.finalize(order, csr("www.example.com"))
    serial = (await browser.post(url, None))[1]["certificate"].rpartition("/")[2]
    telemetry = lab.server.telemetry

    async def run(*words: str) -> tuple[int, str]:
        code = await asyncio.to_thread(main, ["pki", *words])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    token_file = tmp_path / "admin-token"
    token_file.write_text(TOKEN)
    async with telemetry.serving(Namespace(admin=("127.0.0.1", 0), token_file=token_file)):
        assert telemetry.admin_address is not None
        port = AdminPort(telemetry.admin_address)
        monkeypatch.setattr(where, "lab", lambda: nullcontext(port))
        capsys.readouterr()  # discard the line with the address of the admin port
        code, text = await run("recall", "--issuer", "nope")
        assert (code, lab.server.store.recalls()) == (2, [])
        assert lab.server.issuer.key_id.hex() in text
        code, text = await run("recall", "nope")
        assert (code, lab.server.store.recalls()) == (2, [])
        assert "expected a serial number, or a name" in text
        code, text = await run("recall", serial[:12], "--spread", "5", "--json")
        assert (code, json.loads(text)[0]["serials"]) == (0, [serial])
        assert await run("revoke", serial[:12], "--reason", "superseded") == (0, f"revoked {serial} (superseded)\n")
        again = f"{serial} is already revoked (superseded)\n"
        assert await run("revoke", serial) == (0, again)
        code, text = await run("revoke", serial, "--json")
        assert (code, json.loads(text)) == (0, {"revoked": [], "reason": "superseded"})
        assert await run("revoke", serial, "--reason", "keyCompromise") == (0, f"revoked {serial} (keyCompromise)\n")
