"""Tests for route selection and for the command-line options that define routes."""

import pytest

from edge import parse_route
from edge.__main__ import main
from tests.edge.conftest import Bench, parts, plain, talk
from tests.peers import OK, Papers, replying


async def test_challenges_are_answered_on_the_plain_port_only(bench: Bench, papers: Papers) -> None:
    origin = plain(await bench.start(replying(OK)))
    path = b"GET /.well-known/acme-challenge/%b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    _, port = await bench.edge(origin, challenge={"tok": "tok.print"}.get)
    assert parts(await talk(port, path % b"tok"))[::2] == (200, b"tok.print")
    assert parts(await talk(port, path % b"other"))[0] == 404
    _, port = await bench.edge(origin, challenge={"tok": "tok.print"}.get, tls=True)
    assert parts(await talk(port, path % b"tok", papers.client()))[2] == b"ok"


@pytest.mark.parametrize("text", ["x", "/=", "/=host", "/=host:0", "/=host:99999", "news=host:1", "/a/../b=host:1"])
def test_bad_routes_say_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_route(text)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--upstream", "/=h:1"], "expected at least one of --https"),
        (["--upstream", "/=h:1", "--https", "127.0.0.1:0"], "expected --acme, or --cert and --key"),
        (
            ["--upstream", "/=h:1", "--https", "127.0.0.1:0", "--acme", "https://ca/directory"],
            "expected --tls-dir, --trust, --cert-name",
        ),
        (["--upstream", "h:1", "--http", "127.0.0.1:0"], "expected /PREFIX=HOST:PORT"),
    ],
)
def test_usage_errors(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(argv)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err
