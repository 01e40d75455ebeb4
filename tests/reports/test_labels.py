import pytest

from reports.labels import cut, wrap


@pytest.mark.parametrize(
    ("room", "expected"),
    [(7, "refused"), (6, "refus…"), (4, "ref…"), (3, "")],
    ids=["whole", "cut", "least", "nothing"],
)
def test_text_that_does_not_fit_ends_in_an_ellipsis(room, expected):
    assert cut("refused", room) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [("one two three", ["one two", "three"]), ("well-known names", ["well-known", "names"]), ("", [""])],
    ids=["wrapped", "a word stays whole", "nothing is one line"],
)
def test_text_is_wrapped_between_words_only(words, expected):
    assert wrap(words, 8) == expected
