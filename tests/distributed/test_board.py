"""What the workers of a group are told when a rank of theirs fails."""

import logging

import pytest

from mtl_ray.distributed.board import Board


@pytest.fixture
def board() -> Board:
    made = Board()
    made.start_group(2, "{}")
    return made


def test_a_group_goes_on_once_it_has_saved(board, caplog):
    group = board.join("node", "{}")
    board.saved(group)
    assert board.asked(group, 0) == (False, False)
    with caplog.at_level(logging.WARNING):
        assert board.failed(group, 0, "it said:\nno memory")
    assert "no memory" in caplog.text
    assert board.asked(group, 0) == (False, True), "the other rank of this turn is to end"
    assert board.failed(group, 0, "the process of the rank died"), "it follows the first"
    assert board.asked(group, 1) == (False, False)


def test_a_group_that_saves_nothing_is_given_up(board):
    group = board.join("node", "{}")
    assert not board.failed(group, 0, "at once"), "nothing was saved yet"
    board.start_group(2, "{}")
    board.saved(board.join("node", "{}"))
    assert board.failed(board.join("node", "{}"), 0, "once")
    assert not board.failed(board.join("node", "{}"), 1, "again, and nothing was saved between")


def test_a_rank_that_is_done_while_another_has_failed_begins_again_too(board):
    group = board.join("node", "{}")
    board.saved(group)
    assert board.failed(group, 0, "a cable")
    assert not board.done(group, 0)
    assert board.done(group, 1)


def test_no_other_turn_when_some_rank_is_done(board):
    """It would wait for a rank that is no more."""
    group = board.join("node", "{}")
    board.saved(group)
    assert board.done(group, 0)
    assert not board.failed(group, 0, "at the very end")


def test_an_older_group_is_told_to_stop_and_decides_nothing(board):
    old = board.join("node", "{}")
    board.start_group(2, "{}")
    new = board.join("node", "{}")
    board.saved(new)
    assert board.asked(old, 0) == (True, False)
    assert not board.failed(old, 0, "late")
    assert board.asked(new, 0) == (False, False)
