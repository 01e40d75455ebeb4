import pytest

from experiments.undo_log import BusyError, Undo, UndoLog, exclusive

LINK = Undo("link access:near", "wan", "DELETE", "/admin/links/access/near")
FAULT = Undo("fault naive_reload of edge", "edge", "DELETE", "/admin/faults/naive_reload")


def test_the_log_of_a_killed_run_is_found_by_the_next(tmp_path):
    killed = UndoLog(tmp_path)
    killed.add(LINK)
    killed.add(FAULT)
    following = UndoLog(tmp_path)
    following.load()
    assert following.undos == [LINK, FAULT]


def test_an_entry_that_was_undone_is_removed(tmp_path):
    undo_log = UndoLog(tmp_path)
    undo_log.add(LINK)
    undo_log.remove(LINK)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"text": "x"}]', "{}"])
def test_an_unreadable_log_counts_as_empty(tmp_path, text):
    undo_log = UndoLog(tmp_path)
    undo_log.path.write_text(text)
    undo_log.load()
    assert len(undo_log) == 0


def test_a_second_experiment_is_refused_and_learns_which_one_is_running(tmp_path):
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
