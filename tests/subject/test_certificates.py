"""Tests for finding certificates in the folder of a subject (a program that has joined the lab)."""

import os
from pathlib import Path

import pytest

from subject.certificates import MAX_SIZE, Shelf
from tests.peers import Papers

NAME = "mine.example.com"


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    (tmp_path / "live").mkdir()
    return Papers(tmp_path / "live")


def test_a_certificate_is_found_with_the_time_at_which_it_was_written(papers: Papers, tmp_path: Path) -> None:
    path = papers.pair(NAME)
    os.utime(path, (5000.0, 5000.0))
    shelf = Shelf(tmp_path, NAME)
    shelf.scan()
    found = shelf.newest()
    assert found is not None
    assert (found.serial, found.written, found.file) == (papers.serial, 5000.0, f"live/{NAME}.pem")


def test_the_newest_certificate_is_the_one_written_last(papers: Papers, tmp_path: Path) -> None:
    shelf, serials = Shelf(tmp_path, NAME), []
    for written in (5000.0, 6000.0):
        os.utime(papers.pair(NAME), (written, written))
        serials.append(papers.serial)
        shelf.scan()
    found = shelf.newest()
    assert found is not None
    assert found.serial == serials[1]
    assert set(shelf.found) == set(serials)


def test_copies_of_a_certificate_count_from_the_first_file(papers: Papers, tmp_path: Path) -> None:
    first = papers.pair(NAME)
    os.utime(first, (5000.0, 5000.0))
    copy = tmp_path / "copy.crt"
    copy.write_bytes(first.read_bytes())
    os.utime(copy, (4000.0, 4000.0))
    shelf = Shelf(tmp_path, NAME)
    shelf.scan()
    assert [each.written for each in shelf.found.values()] == [4000.0]


def test_other_names_and_other_files_are_ignored(papers: Papers, tmp_path: Path) -> None:
    pair = papers.pair("other.example.com").read_bytes()
    mine = papers.pair(NAME)
    mine.rename(tmp_path / "mine.txt")
    (tmp_path / "key.pem").write_bytes(pair.partition(b"-----BEGIN CERTIFICATE")[0])
    (tmp_path / "broken.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    (tmp_path / "large.pem").write_bytes(b"x" * (MAX_SIZE + 1))
    shelf = Shelf(tmp_path, NAME)
    shelf.scan()
    assert shelf.newest() is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_folders_that_may_not_be_read_are_counted(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    shelf = Shelf(tmp_path, NAME)
    shelf.scan()
    assert shelf.unreadable == 1
