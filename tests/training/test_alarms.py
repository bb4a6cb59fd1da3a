"""Alarms are raised by the rows that they describe, not by healthy ones."""

import pytest

from autoseg.training.alarms import find_alarms, is_stagnant
from autoseg.training.trainer import EpochRow

STEPS = 100


def make_rows(*scores, losses=None, foreground=0.2):
    """A validation every ten steps with these Dice of liver and tumour."""
    losses = losses or [1 - 0.02 * index for index in range(len(scores))]
    return [
        EpochRow(index + 1, 10 * (index + 1), 1.0, 0.1, loss, {"liver": liver, "tumour": tumour}, foreground)
        for index, ((liver, tumour), loss) in enumerate(zip(scores, losses))
    ]


HEALTHY = [(0.1 * index, 0.05 * index) for index in range(1, 10)]


def test_a_healthy_training_raises_none():
    rows = make_rows(*HEALTHY)
    assert all(find_alarms(rows[:count], STEPS) == {} for count in range(len(rows) + 1))


@pytest.mark.parametrize(("validations", "expected"), [(3, set()), (4, {"zero tumour"}), (9, {"zero tumour"})])
def test_a_class_at_zero_for_a_third_of_the_run(validations, expected):
    alarms = find_alarms(make_rows(*((liver, 0.0) for liver, _ in HEALTHY[:validations])), STEPS)
    assert set(alarms) == expected
    assert all("'tumour'" in text for text in alarms.values())


def test_a_class_that_was_found_once_has_its_third_from_then_on_and_an_absent_one_none():
    scores = [(0.5, 0.3)] * 3 + [(0.5, 0.0)] * 4
    assert find_alarms(make_rows(*scores[:6]), STEPS) == {}
    assert set(find_alarms(make_rows(*scores, losses=[1.0] * 7), STEPS)) == {"zero tumour"}
    assert find_alarms(make_rows(*[(0.5, None)] * 9), STEPS) == {}


def test_nothing_but_background_twice_in_a_row():
    assert find_alarms(make_rows((0.0, 0.0), foreground=0.0), STEPS) == {}
    assert set(find_alarms(make_rows(*[(0.0, 0.0)] * 2, foreground=0.0), STEPS)) == {"background"}
    assert find_alarms(make_rows(*[(0.0, 0.0)] * 2, foreground=0.01), STEPS) == {}


FALLING = [(0.8, 0.8)] * 4 + [(0.6, 0.6)] * 2


@pytest.mark.parametrize(("last_loss", "expected"), [(0.4, {"overfitting"}), (0.95, set())])
def test_validation_that_falls_is_learning_by_heart_where_the_loss_falls_too(last_loss, expected):
    assert set(find_alarms(make_rows(*FALLING, losses=[1.0] * 5 + [last_loss]), STEPS)) == expected


def test_a_small_fall_of_validation_is_none():
    assert find_alarms(make_rows(*[(0.8, 0.8)] * 4, *[(0.75, 0.75)] * 2, losses=[1.0] * 5 + [0.4]), STEPS) == {}


@pytest.mark.parametrize(
    ("scores", "patience", "expected"),
    [
        ((0.1, 0.5, 0.4, 0.5), 2, True),
        ((0.1, 0.5, 0.4, 0.51), 2, False),
        ((0.5, 0.4), 2, False),
        ((0.5, 0.4, 0.45), 2, True),
        ((), 1, False),
    ],
)
def test_patience_counts_validations_without_a_new_best(scores, patience, expected):
    assert is_stagnant(make_rows(*((score, score) for score in scores)), patience) is expected
