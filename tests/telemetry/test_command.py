"""Tests for the command-line arguments that all services share, and for their defaults from the environment."""

import argparse
from pathlib import Path

import pytest

from renewal import settings
from telemetry import add_arguments

ENVIRONMENT = {
    "FIRSTBYTE_ADMIN": "0.0.0.0:9900",
    "FIRSTBYTE_TOKEN_FILE": "/srv/token/admin.token",
    "FIRSTBYTE_ACME": "https://ca.example.com/directory",
    "FIRSTBYTE_TLS_DIR": "/srv/tls",
    "FIRSTBYTE_TRUST": "/srv/trust/root.pem",
}


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    settings.add_arguments(parser)
    return parser.parse_args(words)


def test_the_environment_has_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    args = parse()
    assert (args.admin, args.token_file) == (("0.0.0.0", 9900), Path("/srv/token/admin.token"))
    assert (args.acme, args.tls_dir) == ("https://ca.example.com/directory", Path("/srv/tls"))
    assert args.trust == Path("/srv/trust/root.pem")
    assert parse("--admin", "127.0.0.1:1").admin == ("127.0.0.1", 1)


def test_without_flag_and_environment_there_is_no_admin_port(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    args = parse()
    assert [args.admin, args.token_file, args.acme, args.tls_dir, args.trust] == [None] * 5


def test_a_wrong_value_in_the_environment_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FIRSTBYTE_ADMIN", "9900")
    with pytest.raises(SystemExit) as caught:
        parse()
    assert caught.value.code == 2
    assert "--admin: expected HOST:PORT, got '9900'" in capsys.readouterr().err
