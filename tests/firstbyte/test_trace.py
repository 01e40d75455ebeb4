"""Tests for ``firstbyte trace``: error responses of the host `client`, and the exit code for each."""

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import NoReturn

import pytest

from firstbyte.cli import main
from runtime import LabDownError, LabError, RefusedError


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        pytest.param(
            RefusedError("client: POST /admin/trace: 422: www.nosuch.com: no such name"),
            1,
            "firstbyte trace: error: www.nosuch.com: no such name",
            id="no-such-name",
        ),
        pytest.param(
            RefusedError("client: POST /admin/trace: 503: no packet socket"),
            3,
            "firstbyte trace: error: no packet socket",
            id="no-packet-socket",
        ),
        pytest.param(
            RefusedError("client: POST /admin/trace: 400: expected an object"),
            2,
            "firstbyte trace: error: client: POST /admin/trace: 400: expected an object",
            id="refused",
        ),
        pytest.param(LabDownError("client is absent"), 3, "firstbyte trace: error: client is absent", id="down"),
    ],
)
def test_a_refusal_is_one_line_and_an_exit_code(
    error: LabError, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise error

    @contextlib.contextmanager
    def lab() -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(call=refuse)

    monkeypatch.setattr("firstbyte.where.lab", lab)
    assert main(["trace", "https://www.example.com/"]) == code
    assert capsys.readouterr().err.splitlines() == [said]
