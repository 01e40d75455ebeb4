import pytest

from experiments.journal import BusyError, Journal, Undo, alone

LINK = Undo("link access:near", "wan", "DELETE", "/admin/links/access/near")
FAULT = Undo("fault naive_reload of edge", "edge", "DELETE", "/admin/faults/naive_reload")


def test_what_a_killed_run_left_behind_is_found_by_the_next(tmp_path):
    killed = Journal(tmp_path)
    killed.add(LINK)
    killed.add(FAULT)
    following = Journal(tmp_path)
    following.load()
    assert following.undos == [LINK, FAULT]


def test_what_was_undone_is_forgotten(tmp_path):
    journal = Journal(tmp_path)
    journal.add(LINK)
    journal.done(LINK)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"text": "x"}]', "{}"])
def test_a_list_that_can_not_be_read_is_none(tmp_path, text):
    journal = Journal(tmp_path)
    journal.path.write_text(text)
    journal.load()
    assert len(journal) == 0


def test_a_second_experiment_is_told_who_runs(tmp_path):
    with alone(tmp_path, "time-wait"), pytest.raises(BusyError, match="time-wait is running"), alone(tmp_path, "ttl"):
        pass


def test_the_lab_is_free_again_afterwards(tmp_path):
    for name in ("time-wait", "ttl"):
        with alone(tmp_path, name):
            pass
