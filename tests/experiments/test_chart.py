import pytest

from experiments.chart import Bars, Chart


@pytest.mark.parametrize(
    ("chart", "expected"),
    [
        (Chart("What it costs: p99, by RTT", [], x=""), "what-it-costs-p99-by-rtt"),
        (Chart("a b c d e f g h i", [], x=""), "a-b-c-d-e-f-g-h"),
        (Chart("3 of 7 requests lost", [], x="", name="year"), "year"),
        (Chart("…", [], x=""), "chart"),
    ],
    ids=["title", "eight-words", "name", "no-word"],
)
def test_the_files_of_a_chart_are_named_after_it(chart, expected):
    assert chart.file_name == expected


def test_bad_bars_are_hatched():
    assert [Bars("", [], colour).struck for colour in ("bad", "good", 1)] == [True, False, False]
    assert Bars("", [], 1, hatched=True).struck
