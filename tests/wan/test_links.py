"""Tests for the links file: the lab's own file, and error messages with line numbers."""

from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netns_engine import compose
from wan import LinksFileError, load, parse

ROOT = Path(__file__).parents[2]
REGIONS = '[regions]\na = "198.19.1.0/24"\nb = "198.19.2.0/24"\nc = "198.19.3.0/24"\n'

#: Default round-trip times in milliseconds, from section "Topology" of DESIGN.
DESIGN = {
    ("access", "isp"): 4, ("access", "near"): 20, ("access", "far"): 120, ("isp", "near"): 16, ("isp", "far"): 116,
    ("isp", "root-a"): 10, ("isp", "root-b"): 40, ("isp", "registry"): 20, ("access", "root-a"): 14,
    ("access", "root-b"): 44, ("access", "registry"): 24, ("near", "far"): 100,
}  # fmt: skip


def test_the_labs_links_have_the_round_trips_of_the_design() -> None:
    declared = load(ROOT / "lab/etc/links.toml")
    assert len(declared.links) == 56
    for (a, b), settings in declared.links.items():
        expected = 0 if "exchange" in (a, b) else DESIGN.get((a, b), DESIGN.get((b, a), 40))
        assert settings.rtt_ms == expected, (a, b)
        assert (settings.jitter_ms, settings.loss, settings.rate_bps) == (0, 0, None)


def test_every_address_in_the_compose_file_is_in_a_region() -> None:
    declared = load(ROOT / "lab/etc/links.toml")
    services = compose.document(ROOT / "docker-compose.yml", {})["services"]
    networks = [s["networks"] for s in services.values() if isinstance(s.get("networks"), dict)]
    addresses = [n["internet"]["ipv4_address"] for n in networks if (n.get("internet") or {}).get("ipv4_address")]
    assert len(addresses) > 10
    for address in addresses:
        assert any(IPv4Address(address) in prefix for prefix in declared.regions.values()), address


def test_a_named_pair_overrides_a_star_and_a_star_the_default() -> None:
    declared = parse(
        REGIONS
        + '[default]\nrtt_ms = 40\nloss = 0.5\n[[link]]\nbetween = ["a", "b"]\nrtt_ms = 7\n'
        + '[[link]]\nbetween = ["a", "*"]\nrtt_ms = 0\n[[link]]\nfrom = "c"\nto = "b"\njitter_ms = 1\n'
    )
    shown = {pair: (s.rtt_ms, s.jitter_ms, s.loss) for pair, s in declared.links.items()}
    assert shown == {
        ("a", "b"): (7, 0, 0.5), ("b", "a"): (7, 0, 0.5), ("a", "c"): (0, 0, 0.5), ("c", "a"): (0, 0, 0.5),
        ("b", "c"): (40, 0, 0.5), ("c", "b"): (40, 1, 0.5),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[regions\n", "f:1: expected TOML, got: "),
        ("", "f:1: expected [regions] with at least two regions, got None"),
        (REGIONS + "[hosts]\nx = 1\n", "f:5: expected one of regions, default, link, got 'hosts'"),
        ('[regions]\na = "198.19.1.0/24"\nb = "198.19.1.7/24"\n', "f:3: expected an IPv4 prefix such as"),
        ('[regions]\na = "198.19.1.0/24"\nb = 7\n', "f:3: expected an IPv4 prefix such as '198.19.1.0/24', got 7"),
        ('[regions]\na = "198.19.0.0/16"\nb = "198.19.1.0/24"\n', "f:3: expected a prefix that does not overlap a's"),
        ('[regions]\na = "198.19.1.0/24"\nB = "198.19.2.0/24"\n', "f:3: expected a region name of lower-case"),
        (REGIONS + "[default]\nrtt_ms = -1\n", "f:6: expected rtt_ms to be milliseconds between 0 and 60000, got -1"),
        (REGIONS + "[default]\n\nrtt = 1\n", "f:7: expected one of rtt_ms, jitter_ms, "),
        (
            REGIONS + "[default]\ncorrupt_swap16 = 5\n",
            "f:6: expected corrupt_swap16 to be a probability between 0 and 1, got 5",
        ),
        (
            REGIONS + "[default]\nduplicate = nan\n",
            "f:6: expected duplicate to be a probability between 0 and 1, got nan",
        ),
        (REGIONS + "default = 1\n", "f:5: expected an IPv4 prefix"),
        (REGIONS + '[[link]]\nbetween = ["a", "d"]\n', "f:6: expected one of the regions a, b, c, got 'd'"),
        (REGIONS + '[[link]]\nbetween = ["a"]\n', "f:6: expected between = [REGION, REGION], got ['a']"),
        (REGIONS + '[[link]]\nbetween = ["a", "a"]\n', "f:6: expected two different regions, got a twice"),
        (REGIONS + '[[link]]\nfrom = "a"\n', "f:5: expected either 'between' or 'from' and 'to', got 'from'"),
        (REGIONS + "[[link]]\nloss = 0.1\n", "f:5: expected either 'between' or 'from' and 'to', got neither"),
        (
            REGIONS + '[[link]]\nbetween = ["a", "b"]\n[[link]]\nbetween = ["b", "c"]\nloss = 2\n',
            "f:9: expected loss to be a probability between 0 and 1, got 2",
        ),
        (
            REGIONS + '[[link]]\nbetween = ["a", "b"]\n[[link]]\nfrom = "b"\nto = "a"\nloss = 1\n',
            "f:7: expected each pair once, got b to a again",
        ),
        (
            REGIONS + '[[link]]\nbetween = ["a", "*"]\nloss = 0.1\n[[link]]\nbetween = ["b", "*"]\nloss = 0.2\n',
            "f:8: expected at most one '*' entry per pair, got ",
        ),
        (REGIONS + '[link]\nbetween = ["a", "b"]\n', "f:5: expected [[link]] tables, got "),
        ("link = [1]\n" + REGIONS, "f:1: expected [[link]] tables, got [1]"),
    ],
    ids=lambda value: value if value.startswith("f:") else "text",
)
def test_an_error_names_the_line_and_what_was_expected(text, message) -> None:
    with pytest.raises(LinksFileError) as refused:
        parse(text, "f")
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


@given(st.text(alphabet='[]{}="ab.,*#\n 019-/_linkregonsdfu', max_size=200))
def test_no_text_raises_anything_but_a_links_file_error(text) -> None:
    for candidate in (text, REGIONS + text):
        try:
            parse(candidate)
        except LinksFileError as error:
            assert str(error).startswith("links.toml:")  # noqa: PT017 - some of the generated texts are valid


@pytest.mark.parametrize("content", [None, b"\xff\xfe"], ids=["missing", "not-utf-8"])
def test_an_unreadable_file_is_named(tmp_path: Path, content) -> None:
    path = tmp_path / "links.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LinksFileError, match=r"links\.toml: expected"):
        load(path)
