"""Tests for the file of certificate profiles: accepted files, and the positions in error messages."""

from pathlib import Path

import pytest

from authority.profiles import PEER, Profile, ProfilesError, load_profiles, read_profiles

GOOD = '[peer]\ndescription = "for peers"\n'


def test_the_labs_profiles_are_valid() -> None:
    found = load_profiles(Path(__file__).parents[2] / "lab/etc/profiles.toml")
    assert list(found) == ["peer", "tlsserver", "tlsclient", "shortlived"]
    assert (found["tlsserver"].usages, found["tlsclient"].usages) == (("serverAuth",), ("clientAuth",))
    assert (found["shortlived"].lifetime, found["shortlived"].revocation) == (600, False)


def test_without_a_file_there_is_one_profile() -> None:
    assert load_profiles(None) == {"peer": PEER}
    assert read_profiles(GOOD, "file") == {"peer": Profile("peer", "for peers")}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "p.toml:1: expected at least one profile, as a table [NAME], got none"),
        ("[peer", "p.toml:1: expected TOML, got: "),
        ("[peer]\n", "p.toml:1: expected description, of 1 to 200 characters, got None"),
        (f"{GOOD}\n[Web]\ndescription = 'x'\n", "p.toml:4: expected a name of lower-case letters, digits and hyphens"),
        (f"{GOOD}usage = []\n", "p.toml:3: expected one of description, usages, lifetime, revocation, got 'usage'"),
        (f"{GOOD}usages = []\n", "p.toml:3: expected usages, a list of serverAuth and clientAuth, got []"),
        (f"{GOOD}usages = ['serverAuth', 'serverAuth']\n", "p.toml:3: expected usages, a list of"),
        (f"{GOOD}usages = ['emailProtection']\n", "p.toml:3: expected usages, a list of"),
        (f"{GOOD}usages = 'serverAuth'\n", "p.toml:3: expected usages, a list of"),
        (f"{GOOD}lifetime = 4\n", "p.toml:3: expected lifetime, from 5 to 7776000 seconds, got 4"),
        (f"{GOOD}lifetime = true\n", "p.toml:3: expected lifetime, from 5 to 7776000 seconds, got True"),
        (f"{GOOD}revocation = 'no'\n", "p.toml:3: expected revocation, true or false, got 'no'"),
        ("peer = 1\n", "p.toml:1: expected "),
    ],
    ids=["empty", "not-toml", "no-description", "upper-case", "unknown-key", "no-usage", "usage-twice", "other-usage",
         "not-a-list", "too-short", "not-a-number", "not-a-boolean", "not-a-table"],
)  # fmt: skip
def test_an_error_names_file_line_and_what_was_expected(text: str, error: str) -> None:
    with pytest.raises(ProfilesError) as caught:
        read_profiles(text, "p.toml")
    assert str(caught.value).startswith(error)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ProfilesError, match="expected a readable file of certificate profiles"):
        load_profiles(tmp_path / "none.toml")
