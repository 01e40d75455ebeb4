"""Tests for ``firstbyte trace``: error responses of the host `client`, and the exit code for each."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

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


def traced(*rows: dict[str, Any]) -> dict[str, Any]:
    """Return a synthetic trace of one request, with *rows* as its packets."""
    ends = {host: {"address": "198.19.1.10", "port": 443} for host in ("client", "server")}
    packets = {"packets": list(rows), "states": [], "round_trips": 3, **ends}
    return {"url": "https://www.example.com/", "cold": {"ttfb_ms": 42.0, "ttfb_predicted_ms": 40.0, "packets": packets}}


QUERY = {"from": "client", "sent_ms": 0.0, "arrived_ms": 1.0, "what": "query", "ip": {"destination": "198.19.2.53"}}


@pytest.mark.parametrize(
    ("found", "code", "said"),
    [
        (traced(QUERY), 0, "First byte after 42.0 ms, predicted 40.0 ms; 3 round trips"),
        (traced(), 2, "nothing to draw"),
    ],
    ids=["drawn", "no packets"],
)
def test_the_packets_are_drawn(
    found: dict[str, Any], code: int, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    asked: list[Any] = []

    def call(*words: Any, **_: object) -> dict[str, Any]:
        asked.append(words)
        return found

    monkeypatch.setattr("firstbyte.where.lab", lambda: contextlib.nullcontext(SimpleNamespace(call=call)))
    file = tmp_path / "ladder.svg"
    assert main(["trace", "https://www.example.com/", "--json", "--svg", str(file)]) == code
    assert asked[0][3]["packets"] is True
    assert said in (file.read_text() if code == 0 else capsys.readouterr().err)
