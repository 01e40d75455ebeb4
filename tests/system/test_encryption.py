"""Tests that `firstbyte encryption` reports the same database bytes as the file on the host."""

import json

import pytest

from tests.system.conftest import Shell

pytestmark = pytest.mark.system


def test_the_file_on_the_host_holds_notes_and_letters_encrypted(shell: Shell) -> None:
    answer = shell.firstbyte("encryption", "--json")
    assert answer.code == 0, answer.err
    views = {(each["place"], each["way"]): each for each in json.loads(answer.out)["views"]}
    code, file, err = shell.lab.capture(
        "catalog-2", ["sh", "-c", "cat /srv/catalog/catalog.sqlite /srv/catalog/catalog.sqlite-wal"]
    )
    assert code == 0, err
    held = {way: views["recipient", way]["text"].encode() in file for way in ("http", "https", "note", "letter")}
    assert held == {"http": True, "https": True, "note": False, "letter": False}
    assert all(bytes.fromhex(views["database", way]["hex"]) in file for way in held)
    # The notes' key must not be in the database file; it is in another volume on the same host.
    code, keys, err = shell.lab.capture("catalog-2", ["cat", "/srv/keys/notes.json"])
    assert code == 0, err
    assert all(key.encode() not in file for key in json.loads(keys)["keys"].values())
