"""Tests for ``firstbyte link``: option parsing, invalid settings, and the list of links."""

import argparse
import tomllib
from itertools import permutations
from pathlib import Path
from typing import Self

import pytest

from firstbyte import arguments
from firstbyte.cli import main
from wan import LinkSettings
from wan.damage import MODES


class FakeLab:
    """Records the requests that the command sends to `wan`; the response has two regions."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []
        settings = LinkSettings(rtt_ms=20, corrupt_swap16=0.05).as_dict()
        ways = (("access", "near"), ("near", "access"))
        self.links: dict[str, object] = {
            "links": [{"from": a, "to": b, **settings, "changed": False} for a, b in ways],
            "regions": {"access": "198.19.1.0/24", "near": "198.19.20.0/24"},
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def call(self, host: str, method: str, path: str, body: object = None) -> dict[str, object]:
        if method != "GET":
            self.asked.append((host, method, path) if body is None else (host, method, path, body))
        return self.links


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> FakeLab:
    fake = FakeLab()
    monkeypatch.setattr("firstbyte.where.lab", lambda: fake)
    return fake


@pytest.mark.parametrize(
    ("flags", "settings"),
    [
        (["--rtt", "0.08s", "--jitter", "5", "--loss", "1%"], {"rtt_ms": 80, "jitter_ms": 5, "loss": 0.01}),
        (["--rate", "10M"], {"rate_bps": 10_000_000}),
        (["--duplicate", "1%", "--reorder", "0.02"], {"duplicate": 0.01, "reorder": 0.02}),
        (["--reorder", "1%", "--reorder-by", "3ms"], {"reorder": 0.01, "reorder_ms": 3}),
        (["--corrupt", "swap16:5%"], {"corrupt_swap16": 0.05}),
        (["--corrupt", "plusminus:1%:300"], {"corrupt_plusminus": 0.01, "corrupt_k": 300}),
        (["--corrupt", "bitflip:1", "--corrupt", "random:0"], {"corrupt_bitflip": 1, "corrupt_random": 0}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_become_settings_that_a_link_accepts(lab, flags, settings, capsys) -> None:
    assert main(["link", "access:near", *flags]) == 0
    assert lab.asked == [("wan", "PUT", "/admin/links/access/near", settings)]
    changed = LinkSettings().changed(settings)
    assert all(getattr(changed, key) == value for key, value in settings.items())
    assert capsys.readouterr().out.startswith("access – near: ")


def test_the_modes_of_corruption_are_those_of_wan() -> None:
    assert tuple(MODES) == arguments.CORRUPTIONS


def test_one_way_and_reset(lab) -> None:
    assert main(["link", "near:access", "--one-way", "--loss", "5%"]) == 0
    assert main(["link", "near:access", "--reset"]) == 0
    assert [ask[1:3] for ask in lab.asked] == [
        ("PUT", "/admin/links/near/access?direction=one"),
        ("DELETE", "/admin/links/near/access"),
    ]


def test_a_link_is_shown_with_its_impairments(lab, capsys) -> None:
    assert main(["link", "access:near"]) == 0
    assert "5.000% damaged by swap16" in " ".join(capsys.readouterr().out.split())


def test_links_are_listed_by_region_and_those_that_are_alike_once(lab, capsys) -> None:
    """The lab has the links of links.toml, with one direction of one pair changed."""
    file = tomllib.loads((Path(__file__).parents[2] / "lab/etc/links.toml").read_text())
    ways = dict.fromkeys(permutations(file["regions"], 2), file["default"]["rtt_ms"])
    for link in file["link"]:
        one, other = link["between"]
        for way in ways:
            if way in {(one, other), (other, one)} or (other == "*" and one in way):
                ways[way] = link["rtt_ms"]
    links = [{"from": a, "to": b, "rtt_ms": rtt, "changed": False} for (a, b), rtt in ways.items()]
    next(each for each in links if (each["from"], each["to"]) == ("near", "access")).update(loss=0.01, changed=True)
    lab.links = {"links": links, "regions": file["regions"]}
    assert main(["link"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[:2] == ["from to round trip loss also", "exchange all others 0 ms"]
    assert {
        "access ⇄ isp 4 ms",
        "access → near 20 ms",
        "access ← near 20 ms 1.00% changed",
        "root-a the rest 40 ms",
    } <= set(lines)
    assert len([line for line in lines if line]) == 18


def test_an_unknown_region_is_named(lab, capsys) -> None:
    assert main(["link", "access:moon"]) == 2
    assert capsys.readouterr().err == "firstbyte link: error: expected a region among access, near, got 'moon'\n"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["access"], "expected REGION:REGION, for example access:near; got 'access'"),
        (["access:near", "--rtt", "soon"], "expected milliseconds, for example 80 or 80ms; got 'soon'"),
        (["access:near", "--rtt", "61s"], "expected 0 to 60000 ms, got '61s'"),
        (["access:near", "--loss", "nan"], "expected 0 to 1 (or 0% to 100%), got 'nan'"),
        (["access:near", "--duplicate", "101%"], "expected 0 to 1 (or 0% to 100%), got '101%'"),
        (["access:near", "--rate", "nan"], "expected 0 (unlimited) or 1k to 100G bits per second, got 'nan'"),
        (["access:near", "--rate", "10"], "expected 0 (unlimited) or 1k to 100G bits per second, got '10'"),
        (["access:near", "--corrupt", "5%"], "expected MODE:P with a mode of bitflip, swap16, plusminus, random"),
        (["access:near", "--corrupt", "swap32:5%"], "expected MODE:P with a mode of bitflip, swap16"),
        (["access:near", "--corrupt", "swap16:5%:3"], "expected MODE:P with a mode of bitflip, swap16"),
        (["access:near", "--corrupt", "plusminus:5%:0"], "expected K between 1 and 65535, got '0'"),
        (["access:near", "--corrupt", "bitflip:much"], "expected a probability, for example 0.01 or 1%; got 'much'"),
        (["--rtt", "80"], "expected REGION:REGION before settings, got none"),
        (["access:near", "--reset", "--rtt", "80"], "expected --reset alone, got settings as well"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_impossible_settings_are_one_line_and_exit_code_2(lab, flags, message, capsys) -> None:
    assert main(["link", *flags]) == 2
    assert message in capsys.readouterr().err
    assert lab.asked == []


def test_milliseconds_may_have_a_unit() -> None:
    assert arguments.milliseconds("80") == arguments.milliseconds("80ms") == arguments.milliseconds("0.08s") == 80
    with pytest.raises(argparse.ArgumentTypeError):
        arguments.pair("access:")
