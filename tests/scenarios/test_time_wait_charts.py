from scenarios.instruments.port_windows import Arm
from scenarios.instruments.time_wait_charts import cumulative
from waterfall.churn import NO_PORT


def arm(name, served, of=100):
    made = Arm(name, 10, (1, 50))
    made.attempts = [(i / 10, i / 10, "" if i < served else NO_PORT) for i in range(of)]
    return made


def test_cures_that_serve_alike_are_one_entry_of_the_legend():
    base, others = arm("10/s", 50), [arm("two destinations", 99), arm("twice the ports", 100), arm("half", 70)]
    (panel,) = cumulative(base, others, 10.0, 50).panels
    assert [mark.label for mark in panel.marks if mark.label] == [
        "closed here first: 50",
        "two destinations = twice the ports: 99",
        "half: 70",
    ]
    assert len(panel.marks) == 4  # every curve is drawn
