"""Cases in processes: the dead are named, the others are done."""

import pytest
from workers_for_tests import die_once, double, double_or_die, double_or_exit, double_or_refuse

from autoseg.errors import CasesFailed, InputError
from autoseg.parallel import run_cases


@pytest.mark.parametrize("workers", [1, 2])
def test_every_task_has_its_own_result(workers):
    outcomes = list(run_cases(double, [4, 5, 6], workers))
    assert {outcome.task: outcome.result for outcome in outcomes} == {4: 8, 5: 10, 6: 12}
    assert all(outcome.error is None for outcome in outcomes)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_autoseg_error_is_carried_whole_and_ends_only_its_task(workers):
    outcomes = {outcome.task: outcome for outcome in run_cases(double_or_refuse, [0, 1, 2], workers)}
    error = outcomes[1].error
    assert isinstance(error, InputError)
    assert (error.what, error.why, error.done, error.todo) == ("1 is not welcome.", "It is odd.", "The rest.", "Leave it out.")
    assert outcomes[1].result is None
    assert [outcomes[0].result, outcomes[2].result] == [0, 4]


def test_a_killed_worker_is_named_and_the_others_are_done():
    outcomes = list(run_cases(double_or_die, list(range(6)), 2))
    assert sorted(outcome.task for outcome in outcomes) == list(range(6))
    by_task = {outcome.task: outcome for outcome in outcomes}
    assert isinstance(by_task[3].error, CasesFailed)
    assert "signal 9" in by_task[3].error.why
    assert "memory" in by_task[3].error.why
    assert all(by_task[task].result == 2 * task for task in range(6) if task != 3)


def test_a_worker_that_exits_is_reported_with_its_code():
    outcomes = {outcome.task: outcome for outcome in run_cases(double_or_exit, [0, 1], 2)}
    assert outcomes[0].result == 0
    assert "code 7" in outcomes[1].error.why


def test_a_task_whose_worker_died_once_is_done_when_repeated(tmp_path):
    (outcome,) = run_cases(die_once, [str(tmp_path / "was-here")], 2)
    assert outcome.error is None
    assert outcome.result == "second time"
