"""Tests for line numbers of tables and keys in TOML files; other tests cover the error messages of real files."""

import pytest

from hostfiles.toml import TomlFile


class Shelf(TomlFile):
    kind = "shelf"
    known = ("default", "book")
    error = ValueError


TEXT = """\
# [[book]] in a comment is none
default = { title = "x" }
[[book]]
title = "a"

[[ book ]]
"title" = "b"
[[book]]
[book.author]
title = "of its own table"
"""


@pytest.mark.parametrize(
    ("table", "index", "key", "line"),
    [
        pytest.param("default", 0, "", 2, id="inline-table"),
        pytest.param("book", 0, "", 3, id="header"),
        pytest.param("book", 0, "title", 4, id="key"),
        pytest.param("book", 1, "title", 7, id="quoted-key"),
        pytest.param("book", 2, "title", 8, id="key-of-another-table"),
        pytest.param("book", 9, "", 8, id="beyond-the-last"),
        pytest.param("film", 0, "", 1, id="nowhere"),
    ],
)
def test_the_line_of_a_key_is_found(table: str, index: int, key: str, line: int) -> None:
    assert Shelf(TEXT, "f").line(table, index, key) == line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("\n[film.cast]\n", "f:2: expected one of default, book, got 'film'", id="unknown-table"),
        pytest.param('a = "\n', "f:1: expected TOML, got: ", id="cut-off"),
        pytest.param("a = [", "f:1: expected TOML, got: ", id="cut-off-at-the-end"),
        pytest.param("\na = 1" + "0" * 5000, "f:2: expected TOML, got: ", id="number-of-5001-digits"),
        pytest.param("\na = " + "[" * 5000, "f:2: expected TOML, got: ", id="nested-5000-times"),
    ],
)
def test_a_malformed_file_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"^f:") as refused:
        Shelf(text, "f")
    assert str(refused.value).startswith(message)
