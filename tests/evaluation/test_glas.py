"""The three GlaS measures against their definitions, written out object by object."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.evaluation.glas import add_glas, tally_glas
from autoseg.evaluation.instances import count_overlaps, score_tally, tally


def score(prediction, reference):
    found = count_overlaps(prediction, reference)
    row = add_glas(score_tally("", "", tally(found)), tally_glas(found, prediction, reference))
    return row.object_f1, row.object_dice, row.object_hausdorff


def split(ids):
    """Masks in the order in which objects first appear."""
    return [ids == number for number in dict.fromkeys(ids.ravel().tolist()) if number > 0]


def hausdorff(a, b):
    distances = np.linalg.norm(np.argwhere(a)[:, None] - np.argwhere(b)[None], axis=-1)
    return max(distances.min(axis=0).max(), distances.min(axis=1).max())


def partner_of(mask, others):
    """The other object with the most common voxels, None without any."""
    best = max(others, key=lambda other: (mask & other).sum(), default=None)
    return best if best is not None and (mask & best).any() else None


def one_side(own, others):
    dice = distance = 0
    total = sum(mask.sum() for mask in own)
    for mask in own:
        partner = partner_of(mask, others)
        if partner is not None:
            dice += mask.sum() / total * 2 * (mask & partner).sum() / (mask.sum() + partner.sum())
        distance += (
            mask.sum() / total * (hausdorff(mask, partner) if partner is not None else min(hausdorff(mask, other) for other in others))
        )
    return dice, distance


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.integers(0, 9999), st.integers(2, 3))
def test_they_are_what_the_definitions_say(seed, dimension):
    generator = np.random.default_rng(seed)
    maps = []
    for _ in range(2):
        ids = np.zeros((8,) * dimension, int)
        for number in generator.permutation([2, 5, 9])[: generator.integers(1, 4)]:
            ids[tuple(slice(low, low + generator.integers(1, 5)) for low in generator.integers(0, 7, dimension))] = number
        maps.append(ids)
    predictions, references = map(split, maps)
    covering = [(s, partner_of(s, references)) for s in predictions if partner_of(s, references) is not None]
    hits = [partner for s, partner in covering if 2 * (s & partner).sum() >= partner.sum()]
    missed = sum(not any(partner is mask for partner in hits) for mask in references)
    sides = one_side(references, predictions), one_side(predictions, references)
    f1, dice, distance = score(*maps)
    assert f1 == pytest.approx(2 * len(hits) / (len(hits) + len(predictions) + missed))
    assert dice == pytest.approx((sides[0][0] + sides[1][0]) / 2)
    assert distance == pytest.approx((sides[0][1] + sides[1][1]) / 2)


def test_identical_maps_are_perfect():
    ids = np.array([[1, 1, 0], [0, 0, 7], [0, 7, 7]])
    assert score(ids, ids) == (1, 1, 0)


def test_empty_sides():
    none, one = np.zeros((3, 3), int), np.eye(3, dtype=int)
    assert score(none, none) == (None, None, None)
    assert score(none, one) == (0, 0, None)
    assert score(one, none) == (0, 0, None)


def test_an_object_without_overlap_is_measured_to_the_nearest():
    reference, prediction = np.zeros((1, 20), int), np.zeros((1, 20), int)
    reference[0, [0, 19]] = 1, 2
    prediction[0, [0, 15]] = 1, 2
    assert score(prediction, reference) == (0.5, 0.5, pytest.approx((0 + 4) / 2))


def test_sums_over_cases_weigh_objects_by_area():
    small, large = np.array([[1, 1, 0, 0]]), np.array([[1, 1, 1, 1, 1, 1, 0, 0]])
    counts = [tally_glas(count_overlaps(p, r), p, r) for p, r in ((small, small), (np.roll(large, 2), large))]
    row = add_glas(score_tally("", "", tally(count_overlaps(small, small))), counts[0] + counts[1])
    assert row.object_f1 == 1
    assert row.object_dice == pytest.approx((2 * 1 + 6 * 4 / 6) / 8)
    assert row.object_hausdorff == pytest.approx((2 * 0 + 6 * 2) / 8)
