import pytest

from experiments.undo_log import BusyError, Undo, UndoLog, exclusive

LINK = Undo("link access:near", "wan", "DELETE", "/admin/links/access/near")
FAULT = Undo("fault naive_reload of edge", "edge", "DELETE", "/admin/faults/naive_reload")


def test_what_a_killed_run_left_behind_is_found_by_the_next(tmp_path):
    killed = UndoLog(tmp_path)
    killed.add(LINK)
    killed.add(FAULT)
    following = UndoLog(tmp_path)
    following.load()
    assert following.undos == [LINK, FAULT]


def test_what_was_undone_is_forgotten(tmp_path):
    undo_log = UndoLog(tmp_path)
    undo_log.add(LINK)
    undo_log.remove(LINK)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"text": "x"}]', "{}"])
def test_a_list_that_can_not_be_read_is_none(tmp_path, text):
    undo_log = UndoLog(tmp_path)
    undo_log.path.write_text(text)
    undo_log.load()
    assert len(undo_log) == 0


def test_a_second_experiment_is_told_who_runs(tmp_path):
    with (
        exclusive(tmp_path, "time-wait"),
        pytest.raises(BusyError, match="time-wait is running"),
        exclusive(tmp_path, "ttl"),
    ):
        pass


def test_the_lab_is_free_again_afterwards(tmp_path):
    for name in ("time-wait", "ttl"):
        with exclusive(tmp_path, name):
            pass
