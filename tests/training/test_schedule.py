"""The learning rate rises, then falls to nearly nothing; the steps fill the time."""

import msgspec
import numpy as np
import pytest

from autoseg.records.plan import ScheduleSpec
from autoseg.records.training import Rescue
from autoseg.training.schedule import (
    LEAST_STEPS,
    bring_to_end,
    compute_average_weight,
    compute_course_average,
    compute_course_factor,
    compute_rate_factor,
    extend,
    fit_steps,
    make_course,
)


def make_spec(name: str = "cosine", warmup: float = 0.1, averaging: float = 0.05) -> ScheduleSpec:
    return ScheduleSpec(name=name, warmup=warmup, averaging=averaging, epochs=1, minutes=0.0)


@pytest.mark.parametrize("name", ["cosine", "poly"])
@pytest.mark.parametrize("warmup", [0.0, 0.1])
def test_the_rate_rises_linearly_to_one_and_then_only_falls_to_nearly_zero(name, warmup):
    factors = [compute_rate_factor(make_spec(name, warmup), step, 200) for step in range(200)]
    rise = round(warmup * 200)
    np.testing.assert_allclose(factors[:rise], (np.arange(rise) + 1) / 20)
    assert factors[rise] == 1
    assert (np.diff(factors[rise:]) < 0).all()
    assert 0 < factors[-1] < 0.02


def test_the_formulas_are_those_of_the_papers():
    assert compute_rate_factor(make_spec("cosine", 0.0), 25, 100) == pytest.approx((1 + np.cos(np.pi / 4)) / 2)
    assert compute_rate_factor(make_spec("poly", 0.0), 25, 100) == pytest.approx(0.75**0.9)


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_the_shortest_trainings_have_a_rate_above_zero(steps):
    assert all(0 < compute_rate_factor(make_spec(warmup=1.0), step, steps) <= 1 for step in range(steps))


def test_the_average_forgets_its_start_and_ends_at_its_time_constant():
    weights = [compute_average_weight(make_spec(), step, 10_000) for step in range(10_000)]
    assert weights[0] == 0.9
    assert (np.diff(weights) <= 0).all()
    assert weights[-1] == pytest.approx(1 / 500)
    left = np.prod(1 - np.array(weights))
    assert left < 1e-6


def test_steps_fill_the_minutes_less_what_lies_beside():
    assert fit_steps(10.3, 1.0, 0.0) == 600
    assert fit_steps(10.3, 1.0, 206.0) == 400
    assert fit_steps(10.3, 0.5, 0.0) == 1200
    assert fit_steps(0.01, 5.0, 100.0) == LEAST_STEPS


def factors_of(course):
    return np.array([compute_course_factor(make_spec(), course, step) for step in range(course.end)])


def test_a_course_as_planned_has_the_planned_rate():
    np.testing.assert_array_equal(factors_of(make_course(200)), [compute_rate_factor(make_spec(), step, 200) for step in range(200)])


@pytest.mark.parametrize(("steps", "asked", "end"), [(1000, 300, 350), (100, 30, 40), (100, 95, 100), (1000, 0, 50)])
def test_an_end_comes_within_a_twentieth_but_at_least_ten_steps_and_no_more_than_are_left(steps, asked, end):
    course = bring_to_end(make_course(steps), asked)
    assert course.end == end
    planned, factors = factors_of(make_course(steps)), factors_of(course)
    np.testing.assert_array_equal(factors[: asked + 1], planned[: asked + 1])
    np.testing.assert_allclose(np.diff(factors[asked:]), -planned[asked] / (end - asked))
    assert factors[-1] == pytest.approx(planned[asked] / (end - asked))


def test_an_end_is_brought_once():
    course = bring_to_end(make_course(1000), 300)
    assert bring_to_end(course, 310) == course
    assert bring_to_end(make_course(10), 10) == make_course(10)


def test_an_extension_rises_to_half_the_rate_and_comes_down_again():
    course = extend(bring_to_end(make_course(1000), 300), 200)
    assert course.end == 550
    factors = factors_of(course)[350:]
    np.testing.assert_allclose(factors, [compute_rate_factor(make_spec(), step, 200) / 2 for step in range(200)])
    assert factors.max() == 0.5
    shorter = bring_to_end(course, 400)
    assert shorter.end == 410
    assert factors_of(shorter)[400] == factors[50]


def test_a_rescue_lowers_the_rate_of_the_whole_course():
    rescue = Rescue(step=3, precision="fp32", rate=0.5, cases=())
    np.testing.assert_array_equal(factors_of(msgspec.structs.replace(make_course(50), rescue=rescue)), factors_of(make_course(50)) / 2)


def test_an_extension_averages_anew_and_an_ending_goes_on():
    spec = make_spec()
    course = bring_to_end(extend(make_course(1000), 500), 1400)
    assert compute_course_average(spec, course, 999) == compute_average_weight(spec, 999, 1000)
    assert compute_course_average(spec, course, 1000) == 0.9
    assert compute_course_average(spec, course, 1410) == pytest.approx(1 / 25)
