import asyncio
import os
import signal
import time
from dataclasses import dataclass

import pytest

from experiments import (
    Control,
    Experiment,
    Order,
    ParameterError,
    Quantity,
    Skipped,
    Verdict,
    clean_up,
    conduct,
    parameter,
)
from experiments.chart import Chart, Dots, Panel
from experiments.undo_log import Undo, UndoLog
from runtime import LabDownError
from tests.experiments.lab import MemoryLab


@dataclass(frozen=True, slots=True)
class Settings:
    lost: int = parameter(0, low=0, high=9, help="requests that will be lost")


class Some(Experiment[Settings]):
    name, claim = "some", "Nothing is lost."
    settings = Settings
    control = Control("the safety is off", ("lost",))
    records = ("edge",)
    #: Function that `measure` calls while all injections are active.
    during = staticmethod(lambda: None)

    def predict(self):
        return {"lost": Quantity(0)}

    async def measure(self, run):
        await run.lab.link("access", "near", rtt_ms=80)
        await run.lab.fault("edge", "naive_reload", probability=0.5)
        await run.lab.set_clock("ca", 3600)
        self.count = self.p.lost + (1 if self.negative else 0)
        self.during()
        await asyncio.sleep(0)  # lets the event loop process SIGINT

    def conclude(self, run):
        run.findings.check_near(run.findings.row("lost", self.count), 0, absolute=True)
        run.findings.chart(Chart("Lost", [Panel([Dots("lost", [(0, 1, 1, 1), (1, 1, 0, 2)])])], x="seconds"))


def ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


class Interrupted(Some):
    """An experiment that receives SIGINT while all its injections are active."""

    during = staticmethod(ctrl_c)

    async def measure(self, run):
        await super().measure(run)
        await asyncio.sleep(30)  # SIGINT cancels this sleep


class ImpatientLab(MemoryLab):
    """A lab that sends SIGINT to this process for every request with the given method and path prefix."""

    def __init__(self, method, below="/"):
        super().__init__()
        self.method, self.below = method, below

    def call(self, host, method, path, body=None, *, timeout=15.0):
        if method == self.method and path.startswith(self.below):
            ctrl_c()
        return super().call(host, method, path, body, timeout=timeout)


def run(kind, lab, folder, **order):
    return asyncio.run(conduct(kind, Order(**order), lab, folder, addresses={}))


def test_a_run_whose_checks_hold_passes_and_leaves_the_lab_unchanged(tmp_path):
    lab = MemoryLab()
    outcome = run(Some, lab, tmp_path)
    assert (outcome.result.verdict, lab.untouched) == (Verdict.PASS, True)


def test_a_run_with_a_failed_check_fails(tmp_path):
    assert run(Some, MemoryLab(), tmp_path, given=("lost=2",)).result.verdict is Verdict.FAIL


def test_a_control_fails_where_it_should(tmp_path):
    assert run(Some, MemoryLab(), tmp_path, control=True).result.verdict is Verdict.FAIL


def test_injections_and_undoing_are_on_the_timeline_in_order(tmp_path):
    events = [(e.kind, e.text) for e in run(Some, MemoryLab(), tmp_path).result.events]
    assert events == [
        ("injection", "access:near rtt_ms 80"), ("injection", "edge: naive_reload on"),
        ("injection", "ca: clock +3600 s"),
        ("undone", "clock of ca"), ("undone", "fault naive_reload of edge"), ("undone", "link access:near"),
    ]  # fmt: skip


def test_after_ctrl_c_the_run_is_invalid_its_rows_are_kept_and_everything_is_undone(tmp_path):
    lab = MemoryLab()
    outcome = run(Interrupted, lab, tmp_path)
    assert (outcome.result.verdict, outcome.result.verdict.exit_code, lab.untouched) == (Verdict.INVALID, 4, True)
    assert [row.name for row in outcome.result.rows] == ["lost"]


