"""The time for a whole run is shared so that what is most valuable comes first, and what is left out is named truly."""

import math
import re

import msgspec
import pytest
from builders import make_configuration
from planned_runs import make_plan

from autoseg.planning.agenda import LEAST_MINUTES, WORTH_MINUTES, make_agenda, share_minutes


def make_named(*names, default=None):
    plain = make_configuration()
    return make_plan(*(msgspec.structs.replace(plain, name=name) for name in names), default=default)


PLAN = make_named("2d", "3d_fullres", default="3d_fullres")


def list_trainings(agenda):
    return [(training.configuration, training.fold) for training in agenda.trainings]


def list_left(agenda):
    return [(left.configuration, left.folds) for left in agenda.left_out]


def test_without_a_time_every_fold_is_trained_by_the_schedule_the_default_first():
    agenda = make_agenda(PLAN, 3)
    assert list_trainings(agenda) == [(name, fold) for name in ("3d_fullres", "2d") for fold in range(3)]
    assert (agenda.minutes, agenda.hours, agenda.left_out) == (None, None, ())


def test_a_cascade_is_left_out_and_named():
    cascade = msgspec.structs.replace(make_configuration(), name="3d_cascade", previous="3d_lowres")
    plan = make_plan(*make_named("3d_fullres", "3d_lowres").configurations, cascade, default="3d_fullres")
    for minutes in (None, 6000):
        agenda = make_agenda(plan, 2, minutes)
        assert [name for name, _ in list_trainings(agenda)] == ["3d_fullres"] * 2 + ["3d_lowres"] * 2
        assert list_left(agenda) == [("3d_cascade", (0, 1))]
        assert "cannot train" in agenda.left_out[0].reason


def test_three_quarters_of_an_hour_are_five_folds_of_eight_minutes():
    agenda = make_agenda(PLAN, 5, 45)
    assert list_trainings(agenda) == [("3d_fullres", fold) for fold in range(5)]
    assert agenda.minutes == pytest.approx(8.1)
    assert agenda.hours == 0.75
    assert list_left(agenda) == [("2d", (0, 1, 2, 3, 4))]
    assert "another 150 minutes" in agenda.left_out[0].reason


@pytest.mark.parametrize("at_once", [1, 2, 5])
@pytest.mark.parametrize("folds", [1, 3, 5])
@pytest.mark.parametrize("minutes", [0.2, 1, 2, 4, 7.4, 7.5, 45, 300, 334, 1200])
def test_nothing_takes_more_than_its_time_and_each_has_what_it_needs(minutes, folds, at_once):
    agenda = make_agenda(PLAN, folds, minutes, at_once)
    names = {training.configuration for training in agenda.trainings}
    kept = len(agenda.trainings) // len(names)
    rounds = len(names) * math.ceil(kept / at_once)
    assert agenda.minutes == share_minutes(minutes, rounds)
    assert 0 < agenda.minutes * rounds < minutes
    assert kept == folds or share_minutes(minutes, math.ceil((kept + 1) / at_once)) < LEAST_MINUTES
    assert kept <= at_once or agenda.minutes >= LEAST_MINUTES
    assert names == {"3d_fullres"} or agenda.minutes >= WORTH_MINUTES
    named = [(left.configuration, fold) for left in agenda.left_out for fold in left.folds]
    everything = [(name, fold) for name in ("3d_fullres", "2d") for fold in range(folds)]
    assert sorted(list_trainings(agenda) + named) == sorted(everything)


@pytest.mark.parametrize(("minutes", "at_once"), [(45, 1), (45, 5), (4, 1), (1, 2)])
def test_the_time_that_is_named_includes_what_was_left_out(minutes, at_once):
    plan = make_named("3d_fullres", "2d", "3d_lowres")
    for left in make_agenda(plan, 5, minutes, at_once).left_out:
        flag, value = re.search(r"--(hours|minutes) ([\d.]+) includes", left.reason).groups()
        enough = float(value) * (60 if flag == "hours" else 1)
        included = list_trainings(make_agenda(plan, 5, enough, at_once))
        assert {(left.configuration, fold) for fold in left.folds} <= set(included)
        assert not {(left.configuration, fold) for fold in left.folds} <= set(list_trainings(make_agenda(plan, 5, 0.8 * enough, at_once)))


def test_the_agenda_of_a_plan_is_always_the_same():
    assert make_agenda(PLAN, 5, 45) == make_agenda(PLAN, 5, 45)
