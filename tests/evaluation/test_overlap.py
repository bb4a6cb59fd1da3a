"""Every overlap metric against counting voxel by voxel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.evaluation.overlap import CHUNK, blank_ignored, count_joint, score_case
from autoseg.records.dataset import ClassLabel

CLASSES = tuple(ClassLabel(name=f"class {number}", values=(number,)) for number in (1, 2, 3))


@st.composite
def pairs(draw):
    """Prediction and reference (with ignored voxels), each missing some classes."""
    shape = draw(st.lists(st.integers(1, 5), min_size=2, max_size=3).map(tuple))
    generator = np.random.default_rng(draw(st.integers(0, 9999)))
    of_prediction = draw(st.lists(st.integers(0, 3), min_size=1, unique=True))
    of_reference = draw(st.lists(st.integers(-1, 3), min_size=1, unique=True))
    return generator.choice(of_prediction, shape), generator.choice(of_reference, shape)


def count(prediction, reference, number):
    """True and false positives and negatives of a class, ignored voxels left out: one voxel after the other."""
    counts = {"tp": 0, "fp": 0, "fn": 0, "tn": 0}
    for found, true in zip(prediction.ravel().tolist(), reference.ravel().tolist()):
        if true == -1:
            continue
        counts[("t" if (found == number) == (true == number) else "f") + ("p" if found == number else "n")] += 1
    return counts


def correlate(prediction, reference, number):
    """Matthews' coefficient is Pearson's correlation of the two masks; None where one of them is constant."""
    counted = reference != -1
    masks = (prediction[counted] == number, reference[counted] == number)
    if any(mask.all() or not mask.any() for mask in masks):
        return None
    return pytest.approx(float(np.corrcoef(*masks)[0, 1]))


def divide(part, whole):
    return pytest.approx(part / whole) if whole else None


@settings(deadline=None, derandomize=True, max_examples=200)
@given(pairs())
def test_metrics_are_those_of_voxels_counted_one_by_one(pair):
    scores = score_case("case", count_joint(*pair, len(CLASSES)), CLASSES, 2.5)
    assert [score.class_name for score in scores] == [label.name for label in CLASSES]
    for number, score in enumerate(scores, 1):
        n = count(*pair, number)
        assert score.case == "case"
        assert score.dice == divide(2 * n["tp"], 2 * n["tp"] + n["fp"] + n["fn"])
        assert score.iou == divide(n["tp"], n["tp"] + n["fp"] + n["fn"])
        assert score.precision == divide(n["tp"], n["tp"] + n["fp"])
        assert score.sensitivity == divide(n["tp"], n["tp"] + n["fn"])
        assert score.specificity == divide(n["tn"], n["tn"] + n["fp"])
        assert score.accuracy == divide(n["tp"] + n["tn"], sum(n.values()))
        assert score.mcc == correlate(*pair, number)
        assert (score.voxels_reference, score.voxels_predicted) == (n["tp"] + n["fn"], n["tp"] + n["fp"])
        assert score.volume_difference_ml == pytest.approx((n["fp"] - n["fn"]) * 2.5 / 1000)
        assert score.volume_reference_ml == pytest.approx((n["tp"] + n["fn"]) * 2.5 / 1000)
        assert score.volume_predicted_ml == pytest.approx((n["tp"] + n["fp"]) * 2.5 / 1000)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(pairs())
def test_a_region_counts_the_voxels_of_all_its_numbers(pair):
    regions = tuple(ClassLabel(name=name, values=values) for name, values in (("whole", (1, 2, 3)), ("core", (2, 3)), ("rim", (3,))))
    prediction, reference = pair
    scores = score_case("case", count_joint(prediction, reference, 3), regions, None)
    for label, score in zip(regions, scores, strict=True):
        truth = np.where(reference == -1, -1, np.isin(reference, label.values))
        n = count(np.isin(prediction, label.values).astype(int), truth, 1)
        assert score.dice == divide(2 * n["tp"], 2 * n["tp"] + n["fp"] + n["fn"])
        assert score.specificity == divide(n["tn"], n["tn"] + n["fp"])
        assert (score.voxels_reference, score.voxels_predicted) == (n["tp"] + n["fn"], n["tp"] + n["fp"])


def test_a_prediction_of_what_is_to_be_ignored_counts_as_background():
    prediction, reference = np.array([-1, -1, 1, 1]), np.array([1, 0, 1, -1])
    np.testing.assert_array_equal(count_joint(prediction, reference, 1), count_joint(np.maximum(prediction, 0), reference, 1))
    assert count_joint(prediction, reference, 1).tolist() == [[1, 0], [1, 1]]


@settings(deadline=None, derandomize=True, max_examples=50)
@given(pairs())
def test_the_joint_histogram_counts_every_voxel_that_is_not_ignored(pair):
    prediction, reference = pair
    joint = count_joint(prediction.astype(np.uint8), reference.astype(np.int16), 3)
    assert joint.sum() == (reference >= 0).sum()
    for true in range(4):
        for found in range(4):
            assert joint[true, found] == ((reference == true) & (prediction == found)).sum()


def test_a_class_absent_from_both_has_no_dice_but_is_specific():
    score = score_case("a", count_joint(np.zeros(5, int), np.zeros(5, int), 1), CLASSES[:1], 1.0)[0]
    assert (score.dice, score.iou, score.precision, score.sensitivity) == (None, None, None, None)
    assert score.specificity == 1


def test_a_class_predicted_where_there_is_none_scores_zero():
    score = score_case("a", count_joint(np.ones(5, int), np.zeros(5, int), 1), CLASSES[:1], 1.0)[0]
    assert (score.dice, score.precision, score.sensitivity, score.specificity) == (0, 0, None, 0)


def test_a_missed_class_scores_zero_and_has_no_precision():
    score = score_case("a", count_joint(np.zeros(5, int), np.ones(5, int), 1), CLASSES[:1], 1.0)[0]
    assert (score.dice, score.precision, score.sensitivity, score.specificity) == (0, None, 0, None)


def test_pixels_without_a_size_have_no_volume():
    score = score_case("a", count_joint(np.ones(5, int), np.ones(5, int), 1), CLASSES[:1], None)[0]
    assert (score.volume_reference_ml, score.volume_predicted_ml) == (None, None)
    assert (score.voxels_reference, score.dice) == (5, 1)


def test_a_volume_of_a_thousand_cubic_mm_is_a_millilitre():
    score = score_case("a", count_joint(np.ones(500, int), np.ones(500, int), 1), CLASSES[:1], 2.0)[0]
    assert score.volume_reference_ml == 1


def test_maps_longer_than_what_is_counted_at_once_and_many_labels():
    generator = np.random.default_rng(0)
    prediction, reference = (generator.integers(-1, 301, 2 * CHUNK + 5).astype(np.int16) for _ in range(2))
    joint = count_joint(prediction, reference, 300)
    expected = np.zeros((301, 301), np.int64)
    np.add.at(expected, (reference[reference >= 0], np.maximum(prediction, 0)[reference >= 0]), 1)
    np.testing.assert_array_equal(joint, expected)


def test_what_is_to_be_ignored_is_background_on_both_sides():
    prediction, reference = np.array([1, 1, -1, 2]), np.array([-1, 1, 2, 0])
    assert [side.tolist() for side in blank_ignored(prediction, reference)] == [[0, 1, 0, 2], [0, 1, 2, 0]]
    assert blank_ignored(prediction[3:], reference[3:])[0].base is prediction  # nothing to change, nothing copied
