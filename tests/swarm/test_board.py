"""Tests for the master's tables: kernel counters by network namespace and their growth; starved and lost workers."""

from generator import Request, Tally
from swarm.board import Board, Report

SPACE = "net:[1]"


def report(
    host: str = "w1", namespace: str = SPACE, *, reasons: tuple[str, ...] = (), opened: int = 0, waits: int = 0
) -> Report:
    tally = Tally([Request(0.0, "fresh", sent=0.001, done=0.021, connect=0.01)])
    counters = {"Tcp.ActiveOpens": opened, "tcp_tw": waits}
    return Report(host, namespace, 0.5, 0.002, list(reasons), counters, tally.as_json())


def test_workers_in_one_namespace_are_one_row_and_not_summed() -> None:
    board = Board()
    board.take("a", report(waits=7))
    board.take("b", report(waits=7))
    board.take("c", report("w2", "net:[2]", waits=1))
    assert [(row["host"], row["tcp_tw"]) for row in board.kernel_rows()] == [
        ("w1 (2 workers)", 7),
        ("w2 (1 worker)", 1),
    ]


def test_counters_show_growth_since_the_test_began_and_gauges_their_value() -> None:
    board = Board()
    board.take("a", report(opened=100, waits=5))
    board.see("edge", {"Tcp.ActiveOpens": 40, "tcp_tw": 3})
    board.restart()
    board.take("a", report(opened=130, waits=30))
    board.see("edge", {"Tcp.ActiveOpens": 45, "tcp_tw": 4})
    assert [(row["tcp_activeopens"], row["tcp_tw"]) for row in board.kernel_rows()] == [(30, 30), (5, 4)]


def test_tallies_of_all_workers_add_up_until_a_new_test_starts() -> None:
    board = Board()
    board.take("a", report())
    board.take("b", report())
    rows = {row["phase"]: row for row in board.phase_rows()}
    assert (rows["latency"]["count"], rows["latency"]["p50"], rows["connect"]["p99"]) == (2, "21.000", "10.000")
    board.restart()
    assert board.phase_rows() == []


def test_a_worker_that_lacks_cpu_is_listed_with_the_reason() -> None:
    board = Board()
    board.take("a", report())
    board.take("w1_3db082bdfaaf4f92", report(reasons=("generator CPU 97% of a core, allowed 80%",)))
    assert board.starved == ["w1 3db0: generator CPU 97% of a core, allowed 80%"]
    assert [row["verdict"].partition(":")[0] for row in board.generator_rows()] == ["fit", "STARVED"]


def test_a_lost_worker_is_listed_and_its_measurements_stay() -> None:
    board = Board()
    board.take("a", report())
    board.take("b", report())
    board.keep({"a"})
    assert (list(board.workers), board.gone) == (["a"], ["b"])
    assert board.phase_rows()[0]["count"] == 2