def test_after_ctrl_c_no_check_and_no_gate_counts_what_was_cut_off(tmp_path):
    class Counting(Interrupted):
        def conclude(self, run):
            super().conclude(run)
            run.findings.check("all sent", "100", "3", ok=False)
            run.findings.enough("requests", 3, 100)

    result = run(Counting, MemoryLab(), tmp_path).result
    assert (result.verdict, result.checks) == (Verdict.INVALID, [])
    assert [check.name for check in result.validity if not check.ok] == []
    assert result.reasons == ["interrupted: what was measured until then is kept"]


def test_checks_stay_if_only_undoing_failed(tmp_path):
    lab = MemoryLab()

    class Abandoned(Some):
        during = staticmethod(lambda: lab.gone.add("wan"))

    result = run(Abandoned, lab, tmp_path).result
    assert (result.verdict, [check.name for check in result.checks]) == (Verdict.INVALID, ["lost"])


def test_ctrl_c_during_set_up_makes_the_run_invalid(tmp_path):
    result = run(Some, ImpatientLab("GET", "/admin/links"), tmp_path).result
    assert (result.verdict, result.reasons) == (
        Verdict.INVALID,
        ["interrupted: what was measured until then is kept"],
    )


def test_ctrl_c_while_an_earlier_run_is_undone_stops_the_run_but_not_the_undoing(tmp_path):
    lab = ImpatientLab("DELETE", "/admin/faults/")
    lab.faults["edge", "naive_reload"] = {}
    UndoLog(tmp_path).add(Undo("fault naive_reload of edge", "edge", "DELETE", "/admin/faults/naive_reload"))
    result = run(Some, lab, tmp_path).result
    assert (result.verdict, result.rows, lab.untouched) == (Verdict.INVALID, [], True)
    assert not (tmp_path / ".undo.json").exists()


def test_after_ctrl_c_a_blocking_call_returns_before_its_changes_are_undone(tmp_path):
    lab = MemoryLab()

    def switch_on_late():
        ctrl_c()
        time.sleep(0.2)  # the interrupt has been processed, and the fault is not yet switched on
        lab.call("edge", "POST", "/admin/faults/late")

    class Late(Some):
        async def measure(self, run):
            run.lab.undo_log.add(Undo("fault late of edge", "edge", "DELETE", "/admin/faults/late"))
            await run.blocking(switch_on_late)

    outcome = run(Late, lab, tmp_path)
    assert (outcome.result.verdict, lab.untouched) == (Verdict.INVALID, True)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError("timed out"), "it could not go on: a transfer: timed out"),
        (LabDownError("edge does not answer"), "it could not go on: edge does not answer"),
    ],
    ids=["a message of the system", "a message with its own context"],
)
def test_the_reason_of_a_failed_run_says_what_was_measured(tmp_path, error, reason):
    class Failing(Some):
        async def measure(self, run):
            run.phase("a transfer")
            raise error

    assert run(Failing, MemoryLab(), tmp_path).result.reasons == [reason]


def test_a_second_ctrl_c_does_not_stop_the_undoing(tmp_path):
    lab = ImpatientLab("DELETE")
    outcome = run(Interrupted, lab, tmp_path)
    assert (outcome.result.verdict, lab.untouched) == (Verdict.INVALID, True)


def test_what_a_killed_run_left_can_be_undone_without_another_run(tmp_path):
    lab = MemoryLab()
    lab.faults["edge", "naive_reload"] = {}
    lab.faults["ca", "refuse"] = {}
    lab.gone.add("ca")
    undo_log = UndoLog(tmp_path)
    for host, name in lab.faults:
        undo_log.add(Undo(f"fault {name} of {host}", host, "DELETE", f"/admin/faults/{name}"))
    said: list[str] = []
    failed = asyncio.run(clean_up(lab, tmp_path, said.append))
    assert (said, failed) == (
        ["the run was killed; undone: fault naive_reload of edge"],
        ["fault refuse of ca: ca does not answer"],
    )
    lab.gone.clear()
    assert asyncio.run(clean_up(lab, tmp_path, said.append)) == []
    assert (lab.untouched, (tmp_path / ".undo.json").exists()) == (True, False)


