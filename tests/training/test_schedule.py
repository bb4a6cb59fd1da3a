"""The learning rate rises, then falls to nearly nothing; the steps fill the time."""

import numpy as np
import pytest

from autoseg.records.plan import ScheduleSpec
from autoseg.training.schedule import LEAST_STEPS, compute_average_weight, compute_rate_factor, fit_steps


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
