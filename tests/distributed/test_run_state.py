"""What the workers of a group do when one of their ranks fails."""

import logging

import pytest

from mtl_ray.distributed.run_state import RunState


@pytest.fixture
def run_state() -> RunState:
    made = RunState()
    made.start_group(2, "{}")
    return made


def test_a_group_makes_another_attempt_once_it_has_saved(run_state, caplog):
    group = run_state.join("node", "{}")
    run_state.checkpoint_saved(group)
    assert run_state.stop_requested(group, 0) == (False, False)
    with caplog.at_level(logging.WARNING):
        assert run_state.rank_failed(group, 0, "it said:\nno memory")
    assert "no memory" in caplog.text
    assert run_state.stop_requested(group, 0) == (False, True), (
        "the other rank of this attempt must exit"
    )
    assert run_state.rank_failed(group, 0, "the process of the rank died"), "it follows the first"
    assert run_state.stop_requested(group, 1) == (False, False)


def test_a_group_that_saves_nothing_ends(run_state):
    group = run_state.join("node", "{}")
    assert not run_state.rank_failed(group, 0, "at once"), "nothing was saved yet"
    run_state.start_group(2, "{}")
    run_state.checkpoint_saved(run_state.join("node", "{}"))
    assert run_state.rank_failed(run_state.join("node", "{}"), 0, "once")
    assert not run_state.rank_failed(
        run_state.join("node", "{}"), 1, "again, and nothing was saved between"
    )


def test_a_rank_that_is_done_while_another_has_failed_starts_again_too(run_state):
    group = run_state.join("node", "{}")
    run_state.checkpoint_saved(group)
    assert run_state.rank_failed(group, 0, "a cable")
    assert not run_state.rank_done(group, 0)
    assert run_state.rank_done(group, 1)


def test_no_other_attempt_when_some_rank_is_done(run_state):
    """Another attempt would wait for a rank that has ended."""
    group = run_state.join("node", "{}")
    run_state.checkpoint_saved(group)
    assert run_state.rank_done(group, 0)
    assert not run_state.rank_failed(group, 0, "at the very end")


def test_an_older_group_must_stop_and_decides_nothing(run_state):
    old = run_state.join("node", "{}")
    run_state.start_group(2, "{}")
    new = run_state.join("node", "{}")
    run_state.checkpoint_saved(new)
    assert run_state.stop_requested(old, 0) == (True, False)
    assert not run_state.rank_failed(old, 0, "late")
    assert run_state.stop_requested(new, 0) == (False, False)