def test_an_injection_that_cannot_be_undone_makes_the_run_invalid_and_stays_in_the_log(tmp_path):
    lab = MemoryLab()

    class Abandoned(Some):
        during = staticmethod(lambda: lab.gone.add("edge"))

    outcome = run(Abandoned, lab, tmp_path)
    assert outcome.result.verdict is Verdict.INVALID
    assert "could not be undone: fault naive_reload of edge: edge does not answer" in outcome.result.reasons[0]
    left = UndoLog(tmp_path)
    left.load()
    assert [undo.text for undo in left.undos] == ["fault naive_reload of edge"]


def test_what_a_killed_run_left_is_undone_before_the_next_run(tmp_path):
    lab = MemoryLab()
    lab.faults["edge", "naive_reload"] = {}
    UndoLog(tmp_path).add(Undo("fault naive_reload of edge", "edge", "DELETE", "/admin/faults/naive_reload"))
    assert (run(Some, lab, tmp_path).result.verdict, lab.untouched) == (Verdict.PASS, True)


def test_a_fault_that_is_already_on_makes_the_run_invalid_before_it_starts(tmp_path):
    lab = MemoryLab()
    lab.faults["edge", "drop"] = {}
    result = run(Some, lab, tmp_path).result
    assert (result.verdict, result.reasons[0]) == (
        Verdict.INVALID,
        "faults of edge: expected none before we begin, got drop",
    )


def test_a_machine_that_cannot_show_it_skips_the_run_and_says_why(tmp_path):
    class Elsewhere(Some):
        async def measure(self, run):
            raise Skipped("no TUN device here")

    result = run(Elsewhere, MemoryLab(), tmp_path).result
    assert (result.verdict, result.reasons) == (Verdict.SKIPPED, ["no TUN device here"])


@pytest.mark.parametrize(
    ("error", "traceback"),
    [(LabDownError("ns1 does not answer"), False), (OSError("ns1 does not answer"), False), (KeyError("x"), True)],
    ids=["a-host-is-down", "no-connection", "a-bug"],
)
def test_only_a_bug_prints_a_traceback(error, traceback, tmp_path, capsys):
    class Broken(Some):
        async def measure(self, run):
            raise error

    assert run(Broken, MemoryLab(), tmp_path).result.verdict is Verdict.INVALID
    assert ("Traceback" in capsys.readouterr().err) is traceback


def test_with_an_impossible_parameter_nothing_is_touched(tmp_path):
    with pytest.raises(ParameterError):
        run(Some, MemoryLab(), tmp_path, given=("lost=10",))
    assert list(tmp_path.iterdir()) == []


def test_the_same_seed_gives_the_same_order(tmp_path):
    class Ordered(Some):
        async def measure(self, run):
            await super().measure(run)
            run.findings.fact("order", list(run.interleaved("abcdef", 3)))

    orders = [run(Ordered, MemoryLab(), tmp_path, seed=seed).result.facts["order"] for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize(
    ("predicted", "got", "said"),
    [(11835, 11840, ("11,835 ± 5%", "11,840")), (0.5, 0.51234, ("0.5 ± 5%", "0.5123"))],
    ids=["thousands", "small"],
)
def test_numbers_in_checks_are_formatted_for_people(predicted, got, said, tmp_path):
    class Near(Some):
        def predict(self):
            return {"size": Quantity(predicted)}

        def conclude(self, run):
            run.findings.check_near(run.findings.row("size", got), 0.05)

    (check,) = run(Near, MemoryLab(), tmp_path).result.checks
    assert (check.expected, check.got) == said
