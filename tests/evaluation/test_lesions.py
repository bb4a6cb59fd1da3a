"""Lesions against a flood fill voxel by voxel."""

import itertools

import numpy as np
import pytest

from autoseg.arrays.labels import make_membership
from autoseg.evaluation.lesions import DECADES_ML, DECADES_MM2, add_lesions, choose_decades, compute_recall, find_lesions, sum_recall
from autoseg.evaluation.overlap import count_joint, score_case
from autoseg.records.dataset import ClassLabel
from autoseg.records.scores import SizeRecall

CLASSES = tuple(ClassLabel(name=f"class {number}", values=(number,)) for number in range(1, 4))
REGIONS = tuple(ClassLabel(name=name, values=values) for name, values in (("whole", (1, 2, 3)), ("core", (2, 3)), ("rim", (3,))))
MAPS = 200


def fill(mask):
    """The connected objects of a mask as sets of positions, neighbours by corners included."""
    left, objects = set(map(tuple, np.argwhere(mask).tolist())), []
    while left:
        own = waiting = {left.pop()}
        while waiting:
            steps = itertools.product((-1, 0, 1), repeat=mask.ndim)
            near = {tuple(a + b for a, b in zip(place, step)) for step in steps for place in waiting}
            waiting = near & left
            left -= waiting
            own = own | waiting
        objects.append(own)
    return objects


@pytest.mark.parametrize("classes", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_lesions_are_those_filled_voxel_by_voxel(classes):
    false = missed = 0
    for seed in range(MAPS):
        generator = np.random.default_rng(seed)
        shape = tuple(generator.integers(1, 8, generator.integers(2, 4)))
        prediction, reference = (generator.choice(4, shape, p=(0.7, 0.15, 0.1, 0.05)) * (seed % 7 > 0) for _ in range(2))
        reference = np.where(generator.random(shape) < 0.1 * (seed % 2), -1, reference)
        found = find_lesions(prediction.astype(np.int16), reference.astype(np.int16), make_membership(classes))
        for label, lesions in zip(classes, found, strict=True):
            predicted, true = (fill(np.isin(side, label.values) & (reference >= 0)) for side in (prediction, reference))
            hits = [len(own) for own in true if any(own & other for other in predicted)]
            assert sorted(lesions.voxels.tolist()) == sorted(map(len, true))
            assert sorted(lesions.voxels[lesions.found].tolist()) == sorted(hits)
            assert (lesions.predicted, lesions.false) == (len(predicted), sum(not any(own & other for other in true) for own in predicted))
            false, missed = false + lesions.false, missed + len(true) - len(hits)
    assert min(false, missed) > 50


def test_objects_that_touch_by_corners_are_one_lesion():
    diagonal = np.eye(4, dtype=int)
    (flat,) = find_lesions(diagonal, diagonal, make_membership(CLASSES[:1]))
    solid = np.zeros((2, 2, 2), int)
    solid[0, 0, 0] = solid[1, 1, 1] = 1
    (deep,) = find_lesions(solid, solid, make_membership(CLASSES[:1]))
    assert (flat.voxels.tolist(), deep.voxels.tolist()) == ([4], [2])


def test_sizes_fall_into_decades_whose_lower_limit_belongs_to_them():
    reference, prediction = np.zeros((2, 30, 10), int), np.zeros((2, 30, 10), int)
    for row, length in ((0, 1), (2, 9), (4, 10), (6, 10)):
        reference[0, row, :length] = 1
    prediction[0, 3:7, 0] = 1
    (lesions,) = find_lesions(prediction, reference, make_membership(CLASSES[:1]))
    decades, voxel = choose_decades(3, 10.0)
    assert (decades, voxel) == (DECADES_ML, 0.01)
    small = SizeRecall(low_ml=0.0, high_ml=0.1, lesions=2, found=0)
    assert compute_recall(lesions, decades, voxel) == (small, SizeRecall(low_ml=0.1, high_ml=1.0, lesions=2, found=2))
    assert compute_recall(lesions, *choose_decades(3, 1e7))[0].high_ml is None


def test_areas_and_voxels_have_limits_of_their_own():
    assert choose_decades(2, 0.25) == (DECADES_MM2, 0.25)
    assert [choose_decades(dimension, None)[1] for dimension in (2, 3)] == [1.0, 1.0]


def test_a_row_tells_its_lesions_and_rows_add_up():
    reference, prediction = np.array([[1, 0, 1, 0, 2]]), np.array([[1, 0, 0, 0, 0]])
    rows = score_case("a", count_joint(prediction, reference, 2), CLASSES[:2], None)
    first, second = add_lesions(rows, find_lesions(prediction, reference, make_membership(CLASSES[:2])), *choose_decades(2, None))
    assert (first.lesions_reference, first.lesions_found, first.lesions_predicted, first.lesions_false) == (2, 1, 1, 0)
    assert (second.lesions_reference, second.lesions_found, second.lesions_predicted, second.lesions_false) == (1, 0, 0, 0)
    assert (rows[0].lesions_reference, rows[0].lesion_recall) == (None, ())
    assert sum_recall([first, second, rows[0]]) == (SizeRecall(low_ml=0.0, high_ml=100.0, lesions=3, found=1),)
